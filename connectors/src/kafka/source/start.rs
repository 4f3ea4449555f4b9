//! Where each partition begins, as a number, before the first record of it is read.
//!
//! ```text
//!   assigned ──► which brokers lead them? ──► the first leader: ends, beginnings, offsets ──► Begin, or an error
//!                      └ none: unknown        the next leader: … does not answer ──► unknown
//! ```
//!
//! `Latest` and a time are turned into offsets here and now, and the engine keeps them in its first checkpoint: a job that crashes
//! before its first record goes on at the same place. So are the ends of a bounded source: they are asked for once, and after that
//! they are those of the checkpoint. A position that the log does not have any more ends the job, with the number
//! of records that are gone; librdkafka would jump without a word.
//!
//! A partition that has no leader can be neither read nor written. It is put off: it begins, with all of this, when it has one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    fault,
    feed::{Feed, Partition},
    plan::{Plan, Start},
};
use crate::{ConnectorError, Position, Result};

/// Before anything is read it is asked again for so long for the leaders: those of a topic that was just made are not there at once.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// How long from one such question to the next.
const AGAIN: Duration = Duration::from_millis(500);

/// A partition that is to be read, and what the job knows of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assigned {
    pub(super) at: Partition,
    /// None if it has not been read yet.
    pub(super) position: Option<Position>,
    /// Where a bounded source ends, if that was fixed before; 0 if the partition was not there then.
    pub(super) end: Option<Position>,
    /// It was not there when the job began: all it has is new, so it begins with its first record.
    pub(super) appeared: bool,
}

impl Assigned {
    /// One of which nothing is known, because it was not there.
    pub(super) fn appeared(at: Partition) -> Self {
        Self { at, position: None, end: None, appeared: true }
    }

    /// The fixed end, if it counts.
    fn fixed(&self, plan: &Plan) -> Option<u64> {
        self.end.filter(|_| plan.bounded).map(|end| end.0)
    }

    /// Whether all that is to be read of it has been read.
    fn is_over(&self, plan: &Plan) -> bool {
        self.fixed(plan).is_some_and(|end| self.position.unwrap_or_default().0 >= end)
    }

    /// Whether there may be records that it is to read; nothing is left of one that begins behind all there is.
    pub(super) fn may_be_behind(&self, plan: &Plan) -> bool {
        !(self.is_fresh() && plan.start == Start::Latest)
    }

