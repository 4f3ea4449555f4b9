//! All Nexmark queries, events per second, and some beside what one would write by hand.
//!
//! ```sh
//! cargo bench -p benches --bench nexmark          # all
//! cargo bench -p benches --bench nexmark -- q5    # whose name has this in it
//! ```
//!
//! Events are made before the clock starts. Events of all kinds count, whether a query reads them or not.
//!
//! | what is measured | |
//! |---|---|
//! | `q5/1`, `q5/2` | the query at parallelism 1 on one thread, and 2 on two; each kind of events is a source |
//! | `q0 of all/1`, `/2` | bids are first filtered out of a stream of all kinds, as in the suite (q0, q1, q2: without that q0 has nothing to do) |
//! | `q5/by hand`; `q8/by hand, 2 threads` | Arrow's kernels (q0, q1, q2) or a loop (the others) over the same batches |
//!
//! Answers of the two sides are compared before anything is measured; ratios of the medians are printed at the end.

mod by_hand;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

use benches::{
    AddUp, HandWritten,
    nexmark::{
        Events, Kind, Site,
        queries::{ALL, AnySink, Query},
    },
    threads,
};
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, measurement::WallTime};
use tokio::runtime::Runtime;
use windrow::{
    Job,
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{DataType, Int64Type},
        error::ArrowError,
    },
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const EVENTS: u64 = 4_000_000;

/// Rows, and the sum of their 64-bit integers, which wraps.
type Tally = [i64; 2];

fn tally(total: &mut Tally, batch: &RecordBatch) {
    total[0] += batch.num_rows() as i64;
    for column in batch.columns().iter().filter(|column| *column.data_type() == DataType::Int64) {
        let sum = column.as_primitive::<Int64Type>().values().iter().fold(0_i64, |sum, value| sum.wrapping_add(*value));
        total[1] = total[1].wrapping_add(sum);
    }
}

/// What the loops read: the columns that the queries name.
struct Input {
    /// `kind`, `auction`, `bidder`, `price`, `at`, `extra`, of events of all kinds.
    mixed_wide: Vec<RecordBatch>,
    /// `kind`, `auction`, `price`, `at`.
    mixed_narrow: Vec<RecordBatch>,
    /// `auction`, `price`, `bidder`, `at`, `extra`.
    bids: Vec<RecordBatch>,
    /// `auction`, `price`, `at`.
    bids_narrow: Vec<RecordBatch>,
    /// `id`, `name`, `at`.
    persons: Vec<RecordBatch>,
    /// `seller`, `at`.
    auctions: Vec<RecordBatch>,
}

fn project(batches: &[RecordBatch], names: &[&str]) -> Vec<RecordBatch> {
    let of = |batch: &RecordBatch| {
        let schema = batch.schema();
        let columns: Vec<usize> = names.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        batch.project(&columns).unwrap_or_else(|error| unreachable!("{error}"))
    };
    batches.iter().map(of).collect()
}

impl Input {
    fn new(site: &Site, mixed: &Site) -> Self {
        let all = mixed.mixed_batches().unwrap_or_default();
        Self {
            mixed_wide: project(all, &["kind", "auction", "bidder", "price", "at", "extra"]),
            mixed_narrow: project(all, &["kind", "auction", "price", "at"]),
            bids: project(site.batches(Kind::Bid), &["auction", "price", "bidder", "at", "extra"]),
            bids_narrow: project(site.batches(Kind::Bid), &["auction", "price", "at"]),
            persons: project(site.batches(Kind::Person), &["id", "name", "at"]),
            auctions: project(site.batches(Kind::Auction), &["seller", "at"]),
        }
    }
}

/// A job, as fast as it can.
fn run(runtimes: &[Runtime; 2], query: &Query, site: &Site, parallelism: usize) -> Tally {
    let job = Job::new(query.name).parallelism(parallelism);
    let out = AddUp::new(tally);
    (query.build)(&site.splits(parallelism), &job, AnySink::new(out.clone()));
    runtimes[parallelism - 1].block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    // The files of q10.
    let _ = std::fs::remove_dir_all(site.log());
    out.total()
}

/// A query by hand: what it is called, and what the ratio is that it is asked to reach.
struct Baseline {
    query: &'static str,
    /// Over events of all kinds.
    mixed: bool,
    by_hand: fn(&Input) -> Tally,
    on_two_threads: Option<fn(&Input) -> Tally>,
    target: f64,
}

fn done(tally: Result<Tally, ArrowError>) -> Tally {
    tally.unwrap_or_else(|error| unreachable!("{error}"))
}

macro_rules! baseline {
    ($query:ident, $mixed:literal, $target:literal) => {
        Baseline {
            query: stringify!($query),
            mixed: $mixed,
            by_hand: |input| done(by_hand::$query(input)),
            on_two_threads: None,
            target: $target,
        }
    };
}

/// The targets are those of issue 6. That of q7 and q8 is a rate; what is here is so that they are shown.
const BASELINES: [Baseline; 7] = [
    baseline!(q0, true, 0.6),
    baseline!(q1, true, 0.6),
    baseline!(q2, true, 0.5),
    baseline!(q5, false, 0.4),
    baseline!(q7, false, 0.0),
    Baseline { on_two_threads: Some(|input| done(by_hand::q8_on_two_threads(input))), ..baseline!(q8, false, 0.0) },
    Baseline {
        query: "kt",
        mixed: false,
        by_hand: |input| kt_tally(HandWritten::run(&input.bids_narrow)),
        on_two_threads: Some(|input| kt_tally(HandWritten::run_on_two_threads(&input.bids_narrow))),
        target: 0.7,
    },
];

