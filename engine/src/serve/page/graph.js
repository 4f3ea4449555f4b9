// The dataflow: a button for each operator, a box for each chain, an arrow for each edge. The picture is laid out when the job has other
// operators than before, which is hardly ever; every second only texts and the lengths of bars change.

import { about, behind, counted, isEnd, named, percent, roughly, shortInstant } from "./format.js";
import { element, mark, say, show, style, svg } from "./elements.js";
import { NODE, layout } from "./layout.js";

/** What is waited for less than this is nothing to talk about. */
const NOTABLE = 0.01;
/** From this share on an arrow is drawn as blocked: the same as in the engine's explanations. */
const BLOCKED = 0.1;

export class Graph {
  /** `choose(index)` is called when somebody chooses an operator. */
  constructor(host, choose) {
    this.host = host;
    this.choose = choose;
    this.shape = null;
    this.nodes = [];
    this.chosen = null;
    this.focused = 0;
    host.addEventListener("keydown", (event) => this.move(event));
  }

  update(status, bottleneck) {
    const shape = JSON.stringify([
      status.operators.map(({ name, chain }) => [name, chain]),
      status.edges.map(({ from, to, label, exchange }) => [from, to, label, exchange]),
    ]);
    if (shape !== this.shape) this.draw(status);
    this.shape = shape;
    const latest = latestOf(status);
    status.operators.forEach((operator, at) => updateNode(this.nodes[at], operator, { latest, now: status.now_ms, isBottleneck: bottleneck === at }));
    status.edges.forEach((edge, at) => this.edges[at] && updateEdge(this.edges[at], edge));
    for (const { tasks, card } of this.cards) say(tasks, chainWords(status, card));
  }

  /** Marks the operator whose details are shown. */
  mark(index) {
    this.chosen = index;
    this.nodes.forEach((node, at) => mark(node.button, "aria-pressed", String(at === index)));
    if (this.nodes[index] && !this.host.contains(document.activeElement)) this.rove(index);
  }

  draw(status) {
    this.picture = layout(status.operators, status.edges);
    const { width, height, cards, nodes, edges } = this.picture;
    const lines = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true", focusable: "false" });
    const canvas = element("div", "canvas");
    style(canvas, "width", `${width}px`);
    style(canvas, "height", `${height}px`);
    this.cards = cards.map((card) => drawCard(canvas, card));
    canvas.append(lines);
    this.edges = status.edges.map((edge, at) => edges[at] && drawEdge(canvas, lines, edges[at], edge));
    this.nodes = status.operators.map((operator, at) => this.drawNode(canvas, operator, nodes[at], at));
    this.host.replaceChildren(canvas);
    this.rove(Math.min(this.focused, this.nodes.length - 1));
    this.mark(this.chosen);
  }

  drawNode(canvas, operator, at, index) {
    const node = nodeElements(operator);
    style(node.button, "left", `${at.x}px`);
    style(node.button, "top", `${at.y}px`);
    style(node.button, "width", `${NODE.width}px`);
    style(node.button, "height", `${NODE.height}px`);
    node.button.addEventListener("click", () => {
      this.rove(index);
      this.choose(index);
    });
    node.button.addEventListener("focus", () => this.rove(index));
    canvas.append(node.button);
    return node;
  }

  /** One stop of the tab key for the whole graph: that operator. */
  rove(index) {
    this.focused = Math.max(0, index);
    this.nodes.forEach((node, at) => (node.button.tabIndex = at === this.focused ? 0 : -1));
  }

