// Why one request went where it went, and where its time went.

import { element } from "./dom.js";
import { clockTime, count, percent, priority, seconds, serverName } from "./format.js";
import { closedWords, outcomeTone, outcomeWords, reasonWords } from "./words.js";

const SHORTEST_S = 0.00005;

/** {title, parts} of one request, or of one that is no longer kept; `open(server)` shows a server. */
export async function explain(id, open) {
  let response;
  try {
    response = await fetch(`/live/requests/${encodeURIComponent(id)}`);
  } catch {
    return gone(id, "The gateway does not answer.");
  }
  if (response.status === 404) return gone(id, "This request is not kept any more: the gateway remembers the last 2,000 that ended, and why for the last 2,560 dispatches. The request log has it.");
  if (!response.ok) return gone(id, `The gateway answered ${response.status}.`);
  const { request, explanation } = await response.json();
  const parts = [];
  if (request) parts.push(headline(request.record), timeline(request.record));
  if (explanation) parts.push(...choice(explanation, request?.record, open));
  else parts.push(element("p", { class: "note", text: request?.record.attempts ? "Why it went there is kept for the last 2,560 dispatches only." : "It was not sent to any server." }));
  if (request) parts.push(facts(request));
  return { title: `Request ${request?.record.request_id ?? id}`, parts };
}

const gone = (id, text) => ({ title: `Request ${id}`, parts: [element("p", { text })] });

function headline(record) {
  const where = record.backend_id ? ` by ${serverName(record.backend_id)}` : "";
  const when = record.outcome === "ok" ? `${where} in ${seconds(record.e2e_s)}` : ` after ${seconds(record.e2e_s)}`;
  const why = record.reason ? `: ${reasonWords(record.reason)}` : "";
  const pill = element("span", { class: "pill", "data-tone": outcomeTone(record.outcome), text: `${record.status}` });
  return element("p", { class: "headline" }, pill, ` ${capital(outcomeWords(record.outcome))}${when}${why}.`);
}

/** Stretches of the request's life, in order, as far as they are known. */
export function stretches(record) {
  const parts = [];
  const known = (name, tone, from, to) => { if (to - from > SHORTEST_S) parts.push({ name, tone, length: to - from }); };
  if (record.attempts === 0) {
    known("in the gateway, never sent to a server", "queue", 0, record.e2e_s);
    return parts;
  }
  const own = record.overhead_s ?? 0;
  const waited = own + record.queue_s;
  known("gateway", "own", 0, own);
  known("waiting for a server", "queue", 0, record.queue_s);
  if (record.ttft_s === null) {
    known(record.streamed ? "at the server, no token yet" : "at the server (not streamed)", "first", waited, record.e2e_s);
    return parts;
  }
  const dispatched = record.ttft_s - record.dispatch_ttft_s;
  known("reading the body, earlier attempts", "other", waited, dispatched);
  known("server: to the first token", "first", dispatched, record.ttft_s);
  known("server: further tokens", "stream", record.ttft_s, record.e2e_s);
  return parts;
}

function timeline(record) {
  const parts = stretches(record);
  const bar = element("div", { class: "timeline", role: "img", "aria-label": `Timeline: ${parts.map(({ name, length }) => `${name} ${seconds(length)}`).join(", ")}` });
  const legend = element("ul", { class: "timeline-legend" });
  for (const { name, tone, length } of parts) {
    const piece = element("span", { class: "timeline-piece", "data-stretch": tone });
    piece.style.setProperty("--share", String(length / record.e2e_s));
    bar.append(piece);
    legend.append(element("li", { "data-stretch": tone }, `${name} `, element("strong", { text: seconds(length) }), ` (${percent(length / record.e2e_s)})`));
  }
  return element("section", {}, element("h3", { text: "Where the time went" }), bar, legend);
}

