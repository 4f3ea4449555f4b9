//! Windows under a memory budget: what does not fit is put away, and the answer stays what it was.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef, TimestampMicrosecondType};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{count, sum};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, Operator, OperatorError, Outbox, Port, Result, Timestamp,
    spill::{Memory, Room, Stored, read_all},
    state::{Part, SegmentId, StateReader, StateWriter, TaskState},
    testing::{Check, Pipeline, TestRoom},
    window::{AggregatePlan, Cumulating, Hopping, Tumbling, Window, WindowAggregate},
};

use crate::{
    adopted::FromRoom,
    aggregate::{KEYS, aggregates, every_aggregate, oracle_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    shape::{Shape, bid, some_cases, wide},
};

/// The pipeline, of which every operator may use so many bytes.
fn pipeline<'a>(plan: &'a AggregatePlan, key: &[&str], two_phases: bool, memory: Memory) -> Pipeline<'a> {
    let for_first = memory.clone();
    let merging = move || {
        let operator = if two_phases { plan.merging() } else { plan.whole() }?;
        Ok(FromRoom::new(operator, memory.clone(), 3))
    };
    if two_phases {
        let partial = move || {
            let mut operator = plan.partial()?;
            assert!(!operator.limit(&for_first), "it puts nothing away");
            Ok(operator)
        };
        let first = Pipeline::new(&bids()).first_phase(plan.between(), partial);
        return first.exchange(plan.key_between()).stage(plan.output(), merging);
    }
    let columns: Vec<usize> = key.iter().map(|name| bids().index_of(name).unwrap()).collect();
    Pipeline::new(&bids()).exchange(columns).stage(plan.output(), merging)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let hopping = (1u64..20, 1u64..20, 0u64..30).prop_map(|(a, b, offset)| Shape::Hopping {
        size: a.max(b),
        slide: a.min(b),
        offset,
    });
    let cumulating = (1u64..10, 1u64..6, 0u64..30).prop_map(|(step, times, offset)| Shape::Cumulating {
        size: step * times,
        step,
        offset,
    });
    prop_oneof![2 => hopping, 1 => cumulating]
}

/// From nothing, so that every batch is put away, to more than most cases need.
fn budgets() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0usize), Just(1), 100usize..2_000, 2_000usize..40_000]
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn the_answer_does_not_depend_on_the_budget(
        shape in shapes(), case in some_cases(-60i64..60, 1), two_phases: bool, bytes in budgets()
    ) {
        let window = shape.window().allowed_lateness(us(case.lateness));
        let plan = AggregatePlan::new(&bids(), case.key, window, &aggregates()).unwrap();
        let room = TestRoom::new();
        let check = Check::new(pipeline(&plan, case.key, two_phases, room.memory(bytes)));
        let check = check.out_of_order(us(case.bound)).seed(case.seed);
        let oracle = |rows: &[Bid]| oracle_of(rows, case.key, |time| shape.windows_of(time));
        if case.beyond {
            let is_late = |bid: &Bid, time| shape.is_late(bid, time, case.lateness);
            check.run_beyond_bound(&case.rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&case.rows, oracle).map_err(fail)?;
        }
        prop_assert!(room.stored() > 0 || bytes > 0 || case.rows.is_empty());
        drop(check);
        prop_assert_eq!(room.there(), 0);
    }
}

proptest! {
    #![proptest_config(cases(8))]

    #[test]
    fn tumbling_windows_are_put_away_too(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), two_phases: bool,
        size in 1u64..30, bytes in budgets(), seed: u64,
    ) {
        let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(size)), &aggregates()).unwrap();
        let check = Check::new(pipeline(&plan, key, two_phases, TestRoom::new().memory(bytes)));
        let windows = |time| vec![wide(crate::bids::window_of(time, size.into(), 0))];
        check.out_of_order(us(9)).seed(seed).run(&rows, |rows| oracle_of(rows, key, windows)).map_err(fail)?;
    }
}

fn batch(rows: impl IntoIterator<Item = (i64, i64, i64)>) -> RecordBatch {
    let rows = rows.into_iter().map(|(auction, price, at)| bid(auction, price, at));
    let mut builders = Bid::new_builders(0);
    builders.append_rows(rows);
    builders.finish().into_record_batch()
}

fn process(operator: &mut impl Operator, rows: impl IntoIterator<Item = (i64, i64, i64)>) {
    operator.process(Port::MAIN, batch(rows), &mut Outbox::new()).unwrap();
}

