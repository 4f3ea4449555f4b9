//! How fast is the keyed tumbling window? Count, sum and max of price per auction per 10 s.
//!
//! The same 10 million Nexmark bids (`WINDROW_BENCH_ROWS` says otherwise), ready in memory as batches of 8,192 rows, go through
//! * `hand_written/1`, `/2`: a hash map per window over the same columns, on one thread and on two;
//! * `operator`: the operator alone, called from a loop;
//! * `pipeline/1`, `/2`: a whole job from a memory source to a sink that counts, at parallelism 1 and 2.
//!
//! `keys_1000` … `keys_1000000`: as many rows of so many keys, all of them live and equally frequent, through the loop and the
//! operator alone.
//!
//! All of them advance the watermark after each batch and give their results as columns; the sums of the results are
//! compared before anything is measured.

use std::{sync::Arc, time::Duration};

use benches::{AddUp, BATCH_ROWS, Checksum, HandWritten, Ratios, bids, columns, row_count, rows};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use windrow::{
    arrow::{
        array::{ArrayRef, AsArray, Int64Array, RecordBatch},
        datatypes::{Int64Type, SchemaRef},
    },
    operators::{Advance, Operator, Outbox, Port, StreamSchema, window::AggregatePlan},
    prelude::*,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BIDS: u64 = 10_000_000;

/// Rows of random keys, a microsecond apart: ten million of them are one window.
fn uniform(keys: i64, rows: u64) -> Vec<RecordBatch> {
    let mut random = fastrand::Rng::with_seed(3);
    let mut batch = |first: u64| {
        let times: Vec<i64> = (first as i64..rows.min(first + BATCH_ROWS as u64) as i64).collect();
        let mut column =
            |most| -> ArrayRef { Arc::new(times.iter().map(|_| random.i64(0..most)).collect::<Int64Array>()) };
        let columns =
            [("auction", column(keys)), ("price", column(1_000_000)), ("at", Timestamp::column(times.clone()))];
        RecordBatch::try_from_iter(columns).unwrap_or_else(|error| unreachable!("{error}"))
    };
    (0..rows).step_by(BATCH_ROWS).map(&mut batch).collect()
}

fn add(total: &mut Checksum, batch: &RecordBatch) {
    total[0] += batch.num_rows() as i64;
    for i in 0..3 {
        total[i + 1] += batch.column(3 + i).as_primitive::<Int64Type>().values().iter().sum::<i64>();
    }
}

fn plan(schema: &SchemaRef) -> AggregatePlan {
    let build = || {
        let stream = StreamSchema::with_time(schema.clone(), "at")?;
        AggregatePlan::new(&stream, &["auction"], Tumbling::of(secs(10)), &aggregates())
    };
    build().unwrap_or_else(|error| unreachable!("{error}"))
}

fn aggregates() -> [Expr; 3] {
    [count(), sum(col("price")), max(col("price"))]
}

fn operator(plan: &AggregatePlan, batches: &[RecordBatch]) -> Checksum {
    let mut total = [0; 4];
    let mut run = || -> windrow::operators::Result<()> {
        let mut operator = plan.whole()?;
        let mut out = Outbox::new();
        let mut advance = |operator: &mut dyn Operator, out: &mut Outbox, time| {
            while operator.advance(time, out)? == Advance::Again {
                out.drain().for_each(|(_, batch)| add(&mut total, &batch));
            }
            out.drain().for_each(|(_, batch)| add(&mut total, &batch));
            Ok::<_, windrow::operators::OperatorError>(())
        };
        for batch in batches {
            operator.process(Port::MAIN, batch.clone(), &mut out)?;
            let time = columns(batch).2.last().copied().unwrap_or(i64::MIN);
            advance(&mut operator, &mut out, Timestamp::from_micros(time))?;
        }
        advance(&mut operator, &mut out, Timestamp::MAX)
    };
    run().unwrap_or_else(|error| unreachable!("{error}"));
    total
}

fn pipeline(runtime: &tokio::runtime::Runtime, schema: &SchemaRef, batches: &[RecordBatch], tasks: usize) -> Checksum {
    let job = Job::new("window").parallelism(tasks);
    let out = AddUp::new(add);
    job.source(MemorySource::new(schema.clone(), vec![batches.to_vec()]).splits(tasks))
        .event_time("at", Watermarks::in_order())
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate(aggregates())
        .drop_late()
        .sink(out.clone());
    runtime.block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    out.total()
}

fn window(criterion: &mut Criterion) {
    let (schema, batches) = bids(rows(BIDS));
    let plan = plan(&schema);
    let runtime = tokio::runtime::Runtime::new().unwrap_or_else(|error| unreachable!("{error}"));

    let expected = HandWritten::run(&batches);
    assert_eq!(HandWritten::run_on_two_threads(&batches), expected);
    assert_eq!(operator(&plan, &batches), expected);
    assert_eq!(pipeline(&runtime, &schema, &batches, 1), expected);
    assert_eq!(pipeline(&runtime, &schema, &batches, 2), expected);

    let mut group = criterion.benchmark_group("window");
    let ratios = Ratios::of("window");
    group.throughput(Throughput::Elements(row_count(&batches)));
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(8));
    let mut bench = |name: &str, run: &dyn Fn() -> Checksum| {
        group.bench_function(name, |b| b.iter_custom(|times| ratios.time(name, times, run)));
    };
    bench("hand_written/1", &|| HandWritten::run(&batches));
    bench("hand_written/2", &|| HandWritten::run_on_two_threads(&batches));
    bench("operator", &|| operator(&plan, &batches));
    bench("pipeline/1", &|| pipeline(&runtime, &schema, &batches, 1));
    bench("pipeline/2", &|| pipeline(&runtime, &schema, &batches, 2));
    group.finish();
    ratios.print("operator", "hand_written/1");
    ratios.print("pipeline/1", "hand_written/1");
    ratios.print("pipeline/1", "operator");
    ratios.print("pipeline/2", "hand_written/2");
    ratios.print("pipeline/2", "pipeline/1");

    for keys in [1_000, 100_000, 1_000_000] {
        let batches = uniform(keys, rows(BIDS));
        assert_eq!(operator(&plan, &batches), HandWritten::run(&batches));
        let mut group = criterion.benchmark_group("window");
        group.throughput(Throughput::Elements(row_count(&batches)));
        group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
        let [by_hand, alone] = ["hand_written", "operator"].map(|side| format!("keys_{keys}/{side}"));
        let mut bench = |name: &str, run: &dyn Fn() -> Checksum| {
            group.bench_function(name, |b| b.iter_custom(|times| ratios.time(name, times, run)));
        };
        bench(&by_hand, &|| HandWritten::run(&batches));
        bench(&alone, &|| operator(&plan, &batches));
        group.finish();
        ratios.print(&alone, &by_hand);
    }
}

criterion_group!(benches, window);
criterion_main!(benches);
