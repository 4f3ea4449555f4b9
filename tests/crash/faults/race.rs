//! Several processes start the same job at once.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use tests::process::{Ended, Exit, Process};

use crate::{
    figures::Figures,
    run::{Result, Run},
};

/// Until then every process has been started and has read its scenario.
const READY: Duration = Duration::from_millis(60);
const LOOK: Duration = Duration::from_millis(2);

pub(crate) fn run(mut run: Run) -> Result<Figures> {
    let release = run.place.join("release");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start_at = (now + READY).as_millis();
    let mut processes: Vec<Process> = Vec::new();
    for number in 1..=run.random.usize(2..=4) {
        let start = run.start().with("start-at", start_at).with("held-until", release.display());
        processes.push(start.start(format!("start-{number}"))?);
    }
    // The one that runs does not end before the others have.
    while processes.len() > 1 {
        let ended = end_one(&mut processes)?;
        match ended {
            (_, Exit::Ended(Ended::Locked | Ended::Starting)) => {}
            (process, exit) => return Err(process.unexpected(exit).into()),
        }
    }
    fs::write(release, "")?;
    for process in &mut processes {
        process.complete()?;
    }
    run.check()
}

/// Waits until any of the processes has ended.
fn end_one(processes: &mut Vec<Process>) -> Result<(Process, Exit)> {
    for _ in 0..30_000 {
        for place in 0..processes.len() {
            if let Some(exit) = processes[place].ended_within(Duration::ZERO)? {
                return Ok((processes.remove(place), exit));
            }
        }
        std::thread::sleep(LOOK);
    }
    Err(format!("{} processes run at the same time", processes.len()).into())
}
