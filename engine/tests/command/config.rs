//! What `windrow config` says holds, and that a job does it.

use std::fs;

use windrow::{config::Config, prelude::*};

use super::{did, printed, until, windrow};

const FILE: &str = "parallelism = 2\n[checkpoint]\nurl = \"s3://me:canary-12@bucket/x\"\nevery = \"10s\"\n[job.hot-items]\nparallelism = 4\n";

#[test]
fn values_are_shown_with_who_says_them() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("windrow.toml"), FILE).unwrap();
    let said = |command: &mut std::process::Command| {
        let did = did(command.current_dir(directory.path()));
        assert_eq!((did.code, did.err.as_str()), (0, ""));
        assert!(!did.out.contains("canary"), "{}", did.out);
        let squeezed = did.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        squeezed.collect::<Vec<_>>()
    };
    let all = said(&mut windrow(&["config"]));
    assert!(all[0].starts_with("# every job: windrow.toml"), "{all:?}");
    for expected in [
        "parallelism = 2 # windrow.toml:1",
        "checkpoint.every = \"10s\" # windrow.toml:4",
        "# memory_budget # default: no limit",
    ] {
        assert!(all.iter().any(|line| line == expected), "{expected}: {all:?}");
    }
    let own = said(windrow(&["config", "hot-items"]).env("WINDROW_CHECKPOINT_EVERY", "1m"));
    for expected in ["parallelism = 4 # windrow.toml:6", "checkpoint.every = \"1m\" # WINDROW_CHECKPOINT_EVERY"] {
        assert!(own.iter().any(|line| line == expected), "{expected}: {own:?}");
    }
    assert_eq!(all[1], "# tables for single jobs: hot-items");
    assert!(!all.iter().chain(&own).any(|line| line.contains("warning")), "{all:?} {own:?}");
    let slip = said(&mut windrow(&["config", "hot-item"]));
    let warning = "# warning: windrow.toml:5: the table for job \"hot-items\" does not count for this job, which is called \"hot-item\"";
    assert!(slip[2].starts_with(warning), "{slip:?}");
    // The file of the variable, from elsewhere.
    let file = directory.path().join("windrow.toml");
    let elsewhere = did(windrow(&["config", "--json"]).current_dir("/").env("WINDROW_CONFIG", &file));
    let json: serde_json::Value = serde_json::from_str(&elsewhere.out).unwrap();
    assert_eq!(json["jobs"], serde_json::json!(["hot-items"]));
    let first = &json["settings"][0];
    assert_eq!((first["key"].as_str(), first["value"].as_str()), (Some("parallelism"), Some("2")));
    assert_eq!(
        (first["variable"].as_str(), first["code"].as_str()),
        (Some("WINDROW_PARALLELISM"), Some("Job::parallelism"))
    );
}

#[test]
fn mistakes_end_it_with_their_places() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("windrow.toml"), "paralelism = 2\n").unwrap();
    let told = did(windrow(&["config"]).current_dir(directory.path()).env("WINDROW_CHECKPOINT_EVERY", "soon"));
    assert_eq!((told.code, told.out.as_str()), (1, ""));
    for expected in [
        "windrow.toml:1: there is no setting \"paralelism\", did you mean \"parallelism\"?",
        "WINDROW_CHECKPOINT_EVERY: checkpoint.every is \"soon\", which is not a time with its unit, such as \"10s\"",
    ] {
        assert!(told.err.contains(expected), "{}", told.err);
    }
    let missing = did(windrow(&["config"]).env("WINDROW_CONFIG", "/no/such/file.toml"));
    assert!(missing.code == 1 && missing.err.contains("WINDROW_CONFIG names /no/such/file.toml"), "{}", missing.err);
    let missing = did(&mut windrow(&["config", "--file", "/no/such/file.toml"]));
    assert!(missing.code == 1 && missing.err.contains("/no/such/file.toml: cannot be read"), "{}", missing.err);
}

/// The file goes before the code, in whichever order they are said; and what it says is done.
#[test]
fn a_job_does_what_its_file_says() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("jobs");
    let file = directory.path().join("windrow.toml");
    let text = format!(
        "parallelism = 2\n[job.kept.checkpoint]\nurl = {:?}\nevery = \"5ms\"\nkeep = 6\n",
        store.to_str().unwrap()
    );
    fs::write(&file, text).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let job = Job::new("kept").configured_by(Config::file(&file).unwrap()).parallelism(7);
        job.source(Sequence::endless().rate(10_000).splits(9)).sink(MemorySink::new());
        let plan = job.explain().await.unwrap();
        assert!(plan.contains("2 tasks") && !plan.contains("7 tasks"), "{plan}");
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let waiting = tokio::spawn(running.wait());
        until(secs(60), "twenty checkpoints are complete", || handle.metrics().checkpoints.completed >= 20);
        handle.stop();
        waiting.await.unwrap().unwrap();
    });
    let listed = printed(&["checkpoints", &format!("{}/kept", store.display())]);
    // The header, and at least as many as are to be kept; the collector comes round every now and then.
    assert!(listed.lines().count() > 6, "{listed}");
}
