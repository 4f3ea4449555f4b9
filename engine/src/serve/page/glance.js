// What a person on call sees first: the state of the job, since when, how much flows, how far behind it is, and in words what is wrong.

import { about, ago, behind, bytes, count, counted, instant, isEnd, percent, span, wall, wholeSpan } from "./format.js";
import { announce, element, keep, mark, say, show } from "./elements.js";
import { latestOf } from "./graph.js";

/** A sign and a word for each state: never a colour alone. */
const STATES = {
  running: ["▶", "running"],
  stopping: ["◼", "stopping"],
  restarting: ["↻", "restarting"],
  ended: ["■", "ended"],
};

export class Glance {
  constructor() {
    const places = ["job", "state", "since", "facts", "notices", "version"].map((id) => [id, document.getElementById(id)]);
    Object.assign(this, Object.fromEntries(places));
    this.told = null;
  }

  update(status, words) {
    const [glyph, word] = STATES[status.state] ?? ["?", String(status.state)];
    say(this.job, status.job);
    mark(this.state, "data-state", status.state);
    say(this.state.querySelector(".glyph"), glyph);
    say(this.state.querySelector(".word"), word);
    say(this.since, `${status.state === "ended" ? "ran for" : "for"} ${wholeSpan(Math.floor(status.elapsed_ms / 1_000))}, since ${wall(status.started_ms)} UTC`);
    say(this.version, `Windrow ${status.version}`);
    const title = `${glyph} ${status.job}: ${word}`;
    if (document.title !== title) document.title = title;
    if (this.told !== null && this.told !== word) announce(`The job is ${word}.`);
    this.told = word;
    this.showFacts(status);
    this.showNotices(status, words);
  }

  /** Nobody answers: what the job is doing is not known, and the rest is as of then. */
  lost() {
    mark(this.state, "data-state", "unknown");
    say(this.state.querySelector(".glyph"), "?");
    say(this.state.querySelector(".word"), "no answer");
    if (this.told !== null) document.title = `? ${this.job.textContent}: no answer`;
  }

  showFacts(status) {
    keep(this.facts, factsOf(status), {
      key: ({ name }) => name,
      make: ({ name }) => element("div", "fact", element("dt", "", name), element("dd", ""), element("dd", "more")),
      update: (own, { value, more, tone }) => {
        say(own.children[1], value);
        say(own.children[2], more ?? "");
        mark(own, "data-tone", tone);
      },
    });
  }

  /** The sentences: who slows the job down, why it failed last, and what else one should know. */
  showNotices(status, words) {
    const notices = [];
    if (words?.bottleneck) notices.push({ kind: "slow", title: "Bottleneck", text: words.bottleneck.text });
    if (status.last_failure) {
      const { at_ms: at, error } = status.last_failure;
      const over = status.state === "ended";
      const title = `${over ? "Failed" : "Last failure"}, ${ago(status.now_ms - at)}`;
      notices.push({ kind: over || status.state === "restarting" ? "bad" : "past", key: "failure", title, text: error });
    }
    for (const { text, of } of warningsOf(status)) notices.push({ kind: "warning", title: of ? `Warning of ${of}` : "Warning", text });
    keep(this.notices, notices, {
      key: ({ key, kind, title, text }) => key ?? (kind === "slow" ? kind : `${title} ${text}`),
      make: () => element("div", "notice", element("strong", ""), " ", element("span", "")),
      update: (own, { kind, title, text }) => {
        const className = `notice ${kind}`;
        if (own.className !== className) own.className = className;
        say(own.children[0], title);
        say(own.children[1], text);
      },
    });
    show(this.notices, notices.length > 0);
  }
}

/** All warnings once: those of the job, and those of its operators that the job does not repeat. */
function warningsOf(status) {
  const all = status.warnings.map((text) => ({ text }));
  for (const operator of status.operators) {
    for (const text of operator.warnings) if (!all.some((one) => one.text.includes(text))) all.push({ text, of: operator.name });
  }
  return all;
}

function factsOf(status) {
  const sum = (kind, field) => status.operators.filter((operator) => operator.kind === kind).reduce((sofar, one) => sofar + (one[field] ?? 0), 0);
  const facts = [
    { name: "Reads", value: `${about(sum("source", "rows_in_per_s"))} rows/s`, more: `${count(sum("source", "rows_in"))} so far` },
    { name: "Writes", value: `${about(sum("sink", "rows_out_per_s"))} rows/s`, more: `${count(sum("sink", "rows_out"))} so far` },
    eventTime(status),
  ];
  const lags = status.operators.filter((operator) => operator.lag != null);
  if (lags.length) facts.push({ name: "Waits to be read", value: `${about(sum("source", "lag"))} records`, more: count(sum("source", "lag")) });
  const lost = ["late", "rejected", "failed"].map((kind) => [kind, status.operators.reduce((sofar, one) => sofar + one[kind], 0)]);
  const said = lost.filter(([, rows]) => rows > 0).map(([kind, rows]) => `${about(rows)} ${kind}`);
  const all = lost.reduce((sofar, [, rows]) => sofar + rows, 0);
  facts.push({ name: "Not processed", value: all ? (all === 1 ? "1 row" : `${about(all)} rows`) : "none", more: said.join(", ") || "late, rejected, failed", tone: all ? "warn" : null });
  facts.push({
    name: "Restarts",
    value: count(status.restarts),
    more: status.last_failure ? `last failure ${ago(status.now_ms - status.last_failure.at_ms)}` : "no failure",
    tone: status.restarts > 0 ? "warn" : null,
  });
  facts.push(checkpoint(status), memory(status));
  return facts;
}

/** Event time where it is furthest behind, of the operators that have any. */
function eventTime(status) {
  const timed = status.operators.filter((operator) => operator.watermark_us != null);
  const name = "Event time";
  if (!timed.length) return { name, value: "none yet" };
  const least = timed.reduce((sofar, one) => (one.watermark_us < sofar.watermark_us ? one : sofar));
  if (isEnd(least.watermark_us)) return { name, value: "ended", more: "all windows are closed" };
  const lag = behind(least.watermark_us, latestOf(status));
  const at = instant(least.watermark_us);
  // How far behind it is tells more than what time it is there: that of yesterday's data is of yesterday.
  return lag == null ? { name, value: at } : { name, value: `${wholeSpan(Math.floor(lag / 1_000))} behind`, more: `at ${at}` };
}

function checkpoint({ checkpoints, now_ms: now }) {
  const name = "Checkpoint";
  if (checkpoints.every_ms == null) return { name, value: "none", more: "the job takes none" };
  const newest = checkpoints.last[0];
  if (!newest) return { name, value: checkpoints.underway ? "the first is under way" : "none yet", more: `every ${span(checkpoints.every_ms)}` };
  return { name, value: `#${newest.epoch}, ${ago(now - newest.began_ms - newest.took_ms)}`, more: `took ${span(newest.took_ms)}, wrote ${bytes(newest.bytes)}` };
}

function memory(status) {
  const name = "State in memory";
  const held = status.operators.reduce((sofar, one) => sofar + one.state_bytes, 0);
  if (!status.memory) return { name, value: bytes(held), more: `${counted(status.operators.length, "operator")}, no budget` };
  const { budget_bytes: budget, held_bytes, spilled_bytes: spilled } = status.memory;
  return { name, value: `${bytes(held_bytes)}`, more: `${percent(held_bytes / budget)} of ${bytes(budget)}${spilled ? `, ${bytes(spilled)} put on disk` : ""}` };
}
