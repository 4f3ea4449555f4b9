//! Which operators share a task, how many tasks there are, and where rows cross an exchange.
//!
//! ```text
//!   #1 source ─► #2 filter ─► #3 window                #4 sink
//!   ╰──────── chain 0, 2 tasks ───────╯
//!                 └ pre-aggregate ══by key══► chain 1, 2 tasks: #3 window ──► chain 2, 1 task: #4 sink
//! ```
//!
//! An operator joins the chain of its input unless rows must change partition. A window with more than one task on
//! either side runs in two phases: the first in its input's chain, the second behind an exchange by key group. When a
//! source may fall idle it runs in one phase behind the exchange: then only there is it known which rows are late.
//!
//! Rows that have been brought together by a key stay together while its columns stay: through an operator with state as its
//! [`Plan::keyed_output`] says, through a filter, and through a projection under another name. What takes them by the same
//! columns, in the same order and in as many tasks, needs no second exchange:
//!
//! ```text
//!   bids ═════by auction══► #3 join on auction = id ─► #4 filter ─► #5 select auction → item ─► #6 window by item
//!   auctions ═════by id═══► ╰──────────────────────── chain 2, one phase ────────────────────────╯       │
//!                                                                                                     forward
//!   sales ═══════════════════════════════════by item══════════════════════════════════════► chain 3, #7 join by item
//! ```
//!
//! It is the task of the key group all the same, where the state of these rows is restored. Only where inputs fall idle tasks
//! may stand at different times, and what follows would take the greatest of them for its own when the job is restored with
//! another number of tasks: so there an exchange keeps them in step, but for a sort and what it is part of.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use windrow_connectors::SplitId;
use windrow_operators::{KeyedOutput, Partitioning, Plan, Port, StreamSchema, plan::Factory, stateless::Union};

use super::graph::{Graph, Kind, REJECTS, RejectPolicy, StreamId};
use crate::runtime::{
    async_task::{Deliver, FAILED},
    chain::Target,
};

/// How rows choose their task on an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// Task `i` sends to task `i` modulo the number of receivers.
    Forward,
    /// By the key group of these columns.
    Hash(Vec<usize>),
    /// To every task.
    Broadcast,
}

pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Which input of the operator behind the gate it is.
    pub(crate) port: Port,
    pub(crate) routing: Routing,
    /// The event time of its rows, if they may be late there.
    pub(crate) time: Option<usize>,
}

pub(crate) enum Head {
    /// The splits of each task.
    Source {
        node: usize,
        splits: Vec<Vec<SplitId>>,
    },
    Gate,
    /// Calls something outside for the rows of a gate; the first operator of its chain delivers the results.
    Async {
        node: usize,
    },
}

pub(crate) struct LinkPlan {
    pub(crate) node: usize,
    pub(crate) factory: Factory,
    /// The first phase of a window, whose second phase has the node's counters.
    pub(crate) first_phase: bool,
    pub(crate) targets: Vec<(Port, Target)>,
}

pub(crate) enum Body {
    Links { root: Vec<Target>, rejects: Vec<Target>, links: Vec<LinkPlan> },
    Sink { node: usize },
}

pub(crate) struct ChainPlan {
    pub(crate) tasks: usize,
    pub(crate) head: Head,
    pub(crate) body: Body,
}

pub(crate) struct PhysicalPlan {
    pub(crate) chains: Vec<ChainPlan>,
    pub(crate) edges: Vec<Edge>,
}

/// Where in the physical plan a stream comes out.
#[derive(Clone, Copy)]
struct Place {
    chain: usize,
    at: At,
}

impl Place {
    fn root(chain: usize) -> Self {
        Self { chain, at: At::Root }
    }
}

#[derive(Clone, Copy)]
enum At {
    Root,
    Rejects,
    Link(usize, Port),
}

struct Planner<'a> {
    graph: &'a Graph,
    parallelism: usize,
    plan: PhysicalPlan,
    places: HashMap<StreamId, Place>,
    /// The sources that have nothing to read at the start.
    waiting: BTreeSet<usize>,
    /// By which columns an exchange has brought together the rows of a stream.
    keyed: HashMap<StreamId, KeyedOutput>,
}

/// Plans `graph` for `parallelism`; `splits` are those of each source, by node.
pub(crate) fn plan(graph: &Graph, parallelism: usize, splits: &HashMap<usize, Vec<SplitId>>) -> PhysicalPlan {
    let plan = PhysicalPlan { chains: Vec::new(), edges: Vec::new() };
    let is_empty = |node: &usize| splits.get(node).is_none_or(Vec::is_empty);
    let waiting = (0..graph.nodes.len()).filter(is_empty).collect();
    let mut planner = Planner { graph, parallelism, plan, places: HashMap::new(), waiting, keyed: HashMap::new() };
    for node in 0..graph.nodes.len() {
        planner.place(node, splits);
    }
    planner.plan
}

