//! The invariants of the design, kept by a test.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand};

const LONGEST_FILE: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every Rust file of the workspace, relative to its root.
fn sources(below: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a Rust file");
                found.push((path.strip_prefix(root()).expect("below the root").to_path_buf(), text));
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {below}");
    found
}

fn workspace() -> Vec<(PathBuf, String)> {
    ["engine", "operators", "connectors", "docs", "examples", "benches", "tests"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

/// The part of a file before its inline tests, without comments.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    production.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The files of the engine whose code contains `needle`. The command beside it is a program of its own.
fn engine_files_with(needle: &str) -> BTreeSet<String> {
    let files = sources("engine/src").into_iter().filter(|(path, _)| !path.starts_with("engine/src/bin"));
    let files = files.filter(|(_, text)| code(text).contains(needle));
    files.map(|(path, _)| path.to_string_lossy().into_owned()).collect()
}

#[test]
fn the_two_towers_do_not_know_each_other_or_the_engine() {
    let metadata = MetadataCommand::new().no_deps().current_dir(root()).exec().expect("cargo metadata");
    let dependencies = |name: &str| -> BTreeSet<String> {
        let package = metadata.packages.iter().find(|package| package.name.as_str() == name).expect("a member");
        let is_normal = |d: &&cargo_metadata::Dependency| d.kind == DependencyKind::Normal && !d.optional;
        let normal = package.dependencies.iter().filter(is_normal);
        normal.map(|dependency| dependency.name.clone()).collect()
    };
    let operators = dependencies("windrow-operators");
    let connectors = dependencies("windrow-connectors");
    assert!(!operators.contains("windrow-connectors") && !operators.contains("windrow"));
    assert!(!connectors.contains("windrow-operators") && !connectors.contains("windrow"));
    assert!(!operators.contains("tokio"), "operators are pure");
    assert!(!dependencies("windrow").contains("datafusion"), "the umbrella crate is for a feature of its own");
}

#[test]
fn there_is_one_arrow() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    assert_eq!(lock.matches("\nname = \"arrow-array\"\n").count(), 1, "two versions give two RecordBatch types");
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = workspace().into_iter().filter(|(_, text)| text.lines().count() > LONGEST_FILE).collect();
    assert!(long.is_empty(), "over {LONGEST_FILE} lines: {:?}", long.iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn every_file_says_why_it_exists() {
    let silent = workspace().into_iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path);
    assert_eq!(silent.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

#[test]
fn there_is_no_drawer_for_leftovers() {
    for (path, _) in workspace() {
        for part in path.iter().filter_map(|part| part.to_str()) {
            let name = part.trim_end_matches(".rs");
            assert!(!["utils", "util", "common", "helpers", "misc"].contains(&name), "{}", path.display());
        }
    }
}

#[test]
fn each_thing_lives_in_one_place() {
    let one = |file: &str| BTreeSet::from([format!("engine/src/{file}")]);
    assert_eq!(engine_files_with("Instant::now("), one("clock.rs"));
    assert_eq!(engine_files_with("SystemTime::now("), one("clock.rs"));
    // The clock on the wall, which may leap, is written down for people; only the age of old records is taken from it.
    let wall = ["checkpoint/archive", "checkpoint/collect", "checkpoint/store", "metrics/log", "status/live"];
    let wall = wall.map(|file| format!("engine/src/{file}.rs"));
    let wall = wall.into_iter().chain(one("clock.rs"));
    assert_eq!(engine_files_with("wall_millis("), wall.collect());
    // Who watches has a thread of its own, so that it takes no time from the tasks.
    let spawning = ["runtime/supervisor.rs", "thread.rs"].map(|file| format!("engine/src/{file}"));
    assert_eq!(engine_files_with(".spawn("), BTreeSet::from(spawning));
    assert_eq!(engine_files_with("tokio::spawn"), BTreeSet::new(), "tasks belong to a JoinSet");
    assert_eq!(engine_files_with(".poll_recv("), one("runtime/channel.rs"));
    let merging = engine_files_with("WatermarkMerge");
    let expected = ["engine/src/runtime/gate.rs", "engine/src/runtime/splits.rs"].map(String::from);
    assert_eq!(merging, BTreeSet::from(expected), "inputs merge in the gate, splits in their own file");
    let positions = engine_files_with("Position");
    let expected = ["checkpoint/tell.rs", "error.rs", "runtime/source_task.rs", "runtime/source_task/progress.rs"]
        .map(|file| format!("engine/src/{file}"));
    assert_eq!(
        positions,
        BTreeSet::from(expected),
        "only the source task knows positions; errors print them, and a source is told which of its own are final"
    );
}

#[test]
fn operators_do_no_io() {
    for (path, text) in sources("operators/src") {
        for forbidden in ["std::fs", "std::net", "std::thread", "Instant::now", "SystemTime", "async fn", ".await"] {
            assert!(!code(&text).contains(forbidden), "{} has {forbidden}", path.display());
        }
    }
}
