//! The one place where the engine reads a clock. Tests pause it with tokio's `start_paused`.

use std::time::Duration;

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

    pub(crate) fn after(self, span: Duration) -> Self {
        Self(self.0 + span)
    }
}

/// Waits until `moment`; for ever when there is none.
pub(crate) async fn sleep_until(moment: Option<Moment>) {
    match moment {
        Some(Moment(instant)) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
