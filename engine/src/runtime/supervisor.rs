//! Makes the tasks of a plan, starts them, and watches over them: the first failure ends all.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
};

use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};
use windrow_connectors::SplitId;
use windrow_operators::{Port, StreamSchema, key::Partitioner};

use super::{
    chain::{Chain, Link, Target, panic_message},
    channel::{Receiver, Sender, channel},
    exchange::Output,
    gate::Gate,
    operator_task::{Body as TaskBody, OperatorTask},
    sink_task::SinkTask,
    source_task::{RejectTo, SourceTask},
    splits::SplitWatermarks,
};
use crate::{
    Error, Result,
    clock::Moment,
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
            self.set.shutdown().await;
        }
        self.failure.take().or_else(|| self.echo.take()).map_or(Ok(()), Err)
    }

    fn panicked(&self, error: JoinError) -> Error {
        let operator = self.names.get(&error.id()).cloned().unwrap_or_default();
        let message = match error.try_into_panic() {
            Ok(panic) => panic_message(&*panic),
            Err(_) => "its task was cancelled".into(),
        };
        Error::Panic { operator, message }
    }
}

/// The channels of a plan, before the tasks take them.
struct Channels {
    /// By edge and sending task: the senders, one per receiving task for a hash edge.
    senders: HashMap<(usize, usize), Vec<Sender>>,
    /// By chain and task.
    receivers: HashMap<(usize, usize), Vec<Receiver>>,
}

fn connect(plan: &PhysicalPlan, capacity: usize) -> Channels {
    let mut channels = Channels { senders: HashMap::new(), receivers: HashMap::new() };
    for (index, edge) in plan.edges.iter().enumerate() {
        let to = plan.chains[edge.to].tasks;
        for from in 0..plan.chains[edge.from].tasks {
            let receivers = match edge.routing {
                Routing::Forward => from % to..from % to + 1,
                Routing::Hash(_) => 0..to,
            };
            for task in receivers {
                let (sender, receiver) = channel(capacity);
                channels.senders.entry((index, from)).or_default().push(sender);
                channels.receivers.entry((edge.to, task)).or_default().push(receiver);
            }
        }
    }
    channels
}

/// Starts every task of `plan`.
pub(crate) async fn start(
    graph: &Graph,
    plan: &PhysicalPlan,
    counters: &[Arc<Counters>],
    capacity: usize,
    stop: &watch::Receiver<bool>,
    stopped: &Arc<AtomicBool>,
) -> Result<Tasks> {
    let mut channels = connect(plan, capacity);
    let mut builder = Builder { graph, plan, counters, stop, stopped, channels: &mut channels };
    let mut tasks = Tasks { set: JoinSet::new(), names: HashMap::new(), echo: None, failure: None };
    // Everything that can fail while it is built is built before the first task runs.
    let mut built = Vec::new();
    for (index, chain) in plan.chains.iter().enumerate() {
        for task in 0..chain.tasks {
            built.push(builder.task(index, chain, task).await?);
        }
    }
    for task in built {
        let (name, handle) = match task {
            Task::Source(task) => (task.counters.name().to_string(), tasks.set.spawn(task.run())),
            Task::Operator(task) => (task.name.clone(), tasks.set.spawn(task.run())),
            Task::Sink(task) => (task.counters.name().to_string(), tasks.set.spawn(task.run())),
        };
        tasks.names.insert(handle.id(), name);
    }
    Ok(tasks)
}

enum Task {
    Source(Box<SourceTask>),
    Operator(OperatorTask),
    Sink(SinkTask),
}

struct Builder<'a> {
    graph: &'a Graph,
    plan: &'a PhysicalPlan,
    counters: &'a [Arc<Counters>],
    stop: &'a watch::Receiver<bool>,
    stopped: &'a Arc<AtomicBool>,
    channels: &'a mut Channels,
}

