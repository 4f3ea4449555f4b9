//! One attempt at running a job: from its description to its tasks, through the newest checkpoint if there is one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::sync::{Notify, mpsc, watch};
use tracing::{Instrument, Span};
use windrow_connectors::{Source, SplitId};
use windrow_operators::spill::Room;

use super::running::{Line, Shared};
use crate::{
    Error, Restarts, Result,
    checkpoint::{
        Begin, Coordinator, Layout, Restored, Settings, Sinks, Sources, Start, Underway, Witnessed, begin, give_up,
    },
    clock::ProcessingTime,
    metrics::{CheckpointCounters, Counters, in_order_of_rows},
    plan::{
        graph::{Graph, Kind},
        physical::{Body, Explained, Head, PhysicalPlan, plan},
    },
    runtime::{
        memory::check_budget,
        spill::{Directory, Shelf},
        supervisor::{Controls, Parts, Tasks, apart, first_phase_name, start},
    },
    status::{Live, Recent, Settled},
    trace,
};

/// So many splits are named in a warning.
const NAMED: usize = 10;

/// What every attempt is made from.
pub(crate) struct Blueprint {
    pub(crate) graph: Arc<Graph>,
    pub(crate) parallelism: usize,
    pub(crate) channel_bytes: usize,
    pub(crate) settings: Option<Settings>,
    pub(crate) restarts: Restarts,
    /// How many bytes of state may be in memory, and below which directory the rest goes.
    pub(crate) memory: Option<(usize, Option<PathBuf>)>,
    /// What is to be told of how it was configured.
    pub(crate) warning: Option<String>,
    /// Where it is served.
    #[cfg(feature = "serve")]
    pub(crate) serve: Option<crate::serve::Serve>,
    #[cfg(feature = "terminal")]
    pub(crate) shows: crate::terminal::show::Shows,
}

/// The tasks of an attempt, and what became of it.
pub(crate) struct Attempt {
    pub(crate) tasks: Tasks,
    /// Set when a source stopped before its end.
    pub(crate) stopped: Arc<AtomicBool>,
    checkpoints: Arc<CheckpointCounters>,
    /// Lasts until it has ended, or failed.
    pub(crate) span: Span,
    /// Absent without checkpoints.
    this: Option<Start>,
    witnessed: Option<Witnessed>,
}

impl Attempt {
    /// What it says by the way is of this span.
    pub(crate) async fn start(blueprint: &Blueprint, shared: &Shared, span: &Span) -> Result<Self> {
        Self::begin(blueprint, shared, span.clone()).instrument(span.clone()).await
    }

