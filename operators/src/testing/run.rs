//! The executor of the harness: all tasks in one thread, in an order drawn from the seed.
//!
//! ```text
//!   source 0 ─► chain ─┬─queue─► gate 0 ─► chain ─► results
//!                      ╳
//!   source 1 ─► chain ─┴─queue─► gate 1 ─► chain ─► results
//! ```
//!
//! There is one queue from each sender to each receiver. What one sender says stays in order; whose turn it is does not.

use std::collections::VecDeque;

use arrow::array::RecordBatch;
use fastrand::Rng;

use super::{
    arrivals::{Message, Scenario},
    guard::{Former, Guarded, Late},
    pipeline::Pipeline,
    restarts::{Rest, Restarts, cut, go_on},
};
use crate::{Advance, Timestamp, Watermark, WatermarkMerge, key::Partitioner};

/// What came out of a run.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) results: Vec<RecordBatch>,
    pub(super) late: Vec<Late>,
    /// How many rows the source tasks have given.
    taken: usize,
}

/// Runs a pipeline on `rows`, and after each barrier goes on with another number of tasks. `pipeline` gives the one
/// for so many tasks.
pub(super) fn run<'p>(
    pipeline: impl Fn(usize) -> &'p Pipeline<'p>,
    scenario: &Scenario,
    restarts: Restarts,
    rows: &RecordBatch,
) -> Result<Outcome, String> {
    let mut random = Rng::with_seed(scenario.seed ^ 0xba_44_1e);
    let mut outcome = Outcome::default();
    let mut rest = Rest { rows: rows.clone(), said: Timestamp::MIN };
    let mut formers: Vec<Former> = Vec::new();
    let legs = restarts.legs(scenario);
    for (leg, &tasks) in legs.iter().enumerate() {
        let scenario = scenario.later(leg, tasks);
        let pipeline = pipeline(tasks);
        let mut sources = scenario.arrivals(pipeline.input(), &rest.rows)?;
        go_on(&mut sources, rest.said);
        let more = legs.len() - leg - 1;
        let last = more == 0;
        if !last {
            rest = cut(&mut sources, rows, more, &mut random)?;
        }
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
    match outcome.taken == rows.num_rows() {
        true => Ok(outcome),
        false => Err(format!("of {} rows the tasks were given {}", rows.num_rows(), outcome.taken)),
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
    random: Rng,
    outcome: Outcome,
}

struct Task<'p> {
    gate: WatermarkMerge,
    chain: Vec<Guarded<'p>>,
    /// How its rows are routed to the next segment, if there is one.
    exchange: Option<Partitioner>,
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
            let next = segments.get(i + 1).map(|next| Partitioner::new(next.key.clone(), parallelism));
            let inputs = if i == 0 { 1 } else { parallelism };
            let mut task = |task| {
                let mut guard = |stage| {
                    let habit = restarts.habit(random.u64(..));
                    Guarded::new(stage, (task, parallelism), habit)
                };
                let chain = segment.stages.iter().map(&mut guard).collect::<Result<_, _>>()?;
                Ok::<_, String>(Task { gate: WatermarkMerge::new(inputs), chain, exchange: next.clone() })
            };
            tasks.push((0..parallelism).map(&mut task).collect::<Result<Vec<_>, _>>()?);
        }
        let sources = sources.into_iter().map(|messages| vec![VecDeque::from(messages)]).collect();
        let mut queues: Vec<Vec<Vec<VecDeque<Message>>>> = vec![sources];
        let empty = || (0..parallelism).map(|_| (0..parallelism).map(|_| VecDeque::new()).collect()).collect();
        queues.extend((1..segments.len()).map(|_| empty()));
        let slow = queues.iter().map(|senders| senders.iter().map(|_| random.u8(..4) == 0).collect()).collect();
        Ok(Self { tasks, queues, slow, random, outcome })
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
        let emitted = self.tasks[segment][task].take(input, message, &mut self.outcome.late)?;
        self.send(segment, task, emitted)
    }

    /// Puts what a task emitted into the queues of the next segment.
    fn send(&mut self, segment: usize, task: usize, emitted: Vec<Message>) -> Result<(), String> {
        let Some(partitioner) = &mut self.tasks[segment][task].exchange else {
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
                    for (receiver, part) in partitioner.split(&batch).map_err(|error| error.to_string())? {
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
    fn take(&mut self, input: usize, message: Message, late: &mut Vec<Late>) -> Result<Vec<Message>, String> {
        let mut emitted = Vec::new();
        let mut said = match message {
            Message::Batch(batch) => {
                let woken = self.gate.wake(input);
                self.pass(woken, &mut emitted, late)?;
                process(&mut self.chain, batch, &mut emitted, late)?;
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
            Some(Watermark::At(time)) => advance(&mut self.chain, time, emitted, late),
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
    batch: RecordBatch,
    emitted: &mut Vec<Message>,
    late: &mut Vec<Late>,
) -> Result<(), String> {
    let Some((first, rest)) = chain.split_first_mut() else {
        emitted.push(Message::Batch(batch));
        return Ok(());
    };
    for result in first.process(batch, late)? {
        process(rest, result, emitted, late)?;
    }
    Ok(())
}

/// What the operators of a task hold back, when nobody will wait for it.
fn flush(chain: &mut [Guarded<'_>], emitted: &mut Vec<Message>, late: &mut Vec<Late>) -> Result<(), String> {
    let Some((first, rest)) = chain.split_first_mut() else { return Ok(()) };
    for result in first.flush(late)? {
        process(rest, result, emitted, late)?;
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
            process(rest, result, emitted, late)?;
        }
        if let Advance::Promise(promise) = step {
            return advance(rest, promise, emitted, late);
        }
    }
}
