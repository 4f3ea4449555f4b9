//! How long something took, many times over.

use serde::{Deserialize, Serialize};

/// How long something took, many times over: how often, and how it is spread. Quantiles are the upper bound of the bucket in which they
/// lie, so at most 30% too long, and never above the longest; what is below 10 µs counts as 10 µs.
///
/// ```
/// use windrow::prelude::*;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("timed");
/// job.source(Sequence::new(10_000)).event_time("at", Watermarks::in_order()).sink(MemorySink::new());
/// let running = job.start().await?;
/// let handle = running.handle();
/// running.wait().await?;
///
/// let sink = handle.status().operators.remove(1);
/// let latency = sink.latency.unwrap();
/// println!("99% of the batches were written within {} s of their latest event", latency.p99_us / 1_000_000);
/// assert!(latency.p50_us <= latency.p99_us && latency.p99_us <= latency.max_us);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Histogram {
    /// How often.
    pub count: u64,
    /// All together, in microseconds.
    pub sum_us: u64,
    /// The longest, in microseconds; what took more than a million seconds counts as those, here and in the sum.
    pub max_us: u64,
    /// Half of them took no longer. Microseconds.
    pub p50_us: u64,
    /// 99 of 100 took no longer. Microseconds.
    pub p99_us: u64,
    /// 999 of 1000 took no longer. Microseconds.
    pub p999_us: u64,
    /// Those buckets that hold something, the shortest first. What took longer than 100,000 s is in none of them.
    pub buckets: Vec<Bucket>,
}

/// How often something took a span between the bound of the bucket before and this one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bucket {
    /// Its upper bound, which is in it, in microseconds.
    pub le_us: u64,
    /// How often.
    pub count: u64,
}
