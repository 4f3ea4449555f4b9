//! Row 4 of the fault matrix: a job that runs for a day of virtual time, with a checkpoint every ten seconds. Its state, its
//! checkpoints and its memory do not grow.
//!
//! ```text
//!   50 numbers a second, in two splits ─► windows of a minute by key ─► topic ─► taken out and compared, hour by hour
//! ```

use std::{collections::BTreeMap, fs, time::Duration};

use windrow::{Restarts, prelude::*};

use super::{
    scenario::windows,
    simulated::{Settings, Simulated},
    targets::{InMemory, Target},
};

const OUT: &str = "results";
const RATE: u64 = 50;
const KEYS: u64 = 7;

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

fn job<T: Target>(numbers: u64, store: &str, target: &T, cluster: &Simulated) -> Job {
    let job = Job::new("day").parallelism(2);
    let connection = target.connect(cluster);
    let numbers = job
        .source(Sequence::new(numbers).splits(2).rate(RATE).step(1_000_000 / RATE as i64))
        .event_time("at", Watermarks::in_order().idle_after(mins(10)))
        .fail_on_rejects();
    windows(numbers, KEYS as i64, mins(1)).sink(T::sink(&connection, OUT));
    job.checkpoint(store, secs(10)).restarts(Restarts::at_most(100).waiting(millis(1)..=secs(2)))
}

/// What the windows that begin before `until` seconds hold, of so many numbers.
fn right(numbers: u64) -> Vec<String> {
    let mut windows: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    for number in 0..numbers {
        let (n, total) = windows.entry((number / RATE / 60 * 60_000_000, number % KEYS)).or_default();
        *n += 1;
        *total += number;
    }
    let mut rows: Vec<String> =
        windows.iter().map(|((at, key), (n, total))| format!("{at}|{key}|{n}|{total}")).collect();
    rows.sort_unstable();
    rows
}

pub struct Day {
    pub checkpoints: u64,
    /// After each sixth of the time.
    resident: Vec<u64>,
}

/// Runs the job for so long; says what is wrong.
pub fn day<T: Target>(seed: u64, time: Duration, target: &T) -> Result<Day, String> {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.map_err(|error| error.to_string())?;
    let store = directory.path().to_str().ok_or("no path")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let cluster = Simulated::new(Settings { seed, percent: 2, ..Settings::default() });
        cluster.create(OUT, 3);
        let numbers = time.as_secs() * RATE;
        let running = job(numbers, store, target, &cluster).start().await.map_err(|error| error.to_string())?;
        let handle = running.handle();
        let ended = tokio::spawn(running.wait());
        let mut rows = Vec::new();
        let mut seen = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(time / 6).await;
            rows.extend(target.take(&cluster, OUT));
            seen.extend(resident());
        }
        let checkpoints = handle.metrics().checkpoints.completed;
        let report = tokio::time::timeout(hours(1), ended).await.map_err(|_| "it hangs")?;
        report.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tokio::time::sleep(mins(1)).await;
        rows.extend(target.take(&cluster, OUT));
        rows.sort_unstable();
        if rows != right(numbers) {
            return Err(format!("SEED={seed}: {} rows and not {}", rows.len(), right(numbers).len()));
        }
        Ok(Day { checkpoints, resident: seen })
    })
}

impl Day {
    pub fn check(&self, seed: u64) {
        let Self { checkpoints, resident } = self;
        println!("SEED={seed}: {checkpoints} checkpoints, resident after each four hours: {resident:?}");
        assert!(*checkpoints > 8_000, "{checkpoints}");
        if let [_, second, .., last] = resident[..] {
            let grown = last.saturating_sub(second);
            assert!(grown < 16 << 20, "{grown} bytes in sixteen hours: more than a megabyte an hour");
        }
    }
}

#[test]
fn ten_minutes_are_right_and_have_their_checkpoints() {
    let day = day(1, mins(10), &InMemory::default()).unwrap();
    assert!((50..=75).contains(&day.checkpoints), "{}", day.checkpoints);
}

#[test]
#[ignore = "the full count: a day, twenty times"]
fn a_day_is_right_and_memory_does_not_grow() {
    for seed in 0..20 {
        day(seed, hours(24), &InMemory::default()).unwrap().check(seed);
    }
}
