//! Who slows a job down.
//!
//! ```text
//!   source ══► window ══► sink
//!   blocked 95%   blocked 90%   busy 98%, blocked 0%
//!        └── waits for ──┴── waits for ──▲ the bottleneck: what is before it waits, and it waits for nobody
//! ```

use super::{
    JobStatus, OperatorKind, OperatorStatus, State,
    explain::{BLOCKED, counted, percent, span},
};

/// A chain that is at work for more than this share of the time has no more to give.
const EXHAUSTED: f64 = 0.9;
/// A task is said to have more to do than the others if they are busy for less than this part of its time.
const UNEVEN: f64 = 0.5;
/// How many of those that wait are named.
const NAMED: usize = 4;

/// Who slows the job down.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bottleneck {
    /// Of [`JobStatus::operators`].
    pub(super) operator: usize,
    /// The operators at the head of the chains that wait for it, with the share of the time that they do.
    pub(super) waiting: Vec<(usize, f64)>,
}

impl JobStatus {
    /// Who slows the job down, how that shows, and what to do about it; `None` when nobody waits nobody is at its limit, or nothing runs. About the
    /// last seconds: see [`JobStatus::recent_ms`].
    ///
    /// From the chain that waits most for room downstream it goes along the channel that is full, until it comes to one that waits for
    /// nobody. That is as slow as the job, and what of it has most to do is named.
    pub fn bottleneck(&self) -> Option<String> {
        if matches!(self.state, State::Restarting | State::Ended) {
            return None;
        }
        let found = self.slowest(None)?;
        let slow = self.operators.get(found.operator)?;
        let mut text = format!(
            "{} is the bottleneck: it was at work for {} of the last {}",
            slow.name,
            percent(slow.busiest()),
            span(self.recent_ms)
        );
        if found.waiting.is_empty() {
            text += ", and nobody waits for it: the job reads no faster than it works";
        } else {
            let named = found.waiting.iter().take(NAMED).map(|(operator, share)| {
                let name = self.operators.get(*operator).map_or("", |operator| &operator.name);
                format!("{name} (for {})", percent(*share))
            });
            let more = found.waiting.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(", and {}", counted(more, "other", "others")) } else { String::new() };
            text += &format!(", and what is before it waits for it: {}{more}", named.collect::<Vec<_>>().join(", "));
        }
        Some(format!("{text}. {}", advice(slow)))
    }

    /// The index of the operator that [`JobStatus::bottleneck`] names.
    #[cfg(any(feature = "serve", feature = "terminal"))]
    pub(crate) fn bottleneck_at(&self) -> Option<usize> {
        let is_at_work = matches!(self.state, State::Running | State::Stopping);
        self.slowest(None).filter(|_| is_at_work).map(|found| found.operator)
    }

    /// The bottleneck: of the whole job, or of what comes after a chain.
    pub(super) fn slowest(&self, after: Option<usize>) -> Option<Bottleneck> {
        let blocked = |chain: usize| {
            let of = self.operators.iter().filter(|operator| operator.chain == chain);
            of.map(OperatorStatus::blocked).fold(0.0, f64::max)
        };
        let mut chains: Vec<usize> = self.operators.iter().map(|operator| operator.chain).collect();
        chains.sort_unstable();
        chains.dedup();
        let most = chains.iter().copied().max_by(|one, other| blocked(*one).total_cmp(&blocked(*other)))?;
        let start = after.unwrap_or(most);
        if blocked(start) < BLOCKED {
            return if after.is_none() { self.exhausted(&chains) } else { None };
        }
        let (mut chain, mut seen) = (start, vec![start]);
        loop {
            let next = self.fullest(chain).filter(|next| !seen.contains(next));
            // A source that is braked waits for somebody further down, and no channel of its own is full.
            let next = next.or_else(|| self.saturated(chain).filter(|next| !seen.contains(next)));
            let Some(next) = next else { break };
            chain = next;
            seen.push(chain);
            if blocked(chain) < BLOCKED {
                break;
            }
        }
        let waiting = chains.into_iter().filter(|other| *other != chain && blocked(*other) >= BLOCKED);
        let head = |chain: usize| self.operators.iter().position(|operator| operator.chain == chain);
        let mut waiting: Vec<(usize, f64)> = waiting.filter_map(|chain| Some((head(chain)?, blocked(chain)))).collect();
        waiting.sort_by(|one, other| other.1.total_cmp(&one.1));
        Some(Bottleneck { operator: self.busiest_of(chain)?, waiting })
    }

    /// The chain behind the channels that one waits for most.
    fn fullest(&self, chain: usize) -> Option<usize> {
        let waited = self.leaving(chain).filter(|edge| edge.blocked > 0.0);
        let most = waited.max_by(|one, other| one.blocked.total_cmp(&other.blocked))?;
        Some(self.operators.get(most.to)?.chain)
    }

    /// The chain of the async operator, of those that rows of a chain come to, in which they wait most for a free call.
    fn saturated(&self, chain: usize) -> Option<usize> {
        let (mut reached, mut next) = (vec![chain], vec![chain]);
        while let Some(at) = next.pop() {
            for to in self.leaving(at).filter_map(|edge| Some(self.operators.get(edge.to)?.chain)) {
                if !reached.contains(&to) {
                    reached.push(to);
                    next.push(to);
                }
            }
        }
        let calls = |own: &&OperatorStatus| own.kind == OperatorKind::Async && reached.contains(&own.chain);
        let most =
            self.operators.iter().filter(calls).max_by(|one, other| one.busiest().total_cmp(&other.busiest()))?;
        (most.busiest() >= BLOCKED).then_some(most.chain)
    }

    /// When nobody waits: the operator that has most to do, of the chain one of whose tasks is at work all the time.
    fn exhausted(&self, chains: &[usize]) -> Option<Bottleneck> {
        let work = |chain: usize| {
            let of = self.operators.iter().filter(|operator| operator.chain == chain);
            let tasks = of.clone().map(|operator| operator.tasks.len()).max().unwrap_or(0);
            let all = |task: usize| of.clone().filter_map(|own| own.tasks.get(task)).map(|task| task.busy).sum();
            (0..tasks).map(all).fold(0.0, f64::max)
        };
        let most = chains.iter().copied().max_by(|one, other| work(*one).total_cmp(&work(*other)))?;
        let operator = self.busiest_of(most).filter(|_| work(most) >= EXHAUSTED)?;
        Some(Bottleneck { operator, waiting: Vec::new() })
    }

    fn busiest_of(&self, chain: usize) -> Option<usize> {
        let own = self.operators.iter().enumerate().filter(|(_, operator)| operator.chain == chain);
        own.max_by(|(_, one), (_, other)| one.busiest().total_cmp(&other.busiest())).map(|(index, _)| index)
    }
}

