//! Where each partition begins, as a number, before the first record is read.
//!
//! `Latest` and a time are turned into offsets here and now, and the engine keeps them in its first checkpoint: a job that crashes
//! before its first record goes on at the same place. So are the ends of a bounded source: they are asked for once, and after that
//! they are those of the checkpoint. A position that the log does not have any more ends the job, with the number
//! of records that are gone; librdkafka would jump without a word.

use std::collections::BTreeMap;

use super::{
    fault,
    feed::{Feed, Partition},
    plan::{Plan, Start},
};
use crate::{ConnectorError, Position, Result};

/// A partition that is to be read, and what the job knows of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub(super) at: Partition,
    /// None if it has not been read yet.
    pub(super) position: Option<Position>,
    /// Where a bounded source ends, if that was fixed before; 0 if the partition was not there then.
    pub(super) end: Option<Position>,
}

impl Assigned {
    /// The fixed end, if it counts.
    fn fixed(&self, plan: &Plan) -> Option<u64> {
        self.end.filter(|_| plan.bounded).map(|end| end.0)
    }

    /// Whether all that is to be read of it has been read.
    fn is_over(&self, plan: &Plan) -> bool {
        self.fixed(plan).is_some_and(|end| self.position.unwrap_or_default().0 >= end)
    }
}

/// Where one partition begins, and, if it is to end, ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) at: Partition,
    pub(super) next: u64,
    pub(super) end: Option<u64>,
    /// Where it ended when it was asked.
    pub(super) known_end: u64,
}

/// Finds out where these partitions begin; those with a position there.
pub(super) fn resolve<F: Feed>(feed: &mut F, plan: &Plan, assigned: &[Assigned]) -> Result<Vec<Begin>> {
    check_there(feed, plan, assigned)?;
    let is_fresh = |assigned: &&Assigned| assigned.position.is_none() && !assigned.is_over(plan);
    let fresh: Vec<Partition> = assigned.iter().filter(is_fresh).map(|assigned| assigned.at).collect();
    // The ends are asked for first: what is written between the two questions is younger than any answer of "none".
    let all: Vec<Partition> = assigned.iter().map(|assigned| assigned.at).collect();
    let bounds = feed.bounds(&all)?;
    let begins = beginnings(feed, plan, &fresh)?;
    let mut resolved = Vec::with_capacity(assigned.len());
    for (assigned, (first, end)) in assigned.iter().zip(bounds) {
        let Assigned { at, position, .. } = *assigned;
        let fixed = assigned.fixed(plan);
        if assigned.is_over(plan) {
            let next = position.unwrap_or_default().0;
            resolved.push(Begin { at, next, end: fixed, known_end: end });
            continue;
        }
        let next = match position {
            Some(Position(next)) => next,
            None => match begins.get(&at) {
                Some(Some(offset)) => *offset,
                Some(None) if plan.start == Start::Group && first < end => return Err(not_committed(plan, at)),
                _ => match plan.start {
                    Start::Latest | Start::Millis(_) => end,
                    _ => first,
                },
            },
        };
        check_within(feed, plan, at, next, (first, end))?;
        if let Some(fixed) = fixed.filter(|fixed| *fixed > end)
            && fixed > feed.open_end(at)?
        {
            return Err(fault::end_cut_off(plan, &at.split(&plan.topics), next, (fixed, end)));
        }
        resolved.push(Begin { at, next, end: plan.bounded.then_some(fixed.unwrap_or(end)), known_end: end });
    }
    Ok(resolved)
}

/// Partitions that were not there when the job began: all they have is new. Says of each where it begins, or why that is not known
/// now: one broker that does not answer is no reason for the others.
pub(super) fn from_first<F: Feed>(
    feed: &mut F,
    plan: &Plan,
    added: &[Partition],
    mut say: impl FnMut(Partition, Result<Begin>),
) {
    let assigned: Vec<_> = added.iter().map(|at| Assigned { at: *at, position: None, end: None }).collect();
    let leaders = match check_there(feed, plan, &assigned).and_then(|()| feed.leaders(added)) {
        Ok(leaders) => leaders,
        Err(error) => return say_of_all(added, error, say),
    };
    let mut led = BTreeMap::<i32, Vec<Partition>>::new();
    for (&at, leader) in added.iter().zip(leaders) {
        match leader {
            Some(leader) => led.entry(leader).or_default().push(at),
            None => say(at, Err(fault::leaderless(plan, at))),
        }
    }
    for of in led.into_values() {
        match feed.bounds(&of) {
            Ok(bounds) => {
                for (&at, (next, known_end)) in of.iter().zip(bounds) {
                    say(at, Ok(Begin { at, next, end: None, known_end }));
                }
            }
            Err(error) => say_of_all(&of, error, &mut say),
        }
    }
}

