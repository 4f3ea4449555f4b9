//! Kafka to Kafka, JSON in and out: records a second and how long they take, beside loops written by hand.
//!
//! Not a criterion bench: one run reads a whole topic, the sides take turns, and what counts is the ratio of each pair. The broker is
//! one of its own on this machine, or the one named in `WINDROW_KAFKA`, if it is on this machine.
//!
//! * [`load`]: the topics. [`by_hand`]: the loops. [`engine`]: the jobs. [`latency`]: the time from when a record was due to when it
//!   is read.
//! * `WINDROW_BENCH_RECORDS`: how many records, if not 2 million; with fewer the whole is only tried out.
//! * `cargo bench -p benches --bench kafka -- consume`: only what has this in its name.

#![allow(missing_docs, unreachable_pub, reason = "a bench")]

mod by_hand;
mod engine;
mod latency;
mod load;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use tests::broker::{Broker, Options, Started};

use self::{
    by_hand::Seen,
    engine::{PLAIN, Promise},
    latency::Ends,
    load::Topics,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// In the topic that is read; `WINDROW_BENCH_RECORDS` says otherwise.
const RECORDS: u64 = 2_000_000;
const PARTITIONS: i32 = 4;
/// How often each side runs.
const ROUNDS: usize = 5;
/// How long latency is measured.
const TIME: Duration = Duration::from_secs(20);

const SECOND: Option<Duration> = Some(Duration::from_secs(1));
const TENTH: Option<Duration> = Some(Duration::from_millis(100));

/// A loop on so many threads, which share the partitions; what all have seen.
fn on_threads(threads: usize, what: impl Fn(&[i32]) -> Result<Seen> + Sync) -> Result<Seen> {
    thread::scope(|scope| {
        let of = |thread| (0..PARTITIONS).skip(thread).step_by(threads).collect::<Vec<_>>();
        let what = &what;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || what(&of(thread)))).collect();
        let mut all = Seen::default();
        for thread in running {
            all = all.add(thread.join().map_err(|_| "a loop panicked")??);
        }
        Ok(all)
    })
}

/// Reads the topic once, and writes to another of this name if it writes.
type Run<'a> = Box<dyn Fn(&str) -> Result<Seen> + 'a>;

/// What is measured beside what.
struct Side<'a> {
    name: String,
    /// The number of the side to compare with.
    beside: Option<usize>,
    expected: Seen,
    /// Whether it is given a topic to write to.
    writes: bool,
    what: Run<'a>,
    /// Records a second, and microseconds of processor time per record in this process, by round.
    rates: Vec<f64>,
    work: Vec<f64>,
}

impl<'a> Side<'a> {
    fn new(name: impl Into<String>, expected: Seen, what: impl Fn(&str) -> Result<Seen> + 'a) -> Self {
        let (rates, work) = (Vec::new(), Vec::new());
        let writes = expected.written > 0;
        Self { name: name.into(), beside: None, expected, writes, what: Box::new(what), rates, work }
    }

    fn beside(self, side: usize) -> Self {
        Self { beside: Some(side), ..self }
    }

    /// Runs it once.
    fn round(&mut self, topics: &mut Topics) -> Result<()> {
        let to = if self.writes { topics.create("euros", PARTITIONS)? } else { String::new() };
        let (began, work) = (Instant::now(), processor_seconds());
        let seen = (self.what)(&to).map_err(|error| format!("{}: {error}", self.name))?;
        self.rates.push(seen.records as f64 / began.elapsed().as_secs_f64());
        self.work.push((processor_seconds() - work) * 1e6 / seen.records as f64);
        if seen != self.expected {
            return Err(format!("{}: {seen:?} instead of {:?}", self.name, self.expected).into());
        }
        if self.writes {
            let there = topics.records(&to, PARTITIONS)?;
            if there != seen.written {
                return Err(format!("{}: {there} records were written and not {}", self.name, seen.written).into());
            }
            topics.delete(&to)?;
        }
        Ok(())
    }

    /// One line of figures.
    fn line(&self, others: &[Self]) -> String {
        let (rate, work) = (median(&self.rates), median(&self.work));
        let mut line =
            format!("kafka/{}: {:.3} M records/s, {work:.2} µs of processor time each", self.name, rate / 1e6);
        if let Some(other) = self.beside.and_then(|other| others.get(other)).filter(|other| !other.rates.is_empty()) {
            let ratios: Vec<f64> = self.rates.iter().zip(&other.rates).map(|(own, other)| own / other).collect();
            let (least, most) = ratios.iter().fold((f64::MAX, 0f64), |(l, m), &ratio| (l.min(ratio), m.max(ratio)));
            line += &format!(", {:.2} ({least:.2} – {most:.2}) of {}", median(&ratios), other.name);
        }
        line
    }
}

