//! Times at the ends of what the engine keeps, windows of a microsecond and of all time, saved in the middle and restored;
//! and what the engine does when its clock leaps.
//!
//! The oracle counts in 128 bits. No row vanishes: over both incarnations what was read is what there was, and what a
//! window took is what it processed and what was late.

use std::{collections::BTreeMap, time::Duration};

use windrow::{
    JobHandle, Report, Restarts,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::DataType,
    },
    cast,
    prelude::*,
};

use super::{
    hand::{Hand, click, read, save_and_stop, until},
    lives::{HANGS, balanced, place, start},
    scenario::Scenario,
};

/// Beyond this, in both directions, a time is rejected.
const END: i64 = 1 << 62;
const YEAR_9999: i64 = 253_402_300_799_999_999;

/// A window, and rows of (key, amount, time) batch by batch.
#[derive(Debug)]
struct Case {
    size: i64,
    offset: i64,
    lateness: u64,
    bound: u64,
    batches: Vec<Vec<(i64, i64, i64)>>,
    parallelism: (usize, usize),
    /// After how many records it is saved.
    middle: u64,
}

impl Case {
    fn draw(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let size = match random.u8(0..5) {
            0 => 1,
            1 => random.i64(2..5_000),
            2 => random.i64(1..i64::MAX / 4),
            3 => i64::MAX / 4 - random.i64(0..3),
            _ => 86_400_000_000,
        };
        let near = [-END, -END / 2, -1_000, 0, YEAR_9999, END / 2, END][random.usize(0..7)];
        let mut times: Vec<i64> = (0..random.usize(1..60))
            .map(|_| match random.u8(0..4) {
                0 => random.i64(-END + 1..END),
                1 => [-END, -END + 1, -1, 0, YEAR_9999, END - 1, END, i64::MIN, i64::MAX][random.usize(0..9)],
                _ => near.saturating_add(random.i64(-3_000..3_000)),
            })
            .collect();
        // In order, or in any order within a bound that no time exceeds.
        let in_order = random.bool();
        if in_order {
            times.sort_unstable();
        }
        let rows: Vec<_> = times.into_iter().map(|at| (random.i64(0..4), random.i64(-9..10), at)).collect();
        Self {
            size,
            offset: if random.bool() { random.i64(0..i64::MAX / 4) } else { random.i64(0..9_000) },
            lateness: [0, 0, 1, 5_000, u64::MAX / 2][random.usize(0..5)],
            bound: if in_order { 0 } else { u64::MAX / 2 },
            middle: random.u64(0..rows.len() as u64 + 1),
            batches: rows.chunks(random.usize(1..9)).map(<[_]>::to_vec).collect(),
            parallelism: (random.usize(1..3), random.usize(1..4)),
        }
    }

    fn records(&self) -> u64 {
        self.batches.iter().map(|rows| rows.len() as u64).sum()
    }

    fn right(&self) -> Vec<String> {
        let mut groups: BTreeMap<(i64, i64, i64), (i64, i64)> = BTreeMap::new();
        let good = self.batches.iter().flatten().filter(|row| i128::from(row.2).abs() < i128::from(END));
        let (size, offset) = (i128::from(self.size), i128::from(self.offset % self.size));
        let cut = |time: i128| time.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
        for (key, amount, at) in good {
            let start = (i128::from(*at) - offset).div_euclid(size) * size + offset;
            let sum = groups.entry((cut(start), cut(start + size), *key)).or_default();
            *sum = (sum.0 + 1, sum.1 + amount);
        }
        let text = |((start, end, key), (n, total))| format!("{start}|{end}|{key}|{n}|{total}");
        let mut rows: Vec<String> = groups.into_iter().map(text).collect();
        rows.sort_unstable();
        rows
    }

