// What there is to know of one operator: why its windows are still open, its tasks, its splits, and the rows that it did not process.

import { about, ago, behind, bytes, count, counted, instant, named, percent, spread, wholeSpan } from "./format.js";
import { element, keep, lines, say, show } from "./elements.js";
import { latestOf } from "./graph.js";
import { Table } from "./table.js";

/** How many splits are in the table unless somebody asks for all: a browser draws a thousand rows, but nobody reads them. */
const SPLITS = 100;

export class Details {
  constructor(host) {
    this.host = host;
    this.title = host.querySelector("h2");
    this.name = null;
    this.all = false;
  }

  update(status, words, index) {
    const operator = status.operators[index];
    if (!operator) return;
    if (this.name !== operator.name) this.build(operator);
    this.name = operator.name;
    say(this.title, operator.name);
    say(this.about, aboutWords(status, operator));
    const why = words?.why_open?.find((one) => one.operator === operator.name)?.text;
    show(this.why, Boolean(why));
    say(this.whyText, why ?? "");
    lines(this.warnings, operator.warnings);
    show(this.warnings, operator.warnings.length > 0);
    keep(this.facts, factsOf(operator, latestOf(status)), {
      key: ([name]) => name,
      make: ([name]) => element("div", "fact", element("dt", "", name), element("dd", "")),
      update: (own, [, value]) => say(own.children[1], value),
    });
    this.tasks.update(operator.tasks.map((task, at) => ({ ...task, at })));
    this.ways.update(waysOf(status, index));
    this.showSplits(status, operator);
    this.showSamples(status, operator);
  }

  build(operator) {
    this.all = false;
    this.about = element("p", "muted");
    this.whyText = element("p", "");
    this.why = element("div", "why", element("h3", "", "Why is it still open?"), this.whyText);
    this.warnings = element("ul", "notice warning list");
    this.facts = element("dl", "facts small");
    this.tasks = new Table("Tasks", taskColumns(operator.kind), { key: (task) => String(task.at), empty: "It has no tasks." });
    this.ways = new Table("Where rows come from, and go", WAYS, { key: (way) => way.key, empty: "Nobody takes its rows." });
    this.splits = new Table("Splits", splitColumns(() => this.now), { key: (split) => split.split, empty: "It has said nothing of its splits yet." });
    this.more = element("button", "quiet", "Show all");
    this.more.type = "button";
    this.more.addEventListener("click", () => {
      this.all = true;
      this.showSplits(this.last.status, this.last.operator);
      this.splits.scroller.focus();
    });
    this.samples = element("ol", "samples");
    this.sampled = element("div", "", element("h3", "", "Rows that were not processed"), this.samples);
    const words = element("div", "half", this.why, this.warnings, this.facts, this.sampled);
    const halves = element("div", "halves", words, element("div", "half", this.tasks.element, this.ways.element));
    this.host.replaceChildren(this.host.firstElementChild, this.about, halves, this.splits.element, this.more);
  }

  showSplits(status, operator) {
    const isSource = operator.kind === "source";
    this.last = { status, operator };
    show(this.splits.element, isSource);
    const listed = this.all ? operator.splits : operator.splits.slice(0, SPLITS);
    const left = operator.splits.length - listed.length;
    show(this.more, isSource && left > 0);
    if (!isSource) return;
    this.now = status.now_ms;
    this.splits.update(listed);
    const counts = new Map();
    for (const { state } of operator.splits) counts.set(state, (counts.get(state) ?? 0) + 1);
    const all = operator.splits.length + operator.splits_left_out;
    const states = [...counts].map(([state, number]) => `${count(number)} ${named(state)}`).join(", ");
    const hidden = operator.splits_left_out ? `; ${count(operator.splits_left_out)} more are not told of` : "";
    say(this.splits.caption, `${counted(all, "split")}${states ? `: ${states}` : ""}${hidden}`);
    say(this.more, `Show ${count(left)} more`);
  }

  showSamples(status, operator) {
    show(this.sampled, operator.samples.length > 0);
    const seen = new Map();
    // Two samples may be the same: the second of them gets another name.
    const keyed = operator.samples.map((sample) => {
      const name = `${sample.at_ms} ${sample.kind} ${sample.text}`;
      seen.set(name, (seen.get(name) ?? 0) + 1);
      return { ...sample, key: `${name} ${seen.get(name)}` };
    });
    keep(this.samples, keyed, {
      key: ({ key }) => key,
      make: ({ kind, text }) => element("li", "", element("span", `tag ${kind}`, kind), element("span", "muted when"), element("code", "", text)),
      update: (own, { at_ms: at }) => say(own.children[1], ago(status.now_ms - at)),
    });
  }
}

const KINDS = {
  source: "source: it reads",
  stateless: "stateless: it works on one row at a time",
  stateful: "stateful: it remembers",
  async: "async: it calls something outside",
  union: "union: it puts streams together",
  sink: "sink: it writes",
};

function aboutWords(status, operator) {
  const others = status.operators.filter((other) => other.chain === operator.chain && other !== operator);
  const shared = others.map((other) => other.name.split(" ")[0]).join(", ");
  const said = [KINDS[operator.kind] ?? named(operator.kind)];
  if (operator.id) said.push(`called ${operator.id} in checkpoints`);
  if (shared) said.push(`shares its tasks with ${shared}`);
  if (operator.event_time) said.push(`watermarks: ${operator.event_time.watermarks}`);
  return `${said.join(" · ")}`;
}

