//! A query, and what it cost.
//!
//! Processor time and memory are those of this process, as Linux tells them below `/proc/self`; elsewhere they are not known.

use std::{
    fs,
    time::{Duration, Instant},
};

use serde::Serialize;
use windrow::{Job, Report};

use super::{
    Checksum, Site,
    queries::{AnySink, Query},
};

/// How many of Linux's ticks of processor time make a second, on all machines.
const TICKS: f64 = 100.0;

/// One run of a query.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which query.
    pub query: &'static str,
    /// Tasks per operator.
    pub parallelism: usize,
    /// Events of all kinds, whether the query reads them or not.
    pub events: u64,
    /// From the start of the job to its end.
    pub seconds: f64,
    /// Events per second.
    pub rate: f64,
    /// Processor time per second: how many cores were at work, on average.
    pub cores: Option<f64>,
    /// The most memory that the process had, with the events that lie ready.
    pub peak_bytes: Option<u64>,
    /// Bytes of the events that lie ready.
    pub ready_bytes: usize,
    /// Rows of the answer.
    pub rows: u64,
    /// The sum of their values: see [`Checksum`].
    pub checksum: i64,
}

/// Runs `query` once. Fails when the job does; a row that was late or lost is told on stderr.
pub async fn measure(query: Query, site: &Site, parallelism: usize) -> windrow::Result<Measured> {
    let job = Job::new(query.name).parallelism(parallelism);
    let checksum = Checksum::new();
    (query.build)(site, &job, AnySink::new(checksum.clone()));
    forget_peak();
    let (began, cpu) = (Instant::now(), cpu_time());
    let report = job.run().await?;
    let elapsed = began.elapsed();
    let cpu = cpu_time().zip(cpu).map(|(after, before)| after.saturating_sub(before));
    complain(query, &report);
    // The files of q10, of which the next run writes as many.
    let _ = fs::remove_dir_all(site.log());
    let (rows, sum) = checksum.total();
    let (events, seconds) = (site.events().count, elapsed.as_secs_f64());
    Ok(Measured {
        query: query.name,
        parallelism,
        events,
        seconds,
        rate: events as f64 / seconds,
        cores: cpu.map(|cpu| cpu.as_secs_f64() / seconds),
        peak_bytes: peak(),
        ready_bytes: site.bytes(),
        rows,
        checksum: sum,
    })
}

/// Says on stderr when the answer is not that of all rows.
fn complain(query: Query, report: &Report) {
    for operator in &report.metrics.operators {
        if operator.late > 0 || operator.rejected > 0 || !operator.balances() {
            eprintln!("{}: rows are missing from the answer: {operator:?}", query.name);
        }
    }
}

/// Time that this process has had on all processors.
fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes before, in brackets, and may hold anything.
    let (_, numbers) = stat.rsplit_once(')')?;
    let mut ticks = numbers.split_whitespace().skip(11).map(|ticks| ticks.parse::<u64>().ok());
    let (user, system) = (ticks.next()??, ticks.next()??);
    Some(Duration::from_secs_f64((user + system) as f64 / TICKS))
}

fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Begins to look for the peak anew. Where that is not allowed the peak is that of all runs so far.
fn forget_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_process_has_taken_time_and_memory() {
        let (began, before) = (Instant::now(), cpu_time().unwrap());
        while began.elapsed() < Duration::from_millis(100) {
            std::hint::spin_loop();
        }
        assert!(cpu_time().unwrap() > before);
        assert!(peak().unwrap() > 1_000_000);
    }
}