  /** Arrows go to the nearest operator in their direction, as the eye would. */
  move(event) {
    const from = this.nodes.findIndex((node) => node.button === document.activeElement);
    const last = this.nodes.length - 1;
    if (from < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    const to = { Home: () => 0, End: () => last }[event.key] ?? (() => this.nearest(from, event.key));
    const next = this.nodes[to()];
    if (!next) return;
    event.preventDefault();
    next.button.focus();
    next.button.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  nearest(from, key) {
    const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[key];
    if (!way) return -1;
    const at = this.picture.nodes;
    let best = { index: -1, far: Infinity };
    at.forEach((to, index) => {
      const [x, y] = [to.x - at[from].x, to.y - at[from].y];
      const along = x * way[0] + y * way[1];
      const aside = Math.abs(x * way[1] + y * way[0]);
      // Up and down stay in their column; to the sides what is level comes first.
      const far = along + aside * (way[0] ? 1 : 4);
      if (along > 1 && far < best.far) best = { index, far };
    });
    return best.index;
  }
}

/** The latest event time that any source has seen: what results are behind of. */
export function latestOf(status) {
  const seen = status.operators.map((operator) => operator.latest_us).filter((latest) => latest != null);
  return seen.length ? Math.max(...seen) : null;
}

/** The share of the busiest, or most blocked, task. */
export function most(operator, share) {
  return operator.tasks.reduce((sofar, task) => Math.max(sofar, task[share] ?? 0), 0);
}

function chainWords(status, card) {
  const tasks = status.operators[card.operators[0]]?.tasks.length ?? 0;
  return `${card.operators.length > 1 ? "chain, " : ""}${counted(tasks, "task")}`;
}

function drawCard(canvas, card) {
  const tasks = element("span", "tasks");
  const box = element("div", "card", tasks);
  for (const [property, value] of [["left", card.x], ["top", card.y], ["width", card.width], ["height", card.height]]) {
    style(box, property, `${value}px`);
  }
  canvas.append(box);
  return { tasks, card };
}

function nodeElements(operator) {
  const [, number = "", name = operator.name] = /^(#\d+) (.*)$/su.exec(operator.name) ?? [];
  const part = (tag, className, ...children) => element(tag, className, ...children);
  const [warned, flags] = [part("span", "flags"), part("span", "flags")];
  const classes = ["rates", "fill busy", "fill blocked", "shares", "time", "late"];
  const [rates, busy, blocked, shares, time, late] = classes.map((className) => part("span", className));
  const title = part("span", "name", part("span", "number", number), name);
  const button = part(
    "button",
    `node ${operator.kind}`,
    part("span", "line first", title, warned, part("span", "slowest", "bottleneck")),
    part("span", "line", rates, flags),
    part("span", "line", part("span", "bar", busy, blocked), shares),
    part("span", "line", time, late),
  );
  button.type = "button";
  button.title = operator.name;
  return { button, warned, flags, rates, busy, blocked, shares, time, late };
}

function updateNode(node, operator, { latest, now, isBottleneck }) {
  const { kind } = operator;
  say(node.rates, `${about(operator.rows_in_per_s)} → ${about(operator.rows_out_per_s)} rows/s`);
  const [busy, blocked] = [most(operator, "busy"), most(operator, "blocked")];
  // They may be of two tasks: then both are drawn smaller, so that neither covers the other.
  const whole = Math.max(1, busy + blocked);
  style(node.busy, "width", `${((100 * busy) / whole).toFixed(1)}%`);
  style(node.blocked, "width", `${((100 * blocked) / whole).toFixed(1)}%`);
  say(node.shares, `busy ${percent(busy)}${blocked >= NOTABLE ? ` · blocked ${percent(blocked)}` : ""}`);
  say(node.time, timeWords(operator, now));
  const lag = behind(operator.watermark_us, latest);
  const waits = operator.lag ? `${about(operator.lag)} wait` : "";
  say(node.late, waits || (lag == null ? "" : `${roughly(lag)} behind`));
  const bad = operator.late + operator.rejected + operator.failed;
  say(node.warned, operator.warnings.length ? `⚠ ${operator.warnings.length}` : "");
  say(node.flags, bad ? `${about(bad)} ${badWord(operator)}` : "");
  node.button.classList.toggle("bottleneck", isBottleneck);
  node.button.classList.toggle("warned", operator.warnings.length > 0);
  mark(node.button, "aria-label", `${operator.name}, ${named(kind)}. ${isBottleneck ? "The bottleneck. " : ""}Show its details`);
}

function badWord(operator) {
  const kinds = ["late", "rejected", "failed"].filter((kind) => operator[kind] > 0);
  return kinds.length === 1 ? kinds[0] : "not processed";
}

function timeWords(operator, now) {
  if (operator.watermark_us == null) return operator.event_time || operator.kind !== "source" ? "no event time yet" : "without event time";
  if (isEnd(operator.watermark_us)) return "event time has ended";
  const short = shortInstant(operator.watermark_us, now);
  // A date needs the room of the word.
  return short.length > 8 ? short : `watermark ${short}`;
}

function drawEdge(canvas, lines, drawn, edge) {
  const side = edge.label ? " side" : "";
  const line = svg("path", { d: drawn.path, class: `edge${side}${drawn.chained ? " chained" : ""}` });
  const tip = svg("path", { d: drawn.tip, class: `tip${side}` });
  lines.append(line, tip);
  if (!drawn.label) return { line, tip };
  const [rate, fill, full] = [element("span", "rate"), element("span", "fill"), element("span", "full")];
  const label = element("div", "label", rate, element("span", "full-line", element("span", "gauge", fill), full));
  style(label, "left", `${drawn.label.x}px`);
  style(label, "top", `${drawn.label.y}px`);
  label.title = { forward: "rows keep their partition", by_key_group: "by key group", to_one_task: "all to one task", broadcast: "to every task" }[edge.exchange] ?? "";
  canvas.append(label);
  return { line, tip, label, rate, fill, full };
}

function updateEdge(drawn, edge) {
  const blocked = edge.blocked >= BLOCKED;
  for (const part of [drawn.line, drawn.tip]) part.classList.toggle("blocked", blocked);
  if (!drawn.label) return;
  const full = edge.capacity_bytes > 0 ? Math.min(1, edge.queued_bytes / edge.capacity_bytes) : 0;
  say(drawn.rate, `${edge.label ? `${edge.label} ` : ""}${about(edge.rows_per_s)}/s`);
  style(drawn.fill, "width", `${(100 * full).toFixed(0)}%`);
  say(drawn.full, edge.blocked >= NOTABLE ? `waits ${percent(edge.blocked)}` : `${percent(full)} full`);
  drawn.label.classList.toggle("blocked", blocked);
  show(drawn.full.parentElement, edge.capacity_bytes > 0);
}
