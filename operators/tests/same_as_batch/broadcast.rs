//! Processes with rules, call by call: the harness has pipelines with one input.

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::{Int64Type, UInt8Type, UInt16Type},
    ipc::{reader::FileReader, writer::FileWriter},
};
use std::ops::Range;
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, SchemaMeta},
};
use windrow_operators::{
    Advance, KeyGroup, Operator, Outbox, Partitioning, Plan, Port, StreamSchema, Timestamp,
    key::Partitioner,
    keyed::{Broadcast, BroadcastPlan, BroadcastProcess, KeyedBy, NoSide, Timer},
    state::{Part, StateReader},
};

use crate::restored::Saved;

#[derive(Clone, Record)]
pub(crate) struct Bid {
    auction: i64,
    price: i64,
    at: Timestamp,
}

#[derive(Record)]
pub(crate) struct Limit {
    name: String,
    price: i64,
}

#[derive(Record)]
pub(crate) struct Alert {
    auction: i64,
    limits: u64,
    seen: u64,
}

/// Holds a row until the watermark has passed it, and then says how many limits it is above.
#[derive(Clone)]
pub(crate) struct Above;

impl BroadcastProcess for Above {
    type Row = Bid;
    type Rule = Limit;
    type Rules = std::collections::BTreeMap<String, i64>;
    type State = Vec<(i64, i64, i64)>;
    type Output = Alert;
    type Side = NoSide;

    fn rule(&mut self, limit: LimitView<'_>, rules: &mut Self::Rules) {
        rules.insert(limit.name.to_string(), limit.price);
    }

    fn row(&mut self, bid: BidView<'_>, _rules: &Self::Rules, key: &mut KeyedBy<'_, Self>) {
        key.state_mut().push((bid.at.micros(), bid.auction, bid.price));
        key.set_timer(bid.at);
    }

    fn timer(&mut self, _timer: Timer, rules: &Self::Rules, key: &mut KeyedBy<'_, Self>) {
        let now = key.time().micros();
        let (due, rest): (Vec<_>, Vec<_>) = key.state().iter().partition(|(at, ..)| *at <= now);
        for (seen, (_, auction, price)) in due.into_iter().enumerate() {
            let limits = rules.values().filter(|limit| price > **limit).count() as u64;
            key.emit(Alert { auction, limits, seen: seen as u64 });
        }
        match rest.is_empty() {
            true => key.clear(),
            false => *key.state_mut() = rest,
        }
    }
}

fn bids() -> StreamSchema {
    StreamSchema::with_time(Bid::schema(), "at").unwrap()
}

fn plan() -> BroadcastPlan<Above> {
    let limits = StreamSchema::without_time(Limit::schema());
    BroadcastPlan::new(&bids(), &["auction"], &limits, Above, None).unwrap()
}

fn limits(limits: &[(&str, i64)]) -> RecordBatch {
    let mut builders = Limit::new_builders(0);
    builders.append_rows(limits.iter().map(|(name, price)| Limit { name: name.to_string(), price: *price }));
    builders.finish().into_record_batch()
}

fn batch(rows: impl IntoIterator<Item = (i64, i64, i64)>) -> RecordBatch {
    let mut builders = Bid::new_builders(0);
    let bid = |(auction, price, at)| Bid { auction, price, at: Timestamp::from_micros(at) };
    builders.append_rows(rows.into_iter().map(bid));
    builders.finish().into_record_batch()
}

fn rule(operator: &mut Broadcast<Above>, rules: &[(&str, i64)]) {
    let mut out = Outbox::new();
    operator.process(Port::RIGHT, limits(rules), &mut out).unwrap();
    assert_eq!(out.take_counts(), (rules.len() as u64, 0));
}

/// (auction, limits) of what it emits up to `time`.
fn alerts(operator: &mut Broadcast<Above>, time: Timestamp) -> Vec<(i64, u64)> {
    let mut out = Outbox::new();
    while operator.advance(time, &mut out).unwrap() == Advance::Again {}
    let mut all = Vec::new();
    for (_, batch) in out.drain() {
        let auctions = batch.column(0).as_primitive::<Int64Type>();
        let limits = batch.column(1).as_primitive::<arrow::datatypes::UInt64Type>();
        all.extend(auctions.values().iter().copied().zip(limits.values().iter().copied()));
    }
    all.sort_unstable();
    all
}

