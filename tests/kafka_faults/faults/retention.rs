//! Records are removed behind the back of a job that is down, and that has not read them. It must not go on as if nothing were missing,
//! and has to say how many are.

use std::time::Duration;

use tests::process::{Ended, Exit};

use crate::{
    cluster,
    figures::Figures,
    run::{Result, Run, until_running},
    scenario::IN,
};

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    let feeder = run.feeder();
    feeder.feed(Duration::ZERO)?;
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    run.until_read(&mut process)?;
    run.kill(&mut process, false)?;

    // Twice as many as there were: half of the new ones are lost.
    feeder.feed(Duration::ZERO)?;
    let (topic, partitions) = (format!("{}.in", run.job), run.scenario.partitions);
    let progress = cluster::progress(run.broker, &run.job, (IN, partitions))?;
    let Some(partition) = progress.iter().position(|(end, read)| read < end) else {
        return Err(run.failed(format!("the harness: nothing is left to be read: {progress:?}")));
    };
    let (end, read) = progress[partition];
    let lost = run.random.i64(1..=end - read);
    run.broker.delete_records(&topic, partition as i32, read + lost)?;

    let mut process = run.start(false)?;
    let exit = process.wait().map_err(|error| run.failed(error))?;
    let said = process.said();
    let wanted = [
        format!("{lost} records of {topic}/{partition} were removed before they were read"),
        format!("the offsets {read} to {}", read + lost - 1),
        format!("The first that is left is {}", read + lost),
    ];
    let says = wanted.iter().all(|wanted| said.contains(wanted));
    if exit != Exit::Ended(Ended::Failed) || !says {
        return Err(run.failed(format!("{}; expected: {wanted:?}", process.unexpected(exit))));
    }
    run.figures.refusals += 1;
    Ok(run.figures)
}
