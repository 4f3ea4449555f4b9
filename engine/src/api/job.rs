//! A job: from its name to its report.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::sync::watch;
use windrow_connectors::{ConnectorError, SplitId, TypedSource};
use windrow_operators::{Port, StreamSchema};

use super::{
    Stream,
    stream::{FromSource, SharedGraph, lock},
};
use crate::{
    Error, Result,
    clock::Moment,
    metrics::{Counters, JobMetrics, in_order_of_rows},
    plan::{
        graph::{Graph, Kind, RejectPolicy, StreamId},
        physical::{Body, Explained, Head, PhysicalPlan, plan},
    },
    runtime::supervisor::{Tasks, first_phase_name, start},
};

/// How many bytes wait between two tasks at the most, unless [`Job::channel_bytes`] says otherwise.
const CHANNEL_BYTES: usize = 2 << 20;

/// A dataflow job. It is inert until it runs; printing it shows its graph.
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("evens");
/// let out = MemorySink::new();
/// job.source(Sequence::new(10))
///     .event_time("at", Watermarks::in_order())
///     .filter_expr((col("value") % lit(2)).eq(lit(0)))
///     .sink(out.clone());
/// let report = job.run().await?;
/// assert_eq!(out.rows(), 5);
/// assert!(!report.stopped);
/// # Ok(())
/// # }
/// ```
#[must_use = "a job does nothing until it runs"]
pub struct Job {
    graph: SharedGraph,
    parallelism: usize,
    channel_bytes: usize,
}

impl Job {
    /// A job called `name`, with one task per operator.
    pub fn new(name: impl Into<String>) -> Self {
        let graph = Graph { job: name.into(), ..Graph::default() };
        Self { graph: Arc::new(std::sync::Mutex::new(graph)), parallelism: 1, channel_bytes: CHANNEL_BYTES }
    }

    /// How many tasks a keyed operator has, and a source at the most (one per split). At least 1, at most 256, the
    /// number of key groups.
    pub fn parallelism(self, tasks: usize) -> Self {
        Self { parallelism: tasks, ..self }
    }

    /// How many bytes may wait in the channel between two tasks. A full channel slows down who writes to it.
    pub fn channel_bytes(self, bytes: usize) -> Self {
        Self { channel_bytes: bytes, ..self }
    }

    /// Reads from a source.
    pub fn source<S: TypedSource>(&self, source: S) -> Stream<S::Row, FromSource> {
        let mut graph = lock(&self.graph);
        let name = format!("source {}", source.name());
        let at = match source.schema() {
            Ok(schema) => {
                let kind = Kind::Source { source: Arc::new(source), time: None, rejects: RejectPolicy::Fail };
                let node = graph.add(&name, kind, vec![], vec![(Port::MAIN, StreamSchema::without_time(schema))]);
                Some(StreamId { node, port: Port::MAIN })
            }
            Err(error) => {
                let mistake = format!("{}: {error}", graph.next_name(&name));
                graph.mistakes.push(mistake);
                None
            }
        };
        drop(graph);
        Stream::new(self.graph.clone(), at)
    }

    /// Runs the job to its end, or until Ctrl-C: see [`RunningJob::wait`].
    pub async fn run(self) -> Result<Report> {
        self.start().await?.wait().await
    }

    /// Starts the job and returns while it runs. Must be called on a tokio runtime.
    pub async fn start(self) -> Result<RunningJob> {
        let splits = self.check().await?;
        let (graph, channel_bytes, parallelism) = (self.graph, self.channel_bytes, self.parallelism);
        // The job is complete: from here on nobody adds to the graph.
        let graph = std::mem::take(&mut *lock(&graph));
        let plan = plan(&graph, parallelism, &splits);
        let counters = counters(&graph, &plan);
        let (stop, stop_asked) = watch::channel(false);
        let stopped = Arc::new(AtomicBool::new(false));
        let started = Moment::now();
        let tasks = start(&graph, &plan, &counters, channel_bytes, &stop_asked, &stopped).await?;
        let handle = JobHandle { counters: in_order_of_rows(&counters), stop: Arc::new(stop), stopped, started };
        Ok(RunningJob { job: graph.job, tasks, handle })
    }

