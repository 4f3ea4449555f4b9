//! What a job says about its checkpoints: where, how often, from which one it begins, how often it is started again.

use std::{ops::RangeInclusive, time::Duration};

use windrow_connectors::Epoch;

use crate::Error;

/// So many checkpoints are kept besides savepoints, at least: the newest, and one to fall back on by hand.
pub(crate) const KEPT_CHECKPOINTS: usize = 2;

/// How long a checkpoint may take before the job fails and names who did not answer.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Where checkpoints go and what they are restored from.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: String,
    pub(crate) every: Duration,
    /// How many checkpoints are kept besides savepoints.
    pub(crate) keep: usize,
    pub(crate) timeout: Timeout,
    pub(crate) restore: Restore,
    pub(crate) drop_state: bool,
}

impl Settings {
    pub(crate) fn new(url: String, every: Duration) -> Self {
        let timeout = Timeout { after: TIMEOUT, lowered: None };
        Self { url, every, keep: KEPT_CHECKPOINTS, timeout, restore: Restore::newest(), drop_state: false }
    }
}

/// How long a checkpoint may take, from its barrier to the last sink that publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timeout {
    pub(crate) after: Duration,
    /// Why it is shorter than usual, when nobody has said so.
    pub(crate) lowered: Option<String>,
}

impl Timeout {
    /// It is over, and these have not answered.
    pub(crate) fn passed(self, epoch: Epoch, silent: Vec<String>) -> Error {
        Error::CheckpointTimeout { epoch, after: self.after, silent, lowered: self.lowered }
    }
}

/// Which checkpoint a job begins from.
///
/// ```
/// use windrow::Restore;
/// let before = Restore::savepoint("before-upgrade");        // refused when newer output is visible already
/// let again = Restore::savepoint("before-upgrade").repeat_output();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restore {
    pub(crate) savepoint: Option<String>,
    pub(crate) repeat_output: bool,
}

impl Restore {
    /// The newest checkpoint; a job that has none begins at the beginning. This is so too when nothing is said.
    pub fn newest() -> Self {
        Self { savepoint: None, repeat_output: false }
    }

    /// The savepoint called `name`. When the job went on after it, its later output is visible and would be repeated: this
    /// is refused unless [`Restore::repeat_output`] says that it is meant. A job that has been restored from a savepoint
    /// goes on from its own newest checkpoint when it is started again.
    pub fn savepoint(name: impl Into<String>) -> Self {
        Self { savepoint: Some(name.into()), repeat_output: false }
    }

    /// Goes back even though what was written since will be written again. Also goes on from the newest checkpoint when a
    /// transactional sink knows of newer output, or of none, because the directory of the checkpoints or the sink's markers
    /// were replaced: without this such a job is refused.
    #[must_use]
    pub fn repeat_output(self) -> Self {
        Self { repeat_output: true, ..self }
    }
}

/// How often a job that failed is started again, from its newest checkpoint.
///
/// Only restarts *without progress* count: a checkpoint that completes begins the count anew. The job waits before each
/// restart, twice as long as the time before.
///
/// ```
/// use windrow::{Restarts, millis, secs};
/// let patient = Restarts::at_most(10).waiting(millis(500)..=secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restarts {
    pub(crate) limit: u32,
    pub(crate) wait: RangeInclusive<Duration>,
}

impl Restarts {
    /// At most `limit` restarts without progress, after which the job fails with the last cause. 5 unless told.
    pub fn at_most(limit: u32) -> Self {
        Self { limit, wait: Duration::from_secs(1)..=Duration::from_secs(60) }
    }

    /// A job that fails stays down.
    pub fn never() -> Self {
        Self::at_most(0)
    }

    /// How long to wait before the first restart, and before any. A second and a minute unless told.
    #[must_use]
    pub fn waiting(self, wait: RangeInclusive<Duration>) -> Self {
        Self { wait, ..self }
    }

    /// How long to wait before restart number `restart`, counted from 0.
    pub(crate) fn delay(&self, restart: u32) -> Duration {
        let factor = 2u32.saturating_pow(restart.min(31));
        self.wait.start().saturating_mul(factor).min(*self.wait.end())
    }
}

impl Default for Restarts {
    fn default() -> Self {
        Self::at_most(5)
    }
}
