//! Which tasks a job has, and what of each belongs into a checkpoint: what the coordinator and a restore go by.

use std::ops::Range;

use windrow_operators::{KeyGroup, key::KEY_GROUPS, state::StateForm};

use crate::{
    plan::{
        graph::{Graph, Kind},
        physical::{Body, Head, PhysicalPlan},
    },
    runtime::report::TaskId,
};

pub(crate) struct Layout {
    pub(crate) chains: Vec<ChainLayout>,
}

pub(crate) struct ChainLayout {
    pub(crate) tasks: usize,
    /// For messages: the first operator's number and name in the printed job.
    pub(crate) name: String,
    /// The source at its head, by id.
    pub(crate) source: Option<String>,
    /// Its operators, in order.
    pub(crate) operators: Vec<OperatorLayout>,
    /// The sink that it is, by id.
    pub(crate) sink: Option<String>,
}

/// An operator in a chain.
pub(crate) struct OperatorLayout {
    /// Its number and name in the printed job.
    pub(crate) name: String,
    /// What it is called in checkpoints, and the form of its state; `None` when it has nothing to remember.
    pub(crate) saved: Option<(String, StateForm)>,
    pub(crate) first_phase: bool,
    /// Whether it puts on disk what is too much for its part of a memory budget.
    pub(crate) spills: bool,
}

impl Layout {
    pub(crate) fn new(graph: &Graph, plan: &PhysicalPlan) -> Self {
        let chain = |chain: &crate::plan::physical::ChainPlan| {
            let node = |node: usize| (graph.nodes[node].name.clone(), graph.nodes[node].id.clone());
            let head = match &chain.head {
                Head::Source { node: source, .. } => Some(node(*source)),
                Head::Gate | Head::Async { .. } => None,
            };
            let (operators, sink) = match &chain.body {
                Body::Sink { node: sink } => (Vec::new(), Some(node(*sink))),
                Body::Links { links, .. } => {
                    (links.iter().map(|link| OperatorLayout::new(graph, link.node, link.first_phase)).collect(), None)
                }
            };
            let first = operators.first().map(|operator: &OperatorLayout| operator.name.clone());
            let name = head.iter().chain(&sink).map(|(name, _)| name.clone()).next().or(first);
            ChainLayout {
                tasks: chain.tasks,
                name: name.unwrap_or_default(),
                source: head.and_then(|(_, id)| id),
                operators,
                sink: sink.and_then(|(_, id)| id),
            }
        };
        Self { chains: plan.chains.iter().map(chain).collect() }
    }

    /// A task, for people.
    pub(crate) fn name(&self, task: TaskId) -> String {
        let chain = self.chains.get(task.chain).map_or("", |chain| &chain.name);
        format!("{chain} (task {})", task.task)
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        let tasks = |(chain, layout): (usize, &ChainLayout)| (0..layout.tasks).map(move |task| TaskId { chain, task });
        self.chains.iter().enumerate().flat_map(tasks)
    }
}

impl OperatorLayout {
    fn new(graph: &Graph, node: usize, first_phase: bool) -> Self {
        let node = &graph.nodes[node];
        let form = match &node.kind {
            Kind::Stateful(plan) => Some(plan.state_form()),
            Kind::Async(plan, _) => Some(plan.state_form()),
            _ => None,
        };
        let spills = !first_phase && matches!(&node.kind, Kind::Stateful(plan) if plan.spills());
        Self { name: node.name.clone(), saved: node.id.clone().zip(form), first_phase, spills }
    }
}

impl ChainLayout {
    /// The key groups of one of its tasks.
    pub(crate) fn key_groups(&self, task: usize) -> Range<usize> {
        match self.tasks {
            1 => 0..KEY_GROUPS,
            tasks => KeyGroup::range(task, tasks),
        }
    }
}
