// Where the boxes of the dataflow stand: layers from left to right, as rows pass.
//
//   layer 0          layer 1            layer 2
//   ┌ chain 0 ─┐     ┌ chain 1 ─┐       ┌ chain 2 ─┐
//   │ source   │ ──► │ window   │ ────► │ sink     │
//   │ filter   │ ─┐  └──────────┘   ┌─► └──────────┘
//   └──────────┘  └── passes by ────┘
//
// A chain is one box, because its operators share their tasks. The layer of a chain is the longest way to it; within a layer chains are
// ordered so that few arrows cross; an arrow that passes a layer by has a place of its own there, so that it does not run under a box.
// Everything here is computed from names and numbers alone and drawn by `graph.js`.

export const NODE = { width: 248, height: 82, apart: 16 };
const CARD = { padding: 8, head: 20 };
const GAP = { across: 136, down: 28 };
const MARGIN = 16;
/** The height of an arrow's place in a layer that it passes by. */
const LANE = 34;

/** The whole layout of a status: `{ width, height, cards, nodes, edges }`; nodes and edges in the order of the status. */
export function layout(operators, edges) {
  const cards = cardsOf(operators);
  const cardOf = new Map(cards.flatMap((card) => card.operators.map((operator) => [operator, card])));
  // What is read may be of another version: an edge to nowhere is left out.
  const known = edges.map((edge, index) => ({ ...edge, index })).filter((edge) => cardOf.has(edge.from) && cardOf.has(edge.to));
  const across = known.filter((edge) => cardOf.get(edge.from) !== cardOf.get(edge.to));
  layer(cards, across, cardOf);
  const layers = [];
  for (const card of cards) (layers[card.layer] ??= []).push(card);
  const ways = across.map((edge) => way(edge, cardOf, layers));
  order(layers);
  place(layers);
  const nodes = [];
  for (const card of cards) {
    card.operators.forEach((operator, row) => {
      nodes[operator] = { x: card.x + CARD.padding, y: card.y + CARD.head + row * (NODE.height + NODE.apart) };
    });
  }
  const drawn = [];
  for (const edge of known) if (!across.includes(edge)) drawn[edge.index] = inside(nodes, edge, cardOf.get(edge.from));
  spread(ways, nodes);
  for (const one of ways) drawn[one.edge.index] = outside(one);
  labels(drawn.filter((edge) => edge?.label));
  const bottom = Math.max(0, ...cards.map((card) => card.y + card.height), ...drawn.filter((e) => e?.label).map((e) => e.label.y + 24));
  const width = Math.max(0, ...cards.map((card) => card.x + card.width)) + MARGIN;
  return { width, height: bottom + MARGIN, cards, nodes, edges: drawn };
}

/** The boxes: operators by chain, in the order in which rows pass them. */
function cardsOf(operators) {
  const cards = new Map();
  operators.forEach((operator, index) => {
    if (!cards.has(operator.chain)) cards.set(operator.chain, { chain: operator.chain, operators: [], before: [], after: [] });
    cards.get(operator.chain).operators.push(index);
  });
  for (const card of cards.values()) {
    card.width = NODE.width + 2 * CARD.padding;
    card.height = CARD.head + CARD.padding + card.operators.length * (NODE.height + NODE.apart) - NODE.apart;
  }
  return [...cards.values()];
}

/** The layer of each card: one more than that of the last one before it. There are no cycles in a job; if there were, it would end all the same. */
function layer(cards, across, cardOf) {
  for (const card of cards) card.layer = 0;
  for (let round = 0; round < cards.length; round++) {
    let moved = false;
    for (const edge of across) {
      const [from, to] = [cardOf.get(edge.from), cardOf.get(edge.to)];
      if (to.layer <= from.layer) {
        to.layer = from.layer + 1;
        moved = true;
      }
    }
    if (!moved) return;
  }
  // A cycle: everything side by side is better than nothing.
  cards.forEach((card, at) => (card.layer = at));
}

/** The stops of an edge: its cards, and a lane in each layer between them. */
function way(edge, cardOf, layers) {
  const [from, to] = [cardOf.get(edge.from), cardOf.get(edge.to)];
  const stops = [from];
  for (let at = from.layer + 1; at < to.layer; at++) {
    const lane = { lane: true, layer: at, width: NODE.width + 2 * CARD.padding, height: LANE, before: [], after: [] };
    layers[at].push(lane);
    stops.push(lane);
  }
  stops.push(to);
  for (let at = 1; at < stops.length; at++) {
    stops[at].before.push(stops[at - 1]);
    stops[at - 1].after.push(stops[at]);
  }
  return { edge, stops };
}

/** Orders each layer by where its neighbours are, forth and back a few times: the barycentre rule. */
function order(layers) {
  const number = (layer) => layer.forEach((stop, at) => (stop.at = at));
  layers.forEach(number);
  const sort = (layer, side) => {
    const mean = (stop) => (stop[side].length ? stop[side].reduce((sum, other) => sum + other.at, 0) / stop[side].length : stop.at);
    const rank = new Map(layer.map((stop) => [stop, mean(stop)]));
    layer.sort((one, other) => rank.get(one) - rank.get(other));
    number(layer);
  };
  for (let round = 0; round < 4; round++) {
    layers.slice(1).forEach((layer) => sort(layer, "before"));
    layers.slice(0, -1).reverse().forEach((layer) => sort(layer, "after"));
  }
}