    async fn begin(blueprint: &Blueprint, shared: &Shared, span: Span) -> Result<Self> {
        let Blueprint { graph, parallelism, channel_bytes, settings, memory, .. } = blueprint;
        let splits = splits(&sources(graph)).await?;
        let plan = plan(graph, *parallelism, &splits);
        check_budget(memory.as_ref().map(|(bytes, _)| *bytes), graph, &plan)?;
        let layout = Arc::new(Layout::new(graph, &plan));
        let explained = Explained(&plan, graph).to_string();
        let sinks = sinks(graph);
        let memory = match memory {
            Some((bytes, below)) => Some((*bytes, Directory::swept(below.as_deref()).await)),
            None => None,
        };
        // What is put on disk on its way into operators is not what was too much for one of them.
        let room = memory.as_ref().map(|(bytes, directory)| {
            let counters = Counters::new("restore".into(), 1);
            (*bytes, Shelf::new(directory.clone(), counters))
        });
        let Begin { incarnation, next, fresh, restored, archive, mut warnings } = match settings.clone() {
            Some(settings) => {
                let (graph, layout, sinks, splits) = (graph.clone(), layout.clone(), sinks.clone(), splits.clone());
                let begun = async move {
                    let room = room.as_ref().map(|(bytes, shelf)| (*bytes, shelf as &dyn Room));
                    begin(&settings, &graph, &layout, &sinks, &splits, room).await
                };
                apart("the start of the job", begun).await?
            }
            None => Begin::without_store(),
        };
        let from = archive.as_ref().and_then(|archive| archive.parent).map(|parent| parent.epoch.0);
        from.into_iter().for_each(trace::restored_from);
        let settled = Settled::new(graph, &plan, layout.clone(), *parallelism);
        let settled = settled.budget(memory.as_ref().map(|(bytes, _)| *bytes)).checkpoints(
            settings.as_ref(),
            archive.as_ref().map(|archive| archive.store.shown()),
            from,
        );
        shared.log.give_up();
        warnings.extend(blueprint.warning.clone());
        warnings.extend(unwise(graph));
        warnings.extend(never_read(graph, &restored, &splits));
        let counters = counters(graph, &plan);
        let (line, reports) = Coordinator::line();
        let (savepoint_line, savepoints) = mpsc::unbounded_channel();
        let (barrier, barrier_asked) = watch::channel(None);
        let (stopped, decided) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
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
            decided: decided.clone(),
            counters: in_order_of_rows(&counters),
            next,
            archive,
            ended: BTreeMap::new(),
            log: shared.log.clone(),
        };
        // The first checkpoint of a fresh job holds where its sources begin, before a row is read; also where one begins, or a
        // split, that the checkpoint does not have from which the job goes on.
        let first = checkpointed && (fresh || !knows_all(graph, &restored, &splits));
        let controls = Controls {
            stop: shared.stop.subscribe(),
            stopped: stopped.clone(),
            barrier: barrier_asked,
            line,
            incarnation,
            epoch: next,
            first,
            decided,
            checkpointed,
            memory,
            clock: ProcessingTime::begin(),
        };
        let ordered = coordinator.counters.clone();
        let first = first.then(|| coordinator.begin(None));
        let (graph, capacity) = (graph.clone(), *channel_bytes);
        let started = start(Parts { graph, plan, layout, counters, capacity, controls, restored }).await;
        let (mut tasks, lanes) = match started {
            Ok(started) => started,
            Err(error) => {
                give_up(witnessed.as_ref()).await;
                return Err(error);
            }
        };
        // What it took until all sources had said where they begin is not the checkpoint's.
        let first = first.map(Underway::begins_now);
        tasks.run("the coordinator of checkpoints".into(), coordinator.run(first));
        let savepoints = checkpointed.then_some(savepoint_line);
        let live = Live::new(settled, &ordered, lanes, checkpoints.clone(), shared.log.clone());
        let line = Line {
            counters: ordered,
            checkpoints: checkpoints.clone(),
            live: Some(Arc::new(live)),
            recent: Recent::new().shared(),
            warnings,
            explained,
            witnessed: witnessed.clone(),
            savepoints,
        };
        shared.connect(line);
        Ok(Self { tasks, stopped, checkpoints, span, this, witnessed })
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

    /// Whether it has completed a checkpoint that holds more than where its sources begin: of those each start may take one.
    pub(crate) fn has_progressed(&self) -> bool {
        self.checkpoints.have_moved()
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

/// What has appeared since the ends of its source were fixed, in words.
fn never_read(graph: &Graph, restored: &Restored, splits: &HashMap<usize, Vec<SplitId>>) -> Vec<String> {
    let of = |(node, splits): (&usize, &Vec<SplitId>)| {
        let node = &graph.nodes[*node];
        let Kind::Source { source, .. } = &node.kind else { return None };
        if source.adds_splits() {
            return None;
        }
        let new = restored.beyond(node.id.as_deref().unwrap_or_default(), splits);
        let more = if new.len() > NAMED { format!(" and {} more", new.len() - NAMED) } else { String::new() };
        let named = new[..new.len().min(NAMED)].join(", ");
        (!new.is_empty()).then(|| {
            format!(
                "{}: not read, because the job reads what there was when it began, and they have come since: {named}{more}. To read \
                 them, start another job, with a name of its own",
                node.name
            )
        })
    };
    splits.iter().filter_map(of).collect()
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
