//! Pre-aggregation when it does not pay and when its budget is used up: it then does less, and the answer is the same.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use datafusion_expr::{Expr, ExprFunctionExt, col, lit};
use datafusion_functions_aggregate::expr_fn::{
    approx_distinct, array_agg, avg, bool_and, count, count_distinct, max, median, min, stddev, sum, var_pop,
};
use typed_arrow::{
    prelude::*,
    schema::{BuildRows, IntoRecordBatch, RowBuilder, SchemaMeta},
};
use windrow_operators::{
    Operator, Outbox, Port, StreamSchema, Timestamp,
    testing::{Check, Pipeline, Row},
    window::{AggregatePlan, TopPlan, Tumbling},
};

use crate::bids::us;

#[derive(Clone, Record)]
struct Hit {
    page: i64,
    bytes: i64,
    at: Timestamp,
}

fn hits() -> StreamSchema {
    StreamSchema::with_time(Hit::schema(), "at").unwrap()
}

fn hit(page: i64, i: i64) -> Hit {
    Hit { page, bytes: i % 11, at: Timestamp::from_micros(i) }
}

/// Windows of so many rows of [`hit`].
const WINDOW: i64 = 800_000;
/// Pre-aggregation looks after this many rows whether it pays…
const LOOK: i64 = 65_536;
/// …and if it does not, lets this many pass.
const PASS: i64 = 16 * LOOK;

/// First every row is its own group, then everything falls into few groups.
fn first_distinct_then_not() -> Vec<Hit> {
    (0..LOOK + PASS + 3 * LOOK).map(|i| hit(if i < LOOK + 5_000 { i } else { i % 100 }, i)).collect()
}

fn plan(aggregates: &[Expr]) -> AggregatePlan {
    AggregatePlan::new(&hits(), &["page"], Tumbling::of(us(WINDOW as u64)), aggregates).unwrap()
}

fn batch_of<T: BuildRows + Clone>(rows: &[T]) -> RecordBatch {
    let mut builders = T::new_builders(rows.len());
    builders.append_rows(rows.iter().cloned());
    builders.finish().into_record_batch()
}

/// The rows that come out of each batch.
fn rows_out<T: BuildRows + Clone>(operator: &mut dyn Operator, rows: &[T], batch: usize) -> Vec<usize> {
    let mut out = Outbox::new();
    let mut emitted = Vec::new();
    for rows in rows.chunks(batch) {
        operator.process(Port::MAIN, batch_of(rows), &mut out).unwrap();
        emitted.push(out.drain().map(|(_, batch)| batch.num_rows()).sum());
    }
    emitted
}

#[test]
fn it_stops_when_it_does_not_reduce_and_tries_again_later() {
    let plan = plan(&[sum(col("bytes"))]);
    let emitted = rows_out(&mut plan.partial().unwrap(), &first_distinct_then_not(), LOOK as usize);
    assert_eq!(emitted[0], LOOK as usize, "every row was a group: all groups leave");
    assert!(emitted[1..=16].iter().all(|&rows| rows == LOOK as usize), "all rows pass: {emitted:?}");
    assert!(emitted[17..].iter().all(|&rows| rows == 0), "groups again, and it pays: {emitted:?}");
}

#[test]
fn passing_rows_through_does_not_change_the_answer() {
    let rows = first_distinct_then_not();
    let odd = count(lit(1)).filter((col("bytes") % lit(2)).eq(lit(1))).build().unwrap();
    let aggregates = [sum(col("bytes")).alias("sum"), avg(col("bytes")).alias("avg"), odd.alias("odd")];
    let plan = plan(&aggregates);
    let pipeline = Pipeline::new(&hits())
        .first_phase(plan.between(), || plan.partial())
        .exchange(plan.key_between())
        .stage(plan.output(), || plan.merging());
    let check = Check::new(pipeline).rounds(1).parallelism(1..=1).batch_rows(8_192..=8_192).out_of_order(us(1_000));
    check.assert(&rows, |rows| {
        let mut groups: BTreeMap<(i64, i64), (i64, u64, u64)> = BTreeMap::new();
        for hit in rows {
            let group = groups.entry((hit.at.micros() / WINDOW * WINDOW, hit.page)).or_default();
            *group = (group.0 + hit.bytes, group.1 + 1, group.2 + (hit.bytes % 2) as u64);
        }
        groups
            .into_iter()
            .map(|((start, page), (sum, n, odd))| (start, start + WINDOW, page, sum, sum as f64 / n as f64, odd))
    });
}

/// Each row as a state of its own must work for every aggregate there is, or the job fails on its data.
#[test]
fn every_aggregate_can_pass_through() {
    let even = (col("bytes") % lit(2)).eq(lit(0));
    let aggregates = [
        ("count", count(lit(1))),
        ("sum", sum(col("bytes"))),
        ("min", min(col("bytes"))),
        ("max", max(col("bytes"))),
        ("avg", avg(col("bytes"))),
        ("distinct", count_distinct(col("bytes"))),
        ("approx", approx_distinct(col("bytes"))),
        ("median", median(col("bytes"))),
        ("stddev", stddev(col("bytes"))),
        ("var", var_pop(col("bytes"))),
        ("all", bool_and(even.clone())),
        ("list", array_agg(col("bytes"))),
        ("filtered", sum(col("bytes")).filter(even).build().unwrap()),
    ];
    // All rows that pass have a page of their own.
    let rows: Vec<Hit> = (0..LOOK + 50).map(|i| Hit { at: Timestamp::from_micros(0), ..hit(i, i) }).collect();
    for (name, aggregate) in aggregates {
        let plan = plan(&[aggregate.alias(name)]);
        let (whole, two) = (results(&plan, &rows, false), results(&plan, &rows, true));
        assert_eq!(whole.len(), rows.len(), "{name}");
        assert_eq!(whole, two, "{name}: two phases differ from one");
    }
}

