//! Makes the tasks of a plan, starts them, and watches over them: the first failure ends all.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::AtomicBool},
};

use futures::future::BoxFuture;
use tokio::{
    sync::{Notify, mpsc::UnboundedSender, watch},
    task::{Id, JoinError, JoinSet},
};
use tracing::Instrument;
use windrow_connectors::{Epoch, Incarnation, SplitId};
use windrow_operators::{Port, StreamSchema, Timestamp, key::Partitioner, state::SegmentId};

use super::{
    align::Alignment,
    async_task::{TaskParts, asked::Asked},
    brake::Brake,
    chain::{Chain, Link, Target, guard, panic_message},
    channel::{Lane, Sender, channel},
    discovery::{Discovery, Found},
    exchange::Output,
    gate::{Gate, Inlet},
    memory::{Budget, Share, spilling_tasks},
    operator_task::{Body as TaskBody, OperatorTask},
    readers::{self, Opened},
    rejects::RejectTo,
    report::{Reporter, TaskId, TaskReport},
    sink_task::SinkTask,
    source_task::{LagAsked, Shown, SourceTask, Together, Waiting},
    source_time::SourceTime,
    spill::Directory,
    splits::{self, SplitWatermarks},
};
use crate::{
    Error, Result,
    checkpoint::{Layout, Restored, inherit},
    clock::{Moment, ProcessingTime},
    metrics::{Counters, FIRST_PHASE},
    plan::{
        graph::{Graph, Kind, RejectPolicy, StreamId},
        physical::{Body, ChainPlan, Head, PhysicalPlan, Routing},
    },
};

/// The tasks of a running job. Dropping it ends them.
pub(crate) struct Tasks {
    set: JoinSet<Result<()>>,
    names: HashMap<Id, String>,
    /// What a task said whose neighbour went away, until the neighbour says why.
    echo: Option<Error>,
    /// The cause of the failure, kept while the other tasks are being ended.
    failure: Option<Error>,
}

impl Tasks {
    /// Waits for all tasks; on a failure ends the others and returns its cause. Cancel-safe.
    pub(crate) async fn join(&mut self) -> Result<()> {
        while self.failure.is_none() {
            let Some(joined) = self.set.join_next_with_id().await else { break };
            let error = match joined {
                Ok((_, Ok(()))) => continue,
                Ok((_, Err(error))) => error,
                Err(error) => self.panicked(error),
            };
            // The task whose failure this echoes is about to end too, and tells why.
            let place = if error.is_echo() { &mut self.echo } else { &mut self.failure };
            place.get_or_insert(error);
        }
        if self.failure.is_some() {
            self.end().await;
        }
        self.failure.take().or_else(|| self.echo.take()).map_or(Ok(()), Err)
    }

    /// Ends the tasks that are left, and waits until they are gone.
    pub(crate) async fn end(&mut self) {
        self.set.shutdown().await;
    }

    /// As [`Tasks::end`], without waiting: one that blocks goes on until it does not.
    pub(crate) fn abort(&mut self) {
        self.set.abort_all();
    }

    /// Watches also over what serves the tasks: the coordinator of checkpoints, the discovery of splits.
    pub(crate) fn run(&mut self, name: String, servant: impl Future<Output = Result<()>> + Send + 'static) {
        let handle = self.set.spawn(inherit(servant).in_current_span());
        self.names.insert(handle.id(), name);
    }

    fn panicked(&self, error: JoinError) -> Error {
        panicked(self.names.get(&error.id()).cloned().unwrap_or_default(), error)
    }
}

fn panicked(operator: String, error: JoinError) -> Error {
    let message = match error.try_into_panic() {
        Ok(panic) => panic_message(&*panic),
        Err(_) => "its task was cancelled".into(),
    };
    Error::Panic { operator, message }
}

/// The channels of a plan, before the tasks take them.
struct Channels {
    /// By edge and sending task: the senders, one per receiving task for a hash edge.
    senders: HashMap<(usize, usize), Vec<Sender>>,
    /// By chain and task.
    inlets: HashMap<(usize, usize), Vec<Inlet>>,
    lanes: Lanes,
}

/// For who watches: the channels of each edge of the plan.
pub(crate) type Lanes = Vec<Vec<Joint>>;

/// A channel, and the tasks that it joins.
pub(crate) struct Joint {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) lane: Arc<Lane>,
}

