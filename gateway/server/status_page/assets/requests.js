// The table of recent requests, with search.

import { cell, element, KeyedRows, setAttribute, setText } from "./dom.js";
import { clockTime, count, seconds, serverName } from "./format.js";
import { outcomeTone, outcomeWords, reasonWords } from "./words.js";

const FIRST_ROWS = 15;
const MOST_ROWS = 200;
const TYPING_MS = 200;
const ORDERS = {
  newest: "newest",
  ttft: "slowest to the first token",
  tpot: "slowest per token",
  wait: "longest waits",
  total: "longest in all",
};

export class Requests {
  /** `show(id)` when a request is picked. */
  constructor({ show }) {
    this.show = show;
    this.search = document.getElementById("search");
    this.order = document.getElementById("request-order");
    this.hold = document.getElementById("hold");
    this.note = document.getElementById("request-note");
    this.rows = new KeyedRows(document.getElementById("request-rows"), (item) => this.#make(item));
    this.more = document.getElementById("more");
    this.limit = FIRST_ROWS;
    this.asked = 0;
    this.pointed = false;
    // A row that moves away under the pointer cannot be clicked.
    const body = document.getElementById("request-rows");
    body.addEventListener("pointerenter", () => { this.pointed = true; });
    body.addEventListener("pointerleave", () => { this.pointed = false; });
    this.more.addEventListener("click", () => {
      this.limit = Math.min(MOST_ROWS, this.limit * 2);
      this.#load();
    });
    this.order.addEventListener("change", () => this.#load());
    let typing = null;
    this.search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.#load(), TYPING_MS);
    });
    document.getElementById("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#load();
    });
  }

  /** Show those of one service, in the order that is told or else as before. */
  find(service, order) {
    this.search.value = service;
    if (order) this.order.value = order;
    this.#load();
  }

  /** Ask again, unless the viewer holds the table, is about to choose a row, or does not look. */
  update() {
    const choosing = this.pointed || this.rows.body.contains(document.activeElement);
    if (!this.hold.checked && !choosing && !document.hidden) this.#load();
  }

  async #load() {
    const asked = ++this.asked;
    const words = this.search.value.trim();
    const order = this.order.value;
    let answer;
    try {
      const response = await fetch(`/live/requests?limit=${this.limit}&order=${order}&search=${encodeURIComponent(words)}`);
      answer = response.ok ? await response.json() : null;
    } catch {
      answer = null; // the connection's own note tells of it
    }
    if (answer === null || asked !== this.asked) return;
    this.rows.show(answer.requests, ({ record }) => record.lease_id);
    const found = answer.requests.length;
    this.more.hidden = found < this.limit || found >= MOST_ROWS;
    if (!answer.kept) setText(this.note, "No request has ended yet.");
    else if (!found) setText(this.note, `None of the last ${count(answer.kept)} requests matches.`);
    else setText(this.note, `The ${count(found)} ${ORDERS[order]}${words ? " that match," : ""} of the last ${count(answer.kept)} that ended.`);
  }

  #make({ ended_at: endedAt, tpot_s: tpot, record }) {
    const show = () => this.show(record.lease_id);
    const id = element("button", { type: "button", class: "link mono", text: record.request_id, title: "Why it went where it went", on: { click: show } });
    const pill = element("span", { class: "pill", text: outcomeWords(record.outcome) });
    setAttribute(pill, "data-tone", outcomeTone(record.outcome));
    const outcome = cell("Outcome");
    outcome.append(pill, element("span", { class: "sub", text: about(record) }));
    const service = cell("Service");
    service.append(record.service ?? "–", element("span", { class: "sub", text: record.model === record.service ? "" : record.model ?? "" }));
    const figures = [
      ["Server", record.backend_id === null ? "–" : serverName(record.backend_id), "mono"],
      ["Waited", record.attempts ? seconds(record.queue_s) : "–", "number"],
      ["TTFT", seconds(record.ttft_s), "number"],
      ["TPOT", seconds(tpot), "number"],
      ["Total", seconds(record.e2e_s), "number"],
      ["Tokens", tokens(record), "number"],
    ].map(([label, text, className]) => {
      const made = cell(label, className);
      made.textContent = text;
      return made;
    });
    const ended = cell("Ended", "mono");
    ended.textContent = clockTime(endedAt);
    const row = element("tr", { role: "row" }, ended, element("th", { role: "rowheader", scope: "row" }, id), service, outcome, ...figures);
    return { row, update: () => {} };
  }
}

function about({ outcome, status, reason }) {
  if (reason) return `${status}: ${reasonWords(reason)}`;
  return outcome === "ok" && status === 200 ? "" : `${status}`;
}

function tokens({ prompt_tokens: prompt, completion_tokens: answer }) {
  if (answer === null) return "–";
  return prompt === null ? count(answer) : `${count(prompt)} → ${count(answer)}`;
}
