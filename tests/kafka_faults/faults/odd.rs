//! What a topic may do beside being written to. A producer that repeats itself makes data; what was read may go; partitions may be added;
//! but another topic of the same name is not this one, and a job that has read one must not go on with the other as if nothing were.
//!
//! ```text
//!   first   ── reads ── killed       offsets below go, partitions come, records come twice
//!   second                           ── reads all of it ── killed ── checked
//!   another job   ── reads ── [killed]   topic deleted, made again, shorter   ── refuses, and again
//! ```

use std::{fs, time::Duration};

use tests::{
    broker::proxy::{Api, Fault, Rule},
    process::{Ended, Exit},
};

use crate::{
    cluster::{self, Feeder},
    figures::Figures,
    run::{Result, Run, until_running},
    scenario::{IN, Input},
};

pub(crate) fn run(mut run: Run<'_>) -> Result<Figures> {
    run.feeder().feed(Duration::ZERO)?;
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    run.until_read(&mut process)?;
    run.kill(&mut process, false)?;

    let input = format!("{}.in", run.job);
    run.gone = run.broker.committed(&input)?;
    let progress = cluster::progress(run.broker, &run.job, (IN, run.scenario.partitions))?;
    for (partition, (_, read)) in progress.iter().enumerate() {
        // At times all that were read.
        let first = if run.random.bool() { *read } else { run.random.i64(0..=*read) };
        run.broker.delete_records(&input, partition as i32, first)?;
    }
    let (added, count) = (run.random.usize(1..=2), run.random.usize(50..200));
    let more = run.scenario.grow(&mut run.random, added, count);
    run.figures.grown += added as u64;
    run.broker.create_partitions(&input, run.scenario.partitions)?;
    feed_repeating(&mut run, &input, &more)?;

    let mut process = run.start(false)?;
    until_running(&mut process)?;
    run.until_read(&mut process)?;
    run.kill(&mut process, false)?;

    let (broker, seed, place) = (run.broker, run.seed, run.place.join("remade"));
    let mut figures = run.finish()?;
    fs::create_dir(&place)?;
    figures += Figures { runs: 0, ..remade(Run::begin(broker, seed, &place)?)? };
    Ok(figures)
}

/// Some of the replies to the producer are lost.
fn feed_repeating(run: &mut Run<'_>, input: &str, records: &[Input]) -> Result<()> {
    let (after, times) = (run.random.u64(0..20), run.random.u64(1..6));
    let proxy = run.broker.proxy()?;
    proxy.inject(run.seed, [Rule::of(Api::Produce, Fault::DropReply).after(after).times(times)])?;
    let (before, faults): (i64, _) = (ends(run)?.iter().sum(), proxy.faults(Api::Produce));
    run.broker.produce_repeating(input, records.iter().map(Input::message))?;
    proxy.heal();
    let written = ends(run)?.iter().sum::<i64>() - before;
    run.repeated = usize::try_from(written).unwrap_or(0).saturating_sub(records.len());
    run.figures.retried += run.repeated as u64;
    let lost = proxy.faults(Api::Produce) - faults;
    run.figures.proxy_faults += lost;
    if run.repeated == 0 {
        return Err(run.failed(format!("the harness: {lost} replies were lost, and no record is there twice")));
    }
    Ok(())
}

fn ends(run: &Run<'_>) -> Result<Vec<i64>> {
    let progress = cluster::progress(run.broker, &run.job, (IN, run.scenario.partitions))?;
    Ok(progress.iter().map(|(end, _)| *end).collect())
}

/// The topic is deleted and made again while the job runs or is down, with fewer records than it has read, perhaps in fewer partitions.
fn remade(mut run: Run<'_>) -> Result<Figures> {
    run.feeder().feed(Duration::ZERO)?;
    let mut process = run.start(false)?;
    until_running(&mut process)?;
    run.until_read(&mut process)?;
    let runs = run.random.bool();
    if !runs {
        run.kill(&mut process, false)?;
    }
    let input = format!("{}.in", run.job);
    run.broker.delete_topic(&input)?;
    let partitions = if run.random.bool() { 1 } else { run.scenario.partitions };
    run.broker.create_topic(&input, partitions, &[])?;
    let few = run.scenario.records.iter().filter(|record| record.is_in(partitions)).take(10).cloned();
    Feeder::new(run.broker, &run.job, few.collect()).feed(Duration::ZERO)?;
    for start in 0..2 {
        if start > 0 || !runs {
            process = run.start(false)?;
        }
        let exit = process.wait().map_err(|error| run.failed(error))?;
        let said = process.said();
        // Where it has not fewer records but fewer partitions, the engine says so before the source does.
        let says = ["the topic was deleted", "is not there any more"].iter().any(|words| said.contains(words));
        if exit != Exit::Ended(Ended::Failed) || !says || !said.contains(&format!("{input}/")) {
            let how = if runs { "while the job ran" } else { "while the job was down" };
            return Err(run.failed(format!("the topic was made again {how}: {}", process.unexpected(exit))));
        }
        run.figures.refusals += 1;
    }
    Ok(run.figures)
}