fn connect(plan: &PhysicalPlan, capacity: usize) -> Channels {
    let lanes = plan.edges.iter().map(|_| Vec::new()).collect();
    let mut channels = Channels { senders: HashMap::new(), inlets: HashMap::new(), lanes };
    for (index, edge) in plan.edges.iter().enumerate() {
        let to = plan.chains[edge.to].tasks;
        for from in 0..plan.chains[edge.from].tasks {
            let receivers = match edge.routing {
                Routing::Forward => from % to..from % to + 1,
                Routing::Hash(_) | Routing::Broadcast => 0..to,
            };
            for task in receivers {
                let (sender, receiver) = channel(capacity);
                channels.lanes[index].push(Joint { from, to: task, lane: sender.lane().clone() });
                channels.senders.entry((index, from)).or_default().push(sender);
                let parts = matches!(edge.routing, Routing::Hash(_));
                let inlet = Inlet { port: edge.port, receiver, parts, time: edge.time };
                channels.inlets.entry((edge.to, task)).or_default().push(inlet);
            }
        }
    }
    channels
}

/// What the tasks are controlled by, and who they are.
pub(crate) struct Controls {
    /// Whether the job is to stop cleanly.
    pub(crate) stop: watch::Receiver<bool>,
    /// Set by a source that stopped before its end.
    pub(crate) stopped: Arc<AtomicBool>,
    /// The epoch whose barrier is wanted.
    pub(crate) barrier: watch::Receiver<Option<Epoch>>,
    /// Where tasks report.
    pub(crate) line: UnboundedSender<TaskReport>,
    pub(crate) incarnation: Incarnation,
    /// The epoch that rows belong to at first.
    pub(crate) epoch: Epoch,
    /// Whether the barrier of that epoch is sent before the first row.
    pub(crate) first: bool,
    /// Rung when it is decided where a split begins or ends and no checkpoint holds that.
    pub(crate) decided: Arc<Notify>,
    /// Whether there are checkpoints, so that operators keep account of what changes.
    pub(crate) checkpointed: bool,
    /// How many bytes of state may be in memory, and where the rest goes.
    pub(crate) memory: Option<(usize, Arc<Directory>)>,
    pub(crate) clock: ProcessingTime,
}

/// What the tasks are made from.
pub(crate) struct Parts {
    pub(crate) graph: Arc<Graph>,
    pub(crate) plan: PhysicalPlan,
    pub(crate) layout: Arc<Layout>,
    pub(crate) counters: Vec<Arc<Counters>>,
    /// Of a channel, in bytes.
    pub(crate) capacity: usize,
    pub(crate) controls: Controls,
    pub(crate) restored: Restored,
}

/// Does part of a start in a task of the runtime. State that is restored goes to disk with `block_in_place`, which panics in a
/// `LocalSet`, where a job may be started.
pub(crate) async fn apart<T: Send + 'static>(
    name: &str,
    part: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut task = JoinSet::new();
    task.spawn(inherit(part));
    match task.join_next().await {
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(panicked(name.into(), error)),
        None => Err(Error::Disconnected { operator: name.into() }),
    }
}

/// Starts every task of a plan, from what has been restored.
pub(crate) async fn start(parts: Parts) -> Result<(Tasks, Lanes)> {
    let built = apart("the start of the tasks", build(parts)).await?;
    let mut tasks = Tasks { set: JoinSet::new(), names: HashMap::new(), echo: None, failure: None };
    for task in built.tasks {
        let (name, handle) = match task {
            Task::Source(task) => (task.counters.name().to_string(), tasks.set.spawn(inherit(task.run()))),
            Task::Async(name, run) => (name, tasks.set.spawn(inherit(run))),
            Task::Operator(task) => (task.name.clone(), tasks.set.spawn(inherit(task.run()))),
            Task::Sink(task) => (task.counters.name().to_string(), tasks.set.spawn(inherit(task.run()))),
        };
        tasks.names.insert(handle.id(), name);
    }
    for (source, discovery) in built.discoveries {
        tasks.run(format!("the discovery of splits of {source}"), discovery.run());
    }
    Ok((tasks, built.lanes))
}

/// What is ready to run.
#[derive(Default)]
struct Built {
    tasks: Vec<Task>,
    /// By the name of their source.
    discoveries: Vec<(String, Discovery)>,
    lanes: Lanes,
}

