// How servers and services are, in one word and one tone; the page's only thresholds.

const STALE_S = 5;
const JUDGED_ENOUGH = 20;
const LARGE_ERROR = 0.5;
const SAMPLES_ENOUGH = 100;

/** {word, tone, rank} of a server; a higher rank is worse. */
export function serverHealth(server) {
  if (isDown(server)) {
    return { word: server.silence?.was_heard === false ? "not heard from" : "down", tone: "bad", rank: 5 };
  }
  if (server.ejected) return { word: server.circuit === "half_open" ? "on probation" : "ejected", tone: "bad", rank: 5 };
  if (server.draining) return { word: "draining", tone: "idle", rank: 3 };
  if (server.report_age_s !== null && server.report_age_s > STALE_S) return { word: "stale report", tone: "warn", rank: 4 };
  if (server.full) return { word: "full", tone: "warn", rank: 2 };
  return { word: "open", tone: "good", rank: server.report_age_s === null ? 1 : 0 };
}

/** Whether a server takes nothing although it should. */
export const isDown = (server) => !server.usable && !server.draining;

/** {tone, rank, missing} of a service. */
export function serviceHealth(service) {
  const { target, attainment, ended } = service;
  if (target === null || attainment === null) return { tone: "idle", rank: 0, missing: false };
  if (attainment >= target) return { tone: "good", rank: 0, missing: false };
  return ended >= JUDGED_ENOUGH
    ? { tone: "bad", rank: 2, missing: true }
    : { tone: "warn", rank: 1, missing: false };
}

/** Whether a server's forecasts are far off, and not only because there have been few. */
export const forecastsAreOff = (server) => [server.ttft_forecasts, server.tpot_forecasts]
  .some(({ samples, relative_error: error }) => samples >= SAMPLES_ENOUGH && error > LARGE_ERROR);

export const saturationTone = (share) => (share >= 1 ? "bad" : share >= 0.8 ? "warn" : "good");