impl Builder<'_> {
    async fn task(&mut self, index: usize, chain: &ChainPlan, task: usize) -> Result<Task> {
        match (&chain.head, &chain.body) {
            (Head::Source { node, splits }, Body::Links { root, rejects, .. }) => {
                // Rejected records leave by edges only; they have no operators of this chain behind them.
                let (mut outputs, place) = self.outputs(index, task);
                let edges = rejects.iter().filter_map(|target| edge_of(*target, &place)).collect();
                let body = self.body(chain, task, root, &place, std::mem::take(&mut outputs))?;
                self.source(*node, task, &splits[task], body, edges).await
            }
            (Head::Gate, Body::Links { root, links, .. }) => {
                let (outputs, place) = self.outputs(index, task);
                let body = self.body(chain, task, root, &place, outputs)?;
                let name = links.first().map_or_else(String::new, |link| self.graph.nodes[link.node].name.clone());
                Ok(Task::Operator(OperatorTask { name, gate: self.gate(index, task), body }))
            }
            (_, Body::Sink { node }) => {
                let gate = self.gate(index, task);
                let node_plan = &self.graph.nodes[*node];
                let schema = node_plan.inputs.first().and_then(|input| self.graph.schema(*input)).cloned();
                let (Kind::Sink(sink), Some(schema)) = (&node_plan.kind, schema) else {
                    return Err(self.broken("a sink without an input"));
                };
                let counters = self.counters[*node].clone();
                Ok(Task::Sink(SinkTask { task, sink: sink.clone(), schema, gate, counters }))
            }
        }
    }

    fn gate(&mut self, chain: usize, task: usize) -> Gate {
        Gate::new(self.channels.receivers.remove(&(chain, task)).unwrap_or_default())
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
                (Routing::Forward, None) => continue,
            });
        }
        (outputs, place)
    }

    fn body(
        &self,
        chain: &ChainPlan,
        task: usize,
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
        for plan in links {
            let name = &self.graph.nodes[plan.node].name;
            let operator = (plan.factory)().map_err(|error| Error::Operator { operator: name.clone(), error })?;
            let counters = match plan.first_phase {
                true => self.first_phase(plan.node),
                false => self.counters[plan.node].clone(),
            };
            let targets = plan.targets.iter().filter_map(|(port, target)| Some((*port, here(*target)?))).collect();
            built.push(Link { operator, counters, targets });
        }
        let root = root.iter().filter_map(|target| here(*target)).collect();
        Ok(TaskBody::new(Chain::new(task, root, built), outputs))
    }

    /// The counters of a first phase come after those of the operators.
    fn first_phase(&self, node: usize) -> Arc<Counters> {
        let name = first_phase_name(&self.graph.nodes[node].name);
        let own = self.counters[self.graph.nodes.len()..].iter().find(|counters| counters.name() == name);
        own.unwrap_or(&self.counters[node]).clone()
    }

    async fn source(
        &self,
        node: usize,
        task: usize,
        splits: &[SplitId],
        body: TaskBody,
        reject_edges: Vec<usize>,
    ) -> Result<Task> {
        let counters = self.counters[node].clone();
        let Kind::Source { source, time, rejects } = &self.graph.nodes[node].kind else {
            return Err(self.broken("a source chain without a source"));
        };
        let assigned = splits.iter().map(|split| (split.clone(), None)).collect();
        let reader = source.reader(assigned).await;
        let reader = reader.map_err(|error| Error::Source { operator: counters.name().into(), error })?;
        let stream = StreamId { node, port: Port::MAIN };
        let Some(schema) = self.graph.schema(stream).map(StreamSchema::visible) else {
            return Err(self.broken("a source without a schema"));
        };
        let time = time
            .as_ref()
            .map(|(reader, watermarks)| (reader.clone(), SplitWatermarks::new(*watermarks, splits, Moment::now())));
        let rejects = match rejects {
            RejectPolicy::Fail => RejectTo::Fail,
            RejectPolicy::Drop => RejectTo::Count,
            RejectPolicy::Stream => RejectTo::Edges(reject_edges),
        };
        let positions = splits.iter().map(|split| (split.clone(), None)).collect();
        let (stop, stopped) = (self.stop.clone(), self.stopped.clone());
        Ok(Task::Source(Box::new(SourceTask {
            task,
            reader,
            schema,
            positions,
            time,
            rejects,
            body,
            counters,
            stop,
            stopped,
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