/// Everything that can fail while it is built is built before the first task runs.
async fn build(parts: Parts) -> Result<Built> {
    let Parts { graph, plan, layout, counters, capacity, controls, mut restored } = parts;
    let opened = readers::open(&graph, &plan, &counters, &restored).await?;
    let mut channels = connect(&plan, capacity);
    let budget = controls.memory.clone();
    let budget = budget.map(|(bytes, directory)| Budget::new(bytes, directory, spilling_tasks(&graph, &plan)));
    let mut builder = Builder {
        graph: &graph,
        plan: &plan,
        layout: &layout,
        counters: &counters,
        capacity,
        controls,
        alignment: Arc::new(Alignment::new()),
        budget,
        brakes: HashMap::new(),
        found: HashMap::new(),
        opened,
        channels: &mut channels,
        restored: &mut restored,
    };
    let lanes = std::mem::take(&mut builder.channels.lanes);
    let mut built = Built { lanes, ..Built::default() };
    for (index, chain) in plan.chains.iter().enumerate() {
        built.discoveries.extend(builder.discovery(index, chain));
        for task in 0..chain.tasks {
            built.tasks.push(builder.task(index, chain, task).await?);
        }
    }
    Ok(built)
}

enum Task {
    Source(Box<SourceTask>),
    Operator(Box<OperatorTask>),
    Async(String, BoxFuture<'static, Result<()>>),
    Sink(Box<SinkTask>),
}

struct Builder<'a> {
    graph: &'a Graph,
    plan: &'a PhysicalPlan,
    layout: &'a Layout,
    counters: &'a [Arc<Counters>],
    capacity: usize,
    controls: Controls,
    alignment: Arc<Alignment>,
    budget: Option<Arc<Budget>>,
    /// How many tasks brake a source, by node.
    brakes: HashMap<usize, watch::Sender<usize>>,
    /// Of the tasks of sources that may get new splits, which they hear of here.
    found: HashMap<TaskId, Found>,
    /// The readers of the tasks of sources.
    opened: HashMap<TaskId, Opened>,
    channels: &'a mut Channels,
    restored: &'a mut Restored,
}

