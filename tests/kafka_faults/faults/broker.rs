//! The broker is killed and comes back on the same data, or does not answer for longer than a transaction may stay open. The job has to
//! come to terms with both by itself.

use std::{thread, time::Duration};

use super::sleep::{BEYOND, TRANSACTION_TIMEOUT};
use crate::{
    figures::Figures,
    run::{Result, Run, until_running},
};

/// What a job may need while there is no broker: it waits half a second before each.
const RESTARTS: u32 = 100;

pub(crate) fn kill(mut run: Run<'_>) -> Result<Figures> {
    run.restarts = RESTARTS;
    let feeder = run.feeder();
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.feed(Duration::from_millis(1_500)));
        thread::sleep(run.millis(0..1_600));
        run.broker.kill()?;
        run.figures.broker_kills += 1;
        if run.random.u8(..3) == 0 {
            run.kill(&mut process, false)?;
            process = run.start(false)?;
        }
        run.broker.restart()?;
        feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
        // Also one that was started without a broker: it has restarts left, so it must not end.
        run.until_read(&mut process)
    })?;
    run.kill(&mut process, false)?;
    run.finish()
}

pub(crate) fn pause(mut run: Run<'_>) -> Result<Figures> {
    run.restarts = RESTARTS;
    run.transaction_timeout = TRANSACTION_TIMEOUT;
    let feeder = run.feeder();
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.feed(Duration::from_millis(1_000)));
        thread::sleep(run.millis(0..1_100));
        run.broker.pause()?;
        run.figures.broker_pauses += 1;
        thread::sleep(BEYOND);
        run.broker.resume()?;
        feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()))?;
        run.until_read(&mut process)
    })?;
    run.kill(&mut process, false)?;
    run.finish()
}
