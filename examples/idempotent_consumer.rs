//! A producer that repeats itself, and effects that happen once.
//!
//! ```text
//!   transfers, sent at least once:  7  8  7  9  8 …
//!        │
//!        └─► per id: the first within an hour ─► per account: sum ─► table of balances
//!                                 └─ too late to tell: counted, and a stream of its own
//! ```
//!
//! A producer that gets no answer sends again, up to half an hour later, so the same transfer comes several times. The job
//! remembers each id for an hour of event time, not for ever: its memory is what one hour holds. Together with
//! checkpoints, which make a restart invisible, each transfer counts exactly once from the producer to the table.

#![allow(missing_docs, reason = "derive(Record) makes public types")]

use std::error::Error;

use windrow::prelude::*;

/// How far out of order transfers arrive.
const DISORDER: std::time::Duration = mins(1);

#[derive(Record, Clone, Debug)]
pub struct Transfer {
    /// The same for all sendings of a transfer: what makes it possible to know them.
    pub id: i64,
    pub account: String,
    pub cents: i64,
    /// When this sending was sent.
    pub sent: Timestamp,
}

/// The transfers, each once, and those that came too late to tell.
pub fn once<S>(job: &Job, transfers: S) -> (Stream<Transfer>, Stream<Transfer>)
where
    S: TypedSource<Row = Transfer>,
{
    job.source(transfers)
        .event_time("sent", Watermarks::out_of_order(DISORDER))
        .fail_on_rejects()
        .key_by("id")
        .deduplicate(hours(1))
        .with_late()
}

/// The balances by `account`, as changes.
pub fn balances(transfers: Stream<Transfer>) -> Stream<Untyped> {
    transfers.key_by("account").aggregate([sum(col("cents")).alias("balance"), count().alias("transfers")])
}

/// Six hours of transfers as they arrive: every fourth is sent twice and every twentieth three times, some seconds or up
/// to half an hour later, and the network swaps what is close together.
pub fn sendings() -> Vec<Transfer> {
    const SECOND: i64 = 1_000_000;
    let mut sendings = Vec::new();
    for id in 0..20_000_i64 {
        let first = 1_767_225_600 * SECOND + id * SECOND + id % 10;
        let times = if id % 20 == 0 {
            3
        } else if id % 4 == 0 {
            2
        } else {
            1
        };
        for time in 0..times {
            let again = time * (1 + id * 7_919 % 900) * SECOND;
            let account = ["ada", "bob", "cleo", "dan"][(id / 20 % 4) as usize].to_string();
            let sent = Timestamp::from_micros(first + again);
            let arrives = first + again + id * 104_729 % 60 * SECOND;
            sendings.push((arrives, Transfer { id, account, cents: id * 31 % 10_000, sent }));
        }
    }
    sendings.sort_by_key(|(arrives, transfer)| (*arrives, transfer.id));
    sendings.into_iter().map(|(_, transfer)| transfer).collect()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let job = Job::new("transfers").parallelism(2);
    let (table, naive, late) = (MemoryTable::new(), MemoryTable::new(), MemorySink::new());

    let (transfers, too_late) = once(&job, MemorySource::records(sendings()).batch_rows(1_000));
    balances(transfers).sink(table.clone());
    too_late.sink(late.clone());
    // What a consumer would have that believes all it gets.
    let believed = job.source(MemorySource::records(sendings()));
    balances(believed.event_time("sent", Watermarks::out_of_order(DISORDER)).fail_on_rejects()).sink(naive.clone());
    let report = job.run().await?;

    println!("each transfer once:\n{table}");
    println!("as often as it came:\n{naive}");
    if let Some(first) = report.metrics.named("first within").next() {
        let repeated = first.rows_in - first.rows_out;
        println!("{} sendings, {repeated} of them repeated, {} too late to tell", first.rows_in, late.rows());
    }
    Ok(())
}
