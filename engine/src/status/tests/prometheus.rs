//! The text for Prometheus: names that dashboards and alerts rely on, and labels that may hold anything.

use super::*;

/// A job with something of everything.
fn full() -> JobStatus {
    let mut status = job();
    (status.version, status.started_ms, status.elapsed_ms) = ("0.1.0".into(), NOW_MS - 90_500, 90_500);
    (status.restarts, status.parallelism) = (2, 4);
    status.last_failure = Some(Failure { at_ms: NOW_MS - 60_000, error: "disk".into() });
    status.memory = Some(MemoryStatus { budget_bytes: 3_000, held_bytes: 2_000, spilled_bytes: 1_000 });
    status.warnings = vec!["look".into()];
    let source = &mut status.operators[0];
    (source.rejected, source.future, source.lag, source.bytes_out) = (3, 1, Some(77), Some(4_000));
    source.event_time = Some(EventTimeStatus::default());
    source.watermark_us = Some(1_799_999_990_500_000);
    source.tasks = vec![
        TaskStatus {
            rows_in: 10,
            rows_out: 7,
            bytes_in: Some(640),
            bytes_out: Some(4_000),
            busy_us: 1_500_000,
            blocked_us: 250_000,
            ..TaskStatus::default()
        },
        TaskStatus { idle: true, watermark_us: Some(-500_000), ..TaskStatus::default() },
    ];
    let split = SplitStatus {
        split: "topic/0".into(),
        rows: 10,
        bytes: 640,
        position: Some(10),
        lag: Some(77),
        ..Default::default()
    };
    source.splits = vec![
        SplitStatus { holds_back: true, watermark_us: source.watermark_us, ..split.clone() },
        SplitStatus {
            split: "topic/1".into(),
            state: SplitState::PutOff,
            task: 1,
            lag: None,
            position: None,
            ..split.clone()
        },
        SplitStatus { split: "topic/2".into(), state: SplitState::Ended, ..split },
    ];
    let window = &mut status.operators[1];
    (window.id, window.late, window.processed) = (Some("per-10s".into()), 2, 5);
    (window.spilled_bytes, window.spilled_segments, window.watermark_us) = (600, 1, Some(i64::MAX));
    window.tasks[0].state_bytes = 512;
    let buckets = vec![Bucket { le_us: 13, count: 4 }, Bucket { le_us: 5_000, count: 5 }];
    window.call_time = Some(Histogram { count: 10, sum_us: 200_000_000_000, buckets, ..Histogram::default() });
    status.operators[2].latency = window.call_time.clone();
    let edge = &mut status.edges[0];
    (edge.rows, edge.bytes, edge.queued_bytes, edge.blocked_us) = (7, 4_000, 300, 250_000);
    status.edges.push(EdgeStatus { label: "late".into(), ..self::edge(1, 2, Exchange::Chained) });
    let checkpoints = &mut status.checkpoints;
    (checkpoints.every_ms, checkpoints.completed, checkpoints.not_collected) = (Some(10_000), 3, 1);
    checkpoints.held_until_ms = Some(NOW_MS - 15_000);
    let (began_ms, took_ms) = (NOW_MS - 15_000, 1_250);
    let done =
        CheckpointDone { epoch: 9, began_ms, took_ms, answered_ms: 250, bytes: 100, segments: 1, ..Default::default() };
    checkpoints.last = vec![CheckpointDone { total_bytes: 900, total_segments: 4, ..done }];
    let missing = vec!["#3 sink out (task 0)".into()];
    checkpoints.underway = Some(CheckpointUnderway { epoch: 10, since_ms: NOW_MS - 500, missing });
    status
}

/// To change it on purpose: the book names these metrics, and others have built on them.
#[test]
fn the_text_stays() {
    let text = prometheus(&full());
    let expected = include_str!("prometheus.txt");
    for (line, (own, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(own, expected, "line {}", line + 1);
    }
    assert_eq!(text.len(), expected.len());
}

#[test]
fn labels_may_hold_any_text() {
    let mut status = job();
    status.job = "a\"b\\c\nd{e=\"f\"},ü".into();
    status.operators[0].splits = vec![SplitStatus { split: "\\\"\n# EOF\n".into(), ..SplitStatus::default() }];
    let text = prometheus(&status);
    let job = r#"job_name="a\"b\\c\nd{e=\"f\"},ü""#;
    let split = format!(r##"windrow_split_rows_total{{{job},operator="#1 source topic",split="\\\"\n# EOF\n"}} 0"##);
    assert!(text.lines().any(|line| line == split), "{text}");
    let samples = || text.lines().filter(|line| !line.starts_with('#'));
    assert!(samples().all(|line| line.starts_with("windrow_") && line.contains(job)), "{text}");
    assert_eq!(text.lines().filter(|line| *line == "# EOF").count(), 1);
}

/// Which of them hold event time back changes all the time, and series that come and go cost a store of series much.
#[test]
fn of_many_splits_the_first_by_name_are_given_and_who_holds_event_time_back() {
    let name = |split: usize| SplitStatus {
        split: format!("split-{split:04}"),
        watermark_us: at(0),
        holds_back: split == 700,
        ..SplitStatus::default()
    };
    let mut status = job();
    let mut splits: Vec<SplitStatus> = (0..1_000).map(name).collect();
    splits.rotate_left(700);
    status.operators[0].splits = splits;
    let text = prometheus(&status);
    let series = |metric: &str| {
        let of = |line: &&str| line.starts_with(&format!("windrow_split_{metric}{{"));
        text.lines().filter(of).map(String::from).collect::<Vec<_>>()
    };
    let has = |metric: &str, split: &str| series(metric).iter().any(|line| line.contains(split));
    assert_eq!(series("rows_total").len(), 100);
    assert!(has("rows_total", "split-0000") && has("rows_total", "split-0099") && !has("rows_total", "split-0700"));
    for metric in ["holds_back", "watermark_lag_seconds"] {
        assert_eq!(series(metric).len(), 101);
        assert!(has(metric, "split-0099") && has(metric, "split-0700"));
    }
}

/// Every task of a stream without event time is idle, and that says nothing.
#[test]
fn tasks_without_event_time_are_not_said_to_be_idle() {
    let mut status = job();
    status.operators[0].tasks[0].idle = true;
    assert!(!prometheus(&status).contains("windrow_task_idle{"));
    status.operators[0].event_time = Some(EventTimeStatus::default());
    assert_eq!(prometheus(&status).matches("windrow_task_idle{").count(), 3);
}

#[test]
fn a_job_that_is_over_waits_for_no_checkpoint() {
    let mut status = full();
    let due = "windrow_checkpoint_due_seconds{";
    assert!(prometheus(&status).contains(due));
    status.state = State::Ended;
    assert!(!prometheus(&status).contains(due));
}

/// One metric and one set of labels are one series: Prometheus refuses a page that has it twice.
#[test]
fn no_series_is_there_twice() {
    let mut status = full();
    status.edges.push(status.edges[0].clone());
    let text = prometheus(&status);
    let mut series: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
    let all = series.len();
    series.sort_unstable();
    series.dedup();
    assert_eq!((series.len(), all > 150), (all, true), "{all}");
}

/// What is not there is not said to be zero.
#[test]
fn a_job_without_checkpoints_or_event_time_has_no_such_series() {
    let text = prometheus(&JobStatus::default());
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(samples.iter().all(|line| !line.contains("checkpoint") && !line.contains("watermark")), "{samples:?}");
    assert!(samples.contains(&r#"windrow_up{job_name=""} 1"#), "{samples:?}");
}
