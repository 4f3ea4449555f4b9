//! A network that loses what is said about transactions, while the job starts and while it runs. When it is well again, the job has to
//! get on by itself.

use std::{thread, time::Duration};

use tests::{
    broker::proxy::{Api, Fault, ResponseError, Rule},
    process::{Ended, Exit},
};

use crate::{
    figures::Figures,
    run::{Result, Run, until_running},
};

/// As often as a job may meet a fault and start again.
const RESTARTS: u32 = 50;

pub(crate) fn run(mut run: Run<'_>, delay: Duration) -> Result<Figures> {
    run.proxied = true;
    run.restarts = RESTARTS;
    let proxy = run.broker.proxy()?;
    let (kind, rules) = rules(&mut run.random, delay);
    let faults = || proxy.counts().faults.values().sum::<u64>();
    let before = faults();
    proxy.inject(run.seed, rules)?;
    let feeder = run.feeder();
    let mut process = run.start(false)?;
    // Some faults keep it from getting there.
    let _ = until_running(&mut process);
    let read = thread::scope(|scope| {
        let feeding = scope.spawn(|| feeder.feed(Duration::from_millis(1_200)));
        let fed = feeding.join().unwrap_or_else(|_| Err("the producer panicked".into()));
        proxy.heal();
        fed?;
        // It may have been met before it ran, and then nobody starts it again but we.
        if let Some(Exit::Ended(Ended::Failed)) = process.ended_within(Duration::ZERO)? {
            process = run.start(false)?;
        }
        run.until_read(&mut process)
    });
    run.figures.proxy_faults += faults() - before;
    read.map_err(|failure| run.failed(format!("{kind}: {}", failure.reason)))?;
    run.kill(&mut process, false)?;
    run.finish().map_err(|failure| crate::figures::Failure { reason: format!("{kind}: {}", failure.reason), ..failure })
}

/// What is done, in words and as rules.
fn rules(random: &mut fastrand::Rng, delay: Duration) -> (&'static str, Vec<Rule>) {
    use Api::{AddPartitionsToTxn, EndTxn, FindCoordinator, InitProducerId, Produce};
    use ResponseError::{ConcurrentTransactions, CoordinatorNotAvailable, NotCoordinator};
    let (after, times) = (random.u64(0..8), random.u64(1..4));
    let some = |api, fault| vec![Rule::of(api, fault).after(after).times(times)];
    let once = |api, fault| vec![Rule::of(api, fault).after(after).times(1)];
    let storm = |error| {
        [EndTxn, AddPartitionsToTxn, InitProducerId]
            .map(|api| Rule::of(api, Fault::Answer(error)).chance(0.7).times(20))
            .to_vec()
    };
    match random.u8(..12) {
        0 | 1 => ("the reply to a commit is lost", some(EndTxn, Fault::DropReply)),
        2 => ("a commit is lost", some(EndTxn, Fault::DropRequest)),
        3 => ("a commit is delayed", once(EndTxn, Fault::DelayRequest(delay))),
        4 => ("the reply to a commit is delayed", once(EndTxn, Fault::DelayReply(delay))),
        5 => ("the coordinator moves", storm(NotCoordinator)),
        6 => ("the coordinator is busy", storm(ConcurrentTransactions)),
        7 => ("a partition is not added", {
            let fault = if random.bool() { Fault::DropReply } else { Fault::DropRequest };
            some(AddPartitionsToTxn, fault)
        }),
        8 => ("a producer is not initialised", {
            let fault = if random.bool() { Fault::DropReply } else { Fault::DropRequest };
            vec![Rule::of(InitProducerId, fault).times(times)]
        }),
        9 => ("the coordinator is not found", {
            let rule = |fault| Rule::of(FindCoordinator, fault).chance(0.7).times(2 * times);
            vec![rule(if random.bool() { Fault::DropReply } else { Fault::Answer(CoordinatorNotAvailable) })]
        }),
        10 => ("records are not confirmed", {
            let fault = if random.bool() { Fault::DropReply } else { Fault::DropRequest };
            some(Produce, fault)
        }),
        _ => ("all of it", {
            let apis = [EndTxn, AddPartitionsToTxn, InitProducerId, FindCoordinator, Produce];
            let faults = [Fault::DropReply, Fault::DropRequest, Fault::DelayReply(Duration::from_millis(300))];
            let all = apis.into_iter().flat_map(|api| faults.map(|fault| Rule::of(api, fault).chance(0.04)));
            all.collect()
        }),
    }
}
