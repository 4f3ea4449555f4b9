//! What the line and the view show of hand-made statuses, and what keys do.
//!
//! The views that should stay as they are lie in `golden/`; to write them anew: `WINDROW_BLESS=1 cargo test -p windrow --features terminal`.

use std::{fs, path::Path};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};

use super::{keys::Looking, line, progress::Progress, summary, view, watch::Asked};
use crate::status::{
    CheckpointDone, CheckpointStatus, CheckpointUnderway, EdgeStatus, EventTimeStatus, Exchange, JobStatus,
    OperatorKind, OperatorStatus, Sample, SampleKind, SplitState, SplitStatus, State, TaskStatus,
};

const NOW: u64 = 1_800_000_000_000;
/// 2026-01-01T00:00:00Z.
const BEGAN: i64 = 1_767_225_600_000_000;

/// A job whose sink is slow, and of whose splits one holds event time back.
fn slow_job() -> JobStatus {
    let task = |busy: f64, blocked: f64, watermark_us| TaskStatus {
        rows_in: 600_000,
        rows_out: 600_000,
        busy,
        blocked,
        watermark_us,
        state_bytes: 3 << 20,
        ..TaskStatus::default()
    };
    let split = |split: &str, seconds: i64, state, holds_back| SplitStatus {
        split: split.into(),
        state,
        watermark_us: Some(BEGAN + seconds * 1_000_000),
        latest_us: Some(BEGAN + (seconds + 2) * 1_000_000),
        rows_at_ms: Some(NOW - 1_500),
        since_ms: NOW - 60_000,
        holds_back,
        ..SplitStatus::default()
    };
    let source = OperatorStatus {
        name: "#1 source nexmark bids".into(),
        kind: OperatorKind::Source,
        rows_in: 1_200_000,
        rows_out: 1_200_000,
        rows_in_per_s: 50_123.0,
        rows_out_per_s: 50_123.0,
        rejected: 2,
        watermark_us: Some(BEGAN + 41_000_000),
        promised_us: Some(BEGAN + 41_000_000),
        latest_us: Some(BEGAN + 50_000_000),
        event_time: Some(EventTimeStatus { watermarks: "out of order by 2s".into(), ..EventTimeStatus::default() }),
        tasks: vec![task(0.12, 0.81, Some(BEGAN + 41_000_000)), task(0.10, 0.85, Some(BEGAN + 48_000_000))],
        splits: vec![split("bids/0", 41, SplitState::Reading, true), split("bids/1", 48, SplitState::Paused, false)],
        ..OperatorStatus::default()
    };
    let window = OperatorStatus {
        name: "#2 window tumbling 10s per auction".into(),
        id: Some("window_1".into()),
        kind: OperatorKind::Stateful,
        chain: 1,
        rows_in: 1_200_000,
        rows_in_per_s: 50_000.0,
        rows_out: 4_000,
        rows_out_per_s: 812.0,
        late: 1_234,
        watermark_us: Some(BEGAN + 41_000_000),
        promised_us: Some(BEGAN + 41_000_000),
        state_bytes: 6 << 20,
        tasks: vec![task(0.45, 0.5, Some(BEGAN + 41_000_000)), task(0.31, 0.62, Some(BEGAN + 41_000_000))],
        samples: vec![Sample { kind: SampleKind::Late, at_ms: NOW - 4_000, text: "auction 7 \x1b[31m".into() }],
        ..OperatorStatus::default()
    };
    let sink = OperatorStatus {
        name: "#3 sink kafka k:9092, topic hot-items".into(),
        kind: OperatorKind::Sink,
        chain: 2,
        rows_in: 4_000,
        rows_in_per_s: 812.0,
        tasks: vec![task(0.98, 0.0, Some(BEGAN + 41_000_000))],
        ..OperatorStatus::default()
    };
    let edge = |from, to, blocked| EdgeStatus {
        from,
        to,
        exchange: Exchange::ByKeyGroup,
        blocked,
        capacity_bytes: 100,
        ..EdgeStatus::default()
    };
    let done = |epoch, savepoint: Option<&str>, ago| CheckpointDone {
        epoch,
        savepoint: savepoint.map(Into::into),
        began_ms: NOW - ago - 120,
        took_ms: 120,
        total_bytes: 6 << 20,
        ..CheckpointDone::default()
    };
    JobStatus {
        job: "hot-items".into(),
        started_ms: NOW - 90_000,
        now_ms: NOW,
        elapsed_ms: 90_000,
        parallelism: 2,
        operators: vec![source, window, sink],
        edges: vec![edge(0, 1, 0.8), edge(1, 2, 0.6)],
        checkpoints: CheckpointStatus {
            store: Some("/var/lib/jobs/hot-items".into()),
            last: vec![done(7, None, 3_000), done(6, Some("before-lunch"), 13_000)],
            underway: Some(CheckpointUnderway {
                epoch: 8,
                since_ms: NOW - 700,
                missing: vec!["#3 sink kafka k:9092, topic hot-items (task 0)".into()],
            }),
            ..CheckpointStatus::default()
        },
        warnings: vec!["kafka k:9092: the login is not encrypted".into()],
        recent_ms: 5_000,
        ..JobStatus::default()
    }
}

