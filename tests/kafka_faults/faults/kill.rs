//! SIGKILL of the job at random instants, while its input comes.

use std::{thread, time::Duration};

use crate::{
    figures::Figures,
    run::{Result, Run, until_running},
};

/// A start takes about as long until its job runs, in milliseconds.
const RECOVERY: u64 = 400;
/// A life takes about as long.
const LIFE: Duration = Duration::from_millis(700);

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    let lives = run.random.usize(1..=5);
    for part in run.parts(lives) {
        let mut process = run.start(false)?;
        thread::scope(|scope| {
            let recovers = run.random.u8(..4) == 0;
            if !recovers {
                until_running(&mut process)?;
            }
            // Each life has its share of the input: rows come while it is at work, however slow the machine is.
            let feeding = scope.spawn(|| part.feed(LIFE));
            let patience = run.millis(0..if recovers { RECOVERY } else { LIFE.as_millis() as u64 });
            if let Some(exit) = process.ended_within(patience)? {
                return Err(run.failed(process.unexpected(exit)));
            }
            run.kill(&mut process, false)?;
            feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
            Ok(())
        })?;
    }
    // One that may come to its end.
    if run.random.bool() {
        let mut process = run.start(true)?;
        let patience = run.millis(0..2 * RECOVERY);
        process.ended_within(patience)?;
        run.kill(&mut process, true)?;
    }
    run.finish()
}
