//! What event time waits for, in jobs of many shapes.

use super::*;

fn split(name: &str, watermark: Option<i64>, state: SplitState) -> SplitStatus {
    SplitStatus {
        split: name.into(),
        state,
        since_ms: NOW_MS - 60_000,
        watermark_us: watermark,
        latest_us: watermark.map(|watermark| watermark + 5 * SECOND),
        rows: 7,
        rows_at_ms: watermark.map(|_| NOW_MS - 43_000),
        ..SplitStatus::default()
    }
}

/// Says which of the splits hold event time back, and how far that makes the source and what comes after it.
fn with(mut status: JobStatus, splits: Vec<SplitStatus>) -> JobStatus {
    let source = &mut status.operators[0];
    let time = EventTimeStatus { watermarks: "out of order by 5s".into(), ..EventTimeStatus::default() };
    source.event_time.get_or_insert(time);
    source.splits = splits;
    let active = |split: &&SplitStatus| !matches!(split.state, SplitState::Idle | SplitState::Ended);
    let least = source.splits.iter().filter(active).map(|split| split.watermark_us).min();
    for split in &mut source.splits {
        split.holds_back = active(&&*split) && Some(split.watermark_us) == least;
    }
    let idle = source.splits.iter().all(|split| !active(&split)) && !source.splits.is_empty();
    let least = least.unwrap_or_else(|| source.splits.iter().map(|split| split.watermark_us).max().flatten());
    for operator in &mut status.operators {
        (operator.watermark_us, operator.promised_us) = (least, least);
        operator.tasks[0].idle = idle;
    }
    status
}

fn two(slow: SplitStatus) -> JobStatus {
    let mut quick = split("topic/0", at(600), SplitState::Reading);
    quick.rows_at_ms = Some(NOW_MS - 100);
    with(job(), vec![quick, slow])
}

#[test]
fn a_silent_split_without_idleness_is_told() {
    let said = two(split("topic/1", at(3), SplitState::Reading)).why_open("#2");
    says(&said, &["Event time at #2 window tumbling 10s stands at 2026-01-01T00:00:03Z: what ends later is open."]);
    says(&said, &["It waits for split topic/1 of #1 source topic, whose latest row is of 2026-01-01T00:00:08Z"]);
    says(&said, &["(out of order by 5s)", "Others of its splits are up to 9 min 57 s ahead."]);
    says(&said, &["Its last rows came 43 s ago", "does not say .idle_after(…)"]);
}

#[test]
fn a_silent_split_that_will_be_idle_is_told() {
    let mut status = two(split("topic/1", at(3), SplitState::Reading));
    status.operators[0].event_time.as_mut().unwrap().idle_after_ms = Some(120_000);
    says(&status.why_open("2"), &["Its last rows came 43 s ago", "after 2 min without rows it counts as idle"]);
    status.operators[0].event_time.as_mut().unwrap().idle_after_ms = Some(30_000);
    says(&status.why_open("2"), &["it counts as idle after 30 s without rows, in which its task had not to wait"]);
}

#[test]
fn a_split_that_has_never_spoken_is_told() {
    let said = two(split("topic/1", None, SplitState::Reading)).why_open("#2");
    says(
        &said,
        &["No event time has come to #2 window tumbling 10s yet", "has not delivered a row with event time yet"],
    );
    says(
        &said,
        &["have come as far as 2026-01-01T00:10:00Z", "It has delivered nothing in the 1 min that it has been read"],
    );
}

#[test]
fn a_split_that_is_behind_is_told() {
    let mut slow = SplitStatus { lag: Some(5_000), ..split("topic/1", at(3), SplitState::Reading) };
    says(&two(slow.clone()).why_open("#2"), &["5000 records of it wait to be read, but none has come for 43 s"]);
    slow.rows_at_ms = Some(NOW_MS - 300);
    says(
        &two(slow).why_open("#2"),
        &["It is being read, and 5000 records of it wait to be read: event time goes on with them"],
    );
}

#[test]
fn where_rows_come_nothing_is_wrong() {
    let mut only = split("topic/0", at(3), SplitState::Reading);
    only.rows_at_ms = Some(NOW_MS - 20);
    let said = with(job(), vec![only]).why_open("#2");
    says(&said, &["It is being read, and rows come: event time is where they are."]);
    assert!(!said.contains("Others"), "{said}");
}

