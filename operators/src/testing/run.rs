//! The executor of the harness: all tasks in one thread, in an order drawn from the seed.
//!
//! ```text
//!   source 0 ─► chain ─┬─queue─► gate 0 ─► chain ─► results
//!                      ╳
//!   source 1 ─► chain ─┴─queue─► gate 1 ─► chain ─► results
//! ```
//!
//! The source tasks of a second input are senders to the first exchange like those of the first, with numbers after them.
//!
//! There is one queue from each sender to each receiver. What one sender says stays in order; whose turn it is does not.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use fastrand::Rng;

use super::{
    arrivals::{Message, Scenario},
    guard::{Former, Guarded, Late},
    pipeline::Pipeline,
    placed::Placed,
    restarts::{Rest, Restarts, cut, go_on},
};
use crate::{Advance, Partitioning, Port, Timestamp, Watermark, WatermarkMerge, key::Partitioner};

/// What came out of a run.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) results: Vec<RecordBatch>,
    pub(super) late: Vec<Late>,
    /// How many rows the source tasks have given.
    taken: usize,
}

/// Runs a pipeline on the rows of its inputs, and after each barrier goes on with another number of tasks. `pipeline` gives the one
/// for so many tasks.
pub(super) fn run<'p>(
    pipeline: impl Fn(usize) -> &'p Pipeline<'p>,
    scenario: &Scenario,
    restarts: Restarts,
    inputs: &[RecordBatch],
) -> Result<Outcome, String> {
    let mut random = Rng::with_seed(scenario.seed ^ 0xba_44_1e);
    let mut outcome = Outcome::default();
    let mut rest = Rest { inputs: inputs.to_vec(), said: Timestamp::MIN };
    let mut formers: Vec<Former> = Vec::new();
    let legs = restarts.legs(scenario);
    for (leg, &tasks) in legs.iter().enumerate() {
        let scenario = scenario.later(leg, tasks);
        let pipeline = pipeline(tasks);
        let each = pipeline.inputs().zip(&rest.inputs).enumerate();
        let mut sources =
            each.map(|(i, (stream, rows))| scenario.arrivals(i, stream, rows)).collect::<Result<Vec<_>, _>>()?;
        sources.iter_mut().for_each(|sources| go_on(sources, rest.said));
        let more = legs.len() - leg - 1;
        let last = more == 0;
        if !last {
            cut(&mut sources, more, &mut random, &mut rest)?;
        }
        let sources = sources.into_iter().flatten().collect();
        let mut run = Run::new(pipeline, &scenario, restarts, sources, outcome)?;
        if leg > 0 {
            run.guards().try_for_each(|guard| guard.load(&formers))?;
        }
        run.deliver()?;
        if last {
            if !run.guards().all(|guard| guard.has_ended()) {
                return Err("the end of the input did not reach every operator".into());
            }
        } else {
            run.flush()?;
            formers = run.guards().map(Guarded::leave).collect::<Result<_, _>>()?;
        }
        outcome = run.outcome;
    }
    let rows: usize = inputs.iter().map(RecordBatch::num_rows).sum();
    match outcome.taken == rows {
        true => Ok(outcome),
        false => Err(format!("of {rows} rows the tasks were given {}", outcome.taken)),
    }
}

struct Run<'p> {
    /// By segment and task.
    tasks: Vec<Vec<Task<'p>>>,
    /// By segment, then from which sender to which receiver. Before the first segment stand the source tasks, each with
    /// the task of its number as the only receiver.
    queues: Vec<Vec<Vec<VecDeque<Message>>>>,
    /// For each sender of each segment, whether its messages take longer in this run.
    slow: Vec<Vec<bool>>,
    /// How many source tasks an input has: those from this number on are of the second.
    parallelism: usize,
    random: Rng,
    outcome: Outcome,
    /// What is said of the last segment.
    placed: Option<Placed>,
}

struct Task<'p> {
    gate: WatermarkMerge,
    chain: Vec<Guarded<'p>>,
    /// How its rows are routed to the next segment, if there is one.
    exchange: Option<Exchange>,
    /// What it was given and has promised, since this was looked at.
    promises: Vec<(Timestamp, Timestamp)>,
}

enum Exchange {
    Key(Partitioner),
    /// Every one of so many tasks gets all rows.
    Broadcast(usize),
}

impl Exchange {
    fn new(partitioning: Partitioning, tasks: usize) -> Self {
        match partitioning {
            Partitioning::Key(key) => Self::Key(Partitioner::new(key, tasks)),
            Partitioning::Broadcast => Self::Broadcast(tasks),
        }
    }

