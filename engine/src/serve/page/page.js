// The page of a job: asks it once a second what it does, and hands the answer to the parts that show it.
//
//   /api/status ─┐             ┌─► glance.js       state, rates, what is wrong in words
//   /api/words  ─┴─► page.js ──┼─► graph.js        the dataflow      ◄── layout.js
//                              ├─► details.js      one operator      ◄── table.js
//                              └─► checkpoints.js
//   /api/savepoint, stop, cancel ◄── actions.js    /state/… ◄── sql.js
//
// When nobody answers, the last picture stays, greyed, with since when; and it asks again.

import { get, isClosed, takeToken } from "./api.js";
import { askToken, enableActions, showToken, wireActions } from "./actions.js";
import { Checkpoints } from "./checkpoints.js";
import { Details } from "./details.js";
import { announce, say, show } from "./elements.js";
import { wall, wholeSpan } from "./format.js";
import { Glance } from "./glance.js";
import { Graph } from "./graph.js";
import { Sql } from "./sql.js";

const EVERY_MS = 1_000;
/** Who does not answer is asked less often. */
const AGAIN_MS = 3_000;

const place = (id) => document.getElementById(id);
const glance = new Glance();
const graph = new Graph(place("graph"), choose);
const details = new Details(place("details"));
const checkpoints = new Checkpoints(place("checkpoints"));
const sql = new Sql(place("sql"));

let last = null;
/** The name of the operator whose details are shown: a restart may give it another index. */
let chosen = null;
let goneSince = null;
/** Whether this page has ended the job: then nobody need wonder why it does not answer. */
let endedFromHere = false;
let timer = null;
let asking = false;
/** Whether the dialog has come by itself already: once is enough for who only closes it. */
let askedForToken = false;

function choose(index) {
  const operator = last?.status.operators[index];
  if (!operator) return;
  chosen = operator.name;
  showChosen();
  announce(`Details of ${operator.name} are below the dataflow.`);
  // Where they are out of sight they come into it; the focus stays, so that one can go on to the next operator.
  const { top } = place("details").getBoundingClientRect();
  if (top > window.innerHeight - 120) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    place("details").scrollIntoView({ behavior: still ? "auto" : "smooth", block: "start" });
  }
}

function showChosen() {
  const { status, words } = last;
  let index = status.operators.findIndex((operator) => operator.name === chosen);
  // Until somebody chooses it is the first of which one asks what it waits for.
  if (index < 0) index = Math.max(0, status.operators.findIndex((operator) => operator.kind === "stateful" && !operator.first_phase));
  chosen = status.operators[index]?.name ?? null;
  graph.mark(index);
  details.update(status, words, index);
}

function showAll({ status, words }) {
  const slow = status.operators.findIndex((operator) => operator.name === words.bottleneck?.operator);
  glance.update(status, words);
  graph.update(status, slow);
  checkpoints.update(status);
  sql.update(status);
  enableActions(status.state);
  show(place("main"), true);
  // A link sends no token.
  show(place("links"), !isClosed());
  showChosen();
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const [status, words] = await Promise.all([get("api/status"), get("api/words")]);
    last = { status, words };
    came();
    showAll(last);
  } catch (error) {
    missed(error);
  } finally {
    asking = false;
    timer = setTimeout(ask, goneSince == null ? EVERY_MS : AGAIN_MS);
  }
}

function came() {
  if (goneSince == null) return;
  goneSince = null;
  endedFromHere = false;
  askedForToken = false;
  document.body.classList.remove("gone");
  show(place("gone"), false);
  announce("The job answers again.");
}

/** Nobody answers, or who answers does not know us: the last picture stays. */
function missed(error) {
  goneSince ??= Date.now();
  const needsToken = error.needsToken === true;
  glance.lost();
  if (needsToken) show(place("links"), false);
  if (needsToken && !askedForToken) askToken(ask);
  askedForToken ||= needsToken;
  document.body.classList.add("gone");
  enableActions(null);
  const since = wall(goneSince);
  // A sentence that changes each second would be read aloud each second: so it says since when, and not for how long.
  const over = last && ["stopping", "ended"].includes(last.status.state);
  const ending = endedFromHere ? " It was ended from this page." : over ? " When it was last seen it was stopping: it has ended, as it seems." : "";
  const seen = last ? ` What you see is as of then.${ending}` : "";
  const said = error.status === undefined ? `This page cannot show what the job says: ${error.message}` : error.message;
  say(place("gone"), `${said}${needsToken ? " Paste the token with the button at the top." : ` Since ${since} UTC; it is asked again every ${wholeSpan(AGAIN_MS / 1_000)}.`}${seen}`);
  show(place("gone"), true);
}

takeToken();
showToken();
wireActions((ends) => {
  endedFromHere ||= ends;
  ask();
});
// Who pastes a new address into an open page has its token taken too.
window.addEventListener("hashchange", () => {
  takeToken();
  showToken();
});
// A page that nobody sees need not ask as often; browsers slow its clock down by themselves. Who comes back wants to see now.
document.addEventListener("visibilitychange", () => !document.hidden && ask());
ask();
