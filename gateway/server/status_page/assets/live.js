// The connection: state and points as they come, and a new try when it breaks.

const RETRY_MS = 2000;
const SILENT_MS = 5000;

export const COLUMNS = Object.freeze({ ended: 0, refused: 1, ttft50: 2, ttft95: 3, tpot50: 4, tpot95: 5, waiting: 6 });
const POINTS_KEPT = 450;

/** Points of history, joined over reconnections, and the newest state. */
export class Live {
  state = null;
  points = [];
  #heardAt = 0;
  #source = null;

  /** `changed({state, points})` after each state; `connection(tone, words)` when that changes. */
  constructor({ changed, connection }) {
    this.changed = changed;
    this.connection = connection;
  }

  start() {
    this.#open();
    setInterval(() => this.#watch(), 1000);
  }

  #open() {
    this.#heardAt = performance.now();
    const source = new EventSource("/live/events");
    this.#source = source;
    source.addEventListener("state", (event) => {
      this.state = JSON.parse(event.data);
      this.#heardAt = performance.now();
      this.connection("good", `Live · ${new Date(this.state.at * 1000).toLocaleTimeString("en-GB")}`);
      // The points of this moment follow in the same packet.
      queueMicrotask(() => this.changed(this));
    });
    source.addEventListener("points", (event) => {
      const news = JSON.parse(event.data);
      if (news.length === 0) return;
      const first = news[0].number;
      const last = this.points.at(-1);
      // A gateway that started anew counts from zero.
      if (last !== undefined && first <= last.number) this.points = this.points.filter((point) => point.number < first);
      if (last !== undefined && news[0].at < last.at) this.points = [];
      this.points.push(...news);
      this.points.splice(0, this.points.length - POINTS_KEPT);
    });
    source.addEventListener("error", () => {
      this.connection("bad", "Connection lost: trying again …");
      // A refusal ends an EventSource for good, a break does not.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#reopen(source), RETRY_MS);
    });
  }

  #reopen(source) {
    if (this.#source !== source) return;
    source.close();
    this.#open();
  }

  #watch() {
    if (performance.now() - this.#heardAt > SILENT_MS) this.connection("bad", "No news from the gateway");
  }
}

/** Values of one series over the points; `number` null means all services. */
export function series(points, number, column) {
  return points.map((point) => {
    const values = number === null ? point.all : point.services[number];
    return values === undefined ? (column === COLUMNS.waiting || column < 2 ? 0 : null) : values[column];
  });
}

/** The newest values of a service, or null. */
export function latest(points, number) {
  const point = points.at(-1);
  if (point === undefined) return null;
  return (number === null ? point.all : point.services[number]) ?? null;
}

/** The number of a service in points, or undefined if it has had no traffic. */
export function seriesNumber(state, pool, service) {
  const found = state.series.findIndex(([itsPool, name]) => itsPool === pool && name === service);
  return found === -1 ? undefined : found;
}
