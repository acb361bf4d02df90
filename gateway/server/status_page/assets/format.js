// Figures for people.

export const NONE = "–";

export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value < 0.00005) return "0 ms";
  if (value < 0.0995) return `${digits(value * 1000, 2)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 99.5) return `${digits(value, 3)} s`;
  const whole = Math.round(value);
  return whole % 60 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${whole / 60} min`;
}

export function percent(share, places = 0) {
  return share === null || share === undefined ? NONE : `${(share * 100).toFixed(places)} %`;
}

/** Adherence must not look met where it is not: it is cut off, not rounded. */
export function adherence(share) {
  if (share === null || share === undefined) return NONE;
  return share >= 1 ? "100 %" : `${(Math.floor(share * 1000) / 10).toFixed(1)} %`;
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  return value === 0 ? "0" : digits(value, 2);
}

export function count(value) {
  return value === null || value === undefined ? NONE : Math.round(value).toLocaleString("en");
}

export function clockTime(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

/** Since when a server is out, and why; nothing about one that is not. */
export function silenceWords(silence) {
  if (!silence) return "";
  const whole = Math.max(1, Math.round(silence.for_s));
  const since = `for ${whole < 100 ? `${whole} s` : seconds(whole)}`;
  return silence.trouble === null ? since : `${since}: ${silence.trouble}`;
}

/** The part of a server's URL that tells it from the others. */
export function serverName(id) {
  return id.replace(/^https?:\/\//, "").replace(/\/$/, "");
}

export function priority(level) {
  if (level === null || level === undefined) return NONE;
  const name = level >= 0 ? "Critical" : "Non-Critical";
  return level === 0 || level === -1 ? name : `${name} (${level})`;
}

/** An objective as a sentence would have it. */
export function objective(service) {
  const { objective: bounds, target } = service;
  if (!bounds) return "none: served as servers allow";
  const parts = [];
  if (bounds.ttft_s !== null) parts.push(`TTFT ≤ ${seconds(bounds.ttft_s)}`);
  if (bounds.tpot_s !== null) parts.push(`TPOT ≤ ${seconds(bounds.tpot_s)}`);
  if (bounds.ntpot_s !== null) parts.push(`NTPOT ≤ ${seconds(bounds.ntpot_s)}`);
  return `${parts.join(", ")} for ${percent(target, target * 100 % 1 ? 1 : 0)}`;
}

function digits(value, significant) {
  const places = Math.max(0, significant - Math.max(1, Math.ceil(Math.log10(Math.abs(value) + 1e-12))));
  return value.toFixed(places);
}

/** The part of an address that picks a service. */
export const serviceLink = (pool, service) => `#service/${encodeURIComponent(pool)}/${encodeURIComponent(service)}`;
