//! Window operators that are saved in one shape and restored in another: one phase with one task, two with several. And
//! what a save writes: only what has changed.

use std::collections::BTreeMap;

use arrow::{
    array::{AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, FieldRef, Int64Type, UInt8Type},
};
use datafusion_expr::{ExprFunctionExt, col, lit};
use datafusion_functions_aggregate::expr_fn::{avg, count, count_distinct, first_value, max, stddev, sum, var_pop};
use proptest::prelude::*;
use typed_arrow::schema::BuildRows;
use windrow_operators::{
    Advance, KeyGroup, Operator, Outbox, Plan, Port, Timestamp,
    key::key_groups,
    spill::read_all,
    state::{KEY_GROUP, Part, SegmentId, StateReader, StateWriter, TaskState},
    testing::Check,
    window::{AggregatePlan, TopPlan, Tumbling, WindowAggregate},
};

use crate::{
    aggregate::{self, KEYS, every_aggregate},
    bids::{Bid, bids, cases, fail, some_bids, us},
    late::closed,
    top,
};

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn an_aggregation_changes_its_shape(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        size in 2u64..60, lateness in prop_oneof![Just(0u64), 0u64..30], bound in 0u64..20, beyond: bool,
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let plan = AggregatePlan::new(&bids(), key, window, &aggregate::aggregates()).unwrap();
        let check = Check::new(aggregate::pipeline(&plan, key, true)).one_task(aggregate::pipeline(&plan, key, false));
        let check = check.out_of_order(us(bound)).seed(seed);
        let oracle = |rows: &[Bid]| aggregate::oracle(rows, key, size.into(), 0);
        if beyond {
            let is_late = |bid: &Bid, time| closed(bid, time, size, lateness);
            check.run_beyond_bound(&rows, is_late, oracle).map_err(fail)?;
        } else {
            check.run(&rows, oracle).map_err(fail)?;
        }
    }

    #[test]
    fn a_top_changes_its_shape(
        rows in some_bids(-60i64..60),
        key in prop::sample::select(KEYS.to_vec()),
        n in 1usize..6, size in 2u64..60, lateness in prop_oneof![Just(0u64), 0u64..30], bound in 0u64..20, beyond: bool,
        seed: u64,
    ) {
        let window = Tumbling::of(us(size)).allowed_lateness(us(lateness));
        let plan = TopPlan::new(&bids(), key, window, n, "price").unwrap();
        let check = Check::new(top::pipeline(&plan, key, true)).one_task(top::pipeline(&plan, key, false));
        let check = check.out_of_order(us(bound)).seed(seed);
        if beyond {
            let is_late = |bid: &Bid, time| closed(bid, time, size, lateness);
            check.run_beyond_bound(&rows, is_late, |rows| top::oracle(rows, key, size, n)).map_err(fail)?;
        } else {
            check.run(&rows, |rows| top::oracle(rows, key, size, n)).map_err(fail)?;
        }
    }
}

pub(crate) fn batch(rows: impl IntoIterator<Item = (i64, i64, i64)>) -> RecordBatch {
    let bid = |(auction, price, at): (i64, i64, i64)| Bid {
        auction,
        who: Some(format!("w{}", price % 7)),
        price: (price % 5 != 0).then_some(price),
        at: Timestamp::from_micros(at),
    };
    let mut builders = Bid::new_builders(0);
    builders.append_rows(rows.into_iter().map(bid));
    builders.finish().into_record_batch()
}

pub(crate) fn process(operator: &mut (impl Operator + ?Sized), rows: impl IntoIterator<Item = (i64, i64, i64)>) {
    operator.process(Port::MAIN, batch(rows), &mut Outbox::new()).unwrap();
}

