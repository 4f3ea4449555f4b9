//! The one place that merges the inputs of a task.
//!
//! ```text
//!   input 0 ──┐
//!   input 1 ──┼──► Gate ──► batches in order of each input, one merged watermark, one barrier per epoch, one end
//!   input 2 ──┘
//! ```
//!
//! An input that ended stands at the end of time and holds nobody back. When all have ended, so has the task: as
//! exhausted if all were, as stopped if any was stopped.
//!
//! A barrier cuts every input at the same epoch. An input whose barrier has come is not read until those of all others
//! have come, so nothing behind the cut mixes with what is before it; the others are read on, so nobody waits for a
//! reader that waits for them. An ended input is cut for ever.
//!
//! Small batches of an exchange that have come already are said as one ([`gather`](super::gather)).

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use windrow_connectors::Epoch;
use windrow_operators::{Port, Timestamp, Watermark, WatermarkMerge};

use super::{
    channel::{Disconnected, End, Message, Receiver},
    gather::{self, Gathered},
};
use crate::checkpoint::mutated;

pub(crate) struct Gate {
    inputs: Vec<Input>,
    kinds: Vec<Kind>,
    merge: WatermarkMerge,
    /// What is to be said before the next message is read.
    gathered: Gathered,
    /// Where the next look begins, so that no input starves the others.
    next: usize,
    /// The epoch whose barrier has come on some inputs and not yet on all.
    aligning: Option<Epoch>,
    stopped: bool,
}

/// What a gate reads.
pub(crate) struct Inlet {
    /// Which input of the operator behind the gate its rows are.
    pub(crate) port: Port,
    pub(crate) receiver: Receiver,
    /// Whether an exchange sends its batches in parts.
    pub(crate) parts: bool,
    /// The event time of its rows, if they may be late behind the gate.
    pub(crate) time: Option<usize>,
}

/// What is known of the rows of an input.
struct Kind {
    port: Port,
    /// Whether its batches may be made one: `None` until there is one.
    joins: Option<bool>,
    time: Option<usize>,
}

impl Kind {
    fn of(inlet: &Inlet) -> Self {
        Self { port: inlet.port, joins: (!inlet.parts).then_some(false), time: inlet.time }
    }
}

enum Input {
    Open(Receiver),
    /// Its barrier has come: it waits for those of the others.
    Aligned(Receiver),
    Ended,
}

impl Gate {
    /// Reads from channels that hold so many bytes.
    pub(crate) fn new(inlets: Vec<Inlet>, channel_bytes: usize) -> Self {
        Self {
            kinds: inlets.iter().map(Kind::of).collect(),
            merge: WatermarkMerge::new(inlets.len()),
            gathered: Gathered::new(channel_bytes),
            next: 0,
            aligning: None,
            stopped: false,
            inputs: inlets.into_iter().map(|inlet| Input::Open(inlet.receiver)).collect(),
        }
    }