#[test]
fn rules_come_before_and_after_rows() {
    let mut operator = plan().whole().unwrap();
    rule(&mut operator, &[("low", 10)]);
    operator.process(Port::MAIN, batch([(1, 50, 5), (2, 5, 5), (3, 500, 5)]), &mut Outbox::new()).unwrap();
    rule(&mut operator, &[("high", 100), ("low", 20)]);
    assert_eq!(alerts(&mut operator, Timestamp::from_micros(5)), [(1, 1), (2, 0), (3, 2)]);
}

#[test]
fn a_plan_says_what_it_is() {
    let plan = plan();
    assert_eq!(plan.inputs(), [Partitioning::Key(vec![0]), Partitioning::Broadcast]);
    assert_eq!((plan.noun(), plan.state_form().meaning.as_str()), ("broadcast", "Above per auction"));
    assert_eq!(plan.state_form().columns.fields().last().unwrap().name(), "rules");
}

/// The tasks of a job, each with its key groups.
struct Job {
    tasks: Vec<(Broadcast<Above>, Saved)>,
}

fn written_and_read(rows: &RecordBatch) -> RecordBatch {
    let mut writer = FileWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    writer.write(rows).unwrap();
    let bytes = writer.into_inner().unwrap();
    FileReader::try_new(std::io::Cursor::new(bytes), None).unwrap().next().unwrap().unwrap()
}

/// The rows of these key groups, as a store gives them.
fn restricted(part: Part, groups: &Range<usize>) -> Part {
    let keep = |rows: &RecordBatch| {
        let own = rows.column(0).as_primitive::<UInt8Type>().values().iter();
        let own: BooleanArray = own.map(|group| Some(groups.contains(&usize::from(*group)))).collect();
        filter_record_batch(&written_and_read(rows), &own).unwrap()
    };
    let segments = part.segments.iter().map(|(id, rows)| (*id, keep(rows))).filter(|(_, rows)| rows.num_rows() > 0);
    Part { segments: segments.collect(), ..part }
}

impl Job {
    fn new(tasks: usize) -> Self {
        Self::after(Vec::new(), tasks)
    }

    fn after(formers: Vec<(Part, Range<usize>)>, tasks: usize) -> Self {
        let task = |task: usize| {
            let key_groups = KeyGroup::range(task, tasks);
            let overlap = |theirs: &Range<usize>| theirs.start.max(key_groups.start)..theirs.end.min(key_groups.end);
            let parts = formers.iter().map(|(part, theirs)| restricted(part.clone(), &overlap(theirs)));
            let mut parts: Vec<Part> = parts.collect();
            let saved = Saved::after(&mut parts);
            let mut operator = plan().whole().unwrap();
            operator.load(&StateReader { key_groups, parts }).unwrap();
            (operator, saved)
        };
        Self { tasks: (0..tasks).map(task).collect() }
    }

    /// Saves every task; what is sealed is checked to be of its key groups.
    fn leave(mut self) -> Vec<(Part, Range<usize>)> {
        let tasks = self.tasks.len();
        let leave = |(task, (operator, saved)): (usize, &mut (Broadcast<Above>, Saved))| {
            saved.save(operator);
            let groups = KeyGroup::range(task, tasks);
            let part = saved.part();
            for (_, rows) in &part.segments {
                let own = rows.column(0).as_primitive::<UInt8Type>().values();
                assert!(own.iter().all(|group| groups.contains(&usize::from(*group))));
            }
            (part, groups)
        };
        self.tasks.iter_mut().enumerate().map(leave).collect()
    }

    fn rule(&mut self, rules: &[(&str, i64)]) {
        self.tasks.iter_mut().for_each(|(operator, _)| rule(operator, rules));
    }

