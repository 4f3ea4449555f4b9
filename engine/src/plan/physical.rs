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

use std::{collections::HashMap, fmt, sync::Arc};

use windrow_connectors::SplitId;
use windrow_operators::{Port, stateless::Union};

use super::graph::{Factory, Graph, Kind, REJECTS, RejectPolicy, StreamId, Window};
use crate::runtime::chain::Target;

/// How rows choose their task on an edge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Routing {
    /// Task `i` sends to task `i` modulo the number of receivers.
    Forward,
    /// By the key group of these columns.
    Hash(Vec<usize>),
}

pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) routing: Routing,
}

pub(crate) enum Head {
    /// The splits of each task.
    Source {
        node: usize,
        splits: Vec<Vec<SplitId>>,
    },
    Gate,
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
}

/// Plans `graph` for `parallelism`; `splits` are those of each source, by node.
pub(crate) fn plan(graph: &Graph, parallelism: usize, splits: &HashMap<usize, Vec<SplitId>>) -> PhysicalPlan {
    let plan = PhysicalPlan { chains: Vec::new(), edges: Vec::new() };
    let mut planner = Planner { graph, parallelism, plan, places: HashMap::new() };
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
                self.places.insert(main, Place { chain, at: At::Root });
                if *rejects == RejectPolicy::Stream {
                    self.places.insert(StreamId { node, port: REJECTS }, Place { chain, at: At::Rejects });
                }
            }
            (Kind::Operator(factory), Some(input)) => {
                let link = self.link(input, node, factory.clone(), false);
                self.places.insert(main, link);
            }
            (Kind::Window(window), Some(input)) => self.window(node, window, input),
            (Kind::Union, _) => {
                let inputs: Vec<Place> = self.graph.nodes[node].inputs.iter().map(|s| self.places[s]).collect();
                let tasks = inputs.iter().map(|place| self.plan.chains[place.chain].tasks).max().unwrap_or(1);
                let chain = self.chain(tasks, Head::Gate, links());
                for input in inputs {
                    self.edge(input, chain, Routing::Forward);
                }
                let union: Factory = Arc::new(|| Ok(Box::new(Union)));
                let link = self.link(Place { chain, at: At::Root }, node, union, false);
                self.places.insert(main, link);
            }
            (Kind::Sink(sink), Some(input)) => {
                let tasks = self.plan.chains[input.chain].tasks.min(sink.max_writers().max(1));
                let chain = self.chain(tasks, Head::Gate, Body::Sink { node });
                self.edge(input, chain, Routing::Forward);
            }
            // An operator whose input was a mistake is never planned: the job does not run.
            (_, None) => {}
        }
    }

    fn window(&mut self, node: usize, window: &Window, input: Place) {
        let tasks = if window.key().is_empty() { 1 } else { self.parallelism };
        let alone = tasks == 1 && self.plan.chains[input.chain].tasks == 1;
        let (result, late) = if alone {
            let whole = self.link(input, node, factory(window, Phase::Whole), false);
            (whole, whole)
        } else if self.graph.nodes[node].inputs.iter().any(|stream| self.graph.may_idle(*stream)) {
            // A task that was idle wakes behind the others. Whether its rows are late is known behind the exchange
            // only, and there they must still be rows.
            let chain = self.chain(tasks, Head::Gate, links());
            self.edge(input, chain, Routing::Hash(window.key()));
            let whole = self.link(Place { chain, at: At::Root }, node, factory(window, Phase::Whole), false);
            (whole, whole)
        } else {
            let partial = self.link(input, node, factory(window, Phase::Partial), true);
            let chain = self.chain(tasks, Head::Gate, links());
            self.edge(partial, chain, Routing::Hash(window.key_between()));
            let merging = self.link(Place { chain, at: At::Root }, node, factory(window, Phase::Merging), false);
            (merging, partial)
        };
        self.places.insert(StreamId { node, port: Port::MAIN }, result);
        self.places.insert(StreamId { node, port: Port::LATE }, on_port(late, Port::LATE));
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
                self.edge(input, chain, Routing::Forward);
                Place { chain, at: At::Root }
            }
            _ => input,
        };
        let Body::Links { links, .. } = &mut self.plan.chains[input.chain].body else { return input };
        links.push(LinkPlan { node, factory, first_phase, targets: Vec::new() });
        let link = links.len() - 1;
        self.connect(input, Target::Link(link));
        Place { chain: input.chain, at: At::Link(link, Port::MAIN) }
    }

    fn edge(&mut self, from: Place, to: usize, routing: Routing) {
        self.plan.edges.push(Edge { from: from.chain, to, routing });
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

#[derive(Clone, Copy)]
enum Phase {
    Whole,
    Partial,
    Merging,
}

fn factory(window: &Window, phase: Phase) -> Factory {
    let window = window.clone();
    Arc::new(move || {
        Ok(match (&window, phase) {
            (Window::Aggregate(plan), Phase::Whole) => Box::new(plan.whole()?),
            (Window::Aggregate(plan), Phase::Partial) => Box::new(plan.partial()?),
            (Window::Aggregate(plan), Phase::Merging) => Box::new(plan.merging()?),
            (Window::Top(plan), Phase::Whole) => Box::new(plan.whole()?),
            (Window::Top(plan), Phase::Partial) => Box::new(plan.partial()?),
            (Window::Top(plan), Phase::Merging) => Box::new(plan.merging()?),
        })
    })
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
                };
                writeln!(f, "  ══ {how} ══► chain {}", edge.to)?;
            }
        }
        Ok(())
    }
}