    /// The next message of the merged stream, with the port for rows. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<(Port, Message), Disconnected> {
        loop {
            if let Some(message) = self.gathered.next() {
                return Ok(message);
            }
            if self.has_ended() {
                let end = if self.stopped { End::Stopped } else { End::Exhausted };
                return Ok((Port::MAIN, Message::End(end)));
            }
            poll_fn(|cx| self.gather(cx)).await?;
        }
    }

    fn has_ended(&self) -> bool {
        self.inputs.iter().all(|input| matches!(input, Input::Ended))
    }

    /// Takes what has come, as long as it may be said together.
    fn gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnected>> {
        while self.gathered.wants_more() {
            let Poll::Ready((input, received)) = self.poll_inputs(cx) else { break };
            let Some(message) = received else { return Poll::Ready(Err(Disconnected)) };
            self.take(input, message);
        }
        self.gathered.settle();
        if self.gathered.is_empty() && !self.has_ended() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_inputs(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Message>)> {
        let inputs = self.inputs.len();
        for step in 0..inputs {
            let index = (self.next + step) % inputs;
            if let Input::Open(input) = &mut self.inputs[index]
                && let Poll::Ready(received) = input.poll(cx)
            {
                self.next = (index + 1) % inputs;
                return Poll::Ready((index, received));
            }
        }
        Poll::Pending
    }

    /// Takes what `input` said.
    fn take(&mut self, input: usize, message: Message) {
        match message {
            Message::Batch(batch) => {
                if let Some(woken) = self.merge.wake(input) {
                    self.gathered.settle();
                    self.say(Some(woken));
                    self.gathered.settle();
                }
                let Kind { port, joins, time } = &mut self.kinds[input];
                if *joins.get_or_insert_with(|| gather::joins(batch.schema_ref())) {
                    self.gathered.batch((*port, input), batch, *time);
                } else {
                    self.gathered.say(*port, Message::Batch(batch));
                }
            }
            Message::Watermark(watermark) => {
                let said = self.merge.observe(input, watermark);
                self.say(said);
            }
            Message::Barrier(epoch) => self.align(input, epoch),
            Message::End(end) => {
                self.inputs[input] = Input::Ended;
                self.stopped |= end == End::Stopped;
                // A stopped input promises nothing more than it has.
                if end == End::Exhausted {
                    let said = self.merge.observe(input, Watermark::At(Timestamp::MAX));
                    self.say(said);
                }
            }
        }
        self.pass_barrier();
    }

    /// Says how far time has come, and what remains to be said of it.
    fn say(&mut self, mut said: Option<Watermark>) {
        while let Some(watermark) = said {
            self.gathered.watermark(watermark);
            said = self.merge.poll();
        }
    }

    /// The barrier of `epoch` has come on `input`.
    fn align(&mut self, input: usize, epoch: Epoch) {
        if mutated("a gate passes a barrier at its first input") {
            if self.aligning.replace(epoch) != Some(epoch) {
                self.gathered.say(Port::MAIN, Message::Barrier(epoch));
            }
            return;
        }
        debug_assert!(self.aligning.is_none_or(|other| other == epoch), "one epoch at a time");
        self.aligning = Some(epoch);
        if let Input::Open(receiver) = std::mem::replace(&mut self.inputs[input], Input::Ended) {
            self.inputs[input] = Input::Aligned(receiver);
        }
    }

    /// Says the barrier when it has come on every input that has not ended, and reads all of them again.
    fn pass_barrier(&mut self) {
        if self.inputs.iter().any(|input| matches!(input, Input::Open(_))) {
            return;
        }
        if mutated("a gate passes a barrier at its first input") {
            return;
        }
        let Some(epoch) = self.aligning.take() else { return };
        self.gathered.say(Port::MAIN, Message::Barrier(epoch));
        for input in &mut self.inputs {
            if let Input::Aligned(receiver) = std::mem::replace(input, Input::Ended) {
                *input = Input::Open(receiver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        datatypes::Int64Type,
    };

    use super::{super::channel::channel, *};

    fn at(t: i64) -> Message {
        Message::Watermark(Watermark::At(Timestamp::from_micros(t)))
    }

    fn on_main(receivers: Vec<Receiver>) -> Vec<Inlet> {
        receivers.into_iter().map(|receiver| Inlet { port: Port::MAIN, receiver, parts: true, time: None }).collect()
    }

    /// Sends each script through an input of its own, one after the other, and gives what the gate says.
    async fn merged(scripts: Vec<Vec<Message>>) -> Vec<String> {
        let mut receivers = Vec::new();
        for script in scripts {
            let (sender, receiver) = channel(1 << 20);
            for message in script {
                sender.send(message).await.unwrap();
            }
            receivers.push(receiver);
        }
        let mut gate = Gate::new(on_main(receivers), 1 << 20);
        let mut said = Vec::new();
        loop {
            match gate.next().await {
                Err(Disconnected) => said.push("disconnected".into()),
                Ok((_, message)) => said.push(format!("{message:?}")),
            }
            if said.last().is_some_and(|last| last.starts_with("End") || last.starts_with("disc")) {
                return said;
            }
        }
    }

    const MAX: &str = "Watermark(At(Timestamp(9223372036854775807)))";

    #[tokio::test]
    async fn all_exhausted_is_the_end_of_time() {
        let said = merged(vec![vec![at(5), Message::End(End::Exhausted)], vec![at(3), Message::End(End::Exhausted)]]);
        assert_eq!(said.await, [MAX, "End(Exhausted)"], "what had come already is said at once");
    }

    #[tokio::test]
    async fn one_stopped_input_stops_all_and_completes_no_window() {
        let said = merged(vec![vec![at(5), Message::End(End::Exhausted)], vec![at(3), Message::End(End::Stopped)]]);
        let said = said.await;
        assert_eq!(said.last().unwrap(), "End(Stopped)");
        assert!(!said.contains(&MAX.to_string()), "{said:?}");
    }

    #[tokio::test]
    async fn a_channel_that_closes_without_end_is_a_failure() {
        let said = merged(vec![vec![at(5)], vec![at(3), Message::End(End::Exhausted)]]).await;
        assert_eq!(said.last().unwrap(), "disconnected");
    }

    fn barrier(epoch: u64) -> Message {
        Message::Barrier(Epoch(epoch))
    }

    fn numbers(batch: &RecordBatch) -> Vec<i64> {
        batch.column(0).as_primitive::<Int64Type>().values().to_vec()
    }

    fn row(value: i64) -> Message {
        row_behind(value, i64::MAX)
    }

    /// A row that comes behind no later watermark than this.
    fn row_behind(value: i64, time: i64) -> Message {
        let column = |n| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
        let columns = [("n", column(value)), ("behind", column(time))];
        Message::Batch(RecordBatch::try_from_iter(columns).unwrap().into())
    }

    #[tokio::test]
    async fn nothing_behind_the_barrier_of_one_input_passes_before_that_of_the_others() {
        let end = || Message::End(End::Exhausted);
        let left = vec![row(1), barrier(7), row(2), barrier(8), end()];
        let right = vec![row(3), row(4), row(5), barrier(7), barrier(8), row(6), end()];
        let mut scripts = Vec::new();
        for script in [left, right] {
            let (sender, receiver) = channel(1 << 20);
            for message in script {
                sender.send(message).await.unwrap();
            }
            scripts.push(receiver);
        }
        let mut gate = Gate::new(on_main(scripts), 1 << 20);
        let mut epochs: Vec<Vec<i64>> = vec![Vec::new()];
        loop {
            match gate.next().await.unwrap().1 {
                Message::Batch(batch) => epochs.last_mut().unwrap().extend(numbers(&batch)),
                Message::Barrier(_) => epochs.push(Vec::new()),
                Message::End(_) => break,
                Message::Watermark(_) => {}
            }
        }
        epochs.iter_mut().for_each(|rows| rows.sort_unstable());
        assert_eq!(epochs, [vec![1, 3, 4, 5], vec![2], vec![6]]);
    }

    #[tokio::test]
    async fn parts_of_batches_are_gathered_and_batches_are_not() {
        for (parts, expected) in [(true, vec![vec![1, 2, 3]]), (false, vec![vec![1], vec![2], vec![3]])] {
            let (sender, receiver) = channel(1 << 20);
            for message in [row(1), at(5), row(2), row(3), at(6), Message::End(End::Exhausted)] {
                sender.send(message).await.unwrap();
            }
            let mut gate = Gate::new(vec![Inlet { port: Port::RIGHT, receiver, parts, time: None }], 1 << 20);
            let mut batches = Vec::new();
            loop {
                match gate.next().await.unwrap() {
                    (_, Message::End(_)) => break,
                    (port, Message::Batch(batch)) => {
                        assert_eq!(port, Port::RIGHT);
                        batches.push(numbers(&batch));
                    }
                    _ => {}
                }
            }
            assert_eq!(batches, expected);
        }
    }

    #[tokio::test]
    async fn an_ended_input_counts_as_cut() {
        let end = || Message::End(End::Exhausted);
        let said = merged(vec![vec![end()], vec![barrier(7), end()], vec![end()]]).await;
        assert_eq!(said, ["Barrier(Epoch(7))", MAX, "End(Exhausted)"]);
    }

    #[tokio::test]
    async fn a_gate_without_inputs_has_ended() {
        assert_eq!(merged(vec![]).await, ["End(Exhausted)"]);
    }

    /// What one input of a drawn schedule sends: rows numbered by input, epoch and place, watermarks that grow, idleness, a
    /// barrier of each epoch until it ends. Rows say what watermark they come behind, until the input has been idle.
    fn draw(random: &mut fastrand::Rng, input: i64, epochs: u64) -> VecDeque<Message> {
        let mut script = VecDeque::new();
        let (mut time, mut behind, idles) = (random.i64(0..50), i64::MIN, random.bool());
        // It may end before the last barrier.
        let until = if random.u8(0..3) == 0 { random.u64(0..=epochs) } else { epochs };
        for epoch in 0..=until {
            for place in 0..random.i64(0..5) {
                script.push_back(match random.u8(0..5) {
                    0 if idles => {
                        behind = i64::MAX;
                        Message::Watermark(Watermark::Idle)
                    }
                    1 | 2 => {
                        time += random.i64(0..20);
                        behind = behind.max(time);
                        at(time)
                    }
                    _ => row_behind(input * 1_000_000 + epoch as i64 * 1_000 + place, behind),
                });
            }
            script.extend((epoch < until).then(|| barrier(epoch + 1)));
        }
        script.push_back(Message::End(if random.u8(0..5) == 0 { End::Stopped } else { End::Exhausted }));
        script
    }

    /// The rule of watermarks, over everything that has been taken so far.
    #[derive(Default)]
    struct Rule {
        inputs: Vec<(i64, bool, bool)>,
        highest: i64,
    }

    impl Rule {
        fn take(&mut self, input: usize, message: &Message) {
            let (time, idle, ended) = &mut self.inputs[input];
            match message {
                Message::Watermark(Watermark::At(at)) => (*time, *idle) = (at.micros().max(*time), false),
                Message::Watermark(Watermark::Idle) => *idle = true,
                Message::Batch(_) => *idle = false,
                Message::End(End::Exhausted) => *ended = true,
                Message::Barrier(_) | Message::End(End::Stopped) => {}
            }
            let active = self.inputs.iter().filter(|(_, idle, ended)| !idle && !ended).map(|(time, ..)| *time).min();
            let all_ended = self.inputs.iter().all(|(.., ended)| *ended);
            let most = self.inputs.iter().map(|(time, ..)| *time).max();
            let now = if all_ended { Some(i64::MAX) } else { active.or(most) };
            self.highest = self.highest.max(now.unwrap_or(i64::MIN));
        }
    }

    /// Notes that the gate should be asked again.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// What has come out of the gate, checked as it comes.
    #[derive(Default)]
    struct Said {
        epoch: i64,
        time: Option<i64>,
        rows: Vec<i64>,
        ended: Option<End>,
    }

    impl Said {
        fn take(&mut self, message: Message) {
            assert_eq!(self.ended, None, "nothing comes behind the end");
            match message {
                Message::Batch(batch) => {
                    let behind = batch.column(1).as_primitive::<Int64Type>().values();
                    assert!(
                        behind.iter().all(|time| self.time.is_none_or(|said| said <= *time)),
                        "time overtakes a row"
                    );
                    for row in numbers(&batch) {
                        assert_eq!(row / 1_000 % 1_000, self.epoch, "a row on the wrong side of its barrier");
                        let former = self.rows.iter().rev().find(|former| *former / 1_000_000 == row / 1_000_000);
                        assert!(former.is_none_or(|former| *former < row), "the order of an input is kept");
                        self.rows.push(row);
                    }
                }
                Message::Barrier(epoch) => {
                    self.epoch += 1;
                    assert_eq!(epoch.0 as i64, self.epoch, "each barrier once, in order");
                }
                Message::Watermark(Watermark::At(time)) => {
                    assert!(self.time.is_none_or(|before| before <= time.micros()), "time goes back");
                    self.time = Some(time.micros());
                }
                Message::Watermark(Watermark::Idle) => {}
                Message::End(end) => self.ended = Some(end),
            }
        }
    }

    /// One schedule: who sends and when the gate is asked is drawn. The gate is asked only when it has been woken.
    fn schedule(seed: u64) {
        use futures::FutureExt;
        use std::sync::atomic::Ordering::SeqCst;

        let mut random = fastrand::Rng::with_seed(seed);
        let (count, epochs) = (random.usize(1..5), random.u64(0..4));
        let mut scripts: Vec<_> = (0..count).map(|input| draw(&mut random, input as i64, epochs)).collect();
        let (sent, stopped) =
            (scripts.clone(), scripts.iter().any(|s| matches!(s.back(), Some(Message::End(End::Stopped)))));
        // Each holds one message, some, or all.
        let capacity = [1, 1_000, 1 << 20][random.usize(0..3)];
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| channel(capacity)).unzip();
        let mut inlets = on_main(receivers);
        inlets.iter_mut().for_each(|inlet| inlet.parts = random.u8(0..4) > 0);
        let mut gate = Gate::new(inlets, capacity);
        let woken = Arc::new(Woken(true.into()));
        let waker = std::task::Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        let mut rule = Rule { inputs: vec![(i64::MIN, false, false); count], highest: i64::MIN };
        let (mut said, mut stuck) = (Said::default(), 0);
        let by_steps = random.bool();
        while said.ended.is_none() {
            stuck += 1;
            assert!(stuck < 10_000, "nobody moves");
            if random.u8(0..3) > 0 {
                let input = random.usize(0..count);
                if let Some(message) = scripts[input].front()
                    && let Some(Ok(())) = senders[input].send(message.clone()).now_or_never()
                {
                    scripts[input].pop_front();
                    stuck = 0;
                }
                continue;
            }
            if !woken.0.swap(false, SeqCst) {
                continue;
            }
            if !by_steps || gate.has_ended() {
                // The future is dropped each time: nothing is lost with it.
                if let Poll::Ready(message) = std::pin::pin!(gate.next()).poll(&mut cx) {
                    said.take(message.unwrap().1);
                    (stuck, _) = (0, woken.0.swap(true, SeqCst));
                }
                continue;
            }
            if let Poll::Ready((input, received)) = gate.poll_inputs(&mut cx) {
                let message = received.unwrap();
                rule.take(input, &message);
                gate.take(input, message);
                gate.gathered.settle();
                while let Some((_, message)) = gate.gathered.next() {
                    said.take(message);
                }
                assert_eq!(said.time.unwrap_or(i64::MIN), rule.highest, "the rule of watermarks");
                (stuck, _) = (0, woken.0.swap(true, SeqCst));
            }
        }
        let rows = sent.iter().flatten().filter(|message| matches!(message, Message::Batch(_))).count();
        assert_eq!(said.rows.len(), rows, "every row comes out");
        let barriers = sent.iter().map(|s| s.iter().filter(|m| matches!(m, Message::Barrier(_))).count()).max();
        assert_eq!(said.epoch as usize, barriers.unwrap_or_default(), "every barrier comes out");
        assert_eq!(said.ended, Some(if stopped { End::Stopped } else { End::Exhausted }));
        assert!(stopped || said.time == Some(i64::MAX));
    }

    #[test]
    fn ten_thousand_schedules_keep_order_alignment_and_time() {
        for seed in 0..10_000 {
            let ran = std::panic::catch_unwind(|| schedule(seed));
            assert!(ran.is_ok(), "seed {seed}");
        }
    }
}
