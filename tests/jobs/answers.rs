//! Law 1 for whole jobs: the answer of a batch computation, at every parallelism, batch size and order of arrival.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use tests::{on_two_threads, rows, run};
use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray},
        datatypes::{Int64Type, TimestampMicrosecondType},
    },
    connectors::{Fetch, Source, SplitId},
    prelude::*,
};

use crate::hot_items::{hot_items, nexmark};

const EVENTS: u64 = 300_000;
const SEED: u64 = 7;

/// Bids of half a minute of event time.
fn generator(splits: usize) -> Nexmark {
    nexmark(EVENTS, 0, splits, SEED).event_rate(10_000)
}

/// All bids (auction, price, at) of the generator, read without the engine.
fn bids() -> Vec<(i64, i64, i64)> {
    on_two_threads(async {
        let source = generator(3).bids().columns(["auction", "price", "at"]);
        let splits: Vec<SplitId> = Source::splits(&source).await.unwrap();
        let mut reader = source.reader(splits.into_iter().map(|split| (split, None)).collect()).await.unwrap();
        let mut bids = Vec::new();
        loop {
            match reader.fetch().await.unwrap() {
                Fetch::Rows(rows) => {
                    let [auction, price] = [0, 1].map(|i| rows.batch.column(i).as_primitive::<Int64Type>());
                    let at = rows.batch.column(2).as_primitive::<TimestampMicrosecondType>();
                    bids.extend((0..at.len()).map(|i| (auction.value(i), price.value(i), at.value(i))));
                }
                Fetch::SplitEnd(_) => {}
                Fetch::End => return bids,
            }
        }
    })
}

/// The three auctions with most bids of each ten seconds, by sorting.
fn hottest(bids: &[(i64, i64, i64)]) -> Vec<(i64, u64, i64, i64, i64)> {
    const WINDOW: i64 = 10_000_000;
    let mut windows: BTreeMap<i64, BTreeMap<i64, (i64, i64)>> = BTreeMap::new();
    for (auction, price, at) in bids {
        let totals = windows.entry(at.div_euclid(WINDOW)).or_default().entry(*auction).or_insert((0, i64::MIN));
        *totals = (totals.0 + 1, totals.1.max(*price));
    }
    let mut hottest = Vec::new();
    for (window, auctions) in windows {
        let mut auctions: Vec<_> = auctions.into_iter().collect();
        auctions.sort_by_key(|(auction, (bids, top))| (-bids, *auction, *top));
        for (rank, (auction, (bids, top))) in (1..=3).zip(auctions) {
            hottest.push((window * WINDOW, rank, auction, bids, top));
        }
    }
    hottest
}

#[test]
fn hot_items_gives_the_oracles_answer_at_every_parallelism() {
    let expected = hottest(&bids());
    assert!(expected.len() >= 9, "several windows");
    for parallelism in [1, 2, 4] {
        let job = Job::new("hot-items").parallelism(parallelism);
        let out = MemorySink::new();
        hot_items(&job, generator(parallelism)).sink(out.clone());
        let report = run(job).unwrap();
        let mut found = Vec::new();
        for batch in out.batches() {
            let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().clone();
            let start = batch.column(0).as_primitive::<TimestampMicrosecondType>();
            let rank = batch.column(1).as_primitive::<windrow::arrow::datatypes::UInt64Type>();
            let [auction, bids, top] = ["auction", "bids", "top_price"].map(number);
            for i in 0..batch.num_rows() {
                found.push((start.value(i), rank.value(i), auction.value(i), bids.value(i), top.value(i)));
            }
        }
        found.sort_unstable();
        assert_eq!(found, expected, "parallelism {parallelism}");
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
        let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
        assert_eq!(late, 0, "nothing is late within the declared bound");
    }
}

