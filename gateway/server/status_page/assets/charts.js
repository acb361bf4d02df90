// Four charts over the same minutes, of all services or of one.

import { element, setText } from "./dom.js";
import { clockTime, count, rate, seconds } from "./format.js";
import { COLUMNS, series, seriesNumber } from "./live.js";
import { reasonWords } from "./words.js";

const HEIGHT = 150;
const SECONDS = [5, 10, 15, 30, 60, 120, 180, 300, 600];
const WHOLE = [1, 2, 5].flatMap((digit) => [1, 10, 100, 1e3, 1e4, 1e5].map((power) => digit * power)).sort((a, b) => a - b);
const CHARTS = [
  { title: "Time to first token", unit: seconds, lines: [["p95", COLUMNS.ttft95, "--line-1"], ["median", COLUMNS.ttft50, "--line-2"]], bound: "ttft_s", order: "ttft", link: "slowest requests" },
  { title: "Time per output token", unit: seconds, lines: [["p95", COLUMNS.tpot95, "--line-1"], ["median", COLUMNS.tpot50, "--line-2"]], bound: "tpot_s", order: "tpot", link: "slowest requests" },
  { title: "Requests per second", unit: rate, lines: [["ended", COLUMNS.ended, "--line-1"], ["refused", COLUMNS.refused, "--line-3"]], bound: null, order: "newest", link: "newest requests" },
  { title: "Waiting for a server", unit: count, steps: WHOLE, lines: [["waiting", COLUMNS.waiting, "--line-1"]], bound: null, order: "wait", link: "longest waits" },
];

export class Charts {
  /** `list(service, order)` when the requests behind a chart are asked for. */
  constructor({ list }) {
    this.list = list;
    this.holder = document.getElementById("charts");
    this.select = document.getElementById("chart-service");
    this.reasons = document.getElementById("refusal-reasons");
    this.figures = CHARTS.map((chart) => this.#figure(chart));
    this.state = null;
    this.points = [];
    this.options = "";
    this.drawn = "";
    this.select.addEventListener("change", () => this.#redraw());
    addEventListener("themechange", () => this.#rebuild());
    new ResizeObserver(() => this.#resize()).observe(this.holder);
  }

  /** Show one service: the "of" box follows. */
  choose(pool, service) {
    this.select.value = JSON.stringify([pool, service]);
    this.#redraw();
    this.holder.closest("section").scrollIntoView({ block: "start" });
    this.select.focus({ preventScroll: true });
  }

  update(state, points) {
    this.state = state;
    this.points = points;
    this.#offer();
    const mark = `${points.at(-1)?.number}`;
    if (mark !== this.drawn) {
      this.drawn = mark;
      this.#redraw();
    }
  }

  #offer() {
    const many = this.state.pools.length > 1;
    const names = this.state.pools.flatMap((pool) => pool.services.map((service) => [pool.pool, service.service]));
    const wanted = JSON.stringify(names);
    if (wanted === this.options) return;
    this.options = wanted;
    const chosen = this.select.value;
    this.select.replaceChildren(element("option", { value: "", text: "all services" }), ...names.map(([pool, service]) =>
      element("option", { value: JSON.stringify([pool, service]), text: many ? `${service} (${pool})` : service })));
    this.select.value = chosen;
    if (this.select.selectedIndex < 0) this.select.value = "";
  }

  #figure(chart) {
    const words = element("span", { class: "chart-words" });
    const behind = () => this.list(this.select.value ? JSON.parse(this.select.value)[1] : "", chart.order);
    const link = element("button", { type: "button", class: "link", text: chart.link, "aria-label": `${chart.title}: ${chart.link}`, on: { click: behind } });
    const caption = element("figcaption", {}, element("strong", { text: chart.title }), link, words);
    const canvas = element("div", { class: "chart", "aria-hidden": "true" });
    this.holder.append(element("figure", {}, caption, canvas));
    return { chart, words, canvas, plot: null, withBound: false };
  }

  #redraw() {
    if (this.state === null || this.points.length === 0) return;
    const chosen = this.select.value ? JSON.parse(this.select.value) : null;
    const service = chosen && this.state.pools.find((pool) => pool.pool === chosen[0])?.services.find((each) => each.service === chosen[1]);
    const number = chosen === null ? null : seriesNumber(this.state, ...chosen) ?? -1;
    const times = this.points.map((point) => point.at);
    for (const figure of this.figures) {
      const { chart, words } = figure;
      const data = [times, ...chart.lines.map(([, column]) => series(this.points, number, column))];
      const bound = (chart.bound && service?.objective?.[chart.bound]) ?? null;
      if (bound) data.push(times.map(() => bound));
      if (figure.plot === null || figure.withBound !== Boolean(bound)) this.#build(figure, data, Boolean(bound));
      else figure.plot.setData(data);
      const told = chart.lines.map(([name], line) => `${name} ${chart.unit(data[line + 1].at(-1))}`);
      if (bound) told.push(`objective ${chart.unit(bound)}`);
      setText(words, told.join(" · "));
    }
    this.#tellReasons();
  }

  #tellReasons() {
    const totals = new Map();
    for (const point of this.points) {
      for (const [reason, refused] of Object.entries(point.reasons)) totals.set(reason, (totals.get(reason) ?? 0) + refused);
    }
    const minutes = Math.max(1, Math.round((this.points.at(-1).at - this.points[0].at) / 60));
    const told = [...totals].sort((one, other) => other[1] - one[1]).map(([reason, refused]) => `${refused.toLocaleString("en")} because ${reasonWords(reason)}`);
    const whose = this.state.pools.flatMap((pool) => pool.services).length > 1 ? ", of all services" : "";
    setText(this.reasons, told.length ? `Refused in the last ${minutes} min${whose}: ${told.join("; ")}.` : `No request was refused in the last ${minutes} min.`);
  }