/// What comes at `time`, and the most rows that came in one call.
fn results(operator: &mut impl Operator, time: Timestamp) -> (Vec<RecordBatch>, usize) {
    let (mut batches, mut most) = (Vec::new(), 0);
    loop {
        let mut out = Outbox::new();
        let advance = operator.advance(time, &mut out).unwrap();
        let some: Vec<_> = out.drain().map(|(_, rows)| rows).collect();
        most = most.max(some.iter().map(RecordBatch::num_rows).sum());
        batches.extend(some);
        if advance != Advance::Again {
            return (batches, most);
        }
    }
}

/// Window, auction → count and sum.
fn table(batches: &[RecordBatch]) -> BTreeMap<((i64, i64), i64), (i64, i64)> {
    let mut table = BTreeMap::new();
    for rows in batches {
        let [starts, ends] = [0, 1].map(|column| rows.column(column).as_primitive::<TimestampMicrosecondType>());
        let [auctions, counts, sums] = [2, 3, 4].map(|column| rows.column(column).as_primitive::<Int64Type>());
        for row in 0..rows.num_rows() {
            let result = (counts.value(row), sums.value(row));
            let former = table.insert(((starts.value(row), ends.value(row)), auctions.value(row)), result);
            assert_eq!(former, None, "a key gave two results");
        }
    }
    table
}

fn counts(window: Window) -> AggregatePlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    AggregatePlan::new(&bids(), &["auction"], window, &aggregates).unwrap()
}

/// Many keys, each in many runs; parts that are read several times; runs that are merged.
#[test]
fn many_groups_under_a_small_budget() {
    const KEYS: i64 = 30_000;
    for (window, windows) in
        [(Tumbling::of(us(100)), 1), (Hopping::of(us(40), us(20)), 6), (Cumulating::of(us(100), us(25)), 4)]
    {
        for bytes in [64 << 10, 512 << 10] {
            let (plan, room) = (counts(window.clone()), TestRoom::new());
            let (mut plain, mut operator) = (plan.whole().unwrap(), plan.whole().unwrap());
            assert!(operator.limit(&room.memory(bytes)));
            let mut most_held = 0;
            for round in 0..60 {
                let rows = || (0..2_000).map(|i| ((round * 2_000 + i * 7) % KEYS, i, round + i % 40));
                process(&mut plain, rows());
                process(&mut operator, rows());
                most_held = most_held.max(operator.size());
            }
            assert!(most_held <= bytes, "{most_held} bytes of {bytes}, where {} would be held", plain.size());
            assert!(room.stored() > 8 && room.there() <= 8 * 4 * 5, "{} of {}", room.there(), room.stored());
            let (expected, _) = results(&mut plain, Timestamp::MAX);
            let (actual, most) = results(&mut operator, Timestamp::MAX);
            assert!(table(&expected) == table(&actual), "{window} in {bytes} bytes");
            assert_eq!(table(&actual).keys().map(|(window, _)| window).collect::<BTreeSet<_>>().len(), windows);
            assert!(most <= 2 * 8_192, "{most} rows in one call");
            drop(operator);
            assert_eq!(room.there(), 0);
        }
    }
}

/// Of every kind of accumulator the states come back as they were.
#[test]
fn every_aggregate_comes_back() {
    for (name, aggregate) in every_aggregate() {
        for key in KEYS {
            let window = Hopping::of(us(20), us(10));
            let plan = AggregatePlan::new(&bids(), key, window, &[aggregate.clone().alias("it")]).unwrap();
            let answer = |memory: Option<Memory>| {
                let mut operator = plan.whole().unwrap();
                memory.map(|memory| operator.limit(&memory));
                for round in 0..10_i64 {
                    let rows = (0..20_i64).map(|i| Bid {
                        auction: i % 5,
                        who: (i % 3 > 0).then(|| format!("a name that is longer than a view {}", i % 4)),
                        price: (i % 7 > 0).then_some(i * round),
                        at: Timestamp::from_micros(round * 3 + i % 4),
                    });
                    let mut builders = Bid::new_builders(0);
                    builders.append_rows(rows);
                    let rows = builders.finish().into_record_batch();
                    operator.process(Port::MAIN, rows, &mut Outbox::new()).unwrap();
                }
                let (batches, _) = results(&mut operator, Timestamp::MAX);
                let mut lines: Vec<String> = Vec::new();
                for rows in batches {
                    for row in 0..rows.num_rows() {
                        let cell = |column: &arrow::array::ArrayRef| {
                            arrow::util::display::array_value_to_string(column, row).unwrap()
                        };
                        lines.push(rows.columns().iter().map(cell).collect::<Vec<_>>().join("|"));
                    }
                }
                lines.sort();
                lines
            };
            assert_eq!(answer(None), answer(Some(TestRoom::new().memory(1))), "{name} per {key:?}");
        }
    }
}

/// One task, and what a store would have of it.
struct Saved {
    next: SegmentId,
    segments: BTreeMap<SegmentId, RecordBatch>,
    state: TaskState,
}