/// What all threads of this process have worked, in seconds; 0 where that is not known.
fn processor_seconds() -> f64 {
    benches::cpu_time().unwrap_or_default().as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What every side must see of the first `records` bids, found without a broker: of what is read, and of what is written.
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

fn throughput(brokers: &str, records: u64, wanted: &str) -> Result<()> {
    let mut topics = Topics::new(brokers)?;
    let (read, written) = expected(records)?;
    let from = &topics.filled(records, PARTITIONS)?;
    for threads in [1, 2] {
        let named =
            |what: &str, who: &str| format!("{what}/{who}, {threads} {}", if threads == 1 { "task" } else { "tasks" });
        let counted = Seen { sum: 0, ..read };
        let decoded = Seen { bytes: 0, ..read };
        let processed = Seen { bytes: 0, sum: 0, ..written };
        let process = |promise| move |to: &str| engine::process(brokers, from, threads, to, promise);
        let mut sides = vec![
            Side::new(named("consume", "by hand"), counted, |_| {
                on_threads(threads, |partitions| by_hand::count(brokers, from, partitions))
            }),
            Side::new(named("consume", "engine"), counted, |_| engine::count(brokers, from, threads)).beside(0),
            Side::new(named("decode", "by hand"), read, |_| {
                on_threads(threads, |partitions| by_hand::decode(brokers, from, partitions))
            }),
            Side::new(named("decode", "engine"), decoded, |_| engine::decode(brokers, from, threads)).beside(2),
            Side::new(named("process", "by hand"), written, |to| {
                on_threads(threads, |partitions| by_hand::process(brokers, from, partitions, to))
            }),
            Side::new(named("process", "engine"), processed, process(PLAIN)).beside(4),
        ];
        for (name, promise) in promises() {
            sides.push(Side::new(named("process", &format!("engine, {name}")), processed, process(promise)).beside(4));
        }
        let wanted = |side: &Side<'_>| side.name.contains(wanted);
        for _ in 0..ROUNDS {
            for side in sides.iter_mut().filter(|side| wanted(side)) {
                side.round(&mut topics)?;
            }
        }
        for side in sides.iter().filter(|side| wanted(side)) {
            println!("{}", side.line(&sides));
        }
    }
    Ok(())
}

/// What jobs promise beside nothing.
fn promises() -> [(&'static str, Promise); 3] {
    let promise = |exactly_once, checkpoint| Promise { exactly_once, checkpoint };
    [
        ("at least once, checkpoint each second", promise(false, SECOND)),
        ("exactly once, checkpoint each second", promise(true, SECOND)),
        ("exactly once, checkpoint each tenth", promise(true, TENTH)),
    ]
}

fn latencies(brokers: &str, time: Duration, wanted: &str) -> Result<()> {
    type Pipeline<'a> = Box<dyn Fn(Ends<'_>) -> Result<()> + Send + Sync + 'a>;
    let pipe = |promise| Box::new(move |ends: Ends<'_>| engine::pipe(ends, promise)) as Pipeline<'_>;
    let mut sides: Vec<(String, bool, Pipeline<'_>)> =
        vec![("by hand".into(), false, Box::new(latency::by_hand)), ("engine".into(), false, pipe(PLAIN))];
    for (name, promise) in promises() {
        sides.push((format!("engine, {name}"), promise.exactly_once, pipe(promise)));
    }
    for (name, committed, pipeline) in sides {
        let name = format!("latency/{name}");
        if name.contains(wanted) {
            let isolation = if committed { "read_committed" } else { "read_uncommitted" };
            println!("{}", latency::line(&name, &latency::measure(brokers, time, isolation, pipeline)?));
        }
    }
    Ok(())
}

/// A broker on this machine: nobody else's is put under load. Where there is one of our own it is to be kept.
fn broker() -> Result<Option<(String, Option<Broker>)>> {
    if let Ok(brokers) = std::env::var("WINDROW_KAFKA") {
        for address in brokers.split(',') {
            if !address.to_socket_addrs()?.all(|address: SocketAddr| address.ip().is_loopback()) {
                return Err(format!("WINDROW_KAFKA={brokers} is not on this machine").into());
            }
        }
        return Ok(Some((brokers, None)));
    }
    match Options::default().fast(1024).start()? {
        Started::Here(broker) => Ok(Some((broker.address().to_owned(), Some(broker)))),
        Started::Skipped(reason) => {
            println!("skipped: {reason}");
            Ok(None)
        }
    }
}

fn measure() -> Result<()> {
    let Some((brokers, _broker)) = broker()? else { return Ok(()) };
    let records = std::env::var("WINDROW_BENCH_RECORDS").ok().map_or(Ok(RECORDS), |records| records.parse())?;
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    if !wanted.starts_with("latency") {
        throughput(&brokers, records, &wanted)?;
    }
    let time = if records < RECORDS { Duration::from_secs(2) } else { TIME };
    latencies(&brokers, time, &wanted)
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
