//! How much work a run was, beside how long it took.

use std::{fs, time::Duration};

/// How many of Linux's ticks of processor time make a second, on all machines.
const TICKS: f64 = 100.0;

/// Time that this process has had on all processors, in steps of a hundredth of a second. `None` where that is not known.
pub fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program comes before, in brackets, and may hold anything.
    let (_, numbers) = stat.rsplit_once(')')?;
    let mut ticks = numbers.split_whitespace().skip(11).map(|ticks| ticks.parse::<u64>().ok());
    let (user, system) = (ticks.next()??, ticks.next()??);
    Some(Duration::from_secs_f64((user + system) as f64 / TICKS))
}