/** Names and values; what says nothing of this operator is left out. */
function factsOf(operator, latest) {
  const { kind } = operator;
  const lag = behind(operator.watermark_us, latest);
  const some = (name, number, text = count(number)) => (number ? [[name, text]] : []);
  return [
    [kind === "source" ? "Records read" : "Rows in", `${count(operator.rows_in)} (${about(operator.rows_in_per_s)}/s)`],
    [kind === "sink" ? "Rows written" : "Rows out", `${count(operator.rows_out)} (${about(operator.rows_out_per_s)}/s)`],
    ["Processed", count(operator.processed)],
    ...some("Late", operator.late),
    ...some("Rejected", operator.rejected),
    ...some("Failed", operator.failed),
    ...some("In flight", operator.in_flight),
    ...some("Attempts again", operator.retries),
    ...some("From the future", operator.future),
    ...some("Bytes in", operator.bytes_in, bytes(operator.bytes_in)),
    ...some("Bytes out", operator.bytes_out, bytes(operator.bytes_out)),
    ...(operator.lag == null ? [] : [["Waits to be read", count(operator.lag)]]),
    ["Watermark", `${instant(operator.watermark_us, true)}${lag == null ? "" : `, ${wholeSpan(Math.floor(lag / 1_000))} behind the newest row`}`],
    ...(operator.promised_us == null || operator.promised_us === operator.watermark_us ? [] : [["Promised downstream", instant(operator.promised_us, true)]]),
    ...(operator.latest_us == null ? [] : [["Newest row of", instant(operator.latest_us, true)]]),
    ...(operator.latency ? [["Latency when written", spread(operator.latency)]] : []),
    ...(operator.call_time ? [["Time of a call", spread(operator.call_time)]] : []),
    ...some("State in memory", operator.state_bytes, bytes(operator.state_bytes)),
    ...some("Put on disk", operator.spilled_bytes, `${bytes(operator.spilled_bytes)} in ${counted(operator.spilled_segments, "segment")}`),
  ];
}

/** The arrows of the dataflow at one operator, for who would rather read them: first those that come in. */
function waysOf(status, index) {
  const ways = status.edges.map((edge, at) => ({ ...edge, key: String(at), comes: edge.to === index }));
  const own = ways.filter((way) => way.comes || way.from === index).sort((one, other) => other.comes - one.comes);
  return own.map((way) => ({ ...way, other: status.operators[way.comes ? way.from : way.to]?.name ?? "?" }));
}

const EXCHANGES = { chained: "in the same task", forward: "keeps its partition", to_one_task: "all to one task", broadcast: "to every task" };

const WAYS = [
  { head: "Way", text: ({ comes }) => (comes ? "from" : "to") },
  { head: "Operator", text: ({ other }) => other, wide: true },
  { head: "Rows", text: ({ label }) => label || "main" },
  { head: "How", text: ({ exchange }) => EXCHANGES[exchange] ?? named(exchange) },
  { head: "Per second", text: (way) => about(way.rows_per_s), number: true },
  { head: "Full", title: "how much waits in its channels", text: (way) => (way.capacity_bytes ? percent(way.queued_bytes / way.capacity_bytes) : ""), number: true },
  { head: "Senders wait", title: "the share of the last seconds in which senders waited for room", text: (way) => (way.capacity_bytes ? percent(way.blocked) : ""), number: true },
];

/** Bytes, where they are counted. */
const ofBytes = (number) => (number == null ? "" : bytes(number));

function taskColumns(kind) {
  return [
    { head: "Task", text: (task) => String(task.at), number: true },
    { head: kind === "source" ? "Read" : "Rows in", text: (task) => count(task.rows_in), number: true },
    { head: kind === "sink" ? "Written" : "Rows out", text: (task) => count(task.rows_out), number: true },
    { head: "Bytes in", title: kind === "source" ? "of what was read, as it lies in memory" : "from other tasks", text: (task) => ofBytes(task.bytes_in), number: true },
    { head: "Bytes out", title: "to other tasks", text: (task) => ofBytes(task.bytes_out), number: true },
    { head: "Busy", title: "the share of the last seconds in which it worked", text: (task) => percent(task.busy), share: (task) => task.busy, tone: () => "busy" },
    { head: "Blocked", title: "the share of the last seconds in which its chain waited for room downstream", text: (task) => percent(task.blocked), share: (task) => task.blocked, tone: () => "blocked" },
    { head: "Watermark", text: (task) => instant(task.watermark_us, true), number: true },
    { head: "State", text: (task) => bytes(task.state_bytes), number: true },
  ];
}

/** Signs, so that a state is not told by a colour alone. */
const SIGNS = { reading: "▶", idle: "☾", paused: "‖", put_off: "⚠", ended: "■" };

function splitColumns(now) {
  return [
    { head: "Split", text: ({ split }) => split, wide: true },
    { head: "State", text: ({ state }) => `${SIGNS[state] ?? "?"} ${named(state)}`, tone: ({ state }) => `state-${state}` },
    { head: "For", text: ({ since_ms: since }) => wholeSpan(Math.floor((now() - since) / 1_000)), number: true },
    { head: "Event time", title: "whether event time waits for it", text: ({ holds_back: holds }) => (holds ? "◀ holds back" : ""), tone: () => "holds" },
    { head: "Watermark", text: ({ watermark_us: watermark }) => instant(watermark, true), number: true },
    { head: "Last rows", text: ({ rows_at_ms: at }) => (at == null ? "none yet" : ago(now() - at)), number: true },
    { head: "Rows", text: ({ rows }) => count(rows), number: true },
    { head: "Bytes", text: ({ bytes: read }) => bytes(read), number: true },
    { head: "Position", text: ({ position }) => (position == null ? "" : count(position)), number: true },
    { head: "Lag", text: ({ lag }) => (lag == null ? "not known" : count(lag)), number: true },
    { head: "Task", text: ({ task }) => String(task), number: true },
    { head: "Why", text: ({ why }) => why ?? "", wide: true, tone: () => "reason" },
  ];
}
