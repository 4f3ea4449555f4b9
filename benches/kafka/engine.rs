//! The same work as jobs of the engine.
//!
//! ```text
//!   count    topic ──.raw()──► sums
//!   decode   topic ──.json()─► sums
//!   process  topic ──.json()─► filter ──► map ──► topic
//!   pipe     topic ──.json()─────────────────────► topic          (for the time that it takes)
//! ```
//!
//! Clients are set up as a user gets them, except that nothing is compressed and, for `pipe`, records are sent as soon as by hand.

use std::{future::Future, sync::atomic::Ordering::SeqCst, time::Duration};

use benches::AddUp;
use windrow::{
    arrow::{array::AsArray, datatypes::Int64Type},
    connectors::kafka::KafkaSink,
    prelude::*,
};

use crate::{
    Result,
    by_hand::{CHEAP, Seen},
    latency::{Ends, Tick},
    load::Bid,
};

/// What `process` writes.
#[derive(Record)]
pub struct Euro {
    pub auction: i64,
    pub cents: i64,
    pub at: i64,
}

/// What a job promises, and how often it takes a checkpoint.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub exactly_once: bool,
    pub checkpoint: Option<Duration>,
}

/// At least once, without checkpoints: a job that is started again begins where the topic begins.
pub const PLAIN: Promise = Promise { exactly_once: false, checkpoint: None };

/// Reads the bytes of every record, as they are.
pub fn count(brokers: &str, topic: &str, tasks: usize) -> Result<Seen> {
    let sums = AddUp::<2>::new(|sums, batch| {
        let bytes = batch.column(0).as_binary::<i32>().value_offsets();
        sums[0] += batch.num_rows() as i64;
        sums[1] += bytes.last().map_or(0, |last| i64::from(last - bytes[0]));
    });
    let job = Job::new("count").parallelism(tasks);
    job.source(Kafka::brokers(brokers).topic(topic).bounded().raw()).sink(sums.clone());
    block_on(job.run())?;
    let [records, bytes] = sums.total();
    Ok(Seen { records: u64::try_from(records)?, bytes: u64::try_from(bytes)?, ..Seen::default() })
}

/// Decodes every record.
pub fn decode(brokers: &str, topic: &str, tasks: usize) -> Result<Seen> {
    let sums = AddUp::<2>::new(|sums, batch| {
        sums[0] += batch.num_rows() as i64;
        let prices = batch.column_by_name("price").map(|prices| prices.as_primitive::<Int64Type>().values());
        sums[1] += prices.map_or(0, |prices| prices.iter().sum());
    });
    let job = Job::new("decode").parallelism(tasks);
    job.source(Kafka::brokers(brokers).topic(topic).bounded().json::<Bid>()).sink(sums.clone());
    block_on(job.run())?;
    let [records, sum] = sums.total();
    Ok(Seen { records: u64::try_from(records)?, sum, ..Seen::default() })
}

/// Decodes every record, leaves some out, and writes the others to a topic in another form.
pub fn process(brokers: &str, topic: &str, tasks: usize, to: &str, promise: Promise) -> Result<Seen> {
    let kafka = Kafka::brokers(brokers).set("compression.type", "none");
    // What a job of the same name has committed before would be gone on from.
    let (job, _store) = job(&format!("process-{to}"), promise)?;
    let job = job.parallelism(tasks);
    let euros = job
        .source(kafka.topic(topic).bounded().json::<Bid>())
        .filter(|bid| bid.price >= CHEAP)
        .map(|bid| Euro { auction: bid.auction, cents: bid.price * 9 / 10, at: bid.at });
    sink(euros, kafka.to_topic(to).json(), promise);
    let metrics = block_on(job.run())?.metrics;
    let records = metrics.named("source").map(|source| source.rows_in).sum();
    let written = metrics.named("sink").map(|sink| sink.processed).sum();
    Ok(Seen { records, written, ..Seen::default() })
}

/// Writes every tick that it reads.
pub fn pipe(ends: Ends<'_>, promise: Promise) -> Result<()> {
    let kafka = Kafka::brokers(ends.brokers).set("compression.type", "none").set("linger.ms", "1");
    let (job, _store) = job(&format!("pipe-{}", ends.to), promise)?;
    sink(job.source(kafka.topic(ends.from).json::<Tick>()), kafka.to_topic(ends.to).json(), promise);
    block_on(async {
        let running = job.start().await?;
        let handle = running.handle();
        let stopping = async {
            while !ends.stop.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            handle.stop();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stopping => {}
            ended = running.wait() => drop(ended?),
        }
        Ok(())
    })
}

/// A job with checkpoints on a local disk, if it promises them.
fn job(name: &str, promise: Promise) -> Result<(Job, Option<tempfile::TempDir>)> {
    let Some(every) = promise.checkpoint else { return Ok((Job::new(name), None)) };
    let store = tempfile::tempdir()?;
    Ok((Job::new(name).checkpoint(store.path().to_string_lossy(), every), Some(store)))
}

fn sink<T: 'static, R>(stream: Stream<T, R>, sink: KafkaSink, promise: Promise) {
    stream.sink(if promise.exactly_once { sink.exactly_once() } else { sink });
}

/// On two threads, as there are cores on the machine that the figures are from.
fn block_on<T>(job: impl Future<Output = windrow::Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(runtime.block_on(job)?)
}
