//! The JSON that others rely on: a field that changes its name breaks them.

use super::*;

fn full() -> JobStatus {
    let mut status = job();
    status.version = "0.1.0".into();
    status.last_failure = Some(Failure { at_ms: 1, error: "disk".into() });
    status.memory = Some(MemoryStatus { budget_bytes: 3, held_bytes: 2, spilled_bytes: 1 });
    status.warnings = vec!["look".into()];
    status.operators.truncate(1);
    status.edges.truncate(1);
    let source = &mut status.operators[0];
    source.id = Some("source_1".into());
    source.event_time =
        Some(EventTimeStatus { watermarks: "in order".into(), idle_after_ms: Some(5), align_within_ms: None });
    source.splits = vec![SplitStatus { state: SplitState::PutOff, why: Some("gone".into()), ..SplitStatus::default() }];
    source.samples = vec![Sample { kind: SampleKind::Rejected, at_ms: 9, text: "x".into() }];
    source.watermark_us = Some(-1);
    source.call_time =
        Some(Histogram { buckets: vec![Bucket { le_us: 10, count: 1 }], count: 1, ..Histogram::default() });
    source.latency = source.call_time.clone();
    status.checkpoints.last = vec![CheckpointDone {
        epoch: 4,
        kind: CheckpointKind::Savepoint,
        savepoint: Some("s".into()),
        ..Default::default()
    }];
    status.checkpoints.underway =
        Some(CheckpointUnderway { epoch: 5, since_ms: 6, missing: vec!["#1 (task 0)".into()] });
    status
}

/// The names of all fields, with those of what they hold.
fn names(value: &serde_json::Value, before: &str, names: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                names.push(format!("{before}{name}"));
                self::names(value, &format!("{before}{name}."), names);
            }
        }
        serde_json::Value::Array(items) => items.iter().take(1).for_each(|item| self::names(item, before, names)),
        _ => {}
    }
}

#[test]
fn the_names_of_fields_stay() {
    let json = serde_json::to_value(full()).unwrap();
    let mut found = Vec::new();
    names(&json, "", &mut found);
    found.sort_unstable();
    let expected = include_str!("fields.txt");
    assert_eq!(found.join("\n"), expected.trim(), "who reads the JSON relies on these");
    assert_eq!(json["state"], "running");
    assert_eq!(json["operators"][0]["kind"], "source");
    assert_eq!(json["operators"][0]["splits"][0]["state"], "put_off");
    assert_eq!(json["operators"][0]["samples"][0]["kind"], "rejected");
    assert_eq!(json["edges"][0]["exchange"], "by_key_group");
    assert_eq!(json["checkpoints"]["last"][0]["kind"], "savepoint");
    assert_eq!(json["operators"][0]["bytes_in"], serde_json::Value::Null);
}

#[test]
fn it_comes_back_and_other_versions_can_be_read() {
    let status = full();
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<JobStatus>(&json).unwrap(), status);
    let other = r#"{"job": "j", "later": [1], "operators": [{"name": "x", "tasks": [{"busy": 0.5}]}]}"#;
    let read: JobStatus = serde_json::from_str(other).unwrap();
    assert_eq!((read.job.as_str(), read.operators[0].tasks[0].busy, read.restarts), ("j", 0.5, 0));
}
