//! How long things took, as so many in each of a row of spans: what a task adds to once a batch, and anybody reads.
//!
//! ```text
//!   7 µs ─► ≤10 µs │ ≤13 │ ≤16 │ ≤20 │ … ten for each power of ten … │ ≤100,000 s │ above
//! ```
//!
//! Fixed spans and not a library's histogram: a few additions that nobody contends for, no lock for who reads, and bounds that are
//! those of the histograms of Prometheus, so that nothing is lost between the two.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::status::{Bucket, Histogram};

/// How many spans there are for each power of ten.
const STEPS: [u64; 10] = [10, 13, 16, 20, 25, 32, 40, 50, 63, 80];
const DECADES: usize = 10;

/// The upper bounds of the spans in microseconds, from ten of them to 100,000 seconds. Each is at most 30% above the one before.
pub(crate) const BOUNDS: [u64; STEPS.len() * DECADES + 1] = bounds();

const fn bounds() -> [u64; STEPS.len() * DECADES + 1] {
    let mut bounds = [0; STEPS.len() * DECADES + 1];
    let (mut at, mut factor) = (0, 1);
    while at < bounds.len() {
        bounds[at] = STEPS[at % STEPS.len()] * factor;
        at += 1;
        if at % STEPS.len() == 0 {
            factor *= 10;
        }
    }
    bounds
}

/// What took longer counts as this, a million seconds: events of long ago say nothing of how late they are, and a few of them are not to
/// outweigh all others.
const LONGEST: u64 = 1_000_000_000_000;

/// Takes no memory before the first time. One task adds; anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Times(OnceLock<Box<Counts>>);

#[derive(Debug)]
struct Counts {
    /// The last is of what is above all bounds.
    spans: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Times {
    pub(crate) fn add(&self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX).min(LONGEST);
        let counts = self.0.get_or_init(|| {
            let spans = std::array::from_fn(|_| AtomicU64::new(0));
            Box::new(Counts { spans, sum: AtomicU64::new(0), max: AtomicU64::new(0) })
        });
        counts.spans[BOUNDS.partition_point(|bound| *bound < micros)].fetch_add(1, Relaxed);
        // A sum that went around would be less than before. Nobody else writes in between.
        counts.sum.store(counts.sum.load(Relaxed).saturating_add(micros), Relaxed);
        counts.max.fetch_max(micros, Relaxed);
    }
}

/// What several tasks have added; `None` when none has.
pub(crate) fn together<'a>(tasks: impl Iterator<Item = &'a Times>) -> Option<Histogram> {
    let (mut spans, mut sum_us, mut max_us) = ([0; BOUNDS.len() + 1], 0_u64, 0);
    for counts in tasks.filter_map(|times| times.0.get()) {
        spans.iter_mut().zip(&counts.spans).for_each(|(all, own)| *all += own.load(Relaxed));
        sum_us = sum_us.saturating_add(counts.sum.load(Relaxed));
        max_us = counts.max.load(Relaxed).max(max_us);
    }
    let count: u64 = spans.iter().sum();
    let at = |share: f64| {
        // The first span with which so many are reached.
        let rank = (share * count as f64).ceil() as u64;
        let reached = spans.iter().scan(0, |sum, own| {
            *sum += own;
            Some(*sum)
        });
        let span = reached.take_while(|sum| *sum < rank).count();
        BOUNDS.get(span).map_or(max_us, |bound| max_us.min(*bound))
    };
    let buckets = BOUNDS.iter().zip(spans).filter(|(_, count)| *count > 0);
    (count > 0).then(|| Histogram {
        count,
        sum_us,
        max_us,
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        buckets: buckets.map(|(le_us, count)| Bucket { le_us: *le_us, count }).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_a_row_of_ten() {
        assert_eq!(BOUNDS[..12], [10, 13, 16, 20, 25, 32, 40, 50, 63, 80, 100, 130]);
        assert_eq!(BOUNDS.last(), Some(&100_000_000_000));
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1] && 10 * pair[1] <= 13 * pair[0]));
    }

    #[test]
    fn quantiles_are_as_exact_as_the_spans_and_never_above_the_longest() {
        let (one, other) = (Times::default(), Times::default());
        assert_eq!(together([&one, &other].into_iter()), None);
        (1..=999).for_each(|millis| one.add(Duration::from_millis(millis)));
        other.add(Duration::from_secs(70));
        let read = together([&one, &other].into_iter()).unwrap();
        assert_eq!((read.count, read.sum_us, read.max_us), (1_000, 499_500_000 + 70_000_000, 70_000_000));
        assert_eq!((read.p50_us, read.p99_us, read.p999_us), (500_000, 1_000_000, 1_000_000));
        assert_eq!(read.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 1_000);
        let alone = together([&other].into_iter()).unwrap();
        assert_eq!((alone.p50_us, alone.buckets[0]), (70_000_000, Bucket { le_us: 80_000_000, count: 1 }));
    }

    #[test]
    fn what_is_very_short_or_longer_than_all_bounds_counts() {
        let times = Times::default();
        [Duration::ZERO, Duration::from_micros(10), Duration::MAX].into_iter().for_each(|span| times.add(span));
        let read = together([&times].into_iter()).unwrap();
        assert_eq!((read.count, read.max_us, read.p50_us, read.p99_us), (3, LONGEST, 10, LONGEST));
        assert_eq!(read.buckets, [Bucket { le_us: 10, count: 2 }], "the third is above");
    }

    #[test]
    fn a_sum_never_goes_back() {
        let times = Times::default();
        times.add(Duration::MAX);
        let sum = || together([&times].into_iter()).unwrap().sum_us;
        assert_eq!(sum(), LONGEST);
        times.0.get().unwrap().sum.store(u64::MAX - 5, Relaxed);
        times.add(Duration::from_micros(7));
        assert_eq!(sum(), u64::MAX);
    }
}