#[test]
fn a_split_that_is_put_off_is_told_with_the_reason() {
    let mut slow = split("topic/1", None, SplitState::PutOff);
    slow.why = Some("no leader for partition 1".into());
    says(
        &two(slow).why_open("#2"),
        &["It has not been readable for 1 min: no leader for partition 1. It may have records"],
    );
}

#[test]
fn a_paused_split_is_told_with_whom_it_waits_for() {
    let mut paused = split("topic/1", at(100), SplitState::Paused);
    paused.why = Some("more than 10s ahead of split a of #7 source other".into());
    says(
        &two(paused).why_open("#2"),
        &["It has been paused for 1 min, because it is more than 10s ahead of split a of #7 source"],
    );
}

#[test]
fn idle_and_ended_splits_hold_nobody() {
    let idle = split("topic/1", at(3), SplitState::Idle);
    says(&two(idle.clone()).why_open("#2"), &["It waits for split topic/0"]);
    let status = with(job(), vec![idle, split("topic/2", at(2), SplitState::Ended)]);
    says(&status.why_open("#2"), &["Nobody moves it: all splits of #1 source topic are idle or have ended"]);
}

#[test]
fn splits_that_are_not_told_of_are_not_called_silent() {
    let mut status = with(job(), vec![split("topic/1", at(30), SplitState::Idle)]);
    status.operators[0].splits_left_out = 7;
    says(&status.why_open("#2"), &["all splits of #1 source topic are idle or have ended"]);
    status.operators[0].tasks[0].idle = false;
    says(&status.why_open("#2"), &["one of the 7 splits of #1 source topic that are not told of"]);
}

#[test]
fn splits_that_are_equally_far_are_counted_and_the_worst_is_told() {
    let mut splits = vec![split("a", at(3), SplitState::Reading), split("b", at(3), SplitState::PutOff)];
    splits.push(split("c", at(3), SplitState::Reading));
    says(&with(job(), splits).why_open("#2"), &["It waits for split b", "2 other splits are as far behind."]);
}

#[test]
fn of_two_sources_it_is_the_one_that_has_promised_least() {
    let mut status = two(split("topic/1", at(300), SplitState::Reading));
    let mut other = operator("#4 source late", OperatorKind::Source, 3);
    other.event_time = Some(EventTimeStatus::default());
    (other.watermark_us, other.promised_us) = (at(20), at(20));
    other.splits = vec![SplitStatus { holds_back: true, ..split("x", at(20), SplitState::Reading) }];
    status.operators.push(other);
    status.edges.push(edge(3, 1, Exchange::ByKeyGroup));
    status.operators[1].watermark_us = at(20);
    says(&status.why_open("#2"), &["It waits for split x of #4 source late"]);
    // Whoever is idle holds nobody, however far behind.
    status.operators[3].splits[0] = split("x", at(20), SplitState::Idle);
    status.operators[3].tasks[0].idle = true;
    says(&status.why_open("#2"), &["It waits for split topic/1 of #1 source topic"]);
    // Late rows have no event time.
    status.operators[3].splits[0] = SplitStatus { holds_back: true, ..split("x", at(20), SplitState::Reading) };
    status.operators[3].tasks[0].idle = false;
    status.edges[2].label = "late".into();
    says(&status.why_open("#2"), &["It waits for split topic/1 of #1 source topic"]);
}

#[test]
fn what_is_promised_and_waits_in_a_full_channel_is_told_with_who_slows_it() {
    let mut status = two(split("topic/1", at(300), SplitState::Reading));
    status.operators[1].watermark_us = at(20);
    status.edges[0].queued_bytes = 900;
    status.operators[0].tasks = tasks(&[(0.1, 0.9)]);
    status.operators[1].tasks = tasks(&[(0.1, 0.8)]);
    status.operators[2].tasks = tasks(&[(0.99, 0.0)]);
    (status.edges[0].blocked, status.edges[1].blocked) = (0.9, 0.8);
    let said = status.why_open("#2");
    says(
        &said,
        &[
            "stands at 2026-01-01T00:00:20Z",
            "#1 source topic has come as far as 2026-01-01T00:05:00Z, but that is not yet",
        ],
    );
    says(&said, &["900 bytes of rows wait between them. What slows it down is #3 sink out."]);
    // A moment later it is through, and the source is what is slow.
    (status.edges[0].queued_bytes, status.edges[0].blocked) = (10, 0.0);
    status.edges[1].blocked = 0.0;
    status.operators.iter_mut().for_each(|operator| operator.tasks = tasks(&[(0.1, 0.0)]));
    says(&status.why_open("#2"), &["It waits for split topic/1"]);
}