/// A row of the generated input: key, value, event time.
type Row = (Option<&'static str>, i64, i64);

fn batch(rows: &[Row]) -> RecordBatch {
    let key = StringArray::from_iter(rows.iter().map(|row| row.0));
    let value = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    let columns: [(&str, ArrayRef, bool); 3] = [
        ("key", Arc::new(key), true),
        ("value", Arc::new(value), false),
        ("at", Timestamp::column(rows.iter().map(|row| row.2).collect()), false),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).unwrap()
}

/// Sorts by event time, each moved by less than the bound: no row is more than the bound behind an earlier one.
fn arrival(mut rows: Vec<Row>, bound: i64, seed: u64) -> Vec<Row> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut keyed: Vec<(i64, Row)> = rows.drain(..).map(|row| (row.2 + random.i64(0..=bound), row)).collect();
    keyed.sort_by_key(|(arrival, _)| *arrival);
    keyed.into_iter().map(|(_, row)| row).collect()
}

fn oracle(rows: &[Row], window: i64) -> Vec<String> {
    let mut groups: BTreeMap<(i64, Option<&str>), (i64, i64, i64)> = BTreeMap::new();
    for (key, value, at) in rows {
        let start = at.div_euclid(window) * window;
        let totals = groups.entry((start, *key)).or_insert((0, 0, i64::MAX));
        *totals = (totals.0 + 1, totals.1 + value, totals.2.min(*value));
    }
    let text = |((start, key), (count, sum, min)): ((i64, Option<&str>), (i64, i64, i64))| {
        format!("{start}|{}|{}|{count}|{sum}|{min}", start + window, key.unwrap_or("null"))
    };
    let mut rows: Vec<String> = groups.into_iter().map(text).collect();
    rows.sort_unstable();
    rows
}

/// Times as numbers, so that the oracle need not print dates.
fn numbers(job: Stream<Untyped>) -> Stream<Untyped> {
    use windrow::arrow::datatypes::DataType::Int64;
    let number = |name: &str| windrow::cast(col(name), Int64).alias(name);
    job.select([number("window_start"), number("window_end"), col("key"), col("count"), col("sum"), col("min")])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_keyed_window_job_equals_batch(
        input in prop::collection::vec(
            (prop::option::of(prop::sample::select(vec!["a", "b", "c", "d", "e", ""])), -100i64..100, -500i64..1_500),
            0..400,
        ),
        window in 1i64..300,
        bound in 0i64..200,
        batch_rows in 1usize..100,
        splits in 1usize..5,
        parallelism in 1usize..5,
        channel_bytes in prop::sample::select(vec![1usize, 2_000, 1 << 20]),
        one_by_one in any::<bool>(),
        seed in any::<u64>(),
    ) {
        // Each split has its own order of arrival within the bound.
        let mut random = fastrand::Rng::with_seed(seed);
        let mut of_split: Vec<Vec<Row>> = vec![Vec::new(); splits];
        for row in &input {
            of_split[random.usize(0..splits)].push(*row);
        }
        let batches = of_split.into_iter().map(|rows| {
            let rows = arrival(rows, bound, random.u64(..));
            rows.chunks(batch_rows).map(batch).collect()
        });
        let source = MemorySource::new(batch(&[]).schema(), batches.collect());

        let job = Job::new("property").parallelism(parallelism).channel_bytes(channel_bytes);
        let out = MemorySink::new();
        let source = if one_by_one { source.one_by_one() } else { source };
        let (counts, late) = job
            .source(source)
            .event_time("at", Watermarks::out_of_order(std::time::Duration::from_micros(bound as u64)))
            .key_by("key")
            .window(Tumbling::of(std::time::Duration::from_micros(window as u64)))
            .aggregate([count(), sum(col("value")).alias("sum"), min(col("value")).alias("min")])
            .with_late();
        numbers(counts).sink(out.clone());
        let late_rows = MemorySink::new();
        late.sink(late_rows.clone());
        let report = run(job).unwrap();
        prop_assert_eq!(rows(&out.batches()), oracle(&input, window));
        prop_assert_eq!(late_rows.rows(), 0);
        prop_assert!(report.metrics.operators.iter().all(|operator| operator.balances()));
    }
}