/// The view as lines of text.
fn seen(status: &JobStatus, looking: &Looking, columns: u16, lines: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal.draw(|frame| view::draw(frame, status, looking)).unwrap();
    let buffer = terminal.backend().buffer();
    let cells = buffer.content.chunks(usize::from(columns));
    let line = |cells: &[ratatui::buffer::Cell]| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>();
    cells.map(|cells| line(cells).trim_end().to_owned() + "\n").collect()
}

fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/terminal/golden").join(name);
    if std::env::var_os("WINDROW_BLESS").is_some() {
        fs::write(&path, found).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{name} is now:\n{found}\nit was:\n{expected}");
}

#[test]
fn the_line_says_what_matters_most_first_and_leaves_out_what_has_no_room() {
    let status = slow_job();
    let whole = line(&status, 300);
    assert_eq!(
        whole,
        "hot-items running 1 min 30 s, in 50.1k/s, out 812/s, lag 9 s, late 1.2k, rejected 2, checkpoint 7, 3 s ago, slowed by #3 \
         sink kafka k:9092, topic hot-items (98% busy)"
    );
    for columns in 0..170 {
        let line = line(&status, columns);
        assert!(line.chars().count() <= columns, "{columns}: {line}");
        assert!(whole.starts_with(line.trim_end_matches('…')), "{columns}: {line}");
    }
    assert_eq!(line(&status, 60), "hot-items running 1 min 30 s, in 50.1k/s, out 812/s, lag 9 s");
    let ended = JobStatus { state: State::Ended, ..status.clone() };
    let ended = line(&ended, 80);
    assert!(ended.starts_with("hot-items ended 1 min 30 s, 1.2M rows in, 4.0k out, late 1.2k"), "{ended}");
    assert_eq!(line(&JobStatus::default(), 80), " running 0 s, in 0/s, out 0/s", "nothing is not less than nothing");
    let hostile = JobStatus { job: "a\x1b[2Jb".into(), ..JobStatus::default() };
    assert!(!line(&hostile, 80).contains('\x1b'));
}

#[test]
fn the_line_is_rewritten_and_ends_at_the_end() {
    let mut out = Vec::new();
    let mut status = slow_job();
    let mut progress = Progress::to(&mut out);
    progress.show(&status, 40);
    status.state = State::Ended;
    progress.end(&status, 40);
    drop(progress);
    let out = String::from_utf8(out).unwrap();
    assert_eq!(out, "\rhot-items running 1 min 30 s\x1b[K\rhot-items ended 1 min 30 s\x1b[K\n", "39 columns of 40");
}

