//! One attempt at running a job: from its description to its tasks, through the newest checkpoint if there is one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::{mpsc, watch};
use windrow_connectors::{Source, SplitId};

use super::running::{Line, Shared};
use crate::{
    Error, Restarts, Result,
    checkpoint::{Begin, Coordinator, Layout, Restored, Settings, Sinks, Sources, Start, Witnessed, begin, give_up},
    clock::ProcessingTime,
    metrics::{CheckpointCounters, Counters, in_order_of_rows},
    plan::{
        graph::{Graph, Kind},
        physical::{Body, Head, PhysicalPlan, plan},
    },
    runtime::{
        spill::Directory,
        supervisor::{Controls, Tasks, first_phase_name, start},
    },
};

/// What every attempt is made from.
pub(crate) struct Blueprint {
    pub(crate) graph: Arc<Graph>,
    pub(crate) parallelism: usize,
    pub(crate) channel_bytes: usize,
    pub(crate) settings: Option<Settings>,
    pub(crate) restarts: Restarts,
    /// How many bytes of state may be in memory, and below which directory the rest goes.
    pub(crate) memory: Option<(usize, Option<PathBuf>)>,
}

/// The tasks of an attempt, and what became of it.
pub(crate) struct Attempt {
    pub(crate) tasks: Tasks,
    /// Set when a source stopped before its end.
    pub(crate) stopped: Arc<AtomicBool>,
    checkpoints: Arc<CheckpointCounters>,
    /// Absent without checkpoints.
    this: Option<Start>,
    witnessed: Option<Witnessed>,
}

impl Attempt {
    pub(crate) async fn start(blueprint: &Blueprint, shared: &Shared) -> Result<Self> {
        let Blueprint { graph, parallelism, channel_bytes, settings, memory, .. } = blueprint;
        let splits = splits(&sources(graph)).await?;
        let plan = plan(graph, *parallelism, &splits);
        let layout = Arc::new(Layout::new(graph, &plan));
        let sinks = sinks(graph);
        let Begin { incarnation, next, fresh, mut restored, archive, mut warnings } = match settings {
            Some(settings) => begin(settings, graph, &layout, &sinks, &splits).await?,
            None => Begin::without_store(),
        };
        warnings.extend(unwise(graph));
        let counters = counters(graph, &plan);
        let (line, reports) = Coordinator::line();
        let (savepoint_line, savepoints) = mpsc::unbounded_channel();
        let (barrier, barrier_asked) = watch::channel(None);
        let stopped = Arc::new(AtomicBool::new(false));
        let checkpointed = archive.is_some();
        let checkpoints = archive.as_ref().map_or_else(Arc::default, |archive| archive.counters.clone());
        let this = archive.as_ref().map(|archive| archive.this_start());
        let witnessed = archive.as_ref().and_then(|archive| archive.witnessed.clone());
        let mut coordinator = Coordinator {
            layout: layout.clone(),
            sinks,
            sources: sources_by_id(graph),
            reports,
            barrier,
            stop: shared.stop.clone(),
            savepoints,
            counters: in_order_of_rows(&counters),
            next,
            archive,
            ended: BTreeMap::new(),
        };
        let memory = memory.as_ref().map(|(bytes, below)| {
            let directory = Directory::below(below.as_deref());
            directory.sweep();
            (*bytes, directory)
        });
        let controls = Controls {
            stop: shared.stop.subscribe(),
            stopped: stopped.clone(),
            barrier: barrier_asked,
            line,
            incarnation,
            epoch: next,
            checkpointed,
            memory,
            clock: ProcessingTime::begin(),
        };
        let ordered = coordinator.counters.clone();
        // The first checkpoint of a fresh job holds where its sources begin, before a row is read; also where one begins, or a
        // split, that the checkpoint does not have from which the job goes on.
        let first = checkpointed && (fresh || !knows_all(graph, &restored, &splits));
        let first = first.then(|| coordinator.begin(None));
        let started = start(graph, &plan, &layout, &counters, *channel_bytes, controls, &mut restored).await;
        let mut tasks = match started {
            Ok(tasks) => tasks,
            Err(error) => {
                give_up(witnessed.as_ref()).await;
                return Err(error);
            }
        };
        tasks.run("the coordinator of checkpoints".into(), coordinator.run(first));
        let savepoints = checkpointed.then_some(savepoint_line);
        let line = Line {
            counters: ordered,
            checkpoints: checkpoints.clone(),
            warnings,
            witnessed: witnessed.clone(),
            savepoints,
        };
        shared.connect(line);
        Ok(Self { tasks, stopped, checkpoints, this, witnessed })
    }