function choice(told, record, open) {
  const rows = [...told.candidates].sort((one, other) => one.cost - other.cost);
  const best = rows.length ? rows[0].cost : 0;
  const body = element("tbody", { role: "rowgroup" });
  for (const candidate of rows) {
    const chosen = candidate.backend_id === told.chosen;
    const words = chosen ? "chosen" : `open, cost ${(candidate.cost - best).toFixed(3)} above the best`;
    body.append(serverRow(candidate.backend_id, open, words, chosen, [seconds(candidate.ttft_s), seconds(candidate.tpot_s), candidate.cost.toFixed(3), candidate.reason]));
  }
  for (const { backend_id: id, reason } of told.closed) body.append(serverRow(id, open, closedWords(reason), false, ["–", "–", "–", "–"]));
  const titles = ["Server", "Why", "TTFT forecast", "TPOT forecast", "Cost", "Adapter"];
  const head = element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...titles.map((text, place) => element("th", { role: "columnheader", scope: "col", text, class: place > 1 && place < 5 ? "number" : undefined }))));
  const sentences = [`Decided after ${seconds(told.waited_s)} of waiting, attempt ${told.attempt}, for ${count(told.prompt_tokens)} prompt tokens and about ${count(told.expected_output_tokens)} to come. `,
    "Cost: expected misses of objectives, then headroom, then what it takes from the pool; the lowest wins, near-ties are drawn."];
  const parts = [element("section", {}, element("h3", { text: "Why this server" }), element("p", { class: "note", text: sentences.join("") }),
    element("table", { role: "table", class: "grid candidates" }, head, body))];
  const compared = forecastTable(told.forecast, record);
  if (compared) parts.push(compared);
  return parts;
}

function serverRow(id, open, words, chosen, figures) {
  const name = element("button", { type: "button", class: "link", text: serverName(id), title: "Show all its figures", on: { click: () => open(id) } });
  const labels = ["TTFT forecast", "TPOT forecast", "Cost", "Adapter"];
  const cells = [words, ...figures].map((text, place) => element("td", { role: "cell", label: place ? labels[place - 1] : "Why", text, class: place && place < 4 ? "number" : undefined }));
  return element("tr", { role: "row", class: chosen ? "chosen" : undefined }, element("th", { role: "rowheader", scope: "row", class: "mono" }, name), ...cells);
}

function forecastTable(forecast, record) {
  if (!record || (record.dispatch_ttft_s === null && record.completion_tokens === null)) return null;
  const tpot = record.ttft_s !== null && record.completion_tokens > 1 ? (record.e2e_s - record.ttft_s) / (record.completion_tokens - 1) : null;
  const line = (name, middle, high, actual) => {
    const words = actual === null ? "not seen" : `${seconds(actual)}, ${actual <= high ? "within" : "above"} the p90`;
    return [element("dt", { text: name }), element("dd", { text: `forecast ${seconds(middle)} (p90 ${seconds(high)}), actual ${words}` })];
  };
  return element("section", {}, element("h3", { text: "Forecast and actual" }), element("dl", { class: "facts" },
    ...line("TTFT, from dispatch", forecast.ttft_s, forecast.ttft_p90_s, record.dispatch_ttft_s),
    ...line("TPOT", forecast.tpot_s, forecast.tpot_p90_s, tpot)));
}

function facts({ ended_at: endedAt, record }) {
  const rows = [
    ["Ended", clockTime(endedAt)],
    ["X-Request-Id", record.request_id],
    ["Gateway's id", record.lease_id],
    ["Path", record.path],
    ["Service", record.service === null ? "–" : `${record.service} (${priority(record.priority)})${record.pool ? `, pool ${record.pool}` : ""}`],
    ["Model", record.target_model && record.target_model !== record.model ? `${record.model}, sent on as ${record.target_model}` : record.model ?? "–"],
    ["Attempts", String(record.attempts)],
    ["Tokens", record.completion_tokens === null ? "–" : `${count(record.prompt_tokens)} prompt (${count(record.cached_tokens)} from cache), ${count(record.completion_tokens)} answer`],
  ];
  return element("section", {}, element("h3", { text: "The request" }), element("dl", { class: "facts" },
    ...rows.flatMap(([name, value]) => [element("dt", { text: name }), element("dd", { text: value })])));
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
