//! Operators and edges of a job, from its graph and its physical plan: what does not change while an attempt runs.

use std::collections::HashMap;

use windrow_operators::Port;

use super::{EventTimeStatus, Exchange, OperatorKind};
use crate::{
    clock::whole_millis,
    metrics::FIRST_PHASE,
    plan::{
        graph::{Graph, Kind, REJECTS},
        physical::{Body, Head, PhysicalPlan, Routing},
    },
    runtime::{async_task::FAILED, chain::Target},
};

#[derive(Debug)]
pub(crate) struct OperatorShape {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
    pub(crate) kind: OperatorKind,
    pub(crate) first_phase: bool,
    pub(crate) chain: usize,
    pub(crate) event_time: Option<EventTimeStatus>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EdgeShape {
    /// Indexes of operators.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) label: &'static str,
    pub(crate) exchange: Exchange,
    /// The edge of the plan; none when both share a task.
    pub(crate) edge: Option<usize>,
    /// Whether all late rows of an operator leave by it: a join has two outputs for them.
    pub(crate) all_late: bool,
}

#[derive(Debug)]
pub(crate) struct Shape {
    /// In the order in which rows pass.
    pub(crate) operators: Vec<OperatorShape>,
    pub(crate) edges: Vec<EdgeShape>,
    /// How many tasks each chain has.
    pub(crate) chains: Vec<usize>,
    /// The edges of the plan that leave each chain.
    pub(crate) leaving: Vec<Vec<usize>>,
}

/// An operator of the plan: a node, and whether it is its first phase.
type Key = (usize, bool);

pub(crate) fn shape(graph: &Graph, plan: &PhysicalPlan) -> Shape {
    // In the order of the graph, the first phase of an operator before the operator.
    let mut places: Vec<(Key, usize)> = Vec::new();
    for (index, chain) in plan.chains.iter().enumerate() {
        if let Head::Source { node, .. } | Head::Async { node } = &chain.head {
            places.push(((*node, false), index));
        }
        match &chain.body {
            Body::Sink { node } => places.push(((*node, false), index)),
            Body::Links { links, .. } => places.extend(links.iter().map(|link| ((link.node, link.first_phase), index))),
        }
    }
    places.sort_by_key(|((node, first_phase), _)| (*node, !first_phase));
    places.dedup_by_key(|(key, _)| *key);
    let operators = places.iter().map(|((node, first_phase), chain)| operator(graph, *node, *first_phase, *chain));
    let index: HashMap<Key, usize> = places.iter().map(|(key, _)| *key).zip(0..).collect();
    let leaving = |chain: usize| (0..plan.edges.len()).filter(|edge| plan.edges[*edge].from == chain).collect();
    Shape {
        operators: operators.collect(),
        edges: Edges { graph, plan, index, found: Vec::new() }.find(),
        chains: plan.chains.iter().map(|chain| chain.tasks).collect(),
        leaving: (0..plan.chains.len()).map(leaving).collect(),
    }
}

fn operator(graph: &Graph, node: usize, first_phase: bool, chain: usize) -> OperatorShape {
    let node = &graph.nodes[node];
    let event_time = match &node.kind {
        Kind::Source { time: Some((_, watermarks)), .. } => Some(EventTimeStatus {
            watermarks: watermarks.to_string(),
            idle_after_ms: watermarks.idle_after.map(whole_millis),
            align_within_ms: watermarks.align_within.map(whole_millis),
        }),
        _ => None,
    };
    let kind = match &node.kind {
        Kind::Source { .. } => OperatorKind::Source,
        Kind::Stateless(..) => OperatorKind::Stateless,
        Kind::Stateful(_) => OperatorKind::Stateful,
        Kind::Async(..) => OperatorKind::Async,
        Kind::Union => OperatorKind::Union,
        Kind::Sink(_) => OperatorKind::Sink,
    };
    let phase = if first_phase { FIRST_PHASE } else { "" };
    OperatorShape { name: format!("{}{phase}", node.name), id: node.id.clone(), kind, first_phase, chain, event_time }
}

struct Edges<'a> {
    graph: &'a Graph,
    plan: &'a PhysicalPlan,
    index: HashMap<Key, usize>,
    found: Vec<EdgeShape>,
}

impl Edges<'_> {
    fn find(mut self) -> Vec<EdgeShape> {
        for (index, chain) in self.plan.chains.iter().enumerate() {
            let Body::Links { root, rejects, links } = &chain.body else { continue };
            let head = match &chain.head {
                Head::Source { node, .. } | Head::Async { node } => Some((*node, false)),
                Head::Gate => None,
            };
            for (from, port, target) in head.iter().flat_map(|head| {
                let rows = root.iter().map(|target| (*head, Port::MAIN, *target));
                rows.chain(rejects.iter().map(|target| (*head, REJECTS, *target)))
            }) {
                self.add(index, from, port, target);
            }
            for link in links {
                for (port, target) in &link.targets {
                    self.add(index, (link.node, link.first_phase), *port, *target);
                }
            }
        }
        self.found.sort_by_key(|edge| (edge.from, edge.to, edge.edge));
        self.found
    }

    fn add(&mut self, chain: usize, from: Key, port: Port, target: Target) {
        let (to, exchange, edge) = match target {
            Target::Link(link) => (self.link(chain, link).into_iter().collect(), Exchange::Chained, None),
            Target::Edge(edge) => {
                let Some(plan) = self.plan.edges.get(edge) else { return };
                let exchange = match &plan.routing {
                    Routing::Forward => Exchange::Forward,
                    Routing::Hash(key) if key.is_empty() => Exchange::ToOneTask,
                    Routing::Hash(_) => Exchange::ByKeyGroup,
                    Routing::Broadcast => Exchange::Broadcast,
                };
                (self.behind(plan.to), exchange, Some(edge))
            }
        };
        let label = label(self.graph, from.0, port);
        let outputs = &self.graph.nodes[from.0].outputs;
        let all_late = port == Port::LATE && outputs.iter().all(|(port, _)| *port != Port::LATE_RIGHT);
        for to in to {
            // What delivers the results of an async operator is that operator.
            if let (Some(&from), Some(&to)) = (self.index.get(&from), self.index.get(&to))
                && from != to
            {
                self.found.push(EdgeShape { from, to, label, exchange, edge, all_late });
            }
        }
    }

    fn link(&self, chain: usize, link: usize) -> Option<Key> {
        let Body::Links { links, .. } = &self.plan.chains.get(chain)?.body else { return None };
        links.get(link).map(|link| (link.node, link.first_phase))
    }

    /// The operators that take what comes to a chain.
    fn behind(&self, chain: usize) -> Vec<Key> {
        let Some(plan) = self.plan.chains.get(chain) else { return Vec::new() };
        match (&plan.head, &plan.body) {
            (Head::Async { node }, _) | (_, Body::Sink { node }) => vec![(*node, false)],
            (_, Body::Links { root, .. }) => {
                let link =
                    |target: &Target| if let Target::Link(link) = target { self.link(chain, *link) } else { None };
                root.iter().filter_map(link).collect()
            }
        }
    }
}

fn label(graph: &Graph, node: usize, port: Port) -> &'static str {
    match port {
        Port::MAIN => "",
        Port::LATE => "late",
        REJECTS => "rejected",
        Port::LATE_RIGHT => "late on the right",
        FAILED if matches!(graph.nodes[node].kind, Kind::Async(..)) => "failed",
        _ => "side",
    }
}