impl Planner<'_> {
    fn place(&mut self, node: usize, splits: &HashMap<usize, Vec<SplitId>>) {
        let main = StreamId { node, port: Port::MAIN };
        let input = self.graph.nodes[node].inputs.first().and_then(|stream| self.places.get(stream)).copied();
        match (&self.graph.nodes[node].kind, input) {
            (Kind::Source { rejects, .. }, _) => {
                let splits = splits.get(&node).map(Vec::as_slice).unwrap_or_default();
                let tasks = deal(splits, self.parallelism);
                let chain = self.chain(tasks.len(), Head::Source { node, splits: tasks }, links());
                self.places.insert(main, Place::root(chain));
                if *rejects == RejectPolicy::Stream {
                    self.places.insert(StreamId { node, port: REJECTS }, Place { chain, at: At::Rejects });
                }
            }
            (Kind::Stateless(factory, kept), Some(input)) => {
                let link = self.link(input, node, factory.clone(), false);
                self.places.insert(main, link);
                let keyed = self.keyed.get(&self.graph.nodes[node].inputs[0]);
                if let Some(keyed) = keyed.and_then(|keyed| keyed.through(kept)) {
                    self.keyed.insert(main, keyed);
                }
            }
            (Kind::Stateful(plan), Some(_)) => self.stateful(node, plan),
            (Kind::Async(..), Some(input)) => {
                let tasks = self.plan.chains[input.chain].tasks;
                let chain = self.chain(tasks, Head::Async { node }, links());
                self.edge(input, chain, Port::MAIN, Routing::Forward);
                let deliver: Factory = Arc::new(|| Ok(Box::new(Deliver)));
                let link = self.link(Place::root(chain), node, deliver, false);
                for port in [Port::MAIN, FAILED] {
                    self.places.insert(StreamId { node, port }, on_port(link, port));
                }
            }
            (Kind::Union, _) => {
                let inputs: Vec<Place> = self.graph.nodes[node].inputs.iter().map(|s| self.places[s]).collect();
                let tasks = inputs.iter().map(|place| self.plan.chains[place.chain].tasks).max().unwrap_or(1);
                let chain = self.chain(tasks, Head::Gate, links());
                for input in inputs {
                    self.edge(input, chain, Port::MAIN, Routing::Forward);
                }
                let union: Factory = Arc::new(|| Ok(Box::new(Union)));
                let link = self.link(Place::root(chain), node, union, false);
                self.places.insert(main, link);
            }
            (Kind::Sink(sink), Some(input)) => {
                let tasks = self.plan.chains[input.chain].tasks.min(sink.max_writers().max(1));
                let chain = self.chain(tasks, Head::Gate, Body::Sink { node });
                self.edge(input, chain, Port::MAIN, Routing::Forward);
            }
            // An operator whose input was a mistake is never planned: the job does not run.
            (_, None) => {}
        }
    }

    /// An operator with state: where its rows are, behind an exchange, or on both sides of one.
    fn stateful(&mut self, node: usize, plan: &Arc<dyn Plan>) {
        let streams = &self.graph.nodes[node].inputs;
        let inputs: Vec<(Place, Partitioning)> =
            streams.iter().map(|stream| self.places[stream]).zip(plan.inputs()).collect();
        let key = |partitioning: &Partitioning| matches!(partitioning, Partitioning::Key(key) if !key.is_empty());
        let tasks = if inputs.iter().any(|(_, by)| key(by)) { self.parallelism } else { 1 };
        let of = plan.clone();
        let whole: Factory = Arc::new(move || of.whole());
        let may_idle = streams.iter().any(|stream| self.may_idle(*stream));
        let (result, late) = match (&inputs[..], plan.two_phases()) {
            ([(input, Partitioning::Key(key))], phases) => {
                let here = self.plan.chains[input.chain].tasks == tasks;
                if here && (tasks == 1 || self.is_keyed(node, streams[0], key)) {
                    let whole = self.link(*input, node, whole, false);
                    (whole, whole)
                } else if let Some(phases) = phases.filter(|_| !may_idle) {
                    let first = self.link(*input, node, phases.first, true);
                    let chain = self.chain(tasks, Head::Gate, links());
                    self.edge(first, chain, Port::MAIN, Routing::Hash(phases.key));
                    (self.link(Place::root(chain), node, phases.second, false), first)
                } else {
                    // A task that was idle wakes behind the others. Whether its rows are late is known behind the
                    // exchange only, and there they must still be rows.
                    let whole = self.behind_exchange(node, tasks, &inputs, whole);
                    (whole, whole)
                }
            }
            _ => {
                let whole = self.behind_exchange(node, tasks, &inputs, whole);
                (whole, whole)
            }
        };
        for (port, _) in plan.outputs() {
            let place = if port == Port::MAIN { result } else { late };
            self.places.insert(StreamId { node, port }, on_port(place, port));
        }
        if let Some(keyed) = plan.keyed_output() {
            self.keyed.insert(StreamId { node, port: Port::MAIN }, keyed);
        }
    }

    /// Whether a source of `stream` may fall idle, or begins so because its splits are still to appear.
    fn may_idle(&self, stream: StreamId) -> bool {
        self.graph.may_idle(stream) || !self.graph.sources_of(stream.node).is_disjoint(&self.waiting)
    }

    /// Whether the rows of a stream that comes to `node` are with the tasks that an exchange by `key` between as many would
    /// bring them to.
    fn is_keyed(&self, node: usize, stream: StreamId, key: &[usize]) -> bool {
        let in_step = !self.may_idle(stream) || self.graph.nodes[node].sort == Some(stream.node);
        in_step && self.keyed.get(&stream).is_some_and(|keyed| keyed.is(key))
    }

    fn behind_exchange(
        &mut self,
        node: usize,
        tasks: usize,
        inputs: &[(Place, Partitioning)],
        whole: Factory,
    ) -> Place {
        let chain = self.chain(tasks, Head::Gate, links());
        let streams = &self.graph.nodes[node].inputs;
        for (port, ((input, partitioning), stream)) in (0..).zip(inputs.iter().zip(streams)) {
            let here = || self.plan.chains[input.chain].tasks == tasks;
            let routing = match partitioning {
                Partitioning::Key(key) if here() && self.is_keyed(node, *stream, key) => Routing::Forward,
                Partitioning::Key(key) => Routing::Hash(key.clone()),
                Partitioning::Broadcast => Routing::Broadcast,
            };
            let time = self.graph.schema(*stream).and_then(StreamSchema::time);
            self.connect_by(*input, Edge { from: input.chain, to: chain, port: Port(port), routing, time });
        }
        self.link(Place::root(chain), node, whole, false)
    }

    fn chain(&mut self, tasks: usize, head: Head, body: Body) -> usize {
        self.plan.chains.push(ChainPlan { tasks, head, body });
        self.plan.chains.len() - 1
    }

    /// Adds an operator to the chain that `input` is in.
    fn link(&mut self, input: Place, node: usize, factory: Factory, first_phase: bool) -> Place {
        let input = match input.at {
            // Rejected records do not go through the operators of their source's chain.
            At::Rejects => {
                let chain = self.chain(self.plan.chains[input.chain].tasks, Head::Gate, links());
                self.edge(input, chain, Port::MAIN, Routing::Forward);
                Place::root(chain)
            }
            _ => input,
        };
        let Body::Links { links, .. } = &mut self.plan.chains[input.chain].body else { return input };
        links.push(LinkPlan { node, factory, first_phase, targets: Vec::new() });
        let link = links.len() - 1;
        self.connect(input, Target::Link(link));
        Place { chain: input.chain, at: At::Link(link, Port::MAIN) }
    }

    fn edge(&mut self, from: Place, to: usize, port: Port, routing: Routing) {
        self.connect_by(from, Edge { from: from.chain, to, port, routing, time: None });
    }

    fn connect_by(&mut self, from: Place, edge: Edge) {
        self.plan.edges.push(edge);
        self.connect(from, Target::Edge(self.plan.edges.len() - 1));
    }

    fn connect(&mut self, from: Place, target: Target) {
        let Body::Links { root, rejects, links } = &mut self.plan.chains[from.chain].body else { return };
        match from.at {
            At::Root => root.push(target),
            At::Rejects => rejects.push(target),
            At::Link(link, port) => links[link].targets.push((port, target)),
        }
    }
}