    /// The physical plan in words: which operators share a task, how many tasks there are, where rows are exchanged.
    pub async fn explain(&self) -> Result<String> {
        let splits = self.check().await?;
        let graph = lock(&self.graph);
        let plan = plan(&graph, self.parallelism, &splits);
        Ok(Explained(&plan, &graph).to_string())
    }

    /// All mistakes that can be known before the first row; otherwise the splits of each source.
    async fn check(&self) -> Result<HashMap<usize, Vec<SplitId>>> {
        let sources: Vec<_> = {
            let graph = lock(&self.graph);
            let mut mistakes = graph.mistakes.clone();
            mistakes.extend(graph.dead_ends());
            if self.parallelism == 0 || self.parallelism > windrow_operators::key::KEY_GROUPS {
                mistakes.push(format!("parallelism {} is not between 1 and 256", self.parallelism));
            }
            if !mistakes.is_empty() {
                return Err(Error::Plan { job: graph.job.clone(), mistakes });
            }
            let source = |(index, node): (usize, &crate::plan::graph::Node)| match &node.kind {
                Kind::Source { source, .. } => Some((index, node.name.clone(), source.clone())),
                _ => None,
            };
            graph.nodes.iter().enumerate().filter_map(source).collect()
        };
        let mut splits = HashMap::new();
        for (node, operator, source) in sources {
            let found = source.splits().await;
            let found = found.map_err(|error: ConnectorError| Error::Source { operator, error })?;
            splits.insert(node, found);
        }
        Ok(splits)
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        lock(&self.graph).fmt(f)
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
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

/// A job at work. Dropping it ends it at once, without publishing what its sinks have not finished.
#[must_use = "dropping a running job ends it: .wait() for it"]
pub struct RunningJob {
    job: String,
    tasks: Tasks,
    handle: JobHandle,
}

impl RunningJob {
    /// A handle to ask and to stop the job with, from anywhere.
    pub fn handle(&self) -> JobHandle {
        self.handle.clone()
    }

    /// Waits for the end. The first Ctrl-C stops the job cleanly: sources stop reading, what has been read is processed
    /// and written; windows that are still open give no result, because they are not complete. A second Ctrl-C aborts:
    /// this returns at once, though a runtime that is dropped then still waits for a task that blocks, such as a write to
    /// a stalled pipe.
    pub async fn wait(mut self) -> Result<Report> {
        let mut interrupted = false;
        loop {
            tokio::select! {
                joined = self.tasks.join() => {
                    joined?;
                    break;
                }
                // Without a handler for Ctrl-C (an error here) the process simply ends on it.
                Ok(()) = tokio::signal::ctrl_c() => {
                    if std::mem::replace(&mut interrupted, true) {
                        return Err(Error::Aborted { job: self.job });
                    }
                    self.handle.stop();
                }
            }
        }
        let stopped = self.handle.stopped.load(Relaxed);
        Ok(Report { stopped, elapsed: self.handle.started.elapsed(), metrics: self.handle.metrics() })
    }
}

/// Asks and stops a running job.
#[derive(Clone)]
pub struct JobHandle {
    counters: Arc<[Arc<Counters>]>,
    stop: Arc<watch::Sender<bool>>,
    /// Whether a source has stopped before its end.
    stopped: Arc<AtomicBool>,
    started: Moment,
}

impl JobHandle {
    /// Asks the job to stop cleanly; see [`RunningJob::wait`]. Returns at once.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// What has been counted so far.
    pub fn metrics(&self) -> JobMetrics {
        JobMetrics::read(&self.counters)
    }

    /// How long the job has been running.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// What a job did.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whether it was stopped before its sources were exhausted. Windows that were open then gave no result.
    pub stopped: bool,
    /// How long it ran.
    pub elapsed: Duration,
    /// What it counted.
    pub metrics: JobMetrics,
}