    async fn run(&self) -> Result<(), String> {
        let (directory, out) = (place(), MemorySink::new());
        let column = |of: fn(&(i64, i64, i64)) -> i64, rows: &[(i64, i64, i64)]| -> ArrayRef {
            std::sync::Arc::new(Int64Array::from_iter_values(rows.iter().map(of)))
        };
        let batch = |rows: &[(i64, i64, i64)]| {
            RecordBatch::try_from_iter([
                ("key", column(|row| row.0, rows)),
                ("amount", column(|row| row.1, rows)),
                ("at", Timestamp::column(rows.iter().map(|row| row.2).collect())),
            ])
            .expect("columns of one length")
        };
        let (input, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
        let job = |parallelism: usize| {
            let micros = |span: u64| Duration::from_micros(span);
            let window = Tumbling::of(micros(self.size.unsigned_abs())).offset(micros(self.offset.unsigned_abs()));
            let job = Job::new("extremes").parallelism(parallelism).restarts(Restarts::never());
            job.source(source.clone())
                .event_time("at", Watermarks::out_of_order(micros(self.bound)))
                .drop_rejects()
                .key_by("key")
                .window(window.allowed_lateness(micros(self.lateness)))
                .aggregate([count().alias("n"), sum(col("amount")).alias("total")])
                .drop_late()
                .select([
                    cast(col("window_start"), DataType::Int64).alias("start"),
                    cast(col("window_end"), DataType::Int64).alias("end"),
                    col("key"),
                    col("n"),
                    col("total"),
                ])
                .sink(out.clone());
            job.checkpoint(directory.path().to_str().unwrap(), hours(1))
        };
        let (mut pushed, mut batches) = (0, self.batches.iter());
        while pushed < self.middle
            && let Some(rows) = batches.next()
        {
            input.push(0, batch(rows));
            pushed += rows.len() as u64;
        }
        let running = read(|| job(self.parallelism.0), pushed).await.map_err(|error| error.to_string())?;
        let first = save_and_stop(running, "middle").await;
        batches.for_each(|rows| input.push(0, batch(rows)));
        input.end_all();
        let running = start(|| job(self.parallelism.1)).await.map_err(|error| error.to_string())?;
        let last = running.wait().await.map_err(|error| error.to_string())?;
        balanced(&first)?;
        balanced(&last)?;
        let read = |report: &Report| report.metrics.named("source").map(|source| source.rows_in).sum::<u64>();
        if read(&first) + read(&last) != self.records() {
            return Err(format!("{} and {} of {} records were read", read(&first), read(&last), self.records()));
        }
        let late: u64 = [&first, &last].iter().flat_map(|report| &report.metrics.operators).map(|o| o.late).sum();
        let (found, right) = (tests::rows(&out.batches()), self.right());
        match late {
            0 if found == right => Ok(()),
            _ => Err(format!("{late} late; {found:?} instead of {right:?}")),
        }
    }
}

fn cases(seeds: std::ops::Range<u64>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let count = seeds.end - seeds.start;
    for seed in seeds {
        let case = Case::draw(seed);
        let ended = runtime.block_on(async { tokio::time::timeout(HANGS, case.run()).await });
        ended
            .unwrap_or_else(|_| panic!("seed {seed} hangs"))
            .unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}\n{case:?}"));
    }
    println!("{count} cases at the ends of time, each saved and restored");
}

#[test]
fn the_ends_of_time_survive_a_restore() {
    cases(0..200);
}

#[test]
#[ignore = "the full count"]
fn the_ends_of_time_survive_a_restore_in_full() {
    cases(10_000..20_000);
}

/// The same seed is the same job, and its answer is the same whatever the threads do.
fn twice(seeds: std::ops::Range<u64>) {
    let mut same = 0;
    for seed in seeds.clone() {
        let [one, other] = [Scenario::new(seed), Scenario::new(seed)];
        let rows = |scenario: &Scenario| scenario.inputs.iter().map(|input| input.splits.clone()).collect::<Vec<_>>();
        assert_eq!(rows(&one), rows(&other), "seed {seed}");
        let plan = |s: &Scenario| format!("{:?}", (&s.steps, s.fork, &s.ending, s.disorder, s.interval, s.parallelism));
        assert_eq!(plan(&one), plan(&other), "seed {seed}");
        same += 1;
    }
    println!("{same}/{} seeds gave the same scenario twice", seeds.end - seeds.start);
}

#[test]
fn a_seed_is_a_scenario() {
    twice(0..200);
}

/// Counts of users in windows of ten seconds.
fn counted(rows: Stream<super::scenario::Click>, out: MemorySink) {
    let counts = rows.key_by("user").window(Tumbling::of(secs(10))).aggregate([count().alias("n")]).drop_late();
    counts.select(["window_start", "user", "n"].map(col)).sink(out);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_leaps_ten_years_changes_no_answer() {
    let hand = Hand::new();
    hand.push(&[click(1, 0, 1), click(1, 0, 2)]);
    let job = || hand.job(counted).checkpoint(hand.store(), mins(1));
    let running = read(job, 2).await.unwrap();
    let handle = running.handle();
    let read_until = |rows: u64| move |job: &JobHandle| job.metrics().named("source").all(|s| s.rows_in == rows);
    // A checkpoint that is under way would have taken ten years, which is too long.
    until(&handle, |job| job.metrics().checkpoints.completed > 0).await;
    tokio::time::advance(hours(10 * 365 * 24)).await;
    hand.push(&[click(1, 0, 3)]);
    until(&handle, read_until(3)).await;
    handle.savepoint("after").await.unwrap();
    tokio::time::advance(hours(10 * 365 * 24)).await;
    drop(running);
    hand.push(&[click(1, 0, 12)]);
    hand.input.end_all();
    let report = start(job).await.unwrap().wait().await.unwrap();
    assert_eq!(hand.rows(), ["1970-01-01T00:00:00Z|1|3", "1970-01-01T00:00:10Z|1|1"]);
    assert!(report.metrics.operators.iter().all(|operator| operator.late == 0));
}