fn links() -> Body {
    Body::Links { root: Vec::new(), rejects: Vec::new(), links: Vec::new() }
}

fn on_port(place: Place, port: Port) -> Place {
    match place.at {
        At::Link(link, _) => Place { at: At::Link(link, port), ..place },
        _ => place,
    }
}

/// Deals splits to at most `parallelism` tasks; there is always one.
fn deal(splits: &[SplitId], parallelism: usize) -> Vec<Vec<SplitId>> {
    let mut tasks = vec![Vec::new(); parallelism.min(splits.len()).max(1)];
    let count = tasks.len();
    for (i, split) in splits.iter().enumerate() {
        tasks[i % count].push(split.clone());
    }
    tasks
}

/// A physical plan with the names of its operators.
pub(crate) struct Explained<'a>(pub(crate) &'a PhysicalPlan, pub(crate) &'a Graph);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(plan, graph) = self;
        for (index, chain) in plan.chains.iter().enumerate() {
            let mut names: Vec<String> = Vec::new();
            if let Head::Source { node, .. } = &chain.head {
                names.push(graph.nodes[*node].name.clone());
            }
            match &chain.body {
                Body::Sink { node } => names.push(graph.nodes[*node].name.clone()),
                Body::Links { links, .. } => names.extend(links.iter().map(|link| {
                    let phase = if link.first_phase { " (first phase)" } else { "" };
                    format!("{}{phase}", graph.nodes[link.node].name)
                })),
            }
            let plural = if chain.tasks == 1 { "" } else { "s" };
            writeln!(f, "chain {index}, {} task{plural}: {}", chain.tasks, names.join(" → "))?;
            for edge in plan.edges.iter().filter(|edge| edge.from == index) {
                let how = match &edge.routing {
                    Routing::Forward => "forward",
                    Routing::Hash(key) if key.is_empty() => "all to one task",
                    Routing::Hash(_) => "by key group",
                    Routing::Broadcast => "to every task",
                };
                writeln!(f, "  ══ {how} ══► chain {}", edge.to)?;
            }
        }
        Ok(())
    }
}