/// Says this of all of them; of one if it ends the reader anyway.
pub(super) fn say_of_all(of: &[Partition], error: ConnectorError, mut say: impl FnMut(Partition, Result<Begin>)) {
    match (error, of) {
        (ConnectorError::Remote { system, reason, passes: true }, of) => {
            let again = || ConnectorError::Remote { system: system.clone(), reason: reason.clone(), passes: true };
            of.iter().for_each(|&at| say(at, Err(again())));
        }
        (error, [first, ..]) => say(*first, Err(error)),
        (_, []) => {}
    }
}

/// Fails unless all topics and partitions exist.
fn check_there<F: Feed>(feed: &mut F, plan: &Plan, assigned: &[Assigned]) -> Result<()> {
    let mut expected = BTreeMap::<usize, i32>::new();
    for Assigned { at, .. } in assigned {
        let expected = expected.entry(at.topic).or_default();
        *expected = at.number.saturating_add(1).max(*expected);
    }
    for (topic, expected) in expected {
        let count = feed.partitions(topic, expected)?.ok_or_else(|| fault::missing(plan, topic))?;
        let is_gone = |assigned: &&Assigned| assigned.at.topic == topic && !(0..count).contains(&assigned.at.number);
        if let Some(Assigned { at, position, .. }) = assigned.iter().find(is_gone) {
            return Err(fault::deleted(plan, &at.split(&plan.topics), position.unwrap_or_default().0));
        }
    }
    Ok(())
}

/// The offsets that the start names; `None` where it names none.
fn beginnings<F: Feed>(feed: &mut F, plan: &Plan, fresh: &[Partition]) -> Result<BTreeMap<Partition, Option<u64>>> {
    let offsets = match &plan.start {
        _ if fresh.is_empty() => Vec::new(),
        Start::Earliest | Start::Latest => vec![None; fresh.len()],
        Start::Millis(millis) => feed.since(*millis, fresh)?,
        Start::Group => feed.committed(fresh)?,
        Start::Offsets(named) => fresh.iter().map(|at| named_offset(plan, named, *at)).collect::<Result<_>>()?,
    };
    Ok(fresh.iter().copied().zip(offsets).collect())
}

fn named_offset(plan: &Plan, named: &BTreeMap<(String, i32), u64>, at: Partition) -> Result<Option<u64>> {
    let offset = plan.topics.get(at.topic).and_then(|topic| named.get(&(topic.clone(), at.number)));
    offset.map(|offset| Some(*offset)).ok_or_else(|| {
        ConnectorError::Config(format!(
            "{}: Start::Offsets has no offset for {}: name one for each partition",
            plan.name(),
            at.split(&plan.topics)
        ))
    })
}

fn not_committed(plan: &Plan, at: Partition) -> ConnectorError {
    ConnectorError::Config(format!(
        "{}: the group {} has committed nothing for {}, which has records: start from Start::Earliest or Start::Latest, or commit \
         an offset for it",
        plan.name(),
        plan.group.as_deref().unwrap_or_default(),
        at.split(&plan.topics)
    ))
}

/// Fails if the log does not have the position. The end itself is one: the next record will be there.
pub(super) fn check_within<F: Feed>(
    feed: &mut F,
    plan: &Plan,
    at: Partition,
    next: u64,
    (first, end): (u64, u64),
) -> Result<()> {
    if next < first {
        return Err(fault::expired(plan, &at.split(&plan.topics), next, first));
    }
    // A transaction that is open can hold the decided end back behind what was read without regard to transactions.
    if next > end && next > feed.open_end(at)? {
        return Err(fault::cut_off(plan, &at.split(&plan.topics), next, end));
    }
    Ok(())
}
