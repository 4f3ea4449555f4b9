// Numbers, times and spans as a person reads them. The same words as the engine's own explanations use, so that the graph, a table
// and a sentence never disagree about what they call a thing.

/** The end of event time is i64::MAX, which a JavaScript number cannot hold exactly: everything above this is it. */
const END = 9e18;

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A count, in full: `1,234,567`. */
export function count(number) {
  return grouped.format(number ?? 0);
}

/** A rate or another number of which the size matters: `0`, `3`, `3.4`, `12.4 k`, `1.2 M`. */
export function about(number) {
  const n = Math.abs(number ?? 0);
  if (Number.isInteger(n) && n < 1_000) return String(n);
  if (n < 0.05) return "0";
  if (n < 10) return n.toFixed(1);
  if (n < 1_000) return n.toFixed(0);
  for (const [size, unit] of [[1e3, "k"], [1e6, "M"], [1e9, "G"]]) {
    // 999.95 k is 1.0 M: what counts is how it would be printed.
    if (n < size * 999.5 || unit === "G") return `${n / size < 99.95 ? (n / size).toFixed(1) : (n / size).toFixed(0)} ${unit}`;
  }
}

/** So many of a thing: `1 split`, `3 splits`. */
export function counted(number, one, several = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : several}`;
}

/** Bytes: `512 B`, `12.4 KiB`, `1.2 GiB`. */
export function bytes(number) {
  let n = number ?? 0;
  if (n < 1_024) return `${n} B`;
  for (const unit of ["KiB", "MiB", "GiB", "TiB"]) {
    n /= 1_024;
    if (n < 1_023.5 || unit === "TiB") return `${n < 99.95 ? n.toFixed(1) : n.toFixed(0)} ${unit}`;
  }
}

/** A share from 0 to 1: `83 %`. */
export function percent(share) {
  return `${Math.round(100 * (share ?? 0))} %`;
}

/** A span of milliseconds, as exactly as one needs it: `80 ms`, `1.4 s`, `43 s`, `5 min 3 s`, `2 h 5 min`, `3 days 4 h`. */
export function span(millis) {
  const ms = Math.max(0, Math.round(millis));
  if (ms < 1_000) return `${ms} ms`;
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 10) return `${seconds}.${Math.floor((ms % 1_000) / 100)} s`;
  if (seconds < 60) return `${seconds} s`;
  const parts = (large, name, small, other) => (small ? `${large} ${name} ${small} ${other}` : `${large} ${name}`);
  if (seconds < 3_600) return parts(Math.floor(seconds / 60), "min", seconds % 60, "s");
  if (seconds < 86_400) return parts(Math.floor(seconds / 3_600), "h", Math.floor((seconds % 3_600) / 60), "min");
  const days = Math.floor(seconds / 86_400);
  return parts(days, days === 1 ? "day" : "days", Math.floor((seconds % 86_400) / 3_600), "h");
}

/** The quantiles of a histogram of the job: `p50 1.4 s · p99 3.0 s · max 43 s`. */
export function spread({ p50_us: half, p99_us: most, max_us: all }) {
  const took = (micros) => (micros < 1_000 ? `${micros} µs` : span(micros / 1_000));
  return `p50 ${took(half)} · p99 ${took(most)} · max ${took(all)}`;
}

/** As a span, but in whole seconds: for what is read again every second and should not flicker. */
export function ago(millis) {
  const whole = Math.floor(Math.max(0, millis) / 1_000);
  return whole < 1 ? "now" : `${wholeSpan(whole)} ago`;
}

/** A span in whole seconds. */
export function wholeSpan(seconds) {
  return seconds < 10 ? `${seconds} s` : span(seconds * 1_000);
}

/** A span in one unit, for where there is little room: `43 s`, `5 min`, `2 h`, `3 days`. */
export function roughly(millis) {
  return wholeSpan(Math.floor(millis / 1_000)).split(" ").slice(0, 2).join(" ");
}

/** Whether an instant of event time is its end. */
export function isEnd(micros) {
  return micros != null && micros > END;
}

/** An instant of event time, in UTC as the engine prints it: `2026-11-22 12:03:04`; with milliseconds where `exact`. */
export function instant(micros, exact = false) {
  if (micros == null) return "none yet";
  if (isEnd(micros)) return "end";
  return wall(micros / 1_000, exact) ?? (micros < 0 ? "before all time" : `${micros} µs`);
}

/** A time on the wall, in UTC. None if there is no such date. */
export function wall(millis, exact = false) {
  const date = new Date(millis);
  if (Number.isNaN(date.getTime())) return null;
  return date.toISOString().replace("T", " ").slice(0, exact ? -1 : -5);
}

/** The same in as few letters as will do: the time of the day, when that day is today. */
export function shortInstant(micros, nowMs) {
  const whole = instant(micros);
  const today = wall(nowMs)?.slice(0, 11);
  return today && whole.startsWith(today) ? whole.slice(11) : whole;
}

/** How far event time is behind another instant of it, in milliseconds; none where one of them is not known or is the end. */
export function behind(micros, latest) {
  if (micros == null || latest == null || isEnd(micros) || isEnd(latest)) return null;
  return Math.max(0, (latest - micros) / 1_000);
}

/** What an enum of the status is called on the page. */
export function named(word) {
  return String(word ?? "").replaceAll("_", " ");
}
