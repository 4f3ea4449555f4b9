// The checkpoints of a job: the one under way with who is missing, and the last ones with what they cost.

import { ago, bytes, count, counted, named, span, wholeSpan } from "./format.js";
import { element, lines, say, show } from "./elements.js";
import { Table } from "./table.js";

export class Checkpoints {
  constructor(host) {
    this.about = element("p", "muted");
    this.missing = element("ul", "missing");
    this.underwayText = element("p", "");
    this.underway = element("div", "notice underway", this.underwayText, this.missing);
    this.stuck = element("p", "notice warning");
    this.table = new Table("The last checkpoints", columns(() => this.now), { key: ({ epoch }) => String(epoch), empty: "None is complete yet." });
    host.append(this.about, this.underway, this.stuck, this.table.element);
  }

  update({ checkpoints, now_ms: now }) {
    this.now = now;
    const { underway, last, not_collected: left } = checkpoints;
    say(this.about, aboutWords(checkpoints));
    show(this.table.element, checkpoints.every_ms != null);
    show(this.underway, underway != null);
    if (underway) {
      const since = wholeSpan(Math.floor((now - underway.since_ms) / 1_000));
      const what = underway.missing.length ? "It waits for:" : "Everybody has answered; it is being written and made visible.";
      say(this.underwayText, `Checkpoint ${underway.epoch} has been under way for ${since}. ${what}`);
    }
    lines(this.missing, underway?.missing ?? []);
    show(this.stuck, left > 0);
    say(this.stuck, left > 0 ? `${counted(left, "time")} old checkpoints could not be removed: the store fills up. Look at the rights of the job there.` : "");
    this.table.update(last);
  }
}

function aboutWords({ every_ms: every, timeout_ms: timeout, store, restored_from: from, completed }) {
  if (every == null) return "This job takes none: after a failure it begins at the beginning. Job::checkpoint gives it some.";
  const said = [`One every ${span(every)}, ${count(completed)} since the start`];
  if (timeout != null) said.push(`may take ${span(timeout)}`);
  if (from != null) said.push(`went on from #${from}`);
  return `${said.join(" · ")}${store ? ` · kept in ${store}` : ""}`;
}

function columns(now) {
  return [
    { head: "Epoch", text: ({ epoch }) => String(epoch), number: true },
    { head: "Kind", text: ({ kind, savepoint }) => (savepoint == null ? named(kind) : `${kind === "savepoint" ? "" : `${named(kind)}, `}savepoint ${savepoint}`), wide: true },
    { head: "Age", text: (one) => ago(now() - one.began_ms - one.took_ms), number: true },
    { head: "Took", text: (one) => span(one.took_ms), number: true },
    { head: "Answered", title: "how long until every task had answered: the way of the barrier through rows that wait", text: (one) => span(one.answered_ms), number: true },
    { head: "Written", title: "bytes of state that had changed", text: (one) => bytes(one.bytes), number: true },
    { head: "State", title: "what a restart from it reads", text: (one) => bytes(one.total_bytes), number: true },
  ];
}
