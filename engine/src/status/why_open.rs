//! Why a window is still open, in words: what event time waits for.
//!
//! ```text
//!   window: heard 12:00 ◄── join: promised 12:00 ◄─┬─ source a: promised 12:07
//!                                                  └─ source b: promised 12:00 ◄── split 3, silent for 43 s
//! ```
//!
//! From the operator it goes back to whoever has promised least, until it comes to a split; or to a channel that is so full that
//! what has been promised is not through yet; or to calls that have no answer.

use super::{
    Exchange, JobStatus, OperatorKind, OperatorStatus, SplitState, SplitStatus, State,
    explain::{BLOCKED, END, between, counted, instant, span},
};

/// A split that has delivered rows within so many milliseconds is not silent.
const LATELY_MS: u64 = 2_000;
/// A channel that is full to this part holds up what is in it.
const FULL: f64 = 0.5;
/// How many operators are named when one is not found.
const NAMED: usize = 20;

/// What event time waits for.
enum Cause<'a> {
    /// A split of a source, and how many others are equally far behind.
    Split(&'a OperatorStatus, &'a SplitStatus, usize),
    /// Nobody speaks.
    Silent(&'a OperatorStatus),
    /// What has been promised waits behind rows, in a channel.
    Queue { from: &'a OperatorStatus, to: &'a OperatorStatus, promised: i64, queued_bytes: u64 },
    /// Or behind rows that are being called.
    Calls { of: &'a OperatorStatus, promised: i64 },
    /// A source that says nothing of its splits.
    Source(&'a OperatorStatus),
    /// A split that is one of too many to be told of.
    Untold(&'a OperatorStatus),
}

impl JobStatus {
    /// Why a window of an operator is still open: how far event time is there, what it waits for and since when, what that means, and
    /// what to do. `operator` is as for [`JobStatus::find`]. For operators without windows it says the same about event time.
    pub fn why_open(&self, operator: &str) -> String {
        let Some(own) = self.find(operator).and_then(|at| Some((at, self.operators.get(at)?))) else {
            let names = self.operators.iter().take(NAMED).map(|operator| operator.name.as_str());
            return format!("There is no operator {operator:?} in this job: {}.", names.collect::<Vec<_>>().join(", "));
        };
        let (at, own) = own;
        let name = &own.name;
        if self.timed_sources(at).is_empty() {
            return format!("{name} has no event time to wait for: no source before it says .event_time(…).");
        }
        if own.watermark_us == Some(END) {
            return format!("Nothing is open at {name}: event time has come to its end.");
        }
        let mut said = vec![stands(own)];
        match self.state {
            State::Ended => said.push(
                "The job is over: what was open gave no result. If it takes checkpoints the last one holds it, and it goes on when the \
                 job is started again."
                    .into(),
            ),
            State::Restarting => {
                let (error, ago) = match &self.last_failure {
                    Some(failure) => (failure.error.as_str(), self.ago(failure.at_ms)),
                    None => ("", String::new()),
                };
                said.push(format!("The job failed {ago} ago and is about to be started again; until then nothing goes on: {error}."));
            }
            State::Stopping => said.push(
                "The job is stopping: it reads nothing more, and what is open then gives no result; with checkpoints the last one holds \
                 it."
                    .into(),
            ),
            State::Running => {
                let mut waits = Vec::new();
                let cause = self.cause(at, &mut waits);
                said.extend(waits);
                said.push(self.said(&cause));
            }
        }
        said.join(" ")
    }

    /// Goes back from an operator to what event time waits for there; `waits` gets a sentence for everybody on the way who passes
    /// it on later than it comes.
    fn cause(&self, at: usize, waits: &mut Vec<String>) -> Cause<'_> {
        let mut at = at;
        // There are no cycles, but what is read may have been written by anybody.
        for _ in 0..self.operators.len() {
            let own = &self.operators[at];
            if own.kind == OperatorKind::Source {
                break;
            }
            let inputs = self.timed_inputs(at).filter(|edge| edge.from < self.operators.len());
            let active = inputs.filter(|edge| !self.timed_sources(edge.from).is_empty());
            // Who is silent holds nobody, unless all are.
            let (silent, speaking): (Vec<_>, Vec<_>) = active.partition(|edge| self.is_silent(edge.from));
            let promised = |from: usize| self.operators[from].promised_us;
            let least = speaking.into_iter().min_by_key(|edge| promised(edge.from));
            let Some(edge) = least.or_else(|| silent.into_iter().max_by_key(|edge| promised(edge.from))) else { break };
            let from = &self.operators[edge.from];
            if let Some(promised) = from.promised_us.filter(|promised| Some(*promised) > own.watermark_us) {
                if own.kind == OperatorKind::Async && own.in_flight > 0 {
                    return Cause::Calls { of: own, promised };
                }
                let is_full = edge.queued_bytes as f64 >= FULL * edge.capacity_bytes as f64;
                if edge.exchange != Exchange::Chained && (is_full || edge.blocked >= BLOCKED) {
                    return Cause::Queue { from, to: own, promised, queued_bytes: edge.queued_bytes };
                }
            }
            if let (Some(heard), Some(promised)) = (from.watermark_us, from.promised_us)
                && promised < heard
                && heard != END
            {
                waits.push(format!(
                    "{} passes event time on {} later than it hears it: for so long it waits for late rows, or for rows of its other \
                     input.",
                    from.name,
                    between(promised, heard)
                ));
            }
            at = edge.from;
        }
        let source = &self.operators[at];
        let holding = || source.splits.iter().filter(|split| split.holds_back);
        // Of several that are equally far the one that cannot be read, or is silent for longest, tells most.
        let worst = holding().min_by_key(|split| {
            let trouble = !matches!(split.state, SplitState::PutOff | SplitState::Paused);
            (trouble, split.rows_at_ms.unwrap_or(split.since_ms))
        });
        match worst {
            Some(split) => Cause::Split(source, split, holding().count() - 1),
            None if source.splits.is_empty() => Cause::Source(source),
            None if source.splits_left_out > 0 && !self.is_silent(at) => Cause::Untold(source),
            None => Cause::Silent(source),
        }
    }

    fn said(&self, cause: &Cause<'_>) -> String {
        match cause {
            Cause::Split(source, split, others) => self.said_of_split(source, split, *others),
            Cause::Silent(source) => format!(
                "Nobody moves it: all splits of {} are idle or have ended. It goes on when one of them delivers rows again.",
                source.name
            ),
            Cause::Queue { from, to, promised, queued_bytes } => format!(
                "{} has come as far as {}, but that is not yet through to {}: {queued_bytes} bytes of rows wait between them. {}",
                from.name,
                instant(*promised),
                to.name,
                self.slowed(from.chain)
            ),
            Cause::Calls { of, promised } => format!(
                "Rows up to {} have come to {}, but a watermark leaves it only behind the rows that came before it, and {} of them \
                 wait for their calls. Calls that are faster, more of them at a time, or a shorter timeout let it go on.",
                instant(*promised),
                of.name,
                of.in_flight
            ),
            Cause::Untold(source) => format!(
                "It waits for one of the {} splits of {} that are not told of, because there are too many to show: all that are shown are \
                 further.",
                source.splits_left_out, source.name
            ),
            Cause::Source(source) => format!("{} has not said anything of its splits yet.", source.name),
        }
    }

    fn said_of_split(&self, source: &OperatorStatus, split: &SplitStatus, others: usize) -> String {
        let name = format!("split {} of {}", split.split, source.name);
        let mut said = vec![match (split.watermark_us, split.latest_us) {
            (Some(watermark), Some(latest)) => {
                let rule = source.event_time.as_ref().map_or("", |time| &time.watermarks);
                format!(
                    "It waits for {name}, whose latest row is of {} ({rule}), so it stands at {}.",
                    instant(latest),
                    instant(watermark)
                )
            }
            (Some(watermark), None) => format!("It waits for {name}, which stands at {}.", instant(watermark)),
            (None, _) => format!("It waits for {name}, which has not delivered a row with event time yet."),
        }];
        let ahead = source.splits.iter().filter(|other| !other.holds_back).filter_map(|other| {
            let is_active = !matches!(other.state, SplitState::Idle | SplitState::Ended);
            other.watermark_us.filter(|_| is_active)
        });
        match (ahead.max(), split.watermark_us) {
            (Some(most), Some(own)) => {
                said.push(format!("Others of its splits are up to {} ahead.", between(own, most)))
            }
            (Some(most), None) => said.push(format!("Others of its splits have come as far as {}.", instant(most))),
            (None, _) => {}
        }
        if others > 0 {
            said.push(format!("{} as far behind.", counted(others, "other split is", "other splits are")));
        }
        said.push(match split.state {
            SplitState::PutOff => format!(
                "It has not been readable for {}: {}. It may have records, so everybody waits for it; it is tried again every few seconds.",
                self.ago(split.since_ms),
                split.why.as_deref().unwrap_or("its reader does not say why")
            ),
            SplitState::Paused => format!(
                "It has been paused for {}, because it is {}; when that has caught up it is read again.",
                self.ago(split.since_ms),
                split.why.as_deref().unwrap_or("too far ahead of others")
            ),
            _ => self.said_of_reading(source, split),
        });
        said.join(" ")
    }

    /// A split that is read: do rows come, and if not, what does that mean?
    fn said_of_reading(&self, source: &OperatorStatus, split: &SplitStatus) -> String {
        let silent = self.now_ms.saturating_sub(split.rows_at_ms.unwrap_or(split.since_ms));
        let blocked = source.blocked() >= BLOCKED;
        let lag = split.lag.filter(|lag| *lag > 0).map(|lag| format!("{lag} records of it wait to be read"));
        if blocked {
            let lag = lag.map(|lag| format!("{lag}. ")).unwrap_or_default();
            return format!("{lag}It is read as fast as what comes after it allows. {}", self.slowed(source.chain));
        }
        let first = match split.rows_at_ms {
            Some(_) => format!("Its last rows came {} ago", span(silent)),
            None => format!("It has delivered nothing in the {} that it has been read", span(silent)),
        };
        match (lag, silent < LATELY_MS && split.rows_at_ms.is_some()) {
            (Some(lag), true) => format!("It is being read, and {lag}: event time goes on with them."),
            (Some(lag), false) => format!(
                "{lag}, but none has come for {}: its reader does not get them. Look at the warnings of the job, and at what it reads \
                 from.",
                span(silent)
            ),
            (None, true) => "It is being read, and rows come: event time is where they are. A window closes when rows come that are later \
                             than its end, by as much as rows may be out of order."
                .into(),
            (None, false) => {
                let idle_after = source.event_time.as_ref().and_then(|time| time.idle_after_ms);
                let means = match idle_after {
                    Some(after) if silent < after => {
                        format!("after {} without rows it counts as idle, and nobody waits for it", span(after))
                    }
                    Some(after) => format!(
                        "it counts as idle after {} without rows, in which its task had not to wait for others",
                        span(after)
                    ),
                    None => "its source does not say .idle_after(…), so everybody waits for it, however long it is silent. If it is \
                             often silent, say that in its Watermarks; if it should not be, look at what writes to it"
                        .into(),
                };
                format!("{first}, and none is known to wait: {means}.")
            }
        }
    }

    /// Who slows down what comes after a chain.
    fn slowed(&self, chain: usize) -> String {
        match self.slowest(Some(chain)).and_then(|found| self.operators.get(found.operator)) {
            Some(slow) => format!("What slows it down is {}.", slow.name),
            None => "They are on their way.".into(),
        }
    }

    /// How long ago a time on the wall is.
    fn ago(&self, millis: u64) -> String {
        span(self.now_ms.saturating_sub(millis))
    }
}

/// How far event time is at an operator.
fn stands(own: &OperatorStatus) -> String {
    let name = &own.name;
    let Some(heard) = own.watermark_us else {
        return format!("No event time has come to {name} yet, so none of its windows can close.");
    };
    match own.promised_us.filter(|promised| *promised < heard && own.kind == OperatorKind::Stateful) {
        Some(promised) => format!(
            "Event time at {name} stands at {}; because late rows may still come it goes by {}: what ends later is open.",
            instant(heard),
            instant(promised)
        ),
        None => format!("Event time at {name} stands at {}: what ends later is open.", instant(heard)),
    }
}
