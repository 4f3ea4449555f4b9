//! What it costs to watch a job: the throughput of a keyed window that is asked ten times a second for its status and the text for
//! Prometheus, and whose page is polled once a second over HTTP, beside the same job that nobody asks.
//!
//! Not a criterion bench: the two sides must alternate, and what counts is the median of their ratios, of which at least 0.98 is
//! asked: of the rates, and of the processor time of the process per event, which other programs disturb less. Run with `cargo
//! bench -p benches --bench observe`. `WINDROW_BENCH_ROWS` says how many events a run has, if not 120 million; on a machine on which
//! each side takes less than a second say more.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use benches::{AddUp, cpu_time, measures, median, rows, threads};
use windrow::{JobHandle, prelude::*, status::prometheus};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many pairs of runs are measured. The median of their ratios counts.
const ROUNDS: usize = 31;
/// How often the status is read.
const STATUS_EVERY: Duration = Duration::from_millis(100);
/// After how many of these the page is polled.
const PAGE_EVERY: u32 = 10;

/// What was asked, and how long the slowest answer of the page took.
#[derive(Default)]
struct Asked {
    status: u32,
    page: u32,
    slowest: Duration,
}

/// What the page asks for, and Prometheus. Returns how long it took.
fn poll_page(address: SocketAddr) -> io::Result<Duration> {
    let began = Instant::now();
    for path in ["/api/status", "/api/words", "/metrics"] {
        let mut stream = TcpStream::connect(address)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        if !answer.starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(&answer).into_owned()));
        }
    }
    Ok(began.elapsed())
}

/// Watches until the job is over.
fn watch(handle: &JobHandle, address: SocketAddr, over: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    while !over.load(Relaxed) {
        let status = handle.status();
        std::hint::black_box((prometheus(&status), status.bottleneck()));
        if asked.status.is_multiple_of(PAGE_EVERY) {
            // The job may be over in this moment.
            match poll_page(address) {
                Ok(took) => asked.slowest = asked.slowest.max(took),
                Err(error) => {
                    assert!(over.load(Relaxed) || handle.status().state == windrow::status::State::Ended, "{error}")
                }
            }
            asked.page += 1;
        }
        asked.status += 1;
        thread::sleep(STATUS_EVERY);
    }
    asked
}

/// A run: how many events a second, how many per second of processor time, and what was asked.
struct Run {
    rate: f64,
    per_work: f64,
    asked: Asked,
}

/// Runs the job.
fn run(runtime: &tokio::runtime::Runtime, events: u64, watched: bool) -> Run {
    let out: AddUp<1> = AddUp::new(|[rows], batch| *rows += batch.num_rows() as i64);
    let mut job = Job::new("observed").parallelism(2);
    if watched {
        job = job.serve("127.0.0.1:0");
    }
    let bids = Nexmark::new().events(events).splits(2).bids().columns(["auction", "price", "at"]);
    job.source(bids)
        .event_time("at", Watermarks::out_of_order(secs(5)))
        .key_by("auction")
        .window(Tumbling::of(secs(10)))
        .aggregate([count(), sum(col("price")), max(col("price"))])
        .drop_late()
        .sink(out.clone());
    let (over, before) = (AtomicBool::new(false), cpu_time());
    let (report, asked) = thread::scope(|scope| {
        runtime.block_on(async {
            let running = job.start().await.unwrap_or_else(|error| unreachable!("{error}"));
            let (handle, address) = (running.handle(), running.served().map(|served| served.address()));
            let watching = address.map(|address| {
                let over = &over;
                scope.spawn(move || watch(&handle, address, over))
            });
            let report = running.wait().await.unwrap_or_else(|error| unreachable!("{error}"));
            over.store(true, Relaxed);
            (report, watching.and_then(|watching| watching.join().ok()).unwrap_or_default())
        })
    });
    assert!(out.total()[0] > 0);
    let work = cpu_time().zip(before).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
    Run { rate: events as f64 / report.elapsed.as_secs_f64(), per_work: events as f64 / work, asked }
}

fn main() -> io::Result<()> {
    let runtime = threads(2)?;
    let events = rows(120_000_000);
    let (mut rates, mut works) = (Vec::new(), Vec::new());
    let (mut without, mut with, mut asked) = (Vec::new(), Vec::new(), Asked::default());
    for round in 0..if measures() { ROUNDS } else { 1 } {
        // Who is first is so every other time: a machine gets warm, or is given to others.
        let (plain, watched) = if round % 2 == 0 {
            let plain = run(&runtime, events, false);
            (plain, run(&runtime, events, true))
        } else {
            let watched = run(&runtime, events, true);
            (run(&runtime, events, false), watched)
        };
        asked.status += watched.asked.status;
        asked.page += watched.asked.page;
        asked.slowest = asked.slowest.max(watched.asked.slowest);
        rates.push(watched.rate / plain.rate);
        works.push(watched.per_work / plain.per_work);
        without.push(plain.rate / 1e6);
        with.push(watched.rate / 1e6);
    }
    println!(
        "observe: {:.1} M events/s unobserved, {:.1} observed: {}; by processor time {}; asked {} times, the page polled {} times, at most \
         {:.1} ms for the three answers",
        median(&without),
        median(&with),
        spread(&rates),
        spread(&works),
        asked.status,
        asked.page,
        asked.slowest.as_secs_f64() * 1e3,
    );
    Ok(())
}

/// The median, and between which values half of them lie.
fn spread(ratios: &[f64]) -> String {
    let mut sorted = ratios.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    format!(
        "ratio {:.3} (half of {} pairs: {:.3} – {:.3})",
        median(ratios),
        sorted.len(),
        sorted[quarter],
        sorted[sorted.len() - 1 - quarter]
    )
}