/// The printed results of one task.
fn results(plan: &AggregatePlan, rows: &[Hit], two_phases: bool) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let mut batches: Vec<RecordBatch> = [&rows[..LOOK as usize], &rows[LOOK as usize..]].map(batch_of).to_vec();
    let mut out = Outbox::new();
    if two_phases {
        let mut partial = plan.partial().unwrap();
        for batch in batches.drain(..) {
            partial.process(Port::MAIN, batch, &mut out).unwrap();
        }
        partial.flush(&mut out).unwrap();
        batches = out.drain().map(|(_, batch)| batch).collect();
        assert!(batches.len() > 1, "nothing passed through");
    }
    let mut last = if two_phases { plan.merging() } else { plan.whole() }.unwrap();
    for batch in batches {
        last.process(Port::MAIN, batch, &mut out).unwrap();
    }
    while last.advance(Timestamp::MAX, &mut out).unwrap() == windrow_operators::Advance::Again {}
    let mut printed = Vec::new();
    for (_, batch) in out.drain() {
        let options = FormatOptions::default();
        let format = |column: usize| ArrayFormatter::try_new(batch.column(column).as_ref(), &options).unwrap();
        let (page, value) = (format(2), format(3));
        printed.extend((0..batch.num_rows()).map(|row| format!("{} {}", page.value(row), value.value(row))));
    }
    printed.sort_unstable();
    printed
}

#[derive(Clone, Record)]
struct Wide {
    url: String,
    at: Timestamp,
}

/// Few enough groups to pay, but of keys so wide that they do not fit into the budget.
fn wide_rows() -> Vec<Wide> {
    let wide = |i: i64| Wide { url: format!("{:0>700}", i / 2 % 30_000), at: Timestamp::from_micros(i % 2) };
    (0..LOOK + 20_000).map(wide).collect()
}

fn wide() -> StreamSchema {
    StreamSchema::with_time(Wide::schema(), "at").unwrap()
}

/// The rows that leave when it is told to, after these have left before that.
fn rows_left(operator: &mut dyn Operator) -> usize {
    let mut out = Outbox::new();
    operator.flush(&mut out).unwrap();
    out.drain().map(|(_, batch)| batch.num_rows()).sum()
}

#[test]
fn a_used_up_budget_does_not_change_the_answer() {
    let rows = wide_rows();
    let plan = AggregatePlan::new(&wide(), &["url"], Tumbling::of(us(10)), &[count(lit(1))]).unwrap();
    let mut first = plan.partial().unwrap();
    let emitted = rows_out(&mut first, &rows, 4_000);
    let at = emitted.iter().position(|&rows| rows > 0).unwrap();
    assert!((4..12).contains(&at), "16 MiB are 24000 keys, and it looks at each batch: {emitted:?}");
    assert_eq!(emitted[at], (at + 1) * 2_000, "all groups leave, and rows go on to be grouped: {emitted:?}");
    assert_eq!(emitted[at + 1], 0);
    assert!(first.size() < 20 << 20);
    let pipeline = Pipeline::new(&wide())
        .first_phase(plan.between(), || plan.partial())
        .exchange(plan.key_between())
        .stage(plan.output(), || plan.merging());
    let check = Check::new(pipeline).rounds(1).parallelism(1..=1).batch_rows(10_000..=10_000).out_of_order(us(1));
    check.assert(&rows, |rows| {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for row in rows {
            *counts.entry(&row.url).or_default() += 1;
        }
        let row = |(url, count): (&str, u64)| Row::from((0, 10, url, count));
        counts.into_iter().map(row).collect::<Vec<_>>()
    });
}

/// The first phase of a top has the same budget.
#[test]
fn a_used_up_budget_of_a_top_does_not_change_the_answer() {
    let rows = wide_rows();
    let plan = TopPlan::new(&wide(), &["url"], Tumbling::of(us(10)), 1, "at").unwrap();
    let mut first = plan.partial().unwrap();
    let emitted = rows_out(&mut first, &rows, 4_000);
    let at = emitted.iter().position(|&rows| rows > 0).unwrap();
    assert!((4..12).contains(&at), "16 MiB are 24000 rows, some of which had been sorted out: {emitted:?}");
    assert_eq!(emitted[at], (at + 1) * 2_000, "one of two");
    assert_eq!(emitted[at + 1], 0);
    assert!(first.size() <= 16 << 20);
    assert!(rows_left(&mut first) > 0);
    assert_eq!(first.size(), 0);
    let pipeline = Pipeline::new(&wide())
        .first_phase(plan.between(), || plan.partial())
        .exchange(plan.key_between())
        .stage(plan.output(), || plan.merging());
    let check = Check::new(pipeline).rounds(1).parallelism(1..=1).batch_rows(10_000..=10_000).out_of_order(us(1));
    check.assert(&rows, |rows| {
        let mut latest: BTreeMap<&str, Timestamp> = BTreeMap::new();
        for row in rows {
            let at = latest.entry(&row.url).or_insert(row.at);
            *at = row.at.max(*at);
        }
        let row = |(url, at): (&str, Timestamp)| Row::from((0, 10, 1, url, at));
        latest.into_iter().map(row).collect::<Vec<_>>()
    });
}
