//! Row 4 of the fault matrix: a job that runs for a day of virtual time, with a checkpoint every ten seconds. Its state, its
//! checkpoints and its memory do not grow, also while one of its splits is silent for hours.
//!
//! ```text
//!   50 numbers a second, in three splits ─► windows of a minute by key ─► topic ─► taken out and compared, hour by hour
//!   the third is silent from the 4th to the 12th hour, and from the 16th to the 20th
//! ```

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use windrow::{Restarts, prelude::*};

use super::{
    scenario::windows,
    shifts::Shifts,
    simulated::{Settings, Simulated},
    targets::{InMemory, Target},
};

const OUT: &str = "results";
const RATE: u64 = 50;
const KEYS: u64 = 7;
/// How often one looks: an hour of a day.
const LOOKS: u32 = 24;
/// Numbers that are older by this much are in the results, whoever is silent.
const BEHIND: u64 = 120;

/// Bytes of this process that are in memory.
fn resident() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * 4_096)
}

fn job<T: Target>(time: Duration, store: &str, target: &T, cluster: &Simulated) -> Job {
    let job = Job::new("day").parallelism(2);
    let connection = target.connect(cluster);
    // It falls silent and comes back in the midst of a window.
    let sixth = |number: u32| (time * number / 6).as_secs() + 30;
    let silences = vec![sixth(1)..sixth(3), sixth(4)..sixth(5)];
    let numbers = job
        .source(Shifts::new(time.as_secs() * RATE, RATE, silences))
        .event_time("at", Watermarks::in_order().idle_after(secs(20)))
        .fail_on_rejects();
    windows(numbers, KEYS as i64, mins(1)).sink(T::sink(&connection, OUT));
    job.checkpoint(store, secs(10)).restarts(Restarts::at_most(100).waiting(millis(1)..=secs(2)))
}

/// What the windows hold, of so many numbers.
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

/// What can be seen of a job at a moment.
#[derive(Debug, Default)]
struct Look {
    resident: Option<u64>,
    /// Of all operators, in bytes.
    state: u64,
    /// The files of the checkpoints that are kept, and their bytes.
    files: u64,
    bytes: u64,
    /// Of starts, decisions and completed commits, which are kept for longer.
    records: u64,
    record_bytes: u64,
}

type Figure = fn(&Look) -> u64;

impl Look {
    fn at(handle: &windrow::JobHandle, store: &Path) -> Self {
        let state = handle.metrics().operators.iter().map(|operator| operator.state_bytes).sum();
        let mut look = Self { resident: resident(), state, ..Self::default() };
        look.walk(store);
        look
    }

    /// A file may be gone before it is looked at.
    fn walk(&mut self, place: &Path) {
        let entries: Vec<PathBuf> = fs::read_dir(place).into_iter().flatten().flatten().map(|e| e.path()).collect();
        for path in entries {
            if path.is_dir() {
                self.walk(&path);
                continue;
            }
            let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
            let is_record = ["epoch", "done", "gen"].iter().any(|records| place.ends_with(records));
            let (count, sum) = if is_record {
                (&mut self.records, &mut self.record_bytes)
            } else {
                (&mut self.files, &mut self.bytes)
            };
            *count += 1;
            *sum += bytes;
        }
    }
}

#[derive(Debug)]
pub struct Day {
    pub checkpoints: u64,
    looks: Vec<Look>,
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
        let running = job(time, store, target, &cluster).start().await.map_err(|error| error.to_string())?;
        let handle = running.handle();
        let ended = tokio::spawn(running.wait());
        let mut rows = Vec::new();
        let mut looks = Vec::new();
        for number in 1..=LOOKS {
            tokio::time::sleep(time / LOOKS).await;
            rows.extend(target.take(&cluster, OUT));
            looks.push(Look::at(&handle, directory.path()));
            let passed = (time / LOOKS * number).as_secs();
            let least = passed.saturating_sub(BEHIND) / 60 * KEYS;
            if (rows.len() as u64) < least {
                return Err(format!("SEED={seed}: after {passed} s {} rows and not {least}", rows.len()));
            }
        }
        let checkpoints = handle.metrics().checkpoints.completed;
        let report = tokio::time::timeout(hours(1), ended).await.map_err(|_| "it hangs")?;
        report.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        tokio::time::sleep(mins(1)).await;
        rows.extend(target.take(&cluster, OUT));
        rows.sort_unstable();
        let right = right(time.as_secs() * RATE);
        if rows != right {
            return Err(format!("SEED={seed}: {} rows and not {}", rows.len(), right.len()));
        }
        Ok(Day { checkpoints, looks })
    })
}

impl Day {
    /// State and checkpoints are never much more than in the first part of the time, in which nobody was silent.
    pub fn is_steady(&self) {
        let (first, rest) = self.looks.split_at(LOOKS as usize / 6);
        let most = |looks: &[Look], what: Figure| looks.iter().map(what).max().unwrap_or_default();
        let figures: [(&str, Figure, u64); 3] = [
            ("bytes of state", |look| look.state, 4_096),
            ("files of checkpoints", |look| look.files, 8),
            ("bytes of checkpoints", |look| look.bytes, 16 << 10),
        ];
        for (what, figure, slack) in figures {
            let (before, after) = (most(first, figure), most(rest, figure));
            assert!(before > 0 && after <= before + slack, "{what}: {before}, and later {after}: {:#?}", self.looks);
        }
        // Two for each checkpoint that was tried and one for each start, until there are ten thousand of a kind.
        let (records, bytes) = (most(rest, |look| look.records), most(rest, |look| look.record_bytes));
        assert!(records < 3 * self.checkpoints + 50 && bytes < records * 1_024, "{records} records of {bytes} bytes");
    }

    pub fn check(&self, seed: u64) {
        self.is_steady();
        let Self { checkpoints, looks } = self;
        let resident: Vec<u64> = looks.iter().filter_map(|look| look.resident).collect();
        let four_hourly: Vec<u64> = resident.iter().skip(3).step_by(4).copied().collect();
        let last = looks.last();
        println!("SEED={seed}: {checkpoints} checkpoints, resident after each four hours: {four_hourly:?}; {last:?}");
        assert!(*checkpoints > 8_000, "{checkpoints}");
        if let [_, second, .., last] = four_hourly[..] {
            let grown = last.saturating_sub(second);
            assert!(grown < 16 << 20, "{grown} bytes in sixteen hours: more than a megabyte an hour");
        }
    }
}

#[test]
fn ten_minutes_are_right_and_have_their_checkpoints() {
    let day = day(1, mins(10), &InMemory::default()).unwrap();
    day.is_steady();
    assert!((50..=75).contains(&day.checkpoints), "{}", day.checkpoints);
}

#[test]
#[ignore = "the full count: a day, twenty times"]
fn a_day_is_right_and_memory_does_not_grow() {
    for seed in 0..20 {
        day(seed, hours(24), &InMemory::default()).unwrap().check(seed);
    }
}