    fn rows(&mut self, rows: impl IntoIterator<Item = (i64, i64, i64)>) {
        let mut partitioner = Partitioner::new(vec![0], self.tasks.len());
        for (task, part) in partitioner.split(&batch(rows)).unwrap() {
            self.tasks[task].0.process(Port::MAIN, part, &mut Outbox::new()).unwrap();
        }
    }

    fn alerts(&mut self, time: Timestamp) -> Vec<(i64, u64)> {
        let mut all: Vec<_> = self.tasks.iter_mut().flat_map(|(operator, _)| alerts(operator, time)).collect();
        all.sort_unstable();
        all
    }
}

#[test]
fn every_task_has_the_rules_at_any_parallelism() {
    for (first, second, third) in [(1, 2, 3), (3, 1, 4), (2, 7, 5), (4, 4, 256), (256, 1, 2)] {
        let mut job = Job::new(first);
        job.rule(&[("low", 10)]);
        job.rows((0..300).map(|key| (key, key, 5)));
        let mut job = Job::after(job.leave(), second);
        job.rule(&[("high", 100)]);
        job.rows((0..300).map(|key| (key, 1_000, 6)));
        let expected: Vec<_> = (0..300).map(|key| (key, u64::from(key > 10) + u64::from(key > 100))).collect();
        assert_eq!(job.alerts(Timestamp::from_micros(5)), expected, "{first} {second}");
        // Twice without a change, so that what was restored is kept and named again.
        let job = Job::after(job.leave(), second);
        let mut job = Job::after(job.leave(), third);
        let expected: Vec<_> = (0..300).map(|key| (key, 2)).collect();
        assert_eq!(job.alerts(Timestamp::from_micros(6)), expected, "{first} {second} {third}");
    }
}

#[test]
fn rules_are_written_once_and_only_when_they_have_changed() {
    let mut operator = plan().whole().unwrap();
    let mut saved = Saved::new();
    rule(&mut operator, &[("low", 10)]);
    assert_eq!(saved.save(&mut operator), 256);
    assert_eq!(saved.save(&mut operator), 0);
    operator.process(Port::MAIN, batch([(1, 50, 5)]), &mut Outbox::new()).unwrap();
    assert_eq!(saved.save(&mut operator), 1);
    assert_eq!(saved.state.segments.len(), 2);
    let part = saved.part();
    let rules = part.segments.iter().find(|(_, rows)| rows.num_rows() == 256).unwrap();
    let rules = written_and_read(&rules.1);
    assert_eq!(
        rules.columns().last().unwrap().as_dictionary::<UInt16Type>().values().len(),
        1,
        "the bytes are there once"
    );
    let mut restored = plan().whole().unwrap();
    saved.load(&mut restored);
    assert_eq!(saved.save(&mut restored), 0, "what was loaded is kept");
    assert_eq!(alerts(&mut restored, Timestamp::MAX), [(1, 1)]);
}

/// Of two former tasks one had only rules: the segments of the other have rows of key groups that were not its own once.
#[test]
fn a_former_task_with_rules_alone_is_one_of_several() {
    let mut parts = Vec::new();
    for rows in [vec![(1, 5, 10)], vec![]] {
        let (mut task, mut saved) = (plan().whole().unwrap(), Saved::new());
        rule(&mut task, &[("low", 3)]);
        task.process(Port::MAIN, batch(rows), &mut Outbox::new()).unwrap();
        saved.save(&mut task);
        parts.push(saved.part());
    }
    let mut saved = Saved::after(&mut parts);
    let mut whole = plan().whole().unwrap();
    whole.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    saved.save(&mut whole);
    let of_rows =
        saved.part().segments.iter().filter(|(_, rows)| rows.column_by_name("auction").unwrap().is_valid(0)).count();
    let kept = saved.state.segments.iter().filter(|(id, rows)| rows.is_none() && saved.store[id].column(1).is_valid(0));
    assert_eq!((of_rows, kept.count()), (1, 0), "what the key held is written again");
    assert_eq!(alerts(&mut whole, Timestamp::from_micros(10)), [(1, 1)]);
}
