//! A job process that is suspended while another takes over, and then wakes up. On a local disk the lock would keep the other away;
//! here it is deleted, so that generations and transactions alone must tell them apart.
//!
//! ```text
//!   first   ── reads ──╳ STOP ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ CONT ── "a later one has taken over"
//!   second              LOCK removed ── start ── reads ──────────── reads ── killed
//!   input   two thirds ──────────────────────────────────── the rest
//! ```
//!
//! A job without anything to read takes no checkpoints, and so does not notice: therefore the rest.

use std::{fs, thread, time::Duration};

use tests::process::{Ended, Exit};

use crate::{
    figures::Figures,
    run::{Result, Run, until, until_running},
};

/// What a process says that was replaced.
const REPLACED: &str = "a later one has taken over";

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    // It may not start itself again: that would fence the second one.
    run.restarts = 5;
    let (most, rest) = run.feeders(run.scenario.records.len() * 2 / 3);
    let mut first = run.start(false)?;
    let mut second = thread::scope(|scope| {
        until_running(&mut first)?;
        let feeding = scope.spawn(|| most.feed(Duration::from_millis(700)));
        let patience = run.millis(0..700);
        if let Some(exit) = first.ended_within(patience)? {
            return Err(run.failed(first.unexpected(exit)));
        }
        first.signal("STOP")?;
        fs::remove_file(run.store().join("LOCK"))?;
        feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
        run.start(false)
    })?;
    match run.random.u8(..3) {
        // It wakes up when the second has read everything ...
        0 => run.until_read(&mut second)?,
        // ... or when that has just begun, but not before there is somebody to be fenced by.
        _ => {
            until(&mut second, "it has a generation", |_| run.generations() > 1)?;
            let patience = run.millis(0..300);
            second.ended_within(patience)?;
        }
    }
    first.signal("CONT")?;
    rest.feed(Duration::from_millis(200))?;
    match first.wait().map_err(|error| run.failed(error))? {
        Exit::Ended(Ended::Fenced) if first.said().contains(REPLACED) => run.figures.zombies += 1,
        exit => return Err(run.failed(first.unexpected(exit))),
    }
    run.until_read(&mut second)?;
    run.kill(&mut second, false)?;
    run.finish()
}