impl Builder<'_> {
    async fn task(&mut self, index: usize, chain: &ChainPlan, task: usize) -> Result<Task> {
        let reporter = Reporter { task: TaskId { chain: index, task }, line: self.controls.line.clone() };
        match (&chain.head, &chain.body) {
            (Head::Source { node, splits }, Body::Links { root, rejects, .. }) => {
                // Rejected records leave by edges only; they have no operators of this chain behind them.
                let (mut outputs, place) = self.outputs(index, task);
                let edges = rejects.iter().filter_map(|target| edge_of(*target, &place)).collect();
                let body = self.body(chain, reporter.task, root, &place, std::mem::take(&mut outputs))?;
                self.source(*node, &splits[task], body, edges, reporter)
            }
            (Head::Gate, Body::Links { root, links, .. }) => {
                let (outputs, place) = self.outputs(index, task);
                let body = self.body(chain, reporter.task, root, &place, outputs)?;
                let name = links.first().map_or_else(String::new, |link| self.graph.nodes[link.node].name.clone());
                Ok(Task::Operator(Box::new(OperatorTask { name, gate: self.gate(index, task), body, reporter })))
            }
            (Head::Async { node }, Body::Links { root, .. }) => self.calls(*node, chain, root, reporter).await,
            (_, Body::Sink { node }) => {
                let gate = self.gate(index, task);
                let node_plan = &self.graph.nodes[*node];
                let schema = node_plan.inputs.first().and_then(|input| self.graph.schema(*input)).cloned();
                let (Kind::Sink(sink), Some(schema)) = (&node_plan.kind, schema) else {
                    return Err(self.broken("a sink without an input"));
                };
                let counters = self.counters[*node].clone();
                let Controls { incarnation, epoch, clock, .. } = &self.controls;
                let writer = sink.writer(incarnation, task, schema.delivered()).await;
                let writer = writer.map_err(|error| Error::Sink { operator: counters.name().into(), error })?;
                Ok(Task::Sink(Box::new(SinkTask {
                    epoch: *epoch,
                    writer,
                    schema,
                    gate,
                    clock: *clock,
                    counters,
                    reporter,
                })))
            }
        }
    }

    /// A task that calls something outside.
    async fn calls(&mut self, node: usize, chain: &ChainPlan, root: &[Target], reporter: Reporter) -> Result<Task> {
        let Kind::Async(plan, policy) = &self.graph.nodes[node].kind else {
            return Err(self.broken("an async chain without an async operator"));
        };
        let counters = self.counters[node].clone();
        let operator = counters.name().to_string();
        plan.open().await.map_err(|error| Error::Source { operator: operator.clone(), error })?;
        let TaskId { chain: index, task } = reporter.task;
        let (outputs, place) = self.outputs(index, task);
        // The state is this task's, not that of the operator behind it that delivers.
        let state = self.restored.operator(self.layout, reporter.task, 0, false);
        let state = state.map_err(|error| Error::Operator { operator: operator.clone(), error })?;
        let body = self.body(chain, reporter.task, root, &place, outputs)?;
        let brakes =
            self.graph.sources_of(node).into_iter().map(|source| self.brakes.entry(source).or_default().clone());
        let (brake, channel_bytes) = (Brake::new(brakes.collect()), self.capacity);
        let (gate, policy) = (self.gate(index, task), policy.clone());
        let Controls { barrier, stop, stopped, checkpointed, .. } = &self.controls;
        let asked = Asked::new(barrier.clone(), stop.clone(), *checkpointed);
        let stopped = stopped.clone();
        let parts = TaskParts { policy, gate, body, counters, reporter, state, asked, stopped, brake, channel_bytes };
        let run = plan.task(parts);
        run.map(|run| Task::Async(operator.clone(), run)).map_err(|error| Error::Operator { operator, error })
    }

    fn gate(&mut self, chain: usize, task: usize) -> Gate {
        Gate::new(self.channels.inlets.remove(&(chain, task)).unwrap_or_default(), self.capacity)
    }

    /// The outputs of a task, and the place of each edge of the plan among them.
    fn outputs(&mut self, chain: usize, task: usize) -> (Vec<Output>, HashMap<usize, usize>) {
        let mut outputs = Vec::new();
        let mut place = HashMap::new();
        for (index, edge) in self.plan.edges.iter().enumerate().filter(|(_, edge)| edge.from == chain) {
            let mut senders = self.channels.senders.remove(&(index, task)).unwrap_or_default();
            place.insert(index, outputs.len());
            outputs.push(match (&edge.routing, senders.pop()) {
                (Routing::Forward, Some(sender)) => Output::Forward(sender),
                (Routing::Hash(key), last) => {
                    senders.extend(last);
                    Output::Hash(Partitioner::new(key.clone(), senders.len()), senders)
                }
                (Routing::Broadcast, last) => {
                    senders.extend(last);
                    Output::Broadcast(senders)
                }
                (Routing::Forward, None) => continue,
            });
        }
        (outputs, place)
    }

    fn body(
        &mut self,
        chain: &ChainPlan,
        task: TaskId,
        root: &[Target],
        place: &HashMap<usize, usize>,
        outputs: Vec<Output>,
    ) -> Result<TaskBody> {
        let here = |target: Target| match target {
            Target::Edge(edge) => place.get(&edge).map(|&place| Target::Edge(place)),
            link => Some(link),
        };
        let Body::Links { links, .. } = &chain.body else { return Err(self.broken("a chain without operators")) };
        let mut built = Vec::with_capacity(links.len());
        for (place, plan) in links.iter().enumerate() {
            let name = &self.graph.nodes[plan.node].name;
            let mut operator = (plan.factory)().map_err(|error| Error::Operator { operator: name.clone(), error })?;
            let delivers = matches!(chain.head, Head::Async { node } if node == plan.node);
            let counters = match plan.first_phase {
                true => self.first_phase(plan.node),
                // The task itself counts; what only delivers its results would count them as rows that came in.
                false if delivers => Counters::new(name.clone(), chain.tasks),
                false => self.counters[plan.node].clone(),
            };
            let targets = plan.targets.iter().filter_map(|(port, target)| Some((*port, here(*target)?))).collect();
            let share = self.budget.as_ref().map(|budget| budget.limit(operator.as_mut(), &counters));
            let spills = share.as_ref().is_some_and(Share::spills);
            if share.is_some() && spills != self.layout.chains[task.chain].operators[place].spills {
                return Err(self.broken("an operator that does not put away what its plan says"));
            }
            let mut next_segment = SegmentId(0);
            if self.controls.checkpointed {
                let state = self.restored.operator(self.layout, task, place, spills);
                let state = state.map_err(|error| Error::Operator { operator: name.clone(), error })?;
                next_segment.0 = state.parts.iter().map(|part| (part.segments.len() + part.stored.len()) as u64).sum();
                guard(&counters, || operator.load(&state))?;
            }
            built.push(Link::new(operator, counters, targets, next_segment, share));
        }
        let root = root.iter().filter_map(|target| here(*target)).collect();
        let chain = Chain::new(task.task, root, built, self.controls.checkpointed);
        Ok(TaskBody::new(chain, outputs, self.controls.clock))
    }

    /// The counters of a first phase come after those of the operators.
    fn first_phase(&self, node: usize) -> Arc<Counters> {
        let name = first_phase_name(&self.graph.nodes[node].name);
        let own = self.counters[self.graph.nodes.len()..].iter().find(|counters| counters.name() == name);
        own.unwrap_or(&self.counters[node]).clone()
    }

    /// Who looks for the new splits of a source, and its name; none when there may be none.
    fn discovery(&mut self, index: usize, chain: &ChainPlan) -> Option<(String, Discovery)> {
        let Head::Source { node, splits } = &chain.head else { return None };
        let Kind::Source { source, .. } = &self.graph.nodes[*node].kind else { return None };
        let every = source.discover_every()?;
        let id = self.graph.nodes[*node].id.as_deref().unwrap_or_default();
        // What has ended and vanished must not be read again when it is back.
        let former = self.restored.known(id).into_iter().flatten().map(SplitId::new);
        let known: HashSet<SplitId> = splits.iter().flatten().cloned().chain(former).collect();
        let counters = self.counters[*node].clone();
        let (discovery, found) =
            Discovery::new(source.clone(), every, known, splits, counters.clone(), self.controls.stop.clone());
        self.found.extend((0..).map(|task| TaskId { chain: index, task }).zip(found));
        Some((counters.name().to_string(), discovery))
    }

    fn source(
        &mut self,
        node: usize,
        splits: &[SplitId],
        body: TaskBody,
        reject_edges: Vec<usize>,
        reporter: Reporter,
    ) -> Result<Task> {
        let counters = self.counters[node].clone();
        let Kind::Source { time, rejects, .. } = &self.graph.nodes[node].kind else {
            return Err(self.broken("a source chain without a source"));
        };
        let id = self.graph.nodes[node].id.as_deref().unwrap_or_default();
        let Some(Opened { mut reader, states, progress, decided, .. }) = self.opened.remove(&reporter.task) else {
            return Err(self.broken("a source without a reader"));
        };
        if decided && !self.controls.first {
            self.controls.decided.notify_one();
        }
        if time.is_none() || matches!(rejects, RejectPolicy::Drop) {
            // No row is rejected for its time, or nobody sees which.
            reader.without_origins();
        }
        let stream = StreamId { node, port: Port::MAIN };
        let Some(schema) = self.graph.schema(stream).map(StreamSchema::visible) else {
            return Err(self.broken("a source without a schema"));
        };
        let floor = self.restored.latest(id).map(Timestamp::from_micros);
        let mut said_before = Vec::new();
        let mut source_time = None;
        if let Some((reader, watermarks)) = time {
            let (own, said) = guard(&counters, || {
                // Those that have appeared too: perhaps they had been noticed before, and held the watermark.
                let mut own = SplitWatermarks::new(watermarks.clone(), splits, Moment::now());
                let said = self.restored.whole(id).and_then(|states| splits::said(watermarks, states));
                let said = own.restore(&states, said);
                Ok((own, said))
            })?;
            said_before = said;
            let mut time = SourceTime::new(reader.clone(), watermarks, own, self.controls.clock, floor);
            if let Some(drift) = watermarks.align_within {
                time.align_with(self.alignment.join(counters.name(), drift, time.splits.slowest()));
            }
            source_time = Some(time);
        }
        let all_or_none = !reader.pause(&[]);
        let time_column = source_time.as_ref().and_then(SourceTime::column);
        let together = Together::of(&schema, time_column, self.capacity);
        let rejects = match rejects {
            RejectPolicy::Fail => RejectTo::Fail,
            RejectPolicy::Drop => RejectTo::Count,
            RejectPolicy::Stream => RejectTo::Edges(reject_edges),
        };
        let brake = self.brakes.entry(node).or_default().subscribe();
        let Controls { stop, stopped, barrier, decided, .. } = &self.controls;
        Ok(Task::Source(Box::new(SourceTask {
            reader,
            schema,
            splits: progress,
            found: self.found.remove(&reporter.task).unwrap_or_default(),
            put_off: Waiting::default(),
            shown: Shown::default(),
            decided: decided.clone(),
            lag: LagAsked::not_yet(),
            time: source_time,
            all_or_none,
            waits: false,
            brake,
            rejects,
            ticked: false,
            together,
            body,
            counters,
            said_before,
            barrier: barrier.clone(),
            reporter,
            stop: stop.clone(),
            stopped: stopped.clone(),
        })))
    }

    fn broken(&self, what: &str) -> Error {
        Error::Plan { job: self.graph.job.clone(), mistakes: vec![format!("internal: {what}")] }
    }
}

fn edge_of(target: Target, place: &HashMap<usize, usize>) -> Option<usize> {
    match target {
        Target::Edge(edge) => place.get(&edge).copied(),
        Target::Link(_) => None,
    }
}

/// What the first phase of a window is called.
pub(crate) fn first_phase_name(name: &str) -> String {
    format!("{name}{FIRST_PHASE}")
}
