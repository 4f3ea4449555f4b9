//! What counts of a bench: how fast a side was, as a part of the speed of another side of the same run.
//!
//! ```text
//!   criterion ── iter_custom ──► Ratios::time: the times of each side ──► Ratios::print: "window/operator: 0.71 of …/hand_written"
//! ```

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hint::black_box,
    time::{Duration, Instant},
};

/// The times that the sides of a group took. Criterion prints each; this prints one beside another.
pub struct Ratios {
    group: String,
    seconds: RefCell<BTreeMap<String, Vec<f64>>>,
}

impl Ratios {
    /// Of a group of criterion's with this name.
    pub fn of(group: &str) -> Self {
        Self { group: group.to_string(), seconds: RefCell::default() }
    }

    /// Runs a side so many times, and returns how long all of them took: for criterion's `iter_custom`.
    pub fn time<T>(&self, side: &str, iterations: u64, mut run: impl FnMut() -> T) -> Duration {
        let began = Instant::now();
        for _ in 0..iterations {
            black_box(run());
        }
        let took = began.elapsed();
        let each = took.as_secs_f64() / iterations.max(1) as f64;
        self.seconds.borrow_mut().entry(side.to_string()).or_default().push(each);
        took
    }

    /// Prints the speed of `side` as a part of that of `other`, by the medians of their times, if both have been measured.
    pub fn print(&self, side: &str, other: &str) {
        let seconds = self.seconds.borrow();
        if let (true, Some(own), Some(others)) = (super::measures(), seconds.get(side), seconds.get(other)) {
            println!("{}/{side}: {:.2} of {other}", self.group, median(others) / median(own));
        }
    }
}

/// The middle of some values; of none it is not a number.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