#[test]
fn a_split_that_is_read_slowly_because_of_the_sink_is_told_so() {
    let mut status = two(SplitStatus { lag: Some(9), ..split("topic/1", at(3), SplitState::Reading) });
    status.operators[0].tasks = tasks(&[(0.1, 0.9)]);
    status.operators[1].tasks = tasks(&[(0.1, 0.8)]);
    status.operators[2].tasks = tasks(&[(0.99, 0.0)]);
    (status.edges[0].blocked, status.edges[1].blocked) = (0.9, 0.8);
    let said = status.why_open("#2");
    says(
        &said,
        &[
            "9 records of it wait to be read. It is read as fast as what comes after it allows. What slows it down is #3 sink",
        ],
    );
}

#[test]
fn calls_that_hold_a_watermark_are_told() {
    let mut status = two(split("topic/1", at(300), SplitState::Reading));
    status.operators[1] = OperatorStatus {
        watermark_us: at(20),
        promised_us: at(20),
        in_flight: 12,
        ..operator("#2 async map", OperatorKind::Async, 1)
    };
    status.operators[2] = OperatorStatus { watermark_us: at(20), ..operator("#3 window", OperatorKind::Stateful, 2) };
    says(
        &status.why_open("#3"),
        &["Rows up to 2026-01-01T00:05:00Z have come to #2 async map", "12 of them wait for their calls"],
    );
}

#[test]
fn who_waits_for_late_rows_on_the_way_is_told() {
    let mut status = two(split("topic/1", at(300), SplitState::Reading));
    status.operators[1].promised_us = at(270);
    status.operators[2].watermark_us = at(270);
    says(
        &status.why_open("#2"),
        &["stands at 2026-01-01T00:05:00Z; because late rows may still come it goes by 2026-01-01T00:04:30Z"],
    );
    says(
        &status.why_open("#3"),
        &["#2 window tumbling 10s passes event time on 30 s later than it hears it", "split topic/1"],
    );
}

#[test]
fn what_is_over_or_stands_still_is_told() {
    let mut status = two(split("topic/1", at(3), SplitState::Reading));
    status.state = State::Restarting;
    status.last_failure = Some(Failure { at_ms: NOW_MS - 3_000, error: "the disk is full".into() });
    says(&status.why_open("#2"), &["The job failed 3 s ago and is about to be started again", "the disk is full"]);
    status.state = State::Stopping;
    says(&status.why_open("#2"), &["it reads nothing more"]);
    status.state = State::Ended;
    says(&status.why_open("#2"), &["The job is over"]);
    status.operators[1].watermark_us = Some(i64::MAX);
    assert_eq!(status.why_open("#2"), "Nothing is open at #2 window tumbling 10s: event time has come to its end.");
}

#[test]
fn who_is_not_there_and_what_has_no_time_is_told() {
    says(&job().why_open("#9"), &["There is no operator \"#9\" in this job: #1 source topic, #2 window"]);
    says(&job().why_open("#2"), &["#2 window tumbling 10s has no event time to wait for"]);
    says(&with(job(), Vec::new()).why_open("#2"), &["#1 source topic has not said anything of its splits yet"]);
}

#[test]
fn spans_are_as_exact_as_one_needs_them() {
    let spans = [0, 400, 9_900, 43_000, 60_000, 303_000, 7_500_000, 90_000_000, 266_400_000].map(explain::span);
    assert_eq!(spans, ["0 s", "0.4 s", "9.9 s", "43 s", "1 min", "5 min 3 s", "2 h 5 min", "1 day 1 h", "3 days 2 h"]);
}
