// Small tools for the document. Text goes in as text nodes only: names come from clients.

/** Make an element: `options` are `class`, `text`, `label` (the column's name), or attributes. */
export function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "class") made.className = value;
    else if (name === "text") made.textContent = value;
    else if (name === "label") made.dataset.label = value;
    else if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Change text only where it differs: a node that is not touched is not painted again. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Change an attribute only where it differs. */
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

/** Rows of a table by key: made once, then changed in place, so that focus and selection stay. */
export class KeyedRows {
  #rows = new Map();

  constructor(body, make) {
    this.body = body;
    this.make = make;
  }

  /** Show `items` in order; `make` gives `{row, update}` once per key. */
  show(items, keyOf) {
    const wanted = new Set(items.map(keyOf));
    for (const [key, made] of this.#rows) {
      if (!wanted.has(key)) {
        made.row.remove();
        this.#rows.delete(key);
      }
    }
    let place = this.body.firstElementChild;
    for (const item of items) {
      const key = keyOf(item);
      let made = this.#rows.get(key);
      if (made === undefined) {
        made = this.make(item);
        this.#rows.set(key, made);
      }
      if (made.row === place) place = place.nextElementSibling;
      else this.body.insertBefore(made.row, place);
      made.update(item);
    }
  }
}

/** One cell of a table that becomes a card on small screens, where `label` names it. */
export function cell(label, className = "") {
  return element("td", { role: "cell", label, class: className || undefined });
}

/** A bar from 0 to 1 with words beside it, and a mark where there is a target. */
export function meter(name) {
  const fill = element("span", { class: "meter-fill" });
  const mark = element("span", { class: "meter-mark", hidden: "" });
  const track = element("span", { class: "meter-track", role: "meter", "aria-label": name, "aria-valuemin": "0", "aria-valuemax": "100" }, fill, mark);
  const words = element("span", { class: "meter-words" });
  const whole = element("span", { class: "meter" }, track, words);
  const update = ({ share, text, tone = "", target = null }) => {
    const shown = share === null ? 0 : Math.max(0, Math.min(1, share));
    fill.style.setProperty("--share", shown.toFixed(3));
    mark.hidden = target === null;
    if (target !== null) mark.style.setProperty("--share", target.toFixed(3));
    setAttribute(track, "aria-valuenow", String(Math.round(shown * 100)));
    setAttribute(track, "aria-valuetext", text);
    setAttribute(whole, "data-tone", tone);
    setText(words, text);
  };
  return { whole, update };
}