/// What it emits up to `time`, sorted and printed.
pub(crate) fn results(operator: &mut (impl Operator + ?Sized), time: Timestamp) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let (mut out, options) = (Outbox::new(), FormatOptions::default());
    while operator.advance(time, &mut out).unwrap() == Advance::Again {}
    let mut printed = Vec::new();
    for (_, batch) in out.drain() {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c.as_ref(), &options).unwrap()).collect();
        printed.extend(
            (0..batch.num_rows()).map(|row| columns.iter().map(|c| c.value(row).to_string() + " ").collect::<String>()),
        );
    }
    printed.sort_unstable();
    printed
}

/// One task and what a store would have of it.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) next: SegmentId,
    pub(crate) store: BTreeMap<SegmentId, RecordBatch>,
    pub(crate) state: TaskState,
}

impl Saved {
    pub(crate) fn new() -> Self {
        Self { next: SegmentId(0), store: BTreeMap::new(), state: TaskState::default() }
    }

    /// Goes on from these parts, whose segments are numbered anew, as the engine does it.
    pub(crate) fn after(parts: &mut [Part]) -> Self {
        let mut saved = Self::new();
        for (id, rows) in parts.iter_mut().flat_map(|part| &mut part.segments) {
            *id = saved.next;
            saved.next.0 += 1;
            saved.store.insert(*id, rows.clone());
        }
        saved
    }

    /// Saves; returns the rows that were sealed.
    pub(crate) fn save(&mut self, operator: &mut (impl Operator + ?Sized)) -> usize {
        let mut writer = StateWriter::new(&mut self.next);
        operator.save(&mut writer).unwrap();
        self.state = writer.finish();
        let stored = |id| Some(read_all(self.state.stored.get(id)?.as_ref()).unwrap());
        let new = self.state.segments.iter().filter_map(|(id, rows)| Some((*id, rows.clone().or_else(|| stored(id))?)));
        let new: Vec<_> = new.collect();
        let sealed = new.iter().map(|(_, rows)| rows.num_rows()).sum();
        self.store.extend(new);
        sealed
    }

    pub(crate) fn part(&self) -> Part {
        let segments = self.state.segments.iter().map(|(id, _)| (*id, self.store[id].clone())).collect();
        Part { first_phase: false, numbers: self.state.numbers.clone(), segments, stored: Vec::new() }
    }

    pub(crate) fn load(&self, operator: &mut (impl Operator + ?Sized)) {
        operator.load(&StateReader { key_groups: 0..256, parts: vec![self.part()] }).unwrap();
    }
}

fn counts() -> AggregatePlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    AggregatePlan::new(&bids(), &["auction"], Tumbling::of(us(100)), &aggregates).unwrap()
}

const GROUPS: i64 = 50_000;

/// A large state of which little changes: every save writes about as much as has changed, over many saves, and there
/// are few segments. Also after it was loaded.
#[test]
fn a_save_writes_what_has_changed() {
    let plan = counts();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..GROUPS).map(|i| (i, i, i % 100)));
    assert_eq!(saved.save(&mut operator), GROUPS as usize);
    assert_eq!(saved.save(&mut operator), 0, "nothing has changed");
    assert_eq!(saved.state.segments.len(), 1, "but it is still needed");
    process(&mut operator, (0..10).map(|i| (i * 999, 1, i)));
    assert_eq!(saved.save(&mut operator), 10);
    let mut total = 0;
    for save in 0..100_i64 {
        if save == 50 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
        }
        process(&mut operator, (0..10).map(|i| ((save * 7_919 + i * 4_999) % (2 * GROUPS), 1, i)));
        total += saved.save(&mut operator);
        assert!(saved.state.segments.len() <= 8, "{} segments", saved.state.segments.len());
    }
    assert!((1_000..8_000).contains(&total), "{total} rows for 1000 changes");
}

