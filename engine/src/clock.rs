//! The one place where the engine reads a clock. Tests pause it with tokio's `start_paused`.

use std::time::{Duration, SystemTime};

use windrow_operators::Timestamp;

/// A moment of processing time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(tokio::time::Instant);

impl Moment {
    pub(crate) fn now() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The nanoseconds since `earlier`, which fit for 584 years.
    pub(crate) fn nanos_since(self, earlier: Self) -> u64 {
        u64::try_from(self.since(earlier).as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn after(self, span: Duration) -> Self {
        /// What does not fit into the clock is never.
        const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
        Self(self.0.checked_add(span).unwrap_or_else(|| self.0 + NEVER))
    }
}

/// Processing time as operators see it: begins with the time on the wall and then never goes backwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessingTime {
    began: Moment,
    wall: Timestamp,
}

impl ProcessingTime {
    pub(crate) fn begin() -> Self {
        let wall = i64::try_from(wall_millis()).ok().and_then(Timestamp::from_millis);
        Self { began: Moment::now(), wall: wall.unwrap_or_default() }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.wall.saturating_add(self.began.elapsed())
    }

    /// When the processing time `time` comes.
    pub(crate) fn moment(&self, time: Timestamp) -> Moment {
        let micros = time.micros().saturating_sub(self.wall.micros());
        self.began.after(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
    }
}

/// The time on the wall in milliseconds since 1970, for people and for the age of files. It may go backwards: nothing that
/// must be right depends on it.
pub(crate) fn wall_millis() -> u64 {
    whole_millis(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}

/// A span of time in milliseconds.
pub(crate) fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Waits until `moment`; for ever when there is none.
pub(crate) async fn sleep_until(moment: Option<Moment>) {
    match moment {
        Some(Moment(instant)) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
