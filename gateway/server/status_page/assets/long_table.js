// A table that may be long: it can be searched and ordered, and shows its first rows until all are wanted.

import { element, KeyedRows, setText } from "./dom.js";
import { count } from "./format.js";

const FIRST_ROWS = 20;

export class LongTable {
  #pointed = false;
  #chosen = false;
  #whole = false;
  #items = [];
  #places = new Map();

  /**
   * `name` is that of the elements, `things` what the rows are called; `keyOf` and `wordsOf` give an
   * item's key and what is searched in; `orders` by the name of the choice, the largest number first.
   */
  constructor({ name, things, make, keyOf, wordsOf, orders }) {
    Object.assign(this, { things, keyOf, wordsOf, orders });
    const body = document.getElementById(`${name}-rows`);
    this.rows = new KeyedRows(body, make);
    this.order = document.getElementById(`${name}-order`);
    this.search = document.getElementById(`${name}-search`);
    this.note = document.getElementById(`${name}-note`);
    this.all = element("button", { type: "button", class: "quiet", on: { click: () => this.#showAll() } });
    this.words = element("span", { role: "status" });
    this.note.append(this.words, " ", this.all);
    // A row that moves away under the pointer cannot be clicked.
    body.addEventListener("pointerenter", () => { this.#pointed = true; });
    body.addEventListener("pointerleave", () => { this.#pointed = false; });
    this.order.addEventListener("change", () => { this.#chosen = true; this.#show(); });
    this.search.addEventListener("input", () => this.#show());
  }

  update(items) {
    this.#items = items;
    const long = items.length > FIRST_ROWS;
    // What is cut off must not be what is in trouble, unless the viewer wants another order.
    if (!this.#chosen) this.order.value = long ? "worst" : "";
    this.search.hidden = !long;
    this.note.hidden = !long;
    this.#show();
  }

  #showAll() {
    this.#whole = !this.#whole;
    this.#show();
    if (!this.#whole) this.note.scrollIntoView({ block: "nearest" });
  }

  #show() {
    const wanted = this.search.hidden ? "" : this.search.value.trim().toLowerCase();
    const found = this.#items.filter((item) => this.wordsOf(item).toLowerCase().includes(wanted));
    const shown = this.#ordered(found).slice(0, this.#whole ? found.length : FIRST_ROWS);
    this.#places = new Map(shown.map((item, place) => [this.keyOf(item), place]));
    this.rows.show(shown, this.keyOf);
    setText(this.words, this.#told(found.length, shown.length, wanted));
    this.all.hidden = found.length <= FIRST_ROWS;
    setText(this.all, this.#whole ? `Show ${FIRST_ROWS}` : `Show all ${count(found.length)}`);
  }

  #ordered(found) {
    const value = this.orders[this.order.value];
    const items = [...found];
    if (value) items.sort((one, other) => value(other) - value(one));
    if (!this.#pointed) return items;
    const place = (item) => this.#places.get(this.keyOf(item)) ?? this.#places.size;
    return items.sort((one, other) => place(one) - place(other));
  }

  #told(found, shown, wanted) {
    const all = `${count(this.#items.length)} ${this.things}`;
    if (!found) return `None of the ${all} matches.`;
    const cut = shown < found ? `, ${count(shown)} are shown` : "";
    return wanted ? `${count(found)} of ${all} match${cut}.` : `${all}${cut}.`;
  }
}