/// The first save of a table that had grown without one finds its keys.
#[test]
fn the_first_save_comes_late() {
    for key in KEYS {
        let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(50)), &aggregate::aggregates()).unwrap();
        let rows = |from: i64| (from..from + 3_000).map(|i| (i * i % 701, i % 97, i % 100));
        let (mut plain, mut operator) = (plan.whole().unwrap(), plan.whole().unwrap());
        let mut saved = Saved::new();
        for round in 0..4 {
            process(&mut plain, rows(round * 3_000));
            process(&mut operator, rows(round * 3_000));
            if round > 0 {
                saved.save(&mut operator);
            }
        }
        let mut restored = plan.whole().unwrap();
        saved.load(&mut restored);
        let expected = results(&mut plain, Timestamp::MAX);
        assert_eq!(results(&mut operator, Timestamp::MAX), expected, "saving changes nothing");
        assert_eq!(results(&mut restored, Timestamp::MAX), expected);
    }
}

/// A segment none of whose slices is open is not named any more, and its rows do not come back.
#[test]
fn closed_windows_leave_the_state() {
    let plan = counts();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..1_000).map(|i| (i, 1, 5)));
    saved.save(&mut operator);
    process(&mut operator, (0..10).map(|i| (i, 1, 150)));
    saved.save(&mut operator);
    assert_eq!(saved.state.segments.len(), 2);
    assert_eq!(results(&mut operator, Timestamp::from_micros(100)).len(), 1_000);
    assert_eq!(saved.save(&mut operator), 0);
    assert_eq!(saved.state.segments, [(SegmentId(1), None)]);
    results(&mut operator, Timestamp::from_micros(200));
    assert_eq!(saved.save(&mut operator), 0);
    assert_eq!(saved.state.segments, []);
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    let mut out = Outbox::new();
    restored.process(Port::MAIN, batch([(1, 1, 199)]), &mut out).unwrap();
    assert_eq!(out.take_counts(), (0, 1), "it remembers how far time had come");
}

/// Two former tasks: everything is written again, once.
#[test]
fn the_segments_of_two_tasks_are_written_again_once() {
    let plan = counts();
    let mut parts = Vec::new();
    for odd in 0..2 {
        let mut operator = plan.whole().unwrap();
        let mut saved = Saved::new();
        process(&mut operator, (0..100).map(|i| (2 * i + odd, 1, 5)));
        saved.save(&mut operator);
        process(&mut operator, [(odd, 1, 5)]);
        saved.save(&mut operator);
        parts.push(saved.part());
    }
    let mut operator = plan.whole().unwrap();
    operator.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    let mut saved = Saved::new();
    assert_eq!(saved.save(&mut operator), 200);
    assert_eq!(saved.save(&mut operator), 0);
    process(&mut operator, [(0, 1, 5)]);
    assert_eq!(saved.save(&mut operator), 1);
    assert_eq!(results(&mut operator, Timestamp::MAX).len(), 200);
}

/// When inputs fall idle, one task may be ahead of another. Its windows do not open again; those of the other still give
/// their results, also when the job is saved once more before the next watermark.
#[test]
fn former_tasks_stood_at_different_times() {
    let plan = counts();
    let mut parts = Vec::new();
    for (auction, time, fired) in [(1, 100, 1), (2, 50, 0)] {
        let mut operator = plan.whole().unwrap();
        let mut saved = Saved::new();
        process(&mut operator, [(auction, 1, 5), (auction, 1, 105)]);
        assert_eq!(results(&mut operator, Timestamp::from_micros(time)).len(), fired);
        saved.save(&mut operator);
        parts.push(saved.part());
    }
    let mut first = plan.whole().unwrap();
    first.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    let mut saved = Saved::new();
    saved.save(&mut first);
    assert_eq!(saved.state.numbers.keys().collect::<Vec<_>>(), ["closed", "fired", "open_from"]);
    let mut second = plan.whole().unwrap();
    saved.load(&mut second);
    for operator in [&mut first, &mut second] {
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch([(1, 1, 6)]), &mut out).unwrap();
        assert_eq!(out.take_counts(), (0, 1), "auction 1 has had its result");
        assert_eq!(operator.advance(Timestamp::from_micros(60), &mut out).unwrap(), promise(60));
        let rows: Vec<_> = out.drain().filter(|(port, _)| *port == Port::MAIN).map(|(_, rows)| rows).collect();
        assert_eq!(rows[0].column(2).as_primitive::<Int64Type>().values(), &[2], "auction 2 has it now");
        assert_eq!(results(operator, Timestamp::MAX).len(), 2);
    }
}

