//! A query, and what it cost.
//!
//! ```text
//!   answer      a first run, not measured: takes the checksum, which costs more than some queries, and warms up
//!   measure     a run to a sink that counts rows, as fast as it can
//!   latency     a run at half of that rate, or at one that is given
//! ```
//!
//! Processor time and memory are those of this process, as Linux tells them below `/proc/self`; elsewhere they are not known.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use windrow::{Job, Report, arrow::array::RecordBatch};

use super::{
    Checksum, Site,
    checksum::{Hashes, Sum},
    pace::{Latency, Pace, Taken, Told},
    queries::{Answer, AnySink, Query, q5},
};
use crate::{AddUp, cpu_time};

/// What went wrong, in words.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How a query is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Tasks per operator.
    pub parallelism: usize,
    /// Bytes of state that the job may hold in memory.
    pub memory_budget: Option<usize>,
}

/// One run of a query.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which query.
    pub query: &'static str,
    /// Tasks per operator.
    pub parallelism: usize,
    /// Which of the measured runs of the query, from 1 on.
    pub repetition: usize,
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
    /// Bytes of state that were put on disk, for want of memory.
    pub spilled_bytes: u64,
    /// Rows of the answer.
    pub rows: u64,
    /// See [`Checksum`].
    pub checksum: Hashes,
    /// If it was taken.
    pub latency: Option<Latency>,
}

impl Settings {
    fn job(self, query: &Query) -> Job {
        let job = Job::new(query.name).parallelism(self.parallelism);
        match self.memory_budget {
            Some(bytes) => job.memory_budget(bytes),
            None => job,
        }
    }
}

/// The checksum of the answer. Fails when the job does; a row that was late or lost is told on stderr.
pub async fn answer(query: &Query, site: &Site, settings: Settings) -> Result<Sum> {
    let job = settings.job(query);
    let checksum = Checksum::new();
    (query.build)(site, &job, AnySink::new(checksum.clone()));
    run(query, site, job).await?;
    Ok(checksum.total())
}

/// Runs `query` once and measures it. Fails when the job does, and when it gives another number of rows than `answer` has.
pub async fn measure(
    query: &Query,
    site: &Site,
    settings: Settings,
    repetition: usize,
    answer: Sum,
) -> Result<Measured> {
    let job = settings.job(query);
    let rows = AddUp::new(|total: &mut [i64; 1], batch: &RecordBatch| total[0] += batch.num_rows() as i64);
    (query.build)(site, &job, AnySink::new(rows.clone()));
    let costs = Costs::begin();
    let report = run(query, site, job).await?;
    let [counted] = rows.total();
    // How many changes there are depends on how rows come.
    if query.answer == Answer::Rows && counted != answer.rows as i64 {
        return Err(format!("{}: {counted} rows, and {} in the first run", query.name, answer.rows).into());
    }
    Ok(costs.of(query, site, settings, repetition, answer, &report))
}

/// Runs q5 over bids for many auctions once: measures it, and fails unless its answer is `expected`.
pub async fn measure_known(
    query: &Query,
    site: &Site,
    settings: Settings,
    repetition: usize,
    expected: Sum,
) -> Result<Measured> {
    let job = settings.job(query);
    // So few rows that their checksum costs nothing.
    let checksum = Checksum::new();
    (query.build)(site, &job, AnySink::new(checksum.clone()));
    let costs = Costs::begin();
    let report = run(query, site, job).await?;
    let answer = checksum.total();
    if answer != expected {
        return Err(format!("{}: the answer is {answer:?} and should be {expected:?}", query.name).into());
    }
    Ok(costs.of(query, site, settings, repetition, answer, &report))
}

/// How long the results of `query` take when `rate` events are offered per second. `None` for a query whose results do not say
/// which event or window they are about, and when no result came before the end of the input.
pub async fn latency(query: &Query, site: &Site, settings: Settings, rate: f64) -> Result<Option<Latency>> {
    let told = match query.name {
        "q0" | "q1" | "q13" | "q14" => Told::At("at"),
        "q5" => Told::Ended("until"),
        "q7" => Told::TenSeconds("at"),
        "q8" => Told::TenSeconds("window_start"),
        "q11" | "q12" | "kt" => Told::Ended("window_end"),
        _ => return Ok(None),
    };
    let (job, pace) = (settings.job(query), Arc::new(Pace::new(rate)));
    let (site, taken) = (site.paced(pace.clone()), Taken::new(told, pace, site.events()));
    match query.name {
        "q5" => q5::with_windows(&site, &job).sink(taken.clone()),
        _ => (query.build)(&site, &job, AnySink::new(taken.clone())),
    }
    run(query, &site, job).await?;
    Ok(taken.latency())
}

async fn run(query: &Query, site: &Site, job: Job) -> Result<Report> {
    let report = job.run().await;
    // The files of q10, of which the next run writes as many.
    let _ = fs::remove_dir_all(site.log());
    let report = report?;
    for operator in &report.metrics.operators {
        if operator.late > 0 || operator.rejected > 0 || !operator.balances() {
            eprintln!("{}: rows are missing from the answer: {operator:?}", query.name);
        }
    }
    Ok(report)
}

/// What the process had used when a run began.
struct Costs {
    began: Instant,
    cpu: Option<Duration>,
}

impl Costs {
    fn begin() -> Self {
        forget_peak();
        Self { began: Instant::now(), cpu: cpu_time() }
    }

    fn of(
        self,
        query: &Query,
        site: &Site,
        settings: Settings,
        repetition: usize,
        answer: Sum,
        report: &Report,
    ) -> Measured {
        let seconds = self.began.elapsed().as_secs_f64();
        let cpu = cpu_time().zip(self.cpu).map(|(after, before)| after.saturating_sub(before));
        let events = site.events().count;
        Measured {
            query: query.name,
            parallelism: settings.parallelism,
            repetition,
            events,
            seconds,
            rate: events as f64 / seconds,
            cores: cpu.map(|cpu| cpu.as_secs_f64() / seconds),
            peak_bytes: peak(),
            ready_bytes: site.bytes(),
            spilled_bytes: report.metrics.operators.iter().map(|operator| operator.spilled_bytes).sum(),
            rows: answer.rows,
            checksum: answer.hashes,
            latency: None,
        }
    }
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
