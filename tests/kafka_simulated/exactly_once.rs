//! Row 3 of the fault matrix: thousands of jobs on the simulated cluster. And whether the harness that judges them is right.
//!
//! The cluster does the same for a seed each time (`storms.rs`); a job on it mostly does: its checkpoints are files, which threads
//! write in whatever order they come to run.
//!
//! `SEED=17 cargo test -p tests --test kafka_simulated one_seed -- --ignored --nocapture` runs one.

use super::{
    lives::{Lived, run},
    scenario::Scenario,
    targets::{AtLeastOnce, InMemory, Target},
};

pub fn all<T: Target>(seeds: std::ops::Range<u64>, target: impl Fn() -> T) -> Lived {
    let mut lived = Lived::default();
    for seed in seeds {
        lived += run(&Scenario::new(seed), &target()).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    lived
}

pub fn seed() -> u64 {
    std::env::var("SEED").expect("SEED").parse().expect("a number")
}

#[test]
fn memory_has_every_row_once_whatever_is_done_to_the_job() {
    let lived = all(0..60, InMemory::default);
    println!("60 seeds in memory: {lived:?}");
    assert!(lived.crashes > 30 && lived.stops > 3 && lived.zombies > 10, "{lived:?}");
}

#[test]
fn an_undisturbed_job_has_every_row_once_in_a_topic() {
    for seed in 0..30 {
        run(&Scenario::new(seed).undisturbed(), &AtLeastOnce).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}

/// The harness bites.
#[test]
fn rows_that_are_written_at_once_come_again_after_a_crash_and_that_is_found() {
    let found = (0..30).filter_map(|seed| run(&Scenario::new(seed), &AtLeastOnce).err());
    let repeated = found.filter(|wrong| wrong.contains("lost: 0") && !wrong.contains("made up: 0")).count();
    assert!(repeated > 5, "{repeated}");
}

#[test]
#[ignore = "the seed in SEED"]
fn one_seed() {
    println!("{:?}", all(seed()..seed() + 1, InMemory::default));
}
