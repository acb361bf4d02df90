// The table of servers, and the details of one.

import { cell, element, meter, setAttribute, setText } from "./dom.js";
import { NONE, count, percent, seconds, serverName, silenceWords } from "./format.js";
import { forecastsAreOff, saturationTone, serverHealth } from "./health.js";
import { LongTable } from "./long_table.js";

const MOST_CHIPS = 8;
const ORDERS = {
  // By health alone: rows that changed places with every change of load could not be read.
  worst: ({ server }) => serverHealth(server).rank,
  busy: ({ server }) => server.saturation,
};

export class Servers {
  /** `open(title, parts)` shows details. */
  constructor({ open }) {
    this.open = open;
    this.table = new LongTable({
      name: "server",
      things: "servers",
      make: (item) => this.#make(item),
      keyOf: ({ pool, server }) => JSON.stringify([pool, server.backend_id]),
      wordsOf: ({ pool, server }) => `${server.backend_id} ${pool} ${serverHealth(server).word}`,
      orders: ORDERS,
    });
  }

  update(state) {
    const many = state.pools.length > 1;
    this.items = state.pools.flatMap((pool) => pool.backends.map((server) => ({ server, pool: pool.pool, many })));
    this.table.update(this.items);
  }

  #make({ server, pool }) {
    const id = server.backend_id;
    const name = element("button", { type: "button", class: "link", text: serverName(id), title: "Show all its figures", on: { click: () => this.#details(pool, id) } });
    const about = element("span", { class: "sub" });
    const health = element("span", { class: "pill" });
    const trouble = element("span", { class: "sub" });
    const saturation = meter(`Saturation of ${serverName(id)}`);
    const cache = meter(`KV cache of ${serverName(id)}`);
    const cells = {
      health: cell("Health"),
      saturation: cell("Saturation"),
      running: cell("Running", "number"),
      cache: cell("KV cache"),
      adapters: cell("Adapters in slots", "slots"),
      error: cell("Forecast error TTFT / TPOT", "number"),
      report: cell("Report", "number"),
    };
    cells.health.append(health, trouble);
    cells.saturation.append(saturation.whole);
    cells.cache.append(cache.whole);
    const row = element("tr", { role: "row" }, element("th", { role: "rowheader", scope: "row" }, name, about), ...Object.values(cells));
    const parts = { row, about, health, trouble, saturation, cache, cells, adapters: "" };
    return { row, update: (item) => fill(parts, item) };
  }

  /** Show a server, whatever its pool; one that is gone is told to be. */
  show(id) {
    const found = this.items?.find((item) => item.server.backend_id === id);
    if (found) this.#details(found.pool, id);
    else this.open(`Server ${serverName(id)}`, `#server/${encodeURIComponent(id)}`, [element("p", { text: "It is no server of this gateway any more." })]);
  }

  #details(pool, id) {
    const server = this.items.find((item) => item.pool === pool && item.server.backend_id === id)?.server;
    if (server === undefined) return;
    this.open(`Server ${serverName(id)}`, `#server/${encodeURIComponent(id)}`, [facts(server, pool)]);
  }
}

function fill(parts, { server, pool, many }) {
  const { row, about, health, trouble, saturation, cache, cells } = parts;
  const { word, tone } = serverHealth(server);
  setText(about, many ? pool : "");
  setText(health, word);
  setAttribute(health, "data-tone", tone);
  setText(trouble, silenceWords(server.silence));
  setAttribute(row, "data-tone", tone === "bad" ? "bad" : "");
  saturation.update({ share: server.saturation, text: percent(server.saturation), tone: saturationTone(server.saturation) });
  const others = Math.round(server.external_running);
  setText(cells.running, others ? `${server.sequences} + ${others} others` : `${server.sequences}`);
  cache.update({ share: server.reported_kv_usage, text: percent(server.reported_kv_usage), tone: saturationTone(server.reported_kv_usage ?? 0) });
  showAdapters(parts, server);
  const { ttft_forecasts: { relative_error: ttft }, tpot_forecasts: { relative_error: tpot } } = server;
  setText(cells.error, `${percent(ttft)} / ${percent(tpot)}`);
  setAttribute(cells.error, "data-tone", forecastsAreOff(server) ? "warn" : "");
  setText(cells.report, server.report_age_s === null ? "none yet" : `${seconds(server.report_age_s)} ago`);
  setAttribute(cells.report, "data-tone", word === "stale report" ? "warn" : "");
}

/** Adapters with requests first, then those that are loaded, then free slots. */
function showAdapters(parts, server) {
  const active = Object.entries(server.active_adapters);
  const loaded = server.resident_adapters.filter((name) => !(name in server.active_adapters));
  const shown = JSON.stringify([active, loaded, server.max_loras]);
  if (shown === parts.adapters) return;
  parts.adapters = shown;
  const chips = [
    ...active.map(([name, requests]) => element("span", { class: "slot active", title: `${name}: ${requests} running`, text: `${name} ${requests}` })),
    ...loaded.map((name) => element("span", { class: "slot", title: `${name}: loaded`, text: name })),
  ];
  const rest = chips.splice(MOST_CHIPS).length;
  if (rest) chips.push(element("span", { class: "slot more", text: `+${rest}` }));
  const free = Math.max(0, server.max_loras - active.length - loaded.length);
  if (free) chips.push(element("span", { class: "slot free", text: `${free} free` }));
  parts.cells.adapters.replaceChildren(...chips);
}

function facts(server, pool) {
  const costs = server.step_costs;
  const rows = [
    ["Pool", pool],
    ["Address", server.backend_id],
    ["Health", serverHealth(server).word],
    ["Out", silenceWords(server.silence) || NONE],
    ["Circuit breaker", `${server.circuit.replace("_", " ")}, opened ${count(server.ejections)} times`],
    ["Failed attempts", names(Object.entries(server.failures).map(([kind, failed]) => `${kind.replaceAll("_", " ")} ${failed}`))],
    ["Our requests there", count(server.requests)],
    ["Sequences decoding", count(server.decoding)],
    ["Sequences of others (estimate)", count(server.external_running)],
    ["Tokens of context", count(server.context_tokens)],
    ["Prefill ahead", `${count(server.pending_prefill_tokens)} tokens`],
    ["KV cache reserved by us", `${count(server.kv_reserved_tokens)} tokens`],
    ["KV cache, as reported", percent(server.reported_kv_usage, 1)],
    ["Running, as reported", count(server.reported_running)],
    ["Waiting in the engine, as reported", count(server.reported_waiting)],
    ["Last report", server.report_age_s === null ? "none yet" : `${seconds(server.report_age_s)} ago`],
    ["Adapter slots", `${server.max_loras}`],
    ["Adapters running", names(Object.entries(server.active_adapters).map(([name, requests]) => `${name} (${requests})`))],
    ["Adapters loaded", names(server.resident_adapters)],
    ["TTFT forecasts", quality(server.ttft_forecasts)],
    ["TPOT forecasts", quality(server.tpot_forecasts)],
  ];
  if (costs) {
    rows.push(
      ["Engine step, empty", seconds(costs.step_s)],
      ["… per sequence", micro(costs.per_sequence_s)],
      ["… per 1,000 tokens of context", micro(costs.per_context_token_s * 1000)],
      ["… per 1,000 tokens of prefill", seconds(costs.per_prefill_token_s * 1000)],
      ["Before the first step", seconds(costs.overhead_s)],
      ["Loading an adapter", seconds(costs.adapter_load_s)],
    );
  }
  return element("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })]));
}

const names = (list) => (list.length ? list.join(", ") : "none");
const micro = (value) => `${(value * 1e6).toFixed(1)} µs`;
const quality = ({ samples, relative_error: error, p90_coverage: coverage }) =>
  samples ? `off by ${percent(error)} on average; ${percent(coverage)} within their p90 (90 % is right); ${count(samples)} samples` : "no sample yet";