    /// Whether it begins where the source is configured to start.
    fn is_fresh(&self) -> bool {
        self.position.is_none() && !self.appeared
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

/// Why it is not known now where a partition begins.
#[derive(Clone, Debug)]
pub(super) struct Unknown {
    pub(super) reason: String,
    /// Nobody could be asked.
    pub(super) leaderless: bool,
}

impl Unknown {
    /// Somebody was asked and has not answered.
    pub(super) fn unanswered(reason: String) -> Self {
        Self { reason, leaderless: false }
    }
}

/// What cannot be read yet, and why.
pub(super) type PutOff = Vec<(Assigned, Unknown)>;

/// Where these begin, in their order, before anything is read; and those that are put off, with the reasons.
pub(super) fn resolve<F: Feed>(feed: &mut F, plan: &Plan, assigned: &[Assigned]) -> Result<(Vec<Begin>, PutOff)> {
    let begun = Instant::now();
    let (mut found, mut unknown) = (BTreeMap::<_, Begin>::new(), BTreeMap::<_, Unknown>::new());
    let mut left = assigned.to_vec();
    while !left.is_empty() {
        find(feed, plan, &left, &mut BTreeSet::new(), |at, answer| {
            match answer {
                Ok(begin) => drop(found.insert(at, begin)),
                Err(why) => drop(unknown.insert(at, why)),
            };
        })?;
        left.retain(|assigned| !found.contains_key(&assigned.at));
        let all_leaderless = left.iter().all(|left| unknown.get(&left.at).is_none_or(|why| why.leaderless));
        // One that has a position is not new, nor is it of a topic that is.
        let may_be_new = left.iter().any(|left| left.position.is_none());
        if !may_be_new || !all_leaderless || begun.elapsed() >= PATIENCE {
            break;
        }
        std::thread::sleep(AGAIN);
    }
    let begins = assigned.iter().filter_map(|assigned| found.get(&assigned.at).copied()).collect();
    let why = |left: Assigned| {
        let unsaid = || Unknown::unanswered(format!("nobody says where {} begins", left.at.split(&plan.topics)));
        (left, unknown.remove(&left.at).unwrap_or_else(unsaid))
    };
    Ok((begins, left.into_iter().map(why).collect()))
}

/// Says of each partition where it begins, or why that is not known now: one that has no leader, or a leader that does not answer, is
/// no reason for the others. Fails if nobody says anything, or where no other answer will help. `hung` are leaders that did not answer
/// when they were asked before: they are asked last.
pub(super) fn find<F: Feed>(
    feed: &mut F,
    plan: &Plan,
    assigned: &[Assigned],
    hung: &mut BTreeSet<i32>,
    mut say: impl FnMut(Partition, Result<Begin, Unknown>),
) -> Result<()> {
    if assigned.is_empty() {
        return Ok(());
    }
    check_there(feed, plan, assigned)?;
    let (over, read): (Vec<Assigned>, Vec<Assigned>) = assigned.iter().partition(|assigned| assigned.is_over(plan));
    for assigned in over {
        let next = assigned.position.unwrap_or_default().0;
        say(assigned.at, Ok(Begin { at: assigned.at, next, end: assigned.fixed(plan), known_end: next }));
    }
    if let Start::Offsets(named) = &plan.start {
        let mut fresh = read.iter().filter(|assigned| assigned.is_fresh());
        fresh.try_for_each(|assigned| named_offset(plan, named, assigned.at).map(drop))?;
    }
    let mut led = BTreeMap::<i32, Vec<Assigned>>::new();
    let leaders = if read.is_empty() { Vec::new() } else { feed.leaders(&partitions(&read))? };
    for (assigned, leader) in read.into_iter().zip(leaders) {
        match leader {
            Some(leader) => led.entry(leader).or_default().push(assigned),
            None => say(assigned.at, Err(fault::leaderless(plan, assigned.at))),
        }
    }
    let mut led: Vec<(i32, Vec<Assigned>)> = led.into_iter().collect();
    led.sort_by_key(|(leader, _)| hung.contains(leader));
    let mut group = None;
    for (leader, of) in led {
        match begin(feed, plan, &of, &mut group) {
            Ok(begins) => {
                hung.remove(&leader);
                begins.into_iter().for_each(|(at, begin)| say(at, begin));
            }
            Err(ConnectorError::Remote { reason, passes: true, .. }) => {
                hung.insert(leader);
                of.iter().for_each(|assigned| say(assigned.at, Err(Unknown::unanswered(reason.clone()))));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn partitions(of: &[Assigned]) -> Vec<Partition> {
    of.iter().map(|assigned| assigned.at).collect()
}

/// Where partitions of one leader begin. `group`: that nobody says what the group has committed, if that is known; one broker knows it
/// for all leaders, and is not asked again for each.
fn begin<F: Feed>(
    feed: &mut F,
    plan: &Plan,
    assigned: &[Assigned],
    group: &mut Option<Unknown>,
) -> Result<Vec<(Partition, Result<Begin, Unknown>)>> {
    let fresh: Vec<Partition> =
        assigned.iter().filter(|assigned| assigned.is_fresh()).map(|assigned| assigned.at).collect();
    // The ends are asked for first: what is written between the two questions is younger than any answer of "none".
    let bounds = feed.bounds(&partitions(assigned))?;
    let begins = match beginnings(feed, plan, if group.is_none() { &fresh } else { &[] }) {
        Err(ConnectorError::Remote { reason, passes: true, .. }) if plan.start == Start::Group => {
            *group = Some(Unknown::unanswered(reason));
            BTreeMap::new()
        }
        begins => begins?,
    };
    let mut resolved = Vec::with_capacity(assigned.len());
    for (assigned, (first, end)) in assigned.iter().zip(bounds) {
        let Assigned { at, position, appeared, .. } = *assigned;
        if let Some(why) = group.as_ref().filter(|_| assigned.is_fresh()) {
            resolved.push((at, Err(why.clone())));
            continue;
        }
        let fixed = assigned.fixed(plan);
        let next = match position {
            Some(Position(next)) => next,
            None if appeared => first,
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
        let begin = Begin { at, next, end: plan.bounded.then_some(fixed.unwrap_or(end)), known_end: end };
        resolved.push((at, Ok(begin)));
    }
    Ok(resolved)
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
