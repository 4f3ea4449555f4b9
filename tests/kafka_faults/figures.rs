//! What is counted over runs, and what a run that failed says.

use std::{error::Error, fmt, ops::AddAssign, time::Duration};

/// What is counted, and added up over runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) runs: u64,
    /// Of job processes.
    pub(crate) starts: u64,
    /// Job processes that were killed.
    pub(crate) kills: u64,
    pub(crate) broker_kills: u64,
    pub(crate) broker_pauses: u64,
    /// Job processes that slept, woke up behind their successor, and said so.
    pub(crate) zombies: u64,
    /// Job processes that slept for too long, woke up alone, and started again by themselves.
    pub(crate) sleepers: u64,
    pub(crate) proxy_faults: u64,
    /// Times that a job refused to go on because records it had not read had been removed, or the topic was another one, and said so.
    pub(crate) refusals: u64,
    /// Partitions that were added to the input of a job.
    pub(crate) grown: u64,
    /// Records that a producer wrote twice.
    pub(crate) retried: u64,
    /// Checkpoints that were decided.
    pub(crate) epochs: u64,
    /// Committed records.
    pub(crate) rows: u64,
    /// Of those: dead letters.
    pub(crate) dead: u64,
    /// Records that were missing.
    pub(crate) lost: u64,
    /// Records that were there too often, or that nobody knows.
    pub(crate) repeated: u64,
    /// For how long readers of committed records did not get on after a job had been started.
    pub(crate) longest_stall: Duration,
}

impl AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.starts += other.starts;
        self.kills += other.kills;
        self.broker_kills += other.broker_kills;
        self.broker_pauses += other.broker_pauses;
        self.zombies += other.zombies;
        self.sleepers += other.sleepers;
        self.proxy_faults += other.proxy_faults;
        self.refusals += other.refusals;
        self.grown += other.grown;
        self.retried += other.retried;
        self.epochs += other.epochs;
        self.rows += other.rows;
        self.dead += other.dead;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.longest_stall = self.longest_stall.max(other.longest_stall);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { runs, kills, broker_kills, broker_pauses, zombies, sleepers, proxy_faults, .. } = self;
        let Self { refusals, grown, retried, epochs, rows, dead, lost, repeated, longest_stall, .. } = self;
        write!(
            f,
            "{}, {}, {}, {}, {}, {}, {}, {}, {}, {} twice in the input, {}, {}, {}, {lost} lost, {repeated} repeated, \
             longest LSO stall {} ms",
            some(*runs, "run"),
            some(*kills, "kill"),
            some(*broker_kills, "broker kill"),
            some(*broker_pauses, "broker pause"),
            some(*zombies, "zombie"),
            some(*sleepers, "sleeper"),
            some(*proxy_faults, "proxy fault"),
            some(*refusals, "refusal"),
            some(*grown, "added partition"),
            some(*retried, "record"),
            some(*epochs, "epoch"),
            some(*rows, "row"),
            some(*dead, "dead letter"),
            longest_stall.as_millis()
        )
    }
}

/// So many of something: `1 run`, `2 runs`.
pub(crate) fn some(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Why a run failed, and what it had counted.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    /// In a box, so that a result is small.
    pub(crate) figures: Box<Figures>,
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self { reason, figures: Box::new(Figures { runs: 1, ..Figures::default() }) }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        error.to_string().into()
    }
}

impl From<Box<dyn Error + Send + Sync>> for Failure {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        error.to_string().into()
    }
}