impl Saved {
    fn new() -> Self {
        Self { next: SegmentId(0), segments: BTreeMap::new(), state: TaskState::default() }
    }

    /// Saves; returns how many rows are new.
    fn save(&mut self, operator: &mut impl Operator) -> usize {
        let mut writer = StateWriter::new(&mut self.next);
        operator.save(&mut writer).unwrap();
        self.state = writer.finish();
        self.take_over()
    }

    /// Takes what is new of the state; returns how many rows that is.
    fn take_over(&mut self) -> usize {
        let mut new = 0;
        for (id, rows) in &self.state.segments {
            let stored = self.state.stored.get(id).map(|stored| read_all(stored.as_ref()).unwrap());
            if let Some(rows) = rows.clone().or(stored) {
                new += rows.num_rows();
                self.segments.insert(*id, rows);
            }
        }
        new
    }

    fn reader(&self) -> StateReader {
        let segments = self.state.segments.iter().map(|(id, _)| (*id, self.segments[id].clone())).collect();
        let part = Part { first_phase: false, numbers: self.state.numbers.clone(), segments, stored: Vec::new() };
        StateReader { key_groups: 0..256, parts: vec![part] }
    }
}

/// Saves of a large state that is not in memory write what has changed; it is restored with or without a budget.
#[test]
fn a_save_writes_what_has_changed() {
    let plan = counts(Tumbling::of(us(1_000)));
    let room = TestRoom::new();
    let budgets = [Some(1 << 10), None, Some(1 << 16), None, Some(1)];
    let (mut saved, mut plain) = (Saved::new(), plan.whole().unwrap());
    let mut operator = plan.whole().unwrap();
    let limit =
        |operator: &mut dyn Operator, bytes: Option<usize>| bytes.map(|bytes| operator.limit(&room.memory(bytes)));
    limit(&mut operator, budgets[0]);
    operator.load(&StateReader { key_groups: 0..256, parts: Vec::new() }).unwrap();
    let all = |i: i64| (i, i, i % 900);
    process(&mut plain, (0..20_000).map(all));
    process(&mut operator, (0..20_000).map(all));
    assert_eq!(saved.save(&mut operator), 20_000);
    assert_eq!(saved.save(&mut operator), 0, "nothing has changed");
    let mut total = 0;
    for (turn, budget) in (0_i64..).zip(budgets) {
        for save in 0..5_i64 {
            let some = |i: i64| ((turn * 7_919 + save * 991 + i * 49) % 30_000, 1, i);
            process(&mut plain, (0..50).map(some));
            process(&mut operator, (0..50).map(some));
            let new = saved.save(&mut operator);
            total += new;
        }
        assert!(saved.state.segments.len() <= 12, "{} segments", saved.state.segments.len());
        let mut restored = plan.whole().unwrap();
        limit(&mut restored, budget);
        restored.load(&saved.reader()).unwrap();
        operator = restored;
    }
    assert!((1_250..12_000).contains(&total), "{total} rows for 1250 changes");
    let (expected, actual) = (results(&mut plain, Timestamp::MAX).0, results(&mut operator, Timestamp::MAX).0);
    assert!(table(&expected) == table(&actual));
}

/// Counts the batches that are read.
#[derive(Clone, Debug, Default)]
struct Reads {
    room: TestRoom,
    reads: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Read(Arc<dyn Stored>, Reads);

impl Room for Reads {
    fn store(
        &self,
        schema: &SchemaRef,
        batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
    ) -> Result<Arc<dyn Stored>> {
        Ok(Arc::new(Read(self.room.store(schema, batches)?, self.clone())))
    }
}

impl Stored for Read {
    fn batches(&self) -> usize {
        self.0.batches()
    }