    fn split(&mut self, batch: RecordBatch) -> Result<Vec<(usize, RecordBatch)>, String> {
        match self {
            Self::Key(partitioner) => partitioner.split(&batch).map_err(|error| error.to_string()),
            Self::Broadcast(tasks) => Ok((0..*tasks).map(|task| (task, batch.clone())).collect()),
        }
    }
}

impl<'p> Run<'p> {
    fn new(
        pipeline: &'p Pipeline<'p>,
        scenario: &Scenario,
        restarts: Restarts,
        sources: Vec<Vec<Message>>,
        outcome: Outcome,
    ) -> Result<Self, String> {
        let parallelism = scenario.parallelism;
        let mut random = Rng::with_seed(scenario.seed ^ 0x5c_ed_01);
        let segments = pipeline.segments();
        let mut tasks = Vec::with_capacity(segments.len());
        for (i, segment) in segments.iter().enumerate() {
            let next = segments.get(i + 1);
            let senders = if i == 0 { sources.len() } else { parallelism };
            let inputs = if i == 0 { 1 } else { tasks.last().map_or(1, Vec::len) };
            let mut task = |task: usize| {
                let mut guard = |stage| {
                    let habit = restarts.habit(random.u64(..));
                    Guarded::new(stage, (task, parallelism), habit)
                };
                let chain = segment.stages.iter().map(&mut guard).collect::<Result<_, _>>()?;
                let of_left = next.map(|next| Partitioning::Key(next.key.clone()));
                let exchange = if task < parallelism { of_left } else { next.and_then(|next| next.right.clone()) };
                let exchange = exchange.map(|partitioning| Exchange::new(partitioning, parallelism));
                Ok::<_, String>(Task { gate: WatermarkMerge::new(inputs), chain, exchange, promises: Vec::new() })
            };
            tasks.push((0..senders).map(&mut task).collect::<Result<Vec<_>, _>>()?);
        }
        let sources = sources.into_iter().map(|messages| vec![VecDeque::from(messages)]).collect();
        let mut queues: Vec<Vec<Vec<VecDeque<Message>>>> = vec![sources];
        let empty = |senders| (0..senders).map(|_| (0..parallelism).map(|_| VecDeque::new()).collect()).collect();
        queues.extend((1..segments.len()).map(|i| empty(tasks[i - 1].len())));
        let slow = queues.iter().map(|senders| senders.iter().map(|_| random.u8(..4) == 0).collect()).collect();
        let placed = pipeline.keyed_output().map(|output| Placed::new(output, parallelism));
        Ok(Self { tasks, queues, slow, parallelism, random, outcome, placed })
    }

    fn guards(&mut self) -> impl Iterator<Item = &mut Guarded<'p>> {
        self.tasks.iter_mut().flatten().flat_map(|task| &mut task.chain)
    }

    /// Delivers what is in the queues, and what follows from it.
    fn deliver(&mut self) -> Result<(), String> {
        while let Some((segment, sender, receiver)) = self.choose() {
            self.step(segment, sender, receiver)?;
        }
        Ok(())
    }

    /// A barrier: segment after segment emits what it holds back, until the next has taken it.
    fn flush(&mut self) -> Result<(), String> {
        for segment in 0..self.tasks.len() {
            for task in 0..self.tasks[segment].len() {
                let mut emitted = Vec::new();
                flush(&mut self.tasks[segment][task].chain, &mut emitted, &mut self.outcome.late)?;
                self.send(segment, task, emitted)?;
            }
            self.deliver()?;
        }
        Ok(())
    }

    /// A queue with a message in it: (segment, sender, receiver).
    fn choose(&mut self) -> Option<(usize, usize, usize)> {
        let mut ready = Vec::new();
        for (segment, senders) in self.queues.iter().enumerate() {
            for (sender, receivers) in senders.iter().enumerate() {
                let waiting = (0..receivers.len()).filter(|&receiver| !receivers[receiver].is_empty());
                ready.extend(waiting.map(|receiver| (segment, sender, receiver)));
            }
        }
        let first = *self.random.choice(&ready)?;
        let hesitate = self.slow[first.0][first.1] && self.random.u8(..8) != 0;
        if hesitate { self.random.choice(ready) } else { Some(first) }
    }

    /// Delivers the next message of a queue and puts what follows from it into the queues of the next segment.
    fn step(&mut self, segment: usize, sender: usize, receiver: usize) -> Result<(), String> {
        let Some(message) = self.queues[segment][sender][receiver].pop_front() else { return Ok(()) };
        // A source task has one input and its own number.
        let (input, task) = if segment == 0 { (0, sender) } else { (sender, receiver) };
        if let (0, Message::Batch(batch)) = (segment, &message) {
            self.outcome.taken += batch.num_rows();
        }
        let port = if input < self.parallelism { Port::MAIN } else { Port::RIGHT };
        let emitted = self.tasks[segment][task].take((input, port), message, &mut self.outcome.late)?;
        self.send(segment, task, emitted)
    }

    /// Puts what a task emitted into the queues of the next segment.
    fn send(&mut self, segment: usize, task: usize, emitted: Vec<Message>) -> Result<(), String> {
        let Some(exchange) = &mut self.tasks[segment][task].exchange else {
            if let Some(placed) = &mut self.placed {
                placed.emitted(task, &emitted)?;
                self.tasks[segment][task]
                    .promises
                    .drain(..)
                    .try_for_each(|(given, promise)| placed.promised(given, promise))?;
            }
            let rows = emitted.into_iter().filter_map(|message| match message {
                Message::Batch(batch) => Some(batch),
                Message::Watermark(_) => None,
            });
            self.outcome.results.extend(rows);
            return Ok(());
        };
        let queues = &mut self.queues[segment + 1][task];
        for message in emitted {
            match message {
                Message::Batch(batch) => {
                    for (receiver, part) in exchange.split(batch)? {
                        queues[receiver].push_back(Message::Batch(part));
                    }
                }
                Message::Watermark(watermark) => {
                    queues.iter_mut().for_each(|queue| queue.push_back(Message::Watermark(watermark)));
                }
            }
        }
        Ok(())
    }
}

