//! One call with its attempts, and what the user said of calls.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use arrow::array::RecordBatch;
use futures::FutureExt;

use super::Work;
use crate::{metrics::Counters, runtime::chain::panic_message};

/// The longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What the user said of the calls of an operator.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// How many units may be in flight, or have an answer that may not leave yet.
    pub(crate) capacity: usize,
    /// Of one attempt.
    pub(crate) timeout: Duration,
    pub(crate) retry: Retry,
    pub(crate) ordered: bool,
    pub(crate) on_failure: OnFailure,
}

/// What becomes of rows whose call has failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    Fail,
    Drop,
    Stream,
}

/// How often a call is tried, and how long it waits in between.
///
/// ```
/// use windrow::{Retry, prelude::*};
/// // At most three attempts; about 100 ms before the second and 200 ms before the third.
/// let retry = Retry::exponential(3, millis(100));
/// assert_ne!(retry, Retry::never());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    pub(crate) attempts: u32,
    first_wait: Duration,
}

impl Retry {
    /// At most `attempts` attempts, the first included. Before the second it waits about `first`, before each further one
    /// twice as long as before the last, up to a minute. A wait is drawn between half and all of that, so that calls that
    /// failed together do not come back together.
    pub fn exponential(attempts: u32, first: Duration) -> Self {
        Self { attempts, first_wait: first }
    }

    /// One attempt.
    pub fn never() -> Self {
        Self { attempts: 1, first_wait: Duration::ZERO }
    }

    /// How long to wait after `failed` attempts.
    fn wait(&self, failed: u32) -> Duration {
        let factor = 2_u32.checked_pow(failed.saturating_sub(1)).unwrap_or(u32::MAX);
        let whole = self.first_wait.saturating_mul(factor).min(LONGEST_WAIT);
        whole.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

/// Why a call has failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) attempts: u32,
}

pub(crate) type Answer<D> = Result<D, Failure>;

/// Calls for `rows` until there is an answer or no attempt is left. An attempt that panics, or takes too long, has failed.
pub(crate) async fn attempts<W: Work>(
    work: Arc<W>,
    rows: RecordBatch,
    policy: Policy,
    counters: Arc<Counters>,
) -> Answer<W::Done> {
    let mut attempts = 1;
    loop {
        let (work, rows) = (work.clone(), rows.clone());
        // What the user's code shares with other calls is its own: nothing of the task is in there.
        let call = AssertUnwindSafe(async move { work.call(rows).await }).catch_unwind();
        let reason = match tokio::time::timeout(policy.timeout, call).await {
            Ok(Ok(Ok(done))) => return Ok(done),
            Ok(Ok(Err(reason))) => reason,
            Ok(Err(panic)) => format!("the call panicked: {}", panic_message(&*panic)),
            Err(_) => format!("no answer within {:?}", policy.timeout),
        };
        if attempts >= policy.retry.attempts {
            return Err(Failure { reason, attempts });
        }
        tokio::time::sleep(policy.retry.wait(attempts)).await;
        attempts += 1;
        counters.retries.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_are_drawn() {
        let retry = Retry::exponential(u32::MAX, Duration::from_millis(100));
        for (failed, whole) in [(1, 100), (2, 200), (3, 400), (10, 51_200), (11, 60_000), (u32::MAX, 60_000)] {
            let waits: Vec<u128> = (0..50).map(|_| retry.wait(failed).as_millis()).collect();
            assert!(waits.iter().all(|wait| (whole / 2..=whole).contains(wait)), "{failed}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait != waits[0]), "no jitter");
        }
        assert!(Retry::exponential(3, Duration::MAX).wait(2) <= LONGEST_WAIT);
    }
}
