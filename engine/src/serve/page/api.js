// The calls to the job. The token comes once in the fragment of the address, which no server and no log ever sees; it is kept for this tab
// only, and taken out of the address bar, so that it is not in a bookmark or a screenshot.

const KEPT = "windrow-token";
const CLOSED = "windrow-closed";

/** A call that did not do what was asked: `status` is that of HTTP, 0 when nobody answered. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }

  /** Whether a token is missing, or is not the right one. */
  get needsToken() {
    return this.status === 401;
  }
}

/** Takes the token out of the address. */
export function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token == null) return;
  keepToken(token);
  history.replaceState(null, "", location.pathname + location.search);
}

export function token() {
  return sessionStorage.getItem(KEPT);
}

export function keepToken(secret) {
  if (secret) sessionStorage.setItem(KEPT, secret);
  else sessionStorage.removeItem(KEPT);
}

/** Whether the job tells nothing without its token, as it has said in this tab: then no link can lead to what it tells. */
export function isClosed() {
  return sessionStorage.getItem(CLOSED) != null;
}

/** Reads something. Gives up after ten seconds, or as long as it is told. */
export function get(path, seconds = 10) {
  return call(path, {}, seconds);
}

/** Changes something. A savepoint may take as long as a checkpoint may: the job gives up before this does. */
export function post(path, body, seconds = 900) {
  return call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }, seconds);
}

async function call(path, options, seconds) {
  const secret = token();
  const headers = { ...options.headers, ...(secret ? { Authorization: `Bearer ${secret}` } : {}) };
  let answer;
  let text;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", signal: AbortSignal.timeout(seconds * 1_000) });
    text = await answer.text();
  } catch (error) {
    const slow = error.name === "TimeoutError";
    throw new Refused(0, slow ? `The job did not answer within ${seconds} s.` : "The job does not answer.");
  }
  // A query needs the token in any case.
  const queries = path.startsWith("state/");
  if (!options.method && !queries) {
    if (answer.status === 401) sessionStorage.setItem(CLOSED, "yes");
    else if (answer.ok && !secret) sessionStorage.removeItem(CLOSED);
  }
  const said = parsed(text, queries);
  if (answer.ok && said !== undefined) return said;
  if (answer.ok) throw new Refused(answer.status, `The job answered ${path} with something that is not JSON.`);
  throw new Refused(answer.status, said?.error ?? `The job answered ${path} with ${answer.status} ${answer.statusText}.`);
}

/**
 * What JSON says, if it is any. Where `exact` whole numbers that a JavaScript number cannot hold stay as they are written, as text: they are
 * ids. A browser that does not tell how they are written shows about which they are, and that it is about.
 */
function parsed(text, exact) {
  if (text === "") return {};
  const keep = (_, value, context) => (Number.isInteger(value) && !Number.isSafeInteger(value) ? (context?.source ?? `≈${value}`) : value);
  try {
    return JSON.parse(text, exact ? keep : undefined);
  } catch {
    return undefined;
  }
}
