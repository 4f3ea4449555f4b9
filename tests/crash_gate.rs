//! The gate of the crash tests: the program `crash` with few seeds, in the profile of the tests. What it can do and what
//! its figures mean is said by `cargo run -p tests --bin crash -- --help`.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    process::Command,
    sync::{Mutex, PoisonError},
};

/// One program at a time: each has two jobs at work, and more would only disturb the instants of the kills.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs the program, which must find nothing wrong, and returns its last line: the figures.
fn crash(arguments: &str) -> String {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = Command::new(env!("CARGO_BIN_EXE_crash")).args(arguments.split(' ')).output().unwrap();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "crash {arguments}:\n{printed}\n{said}");
    println!("crash {arguments}\n{printed}");
    printed.lines().last().unwrap_or_default().to_string()
}

/// The number before a word of the figures.
fn figure(figures: &str, word: &str) -> u64 {
    let words: Vec<&str> = figures.split([' ', ',']).filter(|word| !word.is_empty()).collect();
    let place = words.iter().position(|found| *found == word).unwrap();
    words[place - 1].parse().unwrap()
}

#[test]
fn seeds_that_failed_once_do_not_fail_again() {
    let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/crash.txt");
    crash(&format!("--replay {seeds}"));
}

#[test]
fn jobs_that_are_killed_at_random_instants_write_every_row_once() {
    let figures = crash("--fault kill --seeds 100 --first-seed 1");
    let (kills, epochs, rows) = (figure(&figures, "kills"), figure(&figures, "epochs"), figure(&figures, "rows"));
    // Not much of a test if they land nowhere.
    assert!(kills > 60 && epochs > 200 && rows > 10_000, "{figures}");
}

#[test]
fn jobs_that_crash_at_any_named_point_write_every_row_once() {
    crash("--fault point --seeds 1 --pass first");
}

#[test]
fn of_several_starts_at_once_one_runs() {
    crash("--fault race --seeds 10");
}

#[test]
fn a_process_that_wakes_up_behind_its_successor_publishes_nothing() {
    crash("--fault zombie --seeds 5");
}

#[test]
fn a_job_that_ends_well_has_committed_its_last_epoch() {
    crash("--fault end --seeds 18");
}

/// Some ten minutes in release.
#[test]
#[ignore = "takes many minutes"]
fn the_whole_matrix() {
    crash("--fault kill --seeds 1000 --first-seed 1");
    crash("--fault race --seeds 100");
    crash("--fault zombie --seeds 100");
    crash("--fault end --seeds 200");
    crash("--fault point --seeds 20");
}
