//! SIGKILL of the job at random instants while its input gains partitions: what was found and not yet read, read and not yet committed,
//! is found again.
//!
//! ```text
//!   a life:  start ── part of the input ── more partitions ── records for all of them ── …
//!                 └──────────────── SIGKILL at any moment ────────────────┘
//! ```

use std::{thread, time::Duration};

use crate::{
    cluster::Feeder,
    figures::Figures,
    run::{Result, Run, until_running},
};

/// Each life has about as much time.
const LIFE: Duration = Duration::from_millis(800);
/// A job finds a partition within its life.
const DISCOVERY: Duration = Duration::from_millis(100);

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    run.discovery = DISCOVERY;
    let first = run.feeder();
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    first.feed(Duration::ZERO)?;
    for _ in 0..run.random.usize(2..=3) {
        let patience = run.millis(0..LIFE.as_millis() as u64);
        let (added, count) = (run.random.usize(1..=2), run.random.usize(100..400));
        let more = run.scenario.grow(&mut run.random, added, count);
        run.figures.grown += added as u64;
        let (broker, job, partitions) = (run.broker, run.job.clone(), run.scenario.partitions);
        thread::scope(|scope| {
            let growing = scope.spawn(move || {
                broker.create_partitions(&format!("{job}.in"), partitions)?;
                Feeder::new(broker, &job, more).feed(LIFE / 2)
            });
            if let Some(exit) = process.ended_within(patience)? {
                return Err(run.failed(process.unexpected(exit)));
            }
            run.kill(&mut process, false)?;
            growing.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
            Ok(())
        })?;
        process = run.start(false)?;
        // At times it is killed while it recovers.
        if run.random.bool() {
            until_running(&mut process)?;
        }
    }
    // One that grows while it runs, and is left alone.
    let more = run.scenario.grow(&mut run.random, 1, 100);
    run.figures.grown += 1;
    until_running(&mut process)?;
    run.broker.create_partitions(&format!("{}.in", run.job), run.scenario.partitions)?;
    Feeder::new(run.broker, &run.job, more).feed(Duration::ZERO)?;
    // The last start reads to where the partitions end that the job knows: it has to know them all.
    run.until_read(&mut process)?;
    run.kill(&mut process, false)?;
    run.finish()
}
