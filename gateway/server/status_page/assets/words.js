// What codes mean, in a sentence.

const REASONS = {
  unknown_model: "no pool serves this model",
  no_target_model: "no server has a model of this service",
  no_capacity: "no server could take it in time, and its service is Non-Critical",
  queue_full: "the queue was full",
  queue_timeout: "it waited as long as it may",
  objective_impossible: "not even an idle server could meet its objective",
  displaced: "a Critical request took its place in the full queue",
  preempted: "a Critical request took its place",
  draining: "the gateway is shutting down",
  no_backend: "no healthy server serves this model",
  attempts_exhausted: "every attempt failed",
  deadline: "its deadline passed",
  unsupported_encoding: "the coding of its body is not supported",
  body_too_large: "its body was too large",
  body_too_slow: "its body came too slowly",
  body_memory: "the bodies in flight took all memory for them",
  gateway_in_flight: "the gateway had as many requests as it may",
  client_in_flight: "its client had as many requests as it may",
  key_requests: "its API key had used up its requests per minute",
  key_tokens: "its API key had used up its tokens per minute",
};

const OUTCOMES = {
  ok: "answered",
  client_error: "client error",
  refused: "refused",
  expired: "expired",
  failed: "failed",
  stream_error: "stream broke",
  cancelled: "client left",
};

const CLOSED = {
  tried: "closed: an earlier attempt failed there",
  ejected: "closed: ejected, because requests have failed there",
  full: "closed: full (places, prefill ahead, or a queue of its own)",
  adapter_slot: "closed: no adapter slot for it",
  no_room: "closed: too few KV blocks or places",
  forecast_or_turn: "closed: an objective would break, or it was kept for a request that goes first",
  not_compared: "not compared: enough others were open",
};

export const reasonWords = (code) => REASONS[code] ?? String(code).replaceAll("_", " ");
export const outcomeWords = (code) => OUTCOMES[code] ?? String(code).replaceAll("_", " ");
export const closedWords = (code) => CLOSED[code] ?? String(code).replaceAll("_", " ");

export function outcomeTone(outcome) {
  if (outcome === "ok") return "good";
  if (outcome === "cancelled") return "idle";
  return outcome === "refused" || outcome === "expired" || outcome === "client_error" ? "warn" : "bad";
}
