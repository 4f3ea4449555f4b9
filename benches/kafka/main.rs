//! Kafka to Kafka, JSON in and out: records a second and how long they take, beside loops written by hand.
//!
//! Not a criterion bench: one run reads a whole topic, the sides alternate, and what counts is the ratio of each pair. Needs a
//! broker on this machine, named in `WINDROW_KAFKA`; run with `WINDROW_KAFKA=127.0.0.1:9092 cargo bench -p benches --bench kafka`.
//!
//! * [`load`]: the topics. [`by_hand`]: the loops. [`latency`]: the time from when a record was due to when it is read.

#![allow(missing_docs, unreachable_pub, reason = "a bench")]

mod by_hand;
mod latency;
mod load;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use self::{by_hand::Seen, load::Topics};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// In the topic that is read; `WINDROW_BENCH_RECORDS` says otherwise.
const RECORDS: u64 = 2_000_000;
const PARTITIONS: i32 = 4;
/// How often each loop runs.
const ROUNDS: usize = 5;
/// How long latency is measured.
const TIME: Duration = Duration::from_secs(20);

/// A loop on so many threads, which share the partitions; what all have seen, and records a second.
fn run(threads: i32, what: impl Fn(&[i32]) -> Result<Seen> + Sync) -> Result<(Seen, f64)> {
    let began = Instant::now();
    let seen = thread::scope(|scope| {
        let of = |thread: i32| (0..PARTITIONS).filter(|partition| partition % threads == thread).collect::<Vec<_>>();
        let what = &what;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || what(&of(thread)))).collect();
        let mut all = Seen::default();
        for thread in running {
            all = all.add(thread.join().map_err(|_| "a loop panicked")??);
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(all)
    })?;
    Ok((seen, seen.records as f64 / began.elapsed().as_secs_f64()))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What every loop must see of the first `records` bids, found without a broker.
fn expected(records: u64) -> Result<(Seen, Seen)> {
    let (mut read, mut written) = (Seen::default(), Seen::default());
    for number in 0..records {
        let bid = load::bid(number);
        let one = Seen { records: 1, bytes: serde_json::to_vec(&bid)?.len() as u64, ..Seen::default() };
        read = read.add(Seen { sum: bid.price, ..one });
        let euro = by_hand::euro(&bid);
        let (sum, kept) = (euro.as_ref().map_or(0, |euro| euro.cents), u64::from(euro.is_some()));
        written = written.add(Seen { sum, written: kept, ..one });
    }
    Ok((read, written))
}

fn throughput(brokers: &str, records: u64) -> Result<()> {
    let mut topics = Topics::new(brokers)?;
    let (read, written) = expected(records)?;
    let from = topics.filled(records, PARTITIONS)?;
    for threads in [1, 2] {
        let [mut counting, mut decoding, mut processing] = [const { Vec::new() }; 3];
        for _ in 0..ROUNDS {
            let (seen, rate) = run(threads, |partitions| by_hand::count(brokers, &from, partitions))?;
            same(seen, Seen { sum: 0, ..read })?;
            counting.push(rate);
            let (seen, rate) = run(threads, |partitions| by_hand::decode(brokers, &from, partitions))?;
            same(seen, read)?;
            decoding.push(rate);
            let to = topics.create("euros", PARTITIONS)?;
            let (seen, rate) = run(threads, |partitions| by_hand::process(brokers, &from, partitions, &to))?;
            same(seen, written)?;
            let there = topics.records(&to, PARTITIONS)?;
            if there != written.written {
                return Err(format!("{there} records were written and not {}", written.written).into());
            }
            processing.push(rate);
        }
        for (name, rates) in [("consume", counting), ("consume, decode", decoding), ("consume to produce", processing)]
        {
            println!("kafka/{name}/by hand, {threads} threads: {:.3} M records/s", median(rates) / 1e6);
        }
    }
    Ok(())
}

fn same(seen: Seen, expected: Seen) -> Result<()> {
    if seen == expected { Ok(()) } else { Err(format!("{seen:?} instead of {expected:?}").into()) }
}

/// The broker, if it is on this machine: nobody else's is put under load.
fn broker() -> Result<Option<String>> {
    let Ok(brokers) = std::env::var("WINDROW_KAFKA") else { return Ok(None) };
    for address in brokers.split(',') {
        if !address.to_socket_addrs()?.all(|address: SocketAddr| address.ip().is_loopback()) {
            return Err(format!("WINDROW_KAFKA={brokers} is not on this machine").into());
        }
    }
    Ok(Some(brokers))
}

fn measure() -> Result<()> {
    let Some(brokers) = broker()? else {
        println!("skipped: no Kafka broker (start one and name it: WINDROW_KAFKA=127.0.0.1:9092)");
        return Ok(());
    };
    let records = std::env::var("WINDROW_BENCH_RECORDS").ok().map_or(Ok(RECORDS), |records| records.parse())?;
    throughput(&brokers, records)?;
    // With few records the whole is only tried out.
    let time = if records < RECORDS { Duration::from_secs(2) } else { TIME };
    println!("{}", latency::line("by hand", &latency::measure(&brokers, time, "read_uncommitted", latency::by_hand)?));
    Ok(())
}

fn main() -> ExitCode {
    // `cargo test --benches` and `cargo bench -- --list` only ask whether it runs.
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    if !is_bench || std::env::args().any(|argument| argument == "--test" || argument == "--list") {
        return ExitCode::SUCCESS;
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