    fn read(&self, batch: usize) -> Result<RecordBatch> {
        self.1.reads.fetch_add(1, Relaxed);
        self.0.read(batch)
    }
}

/// A save after one key has changed reads what is near it, not all there is; and what it counts stays right.
#[test]
fn a_save_of_little_reads_little() {
    const KEYS: i64 = 40_000;
    let plan = counts(Tumbling::of(us(1_000)));
    let room = Reads::default();
    let limited = || {
        let mut operator = plan.whole().unwrap();
        assert!(operator.limit(&Memory::new(Arc::new(AtomicUsize::new(256 << 10)), Arc::new(room.clone()))));
        operator
    };
    let (mut saved, mut plain, mut operator) = (Saved::new(), plan.whole().unwrap(), limited());
    operator.load(&StateReader { key_groups: 0..256, parts: Vec::new() }).unwrap();
    let mut save = |operator: &mut WindowAggregate, keys: &[i64]| {
        process(&mut plain, keys.iter().map(|key| (*key, 1, 5)));
        process(operator, keys.iter().map(|key| (*key, 1, 5)));
        let before = room.reads.load(Relaxed);
        let mut writer = StateWriter::new(&mut saved.next);
        operator.save(&mut writer).unwrap();
        saved.state = writer.finish();
        let reads = room.reads.load(Relaxed) - before;
        saved.take_over();
        reads
    };
    assert!(save(&mut operator, &(0..KEYS).collect::<Vec<_>>()) >= 64, "it is in many pieces");
    let mut random = fastrand::Rng::with_seed(7);
    for turn in 0..16 {
        let many = if turn % 4 == 2 { 3_000 } else { 30 };
        let some: Vec<i64> = (0..many).map(|_| random.i64(0..KEYS + 5_000)).collect();
        save(&mut operator, &some);
        let reads = save(&mut operator, &some[..1]);
        assert!(reads <= 24, "{reads} batches were read for one key");
        assert_eq!(save(&mut operator, &[]), 0, "nothing has changed");
    }
    save(&mut operator, &(0..KEYS + 5_000).collect::<Vec<_>>());
    let is_new = |id: &SegmentId| saved.state.stored.contains_key(id);
    assert!(saved.state.segments.iter().all(|(id, rows)| rows.is_some() || is_new(id)), "all has changed");
    let (mut restored, expected) = (limited(), results(&mut plain, Timestamp::MAX).0);
    restored.load(&saved.reader()).unwrap();
    for operator in [&mut operator, &mut restored] {
        assert!(table(&results(operator, Timestamp::MAX).0) == table(&expected));
    }
}

/// Slices of one key: what an empty table takes counts, they share files, and to know where they are takes memory, too.
#[test]
fn very_many_small_slices_are_within_the_budget_or_too_many() {
    const SLICES: i64 = 10_000;
    let plan = counts(Tumbling::of(us(1)).allowed_lateness(us(1_000_000)));
    for (bytes, is_enough) in [(6 << 20, true), (1 << 20, false)] {
        let room = TestRoom::new();
        let mut operator = plan.whole().unwrap();
        assert!(operator.limit(&room.memory(bytes)));
        let mut most_held = 0;
        // Half of them twice.
        let starts: Vec<i64> = (0..SLICES).chain((0..SLICES).step_by(2)).collect();
        let answer = starts.chunks(500).try_for_each(|starts| {
            let rows = batch(starts.iter().map(|at| (1, *at, *at)));
            operator.process(Port::MAIN, rows, &mut Outbox::new())?;
            most_held = most_held.max(operator.size());
            Ok(())
        });
        match answer {
            Ok(()) => {
                assert!(is_enough && most_held <= bytes, "{most_held} bytes of {bytes}");
                assert!((8..200).contains(&room.stored()), "{} files", room.stored());
                let (batches, _) = results(&mut operator, Timestamp::MAX);
                let expected = |at: i64| (((at, at + 1), 1), (2 - at % 2, at * (2 - at % 2)));
                assert!(table(&batches) == (0..SLICES).map(expected).collect());
            }
            Err(OperatorError::OverBudget(why)) => {
                assert!(!is_enough && why.contains(".memory_budget(bytes)"), "{why}");
                assert!(most_held <= bytes + bytes / 4, "{most_held} bytes of {bytes}");
            }
            Err(other) => panic!("{other}"),
        }
        drop(operator);
        assert_eq!(room.there(), 0);
    }
}

/// No place is an error, wherever it is found: when rows come, while runs are merged, at a save, when a window fires.
#[test]
fn a_full_room_is_an_error() {
    let plan = counts(Hopping::of(us(40), us(20)));
    let mut failed = [0; 3];
    for place in (0..3_000).step_by(61) {
        let room = TestRoom::full_after(place);
        let mut operator = plan.whole().unwrap();
        assert!(operator.limit(&room.memory(1 << 12)));
        let mut run = || -> Result<(), (usize, OperatorError)> {
            for round in 0..12 {
                let rows = batch((0..300).map(|i| (i * 31 % 700, i, round * 3 + i % 40)));
                operator.process(Port::MAIN, rows, &mut Outbox::new()).map_err(|error| (0, error))?;
                if round % 4 == 3 {
                    let mut next = SegmentId(0);
                    operator.save(&mut StateWriter::new(&mut next)).map_err(|error| (1, error))?;
                }
            }
            while operator.advance(Timestamp::MAX, &mut Outbox::new()).map_err(|error| (2, error))? == Advance::Again {}
            Ok(())
        };
        if let Err((at, error)) = run() {
            assert!(matches!(error, OperatorError::Spill(_)), "{error}");
            failed[at] += 1;
        }
        drop(operator);
        assert_eq!(room.there(), 0);
    }
    assert!(failed[0] > 0 && failed[1] > 0, "{failed:?}");
}
