// The first thing read: is all well, and if not, what is wrong and where to look.

import { element } from "./dom.js";
import { adherence, percent, rate, serviceLink } from "./format.js";
import { isDown, serverHealth, serviceHealth } from "./health.js";
import { COLUMNS, latest } from "./live.js";

const MOST_DETAILS = 4;
const TONES = ["good", "warn", "bad"];

/** [{tone, text, link}] of what is wrong, the worst first. */
export function findings(state, points) {
  const found = [];
  const servers = state.pools.flatMap((pool) => pool.backends);
  const services = state.pools.flatMap(({ pool, services: own }) => own.map((service) => ({ pool, service })));
  const down = servers.filter(isDown);
  const ejected = servers.filter((server) => server.usable && server.ejected);
  const stale = servers.filter((server) => serverHealth(server).word === "stale report");
  const waiting = state.pools.reduce((sum, pool) => sum + pool.queued_requests, 0);
  const refused = latest(points, null)?.[COLUMNS.refused] ?? 0;
  for (const pool of state.pools) {
    const name = state.pools.length > 1 ? ` of pool ${pool.pool}` : "";
    if (pool.draining) found.push({ tone: "warn", text: "The gateway is shutting down: it finishes what it has", link: "#servers" });
    if (!pool.backends.some((server) => server.usable)) {
      found.push({ tone: "bad", text: `No server${name} can be used: requests wait, and then fail`, link: "#servers" });
    }
  }
  const mostAreDown = down.length > servers.length / 2; // then that is the cause, and the rest follows
  if (down.length && down.length < servers.length) {
    found.push({ tone: mostAreDown ? "bad" : "warn", text: `${down.length} of ${servers.length} servers are down`, link: "#servers" });
  }
  const missing = services.filter(({ service }) => serviceHealth(service).missing).sort((one, other) => other.service.burn - one.service.burn);
  for (const { pool, service } of missing.slice(0, 2)) {
    found.push({ tone: "bad", text: `${service.service} misses its objective: ${adherence(service.attainment)} met it, the target is ${percent(service.target)}`, link: serviceLink(pool, service.service) });
  }
  const more = missing.length - 2;
  if (more > 0) found.push({ tone: "bad", text: more === 1 ? "1 more service misses its objective" : `${more} more services miss their objectives`, link: "#services" });
  if (ejected.length) found.push({ tone: "warn", text: `${ejected.length} of ${servers.length} servers ${ejected.length === 1 ? "is" : "are"} ejected for failing`, link: "#servers" });
  if (state.pools.some((pool) => pool.panic)) found.push({ tone: "bad", text: "So many servers fail that ejected ones are used all the same", link: "#servers" });
  if (refused > 0) found.push({ tone: "warn", text: `${rate(refused)} requests per second are refused`, link: "#requests" });
  if (waiting > 0) found.push({ tone: "warn", text: `${waiting} ${waiting === 1 ? "request waits" : "requests wait"} for a server`, link: "#services" });
  if (stale.length) found.push({ tone: "warn", text: `${stale.length} ${stale.length === 1 ? "server has" : "servers have"} not reported for 5 s`, link: "#servers" });
  return found.sort((one, other) => TONES.indexOf(other.tone) - TONES.indexOf(one.tone));
}

const linked = ({ text, link }) => (link ? element("a", { href: link, text }) : text);

/** Shows the findings, or that there are none. */
export class Verdict {
  constructor() {
    this.section = document.getElementById("verdict");
    this.headline = document.getElementById("verdict-headline");
    this.details = document.getElementById("verdict-details");
    this.shown = "";
  }

  update(state, points) {
    const found = findings(state, points);
    const servers = state.pools.flatMap((pool) => pool.backends);
    const usable = servers.filter((server) => server.usable && !server.draining && !server.ejected).length;
    const judged = state.pools.flatMap((pool) => pool.services).filter((service) => service.target !== null && service.attainment !== null);
    const [worst, ...others] = found;
    this.section.dataset.tone = worst?.tone ?? "good";
    const lines = others.slice(0, MOST_DETAILS);
    if (!found.length) {
      const met = judged.length ? `, every objective judged is met` : "";
      lines.push({ text: `${usable} of ${servers.length} servers take requests${met}, nobody waits.`, link: null });
    }
    const headline = worst ?? { text: "All is well", link: null };
    const wanted = JSON.stringify([headline, lines]);
    if (wanted === this.shown) return;
    this.shown = wanted;
    this.headline.replaceChildren(linked(headline));
    this.details.replaceChildren(...lines.map((line) => element("li", {}, linked(line))));
  }
}
