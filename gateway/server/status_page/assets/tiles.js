// The key figures of the whole gateway.

import { element, setAttribute, setText } from "./dom.js";
import { count, rate, seconds } from "./format.js";
import { serviceHealth } from "./health.js";
import { COLUMNS, latest } from "./live.js";

const TILES = [
  ["Servers in use", ({ servers }) => {
    const usable = servers.filter((server) => server.usable && !server.draining && !server.ejected).length;
    return { text: `${usable} / ${servers.length}`, tone: usable === servers.length ? "" : usable ? "warn" : "bad", note: "usable of all" };
  }],
  ["Objectives met", ({ services }) => {
    const judged = services.filter((service) => service.target !== null && service.attainment !== null);
    const met = judged.filter((service) => service.attainment >= service.target).length;
    const missing = judged.some((service) => serviceHealth(service).missing);
    return { text: judged.length ? `${met} / ${judged.length}` : "–", tone: missing ? "bad" : "", note: judged.length ? "services with traffic" : "no service with one has traffic" };
  }],
  ["In flight", ({ pools }) => ({ text: count(sum(pools, (pool) => pool.tracked_requests - pool.queued_requests)), tone: "", note: "requests at servers" })],
  ["Waiting", ({ pools }) => {
    const waiting = sum(pools, (pool) => pool.queued_requests);
    return { text: count(waiting), tone: waiting ? "warn" : "", note: "in the queue" };
  }],
  ["Requests", ({ now }) => ({ text: `${rate(now?.[COLUMNS.ended])}/s`, tone: "", note: `${rate(now?.[COLUMNS.refused])}/s refused` })],
  ["TTFT p95", ({ now }) => ({ text: seconds(now?.[COLUMNS.ttft95]), tone: "", note: `median ${seconds(now?.[COLUMNS.ttft50])}` })],
  ["TPOT p95", ({ now }) => ({ text: seconds(now?.[COLUMNS.tpot95]), tone: "", note: `median ${seconds(now?.[COLUMNS.tpot50])}` })],
];

const sum = (items, valueOf) => items.reduce((total, item) => total + valueOf(item), 0);

export class Tiles {
  constructor() {
    const list = document.getElementById("tiles");
    this.tiles = TILES.map(([name, valueOf]) => {
      const value = element("dd", { class: "tile-value", text: "–" });
      const note = element("dd", { class: "tile-note" });
      const tile = element("div", { class: "tile" }, element("dt", { text: name }), value, note);
      list.append(tile);
      return { tile, value, note, valueOf };
    });
  }

  update(state, points) {
    const facts = {
      pools: state.pools,
      servers: state.pools.flatMap((pool) => pool.backends),
      services: state.pools.flatMap((pool) => pool.services),
      now: latest(points, null),
    };
    for (const { tile, value, note, valueOf } of this.tiles) {
      const shown = valueOf(facts);
      setText(value, shown.text);
      setText(note, shown.note);
      setAttribute(tile, "data-tone", shown.tone);
    }
  }
}