#[test]
fn there_is_no_line_where_there_is_no_terminal() {
    // Tests run without one, or with one whose stderr is captured by nobody: then there is nothing to see here.
    use std::io::IsTerminal;
    assert_eq!(Progress::on_terminal().is_some(), std::io::stderr().is_terminal());
}

#[test]
fn the_summary_has_a_line_for_each_operator_and_what_slows_the_job() {
    golden("summary.txt", &summary(&slow_job()));
}

#[test]
fn the_view_fits_into_terminals_of_all_sizes() {
    let (status, looking) = (slow_job(), Looking::default());
    for (columns, lines) in [(80, 24), (200, 50), (20, 5)] {
        golden(&format!("view-{columns}x{lines}.txt"), &seen(&status, &looking, columns, lines));
    }
    // Whatever the size and the job: no panic, and no more than there is room for.
    let looking = Looking { selected: 2, help: true, typed: Some("name".into()), ..Looking::default() };
    for status in [status, JobStatus::default()] {
        for (columns, lines) in [(1, 1), (2, 40), (300, 2), (40, 12), (41, 13), (109, 12), (110, 12)] {
            seen(&status, &looking, columns, lines);
        }
    }
}

#[test]
fn the_selected_operator_is_shown_in_detail() {
    let status = slow_job();
    let source = seen(&status, &Looking::default(), 120, 40);
    assert!(source.contains("holds event time back") && source.contains("split bids/1"), "{source}");
    let window = seen(&status, &Looking { selected: 1, ..Looking::default() }, 120, 40);
    assert!(window.contains("It waits for split bids/0") && window.contains("late 4 s ago: auction 7"), "{window}");
    assert!(!window.contains('\x1b') && !window.contains("split bids/1   "), "{window}");
    let help = seen(&status, &Looking { help: true, ..Looking::default() }, 80, 24);
    assert!(help.contains("take a savepoint"), "{help}");
    let message = Looking { message: Some("the savepoint is checkpoint 9".into()), ..Looking::default() };
    assert!(seen(&status, &message, 80, 24).contains("the savepoint is checkpoint 9"));
}

#[test]
fn keys_select_save_and_leave() {
    let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
    let mut looking = Looking { saves: true, ..Looking::default() };
    for (code, selected) in [
        (KeyCode::Down, 1),
        (KeyCode::Down, 2),
        (KeyCode::Down, 2),
        (KeyCode::Up, 1),
        (KeyCode::End, 2),
        (KeyCode::Home, 0),
    ] {
        assert_eq!(looking.key(key(code), 3), None);
        assert_eq!(looking.selected, selected);
    }
    for code in [KeyCode::Char('s'), KeyCode::Char('q'), KeyCode::Char('x'), KeyCode::Backspace, KeyCode::Char('1')] {
        assert_eq!(looking.key(key(code), 3), None, "what is typed is a name");
    }
    assert_eq!(looking.key(key(KeyCode::Enter), 3), Some(Asked::Savepoint("q1".into())));
    assert_eq!(looking.typed, None);
    looking.key(key(KeyCode::Char('s')), 3);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(looking.key(interrupt, 3), Some(Asked::Interrupt), "always");
    looking.key(key(KeyCode::Esc), 3);
    looking.key(key(KeyCode::Char('?')), 3);
    assert!(looking.help);
    assert_eq!(looking.key(key(KeyCode::Char('q')), 3), None, "any key closes the help");
    assert_eq!(looking.key(key(KeyCode::Char('q')), 3), Some(Asked::Quit));

    let mut without = Looking::default();
    without.key(key(KeyCode::Char('s')), 3);
    assert!(without.typed.is_none() && without.message.as_ref().unwrap().contains("WINDROW_TOKEN"));
    without.key(key(KeyCode::Down), 3);
    assert_eq!(without.message, None, "it was read");
    assert_eq!(Looking::default().key(key(KeyCode::Down), 0), None, "a job without operators yet");
}
