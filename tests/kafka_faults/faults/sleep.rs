//! A checkpoint that is slower than its transaction may be: the job is suspended in the middle of it, alone. The broker throws the
//! transaction away; the job has to find that out, and that nobody has taken over, and to start itself again.

use std::{thread, time::Duration};

use tests::broker::Broker;

use crate::{
    cluster,
    figures::Figures,
    run::{Result, Run, until_running},
};

/// A checkpoint and its interval fit three times into it.
pub(super) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);
/// The broker looks every second.
pub(super) const BEYOND: Duration = Duration::from_millis(6_000);
/// On a slow machine it takes its time.
const BROKER_PATIENCE: Duration = Duration::from_secs(15);
/// What a transaction is called open by here.
const OPEN: Duration = Duration::from_millis(300);

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    run.transaction_timeout = TRANSACTION_TIMEOUT;
    run.restarts = 5;
    let feeder = run.feeder();
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.feed(Duration::from_millis(4_000)));
        thread::sleep(run.millis(100..800));
        process.signal("STOP")?;
        let mut open = is_open(run.broker, &run.job)?;
        // Most of the time it has nothing to write.
        for _ in 0..10 {
            if open || feeding.is_finished() {
                break;
            }
            process.signal("CONT")?;
            thread::sleep(run.millis(20..120));
            process.signal("STOP")?;
            open = is_open(run.broker, &run.job)?;
        }
        let before = run.generations();
        thread::sleep(BEYOND);
        if cluster::stall(run.broker, &run.job, BROKER_PATIENCE)? >= BROKER_PATIENCE {
            let after = BEYOND + BROKER_PATIENCE;
            return Err(run.failed(format!("the broker has not thrown the transaction away after {after:?}")));
        }
        process.signal("CONT")?;
        feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
        run.until_read(&mut process)?;
        // Where it has not: its commit was under way when it was stopped, and the broker was slow to finish it. The answer tells.
        run.figures.sleepers += u64::from(open && run.generations() > before);
        Ok(())
    })?;
    run.kill(&mut process, false)?;
    run.finish()
}

fn is_open(broker: &Broker, job: &str) -> tests::broker::Result<bool> {
    Ok(cluster::stall(broker, job, OPEN)? >= OPEN)
}