    /// Ends what is left of it, and with it the transactions of its sinks: no reader is to wait for them.
    pub(crate) async fn give_up(&mut self) {
        self.tasks.end().await;
        give_up(self.witnessed.as_ref()).await;
    }

    /// As [`Attempt::give_up`], but does not wait for tasks that block.
    pub(crate) async fn abort(&mut self) {
        self.tasks.abort();
        give_up(self.witnessed.as_ref()).await;
    }

    /// Why it failed: if a later start of the job has taken over, because of that. To start again would only fence that one.
    pub(crate) async fn explain(&self, error: Error) -> Error {
        match &self.this {
            Some(this) if error.may_pass() => this.explain(error).await,
            _ => error,
        }
    }

    /// Whether it has completed a checkpoint.
    pub(crate) fn has_progressed(&self) -> bool {
        self.checkpoints.read().completed > 0
    }
}

/// The sources of a job, by node and name.
pub(crate) fn sources(graph: &Graph) -> Vec<(usize, String, Arc<dyn Source>)> {
    let source = |(index, node): (usize, &crate::plan::graph::Node)| match &node.kind {
        Kind::Source { source, .. } => Some((index, node.name.clone(), source.clone())),
        _ => None,
    };
    graph.nodes.iter().enumerate().filter_map(source).collect()
}

/// The splits that each source has now, by node.
pub(crate) async fn splits(sources: &[(usize, String, Arc<dyn Source>)]) -> Result<HashMap<usize, Vec<SplitId>>> {
    let mut splits = HashMap::new();
    for (node, operator, source) in sources {
        let found = source.splits().await;
        let found = found.map_err(|error| Error::Source { operator: operator.clone(), error })?;
        splits.insert(*node, found);
    }
    Ok(splits)
}

/// Whether the checkpoint has all these splits, by node.
fn knows_all(graph: &Graph, restored: &Restored, splits: &HashMap<usize, Vec<SplitId>>) -> bool {
    splits.iter().all(|(node, splits)| {
        let known = restored.known(graph.nodes[*node].id.as_deref().unwrap_or_default()).unwrap_or_default();
        splits.iter().all(|split| known.contains(split.as_str()))
    })
}

fn sources_by_id(graph: &Graph) -> Sources {
    let source = |node: &crate::plan::graph::Node| match (&node.kind, &node.id) {
        (Kind::Source { source, .. }, Some(id)) => Some((id.clone(), source.clone())),
        _ => None,
    };
    graph.nodes.iter().filter_map(source).collect()
}

/// What sources and sinks say is unwise; what several say of one system, once.
fn unwise(graph: &Graph) -> BTreeSet<String> {
    let said = graph.nodes.iter().flat_map(|node| match &node.kind {
        Kind::Source { source, .. } => source.warnings(),
        Kind::Sink(sink) => sink.warnings(),
        _ => Vec::new(),
    });
    said.collect()
}

/// The sinks of a job, by id.
pub(crate) fn sinks(graph: &Graph) -> Sinks {
    let sink = |node: &crate::plan::graph::Node| match (&node.kind, &node.id) {
        (Kind::Sink(sink), Some(id)) => Some((id.clone(), (node.name.clone(), sink.clone()))),
        _ => None,
    };
    graph.nodes.iter().filter_map(sink).collect()
}

/// The counters of each operator, in the order of the graph, then those of first phases.
fn counters(graph: &Graph, plan: &PhysicalPlan) -> Vec<Arc<Counters>> {
    let mut tasks = vec![1; graph.nodes.len()];
    let mut first_phases = Vec::new();
    for chain in &plan.chains {
        if let Head::Source { node, .. } = &chain.head {
            tasks[*node] = chain.tasks;
        }
        match &chain.body {
            Body::Sink { node } => tasks[*node] = chain.tasks,
            Body::Links { links, .. } => {
                for link in links {
                    match link.first_phase {
                        true => first_phases.push((link.node, chain.tasks)),
                        false => tasks[link.node] = chain.tasks,
                    }
                }
            }
        }
    }
    let own = graph.nodes.iter().zip(tasks).map(|(node, tasks)| Counters::new(node.name.clone(), tasks));
    let first =
        first_phases.iter().map(|(node, tasks)| Counters::new(first_phase_name(&graph.nodes[*node].name), *tasks));
    own.chain(first).collect()
}