pub(crate) fn promise(time: i64) -> Advance {
    Advance::Promise(Timestamp::from_micros(time))
}

/// The disk format: which columns, which key groups.
#[test]
fn a_segment_can_be_read_by_others() {
    let plan = counts();
    let form = plan.state_form();
    assert_eq!(names(&form), [KEY_GROUP, "window_start", "auction", "bids", "sum"]);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, [(1, 7, 150), (2, 8, 150), (1, 9, 3)]);
    saved.save(&mut operator);
    let rows = &saved.store[&SegmentId(0)];
    assert_eq!(rows.schema_ref(), &form.columns);
    let groups = key_groups(&[rows.column(2).clone()], rows.num_rows()).unwrap();
    let saved_groups = rows.column(0).as_primitive::<UInt8Type>().values().iter().map(|group| KeyGroup(*group));
    assert!(saved_groups.eq(groups));
    assert_eq!(rows.column(2).as_primitive::<Int64Type>().values(), &[1, 1, 2], "slice by slice, group by group");
    assert_eq!(rows.column(3).as_primitive::<Int64Type>().values(), &[1, 1, 1]);
}

/// A job whose key has become wider goes on from what was saved.
#[test]
fn an_older_segment_of_narrower_types_is_loaded() {
    let plan = counts();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..50).map(|i| (i - 25, i, i)));
    saved.save(&mut operator);
    let rows = saved.store[&SegmentId(0)].clone();
    let narrow = |(i, field): (usize, &FieldRef)| {
        let int = if i == 2 { DataType::Int32 } else { field.data_type().clone() };
        (field.name().clone(), cast(rows.column(i), &int).unwrap())
    };
    let columns = rows.schema_ref().fields().iter().enumerate().map(narrow);
    saved.store.insert(SegmentId(0), RecordBatch::try_from_iter(columns).unwrap());
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    process(&mut restored, [(-25, 1, 7)]);
    process(&mut operator, [(-25, 1, 7)]);
    assert_eq!(saved.save(&mut restored), 1);
    assert_eq!(results(&mut restored, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
}

pub(crate) fn names(form: &windrow_operators::state::StateForm) -> Vec<&str> {
    form.columns.fields().iter().map(|field| field.name().as_str()).collect()
}

#[test]
fn the_form_is_in_the_words_of_the_user() {
    let window = Tumbling::of(us(10)).offset(us(3)).allowed_lateness(us(5));
    let dear = sum(col("price") + lit(1) * col("auction")).filter(col("who").eq(lit("ann"))).build().unwrap();
    let aggregates = [dear.alias("dear"), avg(col("price")).alias("avg"), count_distinct(col("who")).alias("n")];
    let form = AggregatePlan::new(&bids(), &["who"], window.clone(), &aggregates).unwrap().state_form();
    assert_eq!(
        form.meaning,
        "tumbling 10µs from 3µs; sum(price + 1 * auction) FILTER (WHERE who = 'ann'), avg(price), count(DISTINCT who)"
    );
    assert_eq!(names(&form), [KEY_GROUP, "window_start", "who", "dear", "avg[count]", "avg[sum]", "n"]);
    let parentheses = sum((col("price") + lit(1)) * col("auction"));
    let other = AggregatePlan::new(&bids(), &["who"], window.clone(), &[parentheses]).unwrap().state_form();
    assert!(other.meaning.contains("sum((price + 1) * auction)"), "{}", other.meaning);
    let top = TopPlan::new(&bids(), &["auction", "who"], window.clone(), 3, "price").unwrap().state_form();
    assert_eq!(top.meaning, "tumbling 10µs from 3µs; top 3 by price per auction, who");
    assert_eq!(names(&top), [KEY_GROUP, "window_start", "auction", "who", "price", "at"]);
    let of_windows = AggregatePlan::new(&bids(), &[], window.clone(), &[count(lit(1)).alias("bids")]).unwrap();
    let top = TopPlan::new(of_windows.output(), &[], window.clone(), 3, "bids").unwrap().state_form();
    assert_eq!(names(&top), [KEY_GROUP, "_window_start", "window_start", "window_end", "bids"]);
}

/// Every kind of accumulator takes its state back and goes on from it, also the ones that only DataFusion's adapter runs.
#[test]
fn every_aggregate_survives_many_saves() {
    let own = [
        ("count", count(col("price"))),
        ("sum", sum(col("price"))),
        ("max", max(col("price"))),
        ("first", first_value(col("price"), vec![])),
        ("stddev", stddev(col("price"))),
        ("var", var_pop(col("price"))),
    ];
    for (name, aggregate) in every_aggregate().into_iter().chain(own) {
        for key in KEYS {
            let aggregates = [aggregate.clone().alias("x"), count(lit(1)).alias("bids")];
            let plan = AggregatePlan::new(&bids(), key, Tumbling::of(us(50)), &aggregates).unwrap();
            let (mut plain, mut operator): (WindowAggregate, _) = (plan.whole().unwrap(), plan.whole().unwrap());
            let mut saved = Saved::new();
            for round in 0..12 {
                let rows = || (0..40).map(|i| ((round * i) % 9, round * 31 + i, (i * 3) % 100));
                process(&mut plain, rows());
                process(&mut operator, rows());
                saved.save(&mut operator);
                if round % 3 == 2 {
                    operator = plan.whole().unwrap();
                    saved.load(&mut operator);
                }
            }
            let (expected, restored) = (results(&mut plain, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
            let close = |text: &str| if name == "stddev" || name == "var" { rounded(text) } else { text.to_string() };
            let all = |rows: Vec<String>| rows.iter().map(|row| close(row)).collect::<Vec<_>>();
            assert_eq!(all(restored), all(expected), "{name} per {key:?}");
        }
    }
}

/// Numbers to nine places: a variance that is merged into nothing moves by a rounding.
fn rounded(row: &str) -> String {
    row.split(' ').map(|word| word.parse::<f64>().map_or(word.to_string(), |x| format!("{x:.9} "))).collect()
}

/// Nothing may be half-way out when an operator is saved, nor held back by a first phase.
#[test]
fn an_operator_is_saved_between_two_calls_and_after_a_flush() {
    let plan = counts();
    let refuses = |operator: &mut dyn Operator| {
        let mut next = SegmentId(0);
        operator.save(&mut StateWriter::new(&mut next)).unwrap_err().to_string()
    };
    let mut operator = plan.whole().unwrap();
    process(&mut operator, (0..20_000).map(|i| (i, 1, 5)));
    let out = &mut Outbox::new();
    assert_eq!(operator.advance(Timestamp::MAX, out).unwrap(), Advance::Again);
    assert!(refuses(&mut operator).contains("half-way"));
    let mut first = plan.partial().unwrap();
    process(&mut first, [(1, 1, 5)]);
    assert!(refuses(&mut first).contains("before it was flushed"));
    first.flush(out).unwrap();
    assert_eq!(Saved::new().save(&mut first), 0);
    let top = TopPlan::new(&bids(), &[], Tumbling::of(us(10)), 1, "price").unwrap();
    let mut first = top.partial().unwrap();
    process(&mut first, [(1, 1, 5)]);
    assert!(refuses(&mut first).contains("before it was flushed"));
}
