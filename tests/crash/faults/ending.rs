//! All ways in which a job ends. One that ends well has committed its last epoch; the next start goes on from there.

use std::time::Duration;

use tests::process::{Ended, Exit};

use crate::{
    figures::Figures,
    run::{Result, Run},
};

/// Between two interrupts of somebody impatient, in milliseconds at the most.
const IMPATIENCE: u64 = 10;

pub(crate) fn run(mut run: Run) -> Result<Figures> {
    match run.seed % 6 {
        0 => {
            run.start().start("only")?.complete()?;
            run.check_last_epoch()?;
            run.check()
        }
        1 => signal(run, "INT", 1),
        2 => signal(run, "INT", usize::MAX),
        3 => signal(run, "TERM", 1),
        4 => savepoint(run, true),
        _ => savepoint(run, false),
    }
}

/// Sends a signal at a random instant, and again until the process ends.
fn signal(mut run: Run, signal: &str, times: usize) -> Result<Figures> {
    for number in 1..=run.random.usize(1..=2) {
        let mut process = run.start().start(format!("start-{number}"))?;
        let mut exit = process.ended_within(Duration::from_micros(run.random.u64(..300_000)))?;
        let mut sent = 0;
        while exit.is_none() && sent < times {
            process.signal(signal)?;
            sent += 1;
            exit = process.ended_within(Duration::from_millis(run.random.u64(..IMPATIENCE)))?;
        }
        let exit = exit.map_or_else(|| process.wait(), Ok)?;
        match exit {
            Exit::Ended(Ended::Complete) => {
                run.check_last_epoch()?;
                run.check_no_hidden_files()?;
            }
            Exit::Ended(Ended::Aborted) if sent > 1 => {}
            // An interrupt ends a process that does not listen yet, and SIGTERM any.
            Exit::Signal(2 | 15) => {}
            exit => return Err(process.unexpected(exit).into()),
        }
        run.count_kill(exit);
    }
    run.finish()
}

/// Takes a savepoint at a random instant.
fn savepoint(mut run: Run, stop: bool) -> Result<Figures> {
    let after = run.random.u64(..200);
    let start = run.start().with("savepoint", "kept").with("savepoint-after", after);
    let mut process = if stop { start.flag("stop") } else { start }.start("start-1")?;
    process.complete()?;
    run.check_last_epoch()?;
    run.check_no_hidden_files()?;
    let (printed, record) = (process.printed(), run.store().join("savepoint").join("kept"));
    if printed.contains("savepoint ") && !printed.contains("no savepoint") && !record.exists() {
        return Err(format!("there is no {}, but the job said: {printed}", record.display()).into());
    }
    run.finish()
}