impl Task<'_> {
    /// Takes one message of an input; returns what the task sends on.
    fn take(
        &mut self,
        (input, port): (usize, Port),
        message: Message,
        late: &mut Vec<Late>,
    ) -> Result<Vec<Message>, String> {
        let mut emitted = Vec::new();
        let mut said = match message {
            Message::Batch(batch) => {
                let woken = self.gate.wake(input);
                self.pass(woken, &mut emitted, late)?;
                process(&mut self.chain, port, batch, &mut emitted, late)?;
                None
            }
            Message::Watermark(watermark) => self.gate.observe(input, watermark),
        };
        while said.is_some() {
            self.pass(said, &mut emitted, late)?;
            said = self.gate.poll();
        }
        Ok(emitted)
    }

    fn pass(
        &mut self,
        said: Option<Watermark>,
        emitted: &mut Vec<Message>,
        late: &mut Vec<Late>,
    ) -> Result<(), String> {
        match said {
            Some(Watermark::At(time)) => {
                advance(&mut self.chain, time, emitted, late)?;
                if let Some(Message::Watermark(Watermark::At(promise))) = emitted.last() {
                    self.promises.push((time, *promise));
                }
                Ok(())
            }
            Some(Watermark::Idle) => {
                flush(&mut self.chain, emitted, late)?;
                emitted.push(Message::Watermark(Watermark::Idle));
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Rows through the operators of a task.
fn process(
    chain: &mut [Guarded<'_>],
    port: Port,
    batch: RecordBatch,
    emitted: &mut Vec<Message>,
    late: &mut Vec<Late>,
) -> Result<(), String> {
    let Some((first, rest)) = chain.split_first_mut() else {
        emitted.push(Message::Batch(batch));
        return Ok(());
    };
    for result in first.process(port, batch, late)? {
        process(rest, Port::MAIN, result, emitted, late)?;
    }
    Ok(())
}

/// What the operators of a task hold back, when nobody will wait for it.
fn flush(chain: &mut [Guarded<'_>], emitted: &mut Vec<Message>, late: &mut Vec<Late>) -> Result<(), String> {
    let Some((first, rest)) = chain.split_first_mut() else { return Ok(()) };
    for result in first.flush(late)? {
        process(rest, Port::MAIN, result, emitted, late)?;
    }
    flush(rest, emitted, late)
}

/// A watermark through the operators of a task: what each promises is what the next is given.
fn advance(
    chain: &mut [Guarded<'_>],
    time: Timestamp,
    emitted: &mut Vec<Message>,
    late: &mut Vec<Late>,
) -> Result<(), String> {
    let Some((first, rest)) = chain.split_first_mut() else {
        emitted.push(Message::Watermark(Watermark::At(time)));
        return Ok(());
    };
    loop {
        let (results, step) = first.advance(time, late)?;
        for result in results {
            process(rest, Port::MAIN, result, emitted, late)?;
        }
        if let Advance::Promise(promise) = step {
            return advance(rest, promise, emitted, late);
        }
    }
}
