// The table of services.

import { cell, element, meter, setAttribute, setText } from "./dom.js";
import { adherence, count, objective, percent, priority, rate, seconds } from "./format.js";
import { serviceHealth } from "./health.js";
import { COLUMNS, latest, seriesNumber } from "./live.js";
import { LongTable } from "./long_table.js";

const ORDERS = {
  // Those that fare well stay as configured.
  worst: ({ service }) => {
    const { rank } = serviceHealth(service);
    return rank ? rank * 1e6 + Math.min(1e5, service.burn) : 0;
  },
};

export class Services {
  /** `choose(pool, service)` when a service is picked. */
  constructor({ choose }) {
    this.choose = choose;
    this.window = document.getElementById("window");
    this.table = new LongTable({
      name: "service",
      things: "services",
      make: (item) => this.#make(item),
      keyOf: ({ pool, service }) => JSON.stringify([pool, service.service]),
      wordsOf: ({ pool, service }) => `${service.service} ${pool} ${priority(service.priority)}`,
      orders: ORDERS,
    });
  }

  update(state, points) {
    const many = state.pools.length > 1;
    const items = state.pools.flatMap((pool) => pool.services.map((service) => ({
      service,
      pool: pool.pool,
      many,
      waiting: pool.queues.filter((queue) => queue.service === service.service).reduce((sum, queue) => sum + queue.requests, 0),
      now: latest(points, seriesNumber(state, pool.pool, service.service) ?? -1),
    })));
    const window = state.pools[0]?.fairness_window_s;
    setText(this.window, window ? ` in the last ${seconds(window)}` : "");
    this.table.update(items);
  }

  #make({ pool, service }) {
    const name = element("button", { type: "button", class: "link", text: service.service, title: "Show its charts", on: { click: () => this.choose(pool, service.service) } });
    const about = element("span", { class: "sub" });
    const bar = meter(`Adherence of ${service.service}`);
    const judged = element("span", { class: "sub" });
    const cells = {
      objective: cell("Objective"),
      adherence: cell("Adherence"),
      waiting: cell("Waiting", "number"),
      rate: cell("Requests/s", "number"),
      refused: cell("Refused/s", "number"),
      ttft: cell("TTFT p50 / p95", "number"),
      tpot: cell("TPOT p50 / p95", "number"),
    };
    cells.adherence.append(bar.whole, judged);
    const row = element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row" }, name, about), ...Object.values(cells));
    return { row, update: (item) => fill({ row, about, bar, judged, cells }, item) };
  }
}

function fill({ row, about, bar, judged, cells }, { service, pool, many, waiting, now }) {
  const { tone } = serviceHealth(service);
  setText(about, many ? `${priority(service.priority)} · ${pool}` : priority(service.priority));
  setText(cells.objective, objective(service));
  bar.update({ share: service.attainment, text: adherence(service.attainment), tone, target: service.target });
  const target = service.target === null ? "served" : `target ${percent(service.target)}`;
  setText(judged, service.ended ? `${target} · ${count(service.ended - service.missed)} of ${count(service.ended)}` : "no request judged yet");
  setText(cells.waiting, count(waiting));
  setAttribute(cells.waiting, "data-tone", waiting ? "warn" : "");
  setText(cells.rate, rate(now?.[COLUMNS.ended] ?? 0));
  const refused = now?.[COLUMNS.refused] ?? 0;
  setText(cells.refused, rate(refused));
  setAttribute(cells.refused, "data-tone", refused ? "warn" : "");
  setText(cells.ttft, pair(now, COLUMNS.ttft50, COLUMNS.ttft95));
  setText(cells.tpot, pair(now, COLUMNS.tpot50, COLUMNS.tpot95));
  setAttribute(row, "data-tone", tone === "bad" ? "bad" : "");
}

const pair = (now, low, high) => (now && now[low] !== null ? `${seconds(now[low])} / ${seconds(now[high])}` : "–");
