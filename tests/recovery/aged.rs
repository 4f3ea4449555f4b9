//! A large state of which little changes, through many checkpoints: each names segments that an older one wrote, and the
//! collector removes the older checkpoints but not those segments.

use std::fs;

use windrow::{Faults, prelude::*};

use super::{
    hand::{Hand, click, read, until},
    lives::start,
};

const USERS: i64 = 1_000;
/// Checkpoints in which a few users change.
const CHECKPOINTS: usize = 6;

fn totals(hand: &Hand) -> Job {
    let job = hand.job(|rows, out| {
        let window = rows.key_by("user").window(Tumbling::of(hours(1)));
        let totals = window.aggregate([sum(col("amount")).alias("total")]).drop_late();
        totals.select(["user", "total"].map(col)).sink(out);
    });
    job.checkpoint(hand.store(), millis(1))
}

/// Saves, drops and restores such a job at another parallelism.
pub async fn live(before: usize, after: usize) -> Result<(), String> {
    let hand = Hand::new();
    let failed = |error: windrow::Error| error.to_string();
    hand.push(&(0..USERS).map(|user| click(user, user, 1)).collect::<Vec<_>>());
    let running = read(|| totals(&hand).parallelism(before), USERS.unsigned_abs()).await.map_err(failed)?;
    let handle = running.handle();
    let done = || fs::read_dir(hand.directory.path().join("by-hand/done")).map_or(0, Iterator::count);
    let mut pushed = USERS.unsigned_abs();
    for small in 0..CHECKPOINTS as i64 {
        let (former, mut amount) = (done(), 1_000_000);
        // A job in which nothing moves takes no checkpoint.
        loop {
            hand.push(&[click(small, amount, 2)]);
            (pushed, amount) = (pushed + 1, 0);
            until(&handle, |job| job.metrics().named("source").all(|source| source.rows_in == pushed)).await;
            if done() != former {
                break;
            }
        }
    }
    drop(running);
    hand.input.end_all();
    let running = start(|| totals(&hand).parallelism(after)).await.map_err(failed)?;
    running.wait().await.map_err(failed)?;
    let total = |user: i64| user + if user < CHECKPOINTS as i64 { 1_000_000 } else { 0 };
    let mut right: Vec<String> = (0..USERS).map(|user| format!("{user}|{}", total(user))).collect();
    right.sort_unstable();
    if hand.rows() == right {
        Ok(())
    } else {
        Err(format!("{} users and not {USERS}, or other totals", hand.rows().len()))
    }
}

/// The same, with faults.
pub fn run(before: usize, after: usize, faults: Faults) -> Result<(), String> {
    tests::on_two_threads(faults.during(live(before, after)))
}

#[test]
fn a_large_state_of_which_little_changes_survives_many_checkpoints() {
    for (before, after) in [(1, 1), (1, 3), (3, 1), (2, 4)] {
        run(before, after, Faults::default()).unwrap();
    }
}
