//! What the tests of whole jobs share: rows as text, a bounded wait, job processes, and a real Kafka.

pub mod broker;

#[cfg(unix)]
pub mod process;

pub mod topic;

use std::{env, io::Write, time::Duration};

use windrow::{
    Report,
    arrow::{
        array::RecordBatch,
        util::display::{ArrayFormatter, FormatOptions},
    },
    prelude::*,
};

/// No job of the tests takes nearly so long: what runs into it hangs.
pub const TOO_LONG: Duration = Duration::from_secs(120);

/// The rows of batches as comparable text, values separated by `|`, sorted: a multiset.
pub fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches.iter().flat_map(rows_of).collect();
    rows.sort_unstable();
    rows
}

fn rows_of(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<ArrayFormatter<'_>> =
        batch.columns().iter().filter_map(|column| ArrayFormatter::try_new(column.as_ref(), &options).ok()).collect();
    let value = |row: usize| columns.iter().map(move |column| column.value(row).to_string());
    (0..batch.num_rows()).map(|row| value(row).collect::<Vec<_>>().join("|")).collect()
}

/// Runs a job on two worker threads, or gives up when it hangs.
pub fn run(job: Job) -> windrow::Result<Report> {
    on_two_threads(job.run())
}

/// Runs a future on two worker threads, or gives up when it hangs.
///
/// # Panics
///
/// When the future takes longer than [`TOO_LONG`], or there are no threads to be had.
#[allow(clippy::panic, clippy::expect_used, reason = "it is for tests")]
pub fn on_two_threads<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    match runtime.block_on(async { tokio::time::timeout(TOO_LONG, future).await }) {
        Ok(result) => result,
        Err(_) => panic!("the job hangs"),
    }
}

/// Waits in a closure of a job until a flag is set. Another thread takes over what this one had to do next: a worker that only slept
/// would keep the task that it was going to run, which may be the one that sets the flag.
pub fn wait_for(flag: &std::sync::atomic::AtomicBool) {
    tokio::task::block_in_place(|| {
        while !flag.load(std::sync::atomic::Ordering::Relaxed) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
}

/// Says that a test is skipped. Not by `eprintln`, which is silent in a test that passes.
pub fn skip<T>(reason: &str) -> Option<T> {
    if env::var_os("WINDROW_NO_SKIP").is_some_and(|value| value == "1") {
        fail(&format!("skipped: {reason}; and WINDROW_NO_SKIP=1 forbids that"));
    }
    let name = std::thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(std::io::stderr(), "{name} ... skipped: {reason}");
    None
}

#[allow(clippy::panic, reason = "it is for tests, which fail by it")]
pub(crate) fn fail(error: &str) -> ! {
    panic!("{error}")
}
