//! The gate of the faults of Kafka: the program `kafka_faults` with few seeds, in the profile of the tests. What it can do and what its
//! figures mean is said by `cargo run -p tests --bin kafka_faults -- --help`.
//!
//! The tests run at once, each with a broker of its own: most of their time they wait.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::process::Command;

/// Runs the program, which must find nothing wrong, and returns its last line: the figures. None when there is no broker.
fn kafka_faults(arguments: &str) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_kafka_faults")).args(arguments.split(' ')).output().unwrap();
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kafka_faults {arguments}:\n{printed}\n{said}");
    println!("kafka_faults {arguments}\n{printed}{said}");
    let figures = printed.lines().last().unwrap_or_default().to_string();
    (!figures.ends_with("skipped")).then_some(figures)
}

/// The number before some words of the figures, which stand in the plural unless it is one: so the last is given without its `s`.
fn figure(figures: &str, words: &str) -> u64 {
    let (before, _) = figures.split_once(&format!(" {words}")).unwrap();
    before.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_record_is_committed_once_whatever_dies() {
    let Some(figures) = kafka_faults("--only row13 --only row15 --runs 2 --first-seed 1") else { return };
    let (kills, epochs, zombies) = (figure(&figures, "kill"), figure(&figures, "epoch"), figure(&figures, "zombie"));
    // Not much of a test if nothing dies.
    assert!(kills > 3 && epochs > 8 && zombies == 2, "{figures}");
}

#[test]
fn every_record_is_committed_once_whatever_the_network_loses() {
    let Some(figures) = kafka_faults("--only row14 --runs 5 --first-seed 1 --delay 3") else { return };
    assert!(figure(&figures, "proxy fault") > 3, "{figures}");
}

/// With the pause below these are the three runs of row 12.
#[test]
fn every_record_is_committed_once_though_the_broker_dies() {
    let Some(figures) = kafka_faults("--only row12 --runs 2 --first-seed 1") else { return };
    assert_eq!(figure(&figures, "broker kill"), 2, "{figures}");
}

#[test]
fn every_record_is_committed_once_though_the_broker_sleeps_or_removes_records() {
    let Some(figures) = kafka_faults("--only row12-pause --only row29 --only k9 --runs 1") else { return };
    let faults = ["broker pause", "refusal"].map(|what| figure(&figures, what));
    assert_eq!(faults, [1, 1], "{figures}");
}

#[test]
fn every_record_is_committed_once_though_topics_grow_shrink_and_repeat_themselves() {
    let Some(figures) = kafka_faults("--only row28 --only row13-growth --runs 1 --first-seed 1") else { return };
    let refusals = figure(&figures, "refusal");
    let (grown, twice) = (figure(&figures, "added partition"), figure(&figures, "record"));
    assert!(refusals == 2 && grown > 3 && twice > 0, "{figures}");
}

/// Some thirty minutes in release.
#[test]
#[ignore = "takes many minutes"]
fn the_whole_matrix() {
    kafka_faults("--runs 100 --first-seed 1");
}