/** Coordinates: each layer begins stacked, then what stands there is pulled towards its neighbours, and pushed apart where it overlaps. */
function place(layers) {
  layers.forEach((layer, column) => {
    let y = 0;
    for (const stop of layer) {
      stop.x = MARGIN + column * (NODE.width + 2 * CARD.padding + GAP.across);
      stop.y = y;
      y += stop.height + GAP.down;
    }
  });
  const middle = (stop) => stop.y + stop.height / 2;
  for (let round = 0; round < 8; round++) {
    const forth = round % 2 === 0;
    for (const layer of forth ? layers : [...layers].reverse()) {
      for (const stop of layer) {
        const near = forth ? stop.before : stop.after;
        if (near.length) stop.y = near.reduce((sum, other) => sum + middle(other), 0) / near.length - stop.height / 2;
      }
      apart(layer);
    }
  }
  const top = Math.min(...layers.flat().map((stop) => stop.y));
  for (const stop of layers.flat()) stop.y += MARGIN - top;
}

/** Pushes what overlaps apart, and keeps its middle where it was. */
function apart(layer) {
  const wanted = layer.map((stop) => stop.y);
  for (let at = 1; at < layer.length; at++) {
    const least = layer[at - 1].y + layer[at - 1].height + GAP.down;
    if (layer[at].y < least) layer[at].y = least;
  }
  const off = layer.reduce((sum, stop, at) => sum + stop.y - wanted[at], 0) / layer.length;
  for (const stop of layer) stop.y -= off;
}

/** An arrow within a box: straight down to the next operator, or around the ones between. */
function inside(nodes, edge, card) {
  const [from, to] = [nodes[edge.from], nodes[edge.to]];
  const next = card.operators.indexOf(edge.to) === card.operators.indexOf(edge.from) + 1;
  const x = from.x + 24;
  if (next) return { chained: true, path: `M${x} ${from.y + NODE.height}V${to.y - 5}`, tip: down(x, to.y) };
  const [y, end, left] = [from.y + NODE.height - 20, to.y + 20, from.x - 6];
  return { chained: true, path: `M${from.x} ${y}C${left - 6} ${y} ${left - 6} ${end} ${to.x - 3} ${end}`, tip: right(to.x, end) };
}

/** Gives arrows that leave, or reach, one operator places of their own along its side, in the order of where they go, so that they do not cross. */
function spread(ways, nodes) {
  const sides = new Map();
  const add = (operator, side, one, toward) => {
    const name = `${side}${operator}`;
    if (!sides.has(name)) sides.set(name, []);
    sides.get(name).push({ one, side, operator, toward: toward.y + toward.height / 2 });
  };
  for (const one of ways) {
    add(one.edge.from, "start", one, one.stops[1]);
    add(one.edge.to, "end", one, one.stops.at(-2));
  }
  for (const ends of sides.values()) {
    ends.sort((one, other) => one.toward - other.toward);
    ends.forEach(({ one, side, operator }, at) => {
      const node = nodes[operator];
      const x = side === "start" ? node.x + NODE.width + CARD.padding : node.x - CARD.padding;
      one[side] = { x, y: node.y + (NODE.height * (at + 1)) / (ends.length + 1) };
    });
  }
}

/** An arrow between boxes, through its lanes. Its label stands in the gap before the operator that takes the rows. */
function outside({ stops, start, end }) {
  let path = `M${start.x} ${start.y}`;
  let [x, y] = [start.x, start.y];
  for (const lane of stops.slice(1, -1)) {
    const level = lane.y + lane.height / 2;
    path += `${bend(x, y, lane.x, level)}H${lane.x + lane.width}`;
    [x, y] = [lane.x + lane.width, level];
  }
  path += bend(x, y, end.x - 7, end.y);
  return { path, tip: right(end.x, end.y), label: { x: (x + end.x) / 2, y: (y + end.y) / 2 } };
}

function bend(x, y, toX, toY) {
  const half = (toX - x) / 2;
  return `C${x + half} ${y} ${toX - half} ${toY} ${toX} ${toY}`;
}

function right(x, y) {
  return `M${x} ${y}l-8 -4.5v9z`;
}

function down(x, y) {
  return `M${x} ${y}l-4 -7h8z`;
}

/** Labels in one gap must not cover each other. */
function labels(edges) {
  const gaps = new Map();
  for (const { label } of edges) {
    if (!gaps.has(label.x)) gaps.set(label.x, []);
    gaps.get(label.x).push(label);
  }
  for (const gap of gaps.values()) {
    gap.sort((one, other) => one.y - other.y);
    for (let at = 1; at < gap.length; at++) gap[at].y = Math.max(gap[at].y, gap[at - 1].y + 46);
  }
}