/// What to do about an operator that is too slow.
fn advice(slow: &OperatorStatus) -> String {
    let tasks = slow.tasks.len();
    let busiest = slow.tasks.iter().enumerate().max_by(|(_, one), (_, other)| one.busy.total_cmp(&other.busy));
    let others = slow.tasks.iter().map(|task| task.busy).sum::<f64>() - slow.busiest();
    let others = if tasks > 1 { others / (tasks - 1) as f64 } else { 1.0 };
    if let Some((task, busy)) = busiest.filter(|(_, busy)| busy.busy >= BLOCKED && others < UNEVEN * busy.busy) {
        return format!(
            "Task {task} of {tasks} has most of it (at work for {}, the others for {}): its keys, or its splits, have more rows than \
             those of the others, and more tasks alone do not help",
            percent(busy.busy),
            percent(others)
        );
    }
    match slow.kind {
        OperatorKind::Sink => "What it writes to takes no more: look at that system and the way there, or let more tasks write, if \
                               it can have more, with .parallelism(tasks)",
        OperatorKind::Async => "Its calls take too long for the rows that come: let more of them run at a time, or make what is \
                                called faster",
        OperatorKind::Source => "It reads as fast as it can: give it more splits, and more tasks with .parallelism(tasks)",
        OperatorKind::Stateful => "Share its work among more tasks with .parallelism(tasks), if there are cores for them",
        OperatorKind::Stateless | OperatorKind::Union => {
            "Share its work among more tasks with .parallelism(tasks), if there are cores for them, and look at what its closures do"
        }
    }
    .into()
}