/// Rows, and counts, sums and maxima together.
fn kt_tally([rows, counts, sums, tops]: benches::Checksum) -> Tally {
    [rows, counts + sums + tops]
}

/// The medians of all that was measured, in seconds, by name.
type Medians = BTreeMap<String, f64>;

struct Bench<'a> {
    group: BenchmarkGroup<'a, WallTime>,
    medians: Medians,
}

impl Bench<'_> {
    fn measure(&mut self, name: &str, of: &str, run: impl Fn() -> Tally) {
        let taken = RefCell::new(Vec::new());
        self.group.bench_function(BenchmarkId::new(name, of), |b| {
            b.iter_custom(|times| {
                let began = Instant::now();
                (0..times).for_each(|_| {
                    black_box(run());
                });
                let elapsed = began.elapsed();
                taken.borrow_mut().push(elapsed.as_secs_f64() / times as f64);
                elapsed
            });
        });
        let mut taken = taken.into_inner();
        taken.sort_by(f64::total_cmp);
        if let Some(median) = taken.get(taken.len() / 2) {
            self.medians.insert(format!("{name}/{of}"), *median);
        }
    }
}

const BY_HAND: &str = "by hand";
const TWO_THREADS: &str = "by hand, 2 threads";

fn name_of(query: &str, mixed: bool) -> String {
    if mixed { format!("{query} of all") } else { query.into() }
}

fn nexmark(criterion: &mut Criterion) -> Medians {
    let events = Events { count: EVENTS, ..Events::default() };
    let made = [Site::ready(events.clone()), Site::mixed(events)];
    let [site, mixed] = made.map(|site| site.unwrap_or_else(|error| unreachable!("{error}")));
    let input = Input::new(&site, &mixed);
    let runtimes = &[1, 2].map(|cores| threads(cores).unwrap_or_else(|error| unreachable!("{error}")));

    let mut group = criterion.benchmark_group("nexmark");
    group.throughput(Throughput::Elements(EVENTS));
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    let mut bench = Bench { group, medians: Medians::new() };
    for query in &ALL {
        let baseline = BASELINES.iter().find(|baseline| baseline.query == query.name);
        if let Some(Baseline { mixed: all, by_hand, on_two_threads, .. }) = baseline {
            let (site, name) = (if *all { &mixed } else { &site }, name_of(query.name, *all));
            let expected = by_hand(&input);
            if let Some(on_two_threads) = on_two_threads {
                assert_eq!(on_two_threads(&input), expected, "{name}");
                bench.measure(&name, TWO_THREADS, || on_two_threads(&input));
            }
            if query.name == "kt" {
                check_kt(runtimes, query, site, expected);
            } else {
                assert_eq!(run(runtimes, query, site, 1), expected, "{name}");
                assert_eq!(run(runtimes, query, site, 2), expected, "{name}");
            }
            bench.measure(&name, BY_HAND, || by_hand(&input));
            if *all {
                bench.measure(&name, "1", || run(runtimes, query, site, 1));
                bench.measure(&name, "2", || run(runtimes, query, site, 2));
            }
        }
        bench.measure(query.name, "1", || run(runtimes, query, &site, 1));
        bench.measure(query.name, "2", || run(runtimes, query, &site, 2));
    }
    bench.group.finish();
    bench.medians
}

/// The loop does not add up the numbers of auctions.
fn check_kt(runtimes: &[Runtime; 2], query: &Query, site: &Site, expected: Tally) {
    let job = Job::new(query.name);
    let out = AddUp::new(|total: &mut Tally, batch: &RecordBatch| {
        let names = ["bids", "sum", "top"];
        tally(total, &project(std::slice::from_ref(batch), &names)[0]);
    });
    (query.build)(site, &job, AnySink::new(out.clone()));
    runtimes[0].block_on(job.run()).unwrap_or_else(|error| unreachable!("{error}"));
    assert_eq!(out.total(), expected);
}

/// Rates, and each one's ratio to what is by hand and to parallelism 1.
fn print(medians: &Medians) {
    let rate = |name: &str, of: &str| medians.get(&format!("{name}/{of}")).map(|seconds| EVENTS as f64 / seconds / 1e6);
    let shown = |figure: Option<f64>| figure.map_or("-".into(), |figure| format!("{figure:.2}"));
    println!("\nM events/s        by hand        1        2   1 of hand  (asked)   2 of hand on 2   2 of 1 (by hand)");
    for query in &ALL {
        let baseline = BASELINES.iter().find(|baseline| baseline.query == query.name);
        let with_baseline = baseline.map(|baseline| name_of(query.name, baseline.mixed));
        let mut names = vec![query.name.to_owned()];
        names.extend(with_baseline.filter(|name| name != query.name));
        for name in names {
            let [hand, two_threads, one, two] = [BY_HAND, TWO_THREADS, "1", "2"].map(|of| rate(&name, of));
            if one.or(two).or(hand).is_none() {
                continue;
            }
            let ratio = |a: Option<f64>, b: Option<f64>| shown(a.zip(b).map(|(a, b)| a / b));
            let of_two = format!("{} ({})", ratio(two, one), ratio(two_threads, hand));
            let asked = baseline.filter(|asked| asked.target > 0.0 && hand.is_some());
            println!(
                "{name:<14} {:>10} {:>8} {:>8} {:>11} {:>9} {:>16} {of_two:>18}",
                shown(hand),
                shown(one),
                shown(two),
                ratio(one, hand),
                shown(asked.map(|asked| asked.target)),
                ratio(two, two_threads),
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let medians = nexmark(&mut criterion);
    print(&medians);
    criterion.final_summary();
}
