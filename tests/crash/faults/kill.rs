//! SIGKILL at random instants.

use std::time::Duration;

use tests::process::{Ended, Exit};

use crate::{
    figures::Figures,
    run::{Result, Run},
};

/// An undisturbed run takes about as long, in milliseconds.
const WHOLE: u64 = 250;
/// A start takes about as long, from the process to the first row.
const RECOVERY: u64 = 40;

pub(crate) fn run(mut run: Run) -> Result<Figures> {
    for number in 1..=run.random.usize(1..=5) {
        let mut process = run.start().start(format!("start-{number}"))?;
        let longest = if run.random.u8(..4) == 0 { RECOVERY } else { WHOLE };
        let patience = Duration::from_micros(run.random.u64(..longest * 1_000));
        let exit = match process.ended_within(patience)? {
            Some(exit) => exit,
            None => process.kill()?,
        };
        if !matches!(exit, Exit::Ended(Ended::Complete) | Exit::Signal(9)) {
            return Err(process.unexpected(exit).into());
        }
        run.count_kill(exit);
    }
    run.finish()
}