  #build(figure, data, withBound) {
    figure.plot?.destroy();
    figure.withBound = withBound;
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    const { chart, canvas } = figure;
    const axis = { stroke: color("--muted"), grid: { stroke: color("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const lines = chart.lines.map(([name, , variable]) => ({ label: name, stroke: color(variable), width: 1.75, points: { show: false }, spanGaps: true }));
    if (withBound) lines.push({ label: "objective", stroke: color("--bad"), width: 1.25, dash: [6, 4], points: { show: false } });
    figure.plot = new window.uPlot({
      width: canvas.clientWidth || 300,
      height: HEIGHT,
      legend: { show: false },
      cursor: { sync: { key: "minutes" }, points: { size: 6 }, drag: { x: false, y: false } },
      padding: [8, 30, 0, 0],
      scales: { x: { time: true, range: (_, low, high) => [low, high] }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
      axes: [
        { ...axis, size: 24, space: 70, incrs: SECONDS, filter: (plot, ticks) => ticks.map((tick) => (tick <= plot.scales.x.max ? tick : null)), values: (_, ticks) => ticks.map((tick) => tick === null ? "" : clockTime(tick).slice(0, ticks.length > 1 && ticks[1] - ticks[0] < 60 ? 8 : 5)) },
        { ...axis, size: 58, space: 32, ...(chart.steps && { incrs: chart.steps }), values: (_, ticks) => ticks.map((tick) => (tick === 0 ? "0" : chart.unit(tick))) },
      ],
      series: [{}, ...lines],
    }, data, canvas);
  }

  #rebuild() {
    for (const figure of this.figures) {
      figure.plot?.destroy();
      figure.plot = null;
    }
    this.#redraw();
  }

  #resize() {
    for (const { plot, canvas } of this.figures) {
      if (plot !== null && canvas.clientWidth > 0 && plot.width !== canvas.clientWidth) plot.setSize({ width: canvas.clientWidth, height: HEIGHT });
    }
  }
}
