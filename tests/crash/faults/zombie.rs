//! A process that is suspended while another takes over, and then wakes up. On a local disk the lock would keep the other
//! away; here it is deleted, so that the protocol alone must tell them apart, as it must where there are no locks.

use std::{fs, time::Duration};

use tests::process::{Ended, Exit, Process};

use crate::{
    figures::Figures,
    run::{Result, Run},
};

const LOOK: Duration = Duration::from_millis(1);

pub(crate) fn run(mut run: Run) -> Result<Figures> {
    let awake = run.place.join("awake");
    let mut first = run.start().with("held-until", awake.display()).start("first")?;
    // It has the lock at least.
    until(&mut first, || run.store().join("LOCK").exists())?;
    let patience = Duration::from_micros(run.random.u64(..300_000));
    if let Some(exit) = first.ended_within(patience)? {
        return Err(first.unexpected(exit).into());
    }
    first.signal("STOP")?;
    fs::remove_file(run.store().join("LOCK"))?;

    let generations = generations(&run);
    let mut second = run.start().start("second")?;
    match run.random.u8(..3) {
        // It wakes up when all is over ...
        0 => second.complete()?,
        // ... or in the middle of it, but not before there is somebody to be fenced by.
        _ => {
            until(&mut second, || self::generations(&run) > generations)?;
            let patience = Duration::from_micros(run.random.u64(..200_000));
            second.ended_within(patience)?;
        }
    }
    fs::write(&awake, "")?;
    first.signal("CONT")?;
    match first.wait()? {
        Exit::Ended(Ended::Fenced) => {}
        // Suspended before it had taken a number, it finds that taken, or what it was writing swept away: that a sweep
        // has the lock is all that such a file is protected by.
        Exit::Ended(Ended::Starting | Ended::Failed) if generations == 0 => {}
        exit => return Err(first.unexpected(exit).into()),
    }
    second.complete()?;
    // What the first wrote after it woke up is hidden, and the next start removes it.
    run.figures.kills += 1;
    run.finish()
}

/// How often the job was started. A record that is being written has a `#` in its name.
fn generations(run: &Run) -> usize {
    let Ok(entries) = fs::read_dir(run.store().join("gen")) else { return 0 };
    entries.flatten().filter(|entry| !entry.file_name().to_string_lossy().contains('#')).count()
}

/// Waits for something that a process does.
fn until(process: &mut Process, done: impl Fn() -> bool) -> Result<()> {
    while !done() {
        if let Some(exit) = process.ended_within(LOOK)? {
            return if done() { Ok(()) } else { Err(process.unexpected(exit).into()) };
        }
    }
    Ok(())
}
