//! The full view: what a status says, on a terminal of any size.
//!
//! ```text
//!   hot-items  running 1 min 30 s   in 50.0k/s, out 30/s, lag 2 s, checkpoint 7, 3 s ago
//!   ┌ operators ────────────────────────────────────────────────────────┐
//!   │ name      in/s    out/s   busy        blocked     watermark       │
//!   ├ the selected one ──────────────────────────┬ checkpoints ─────────┤   beside it from 110 columns on, else below
//!   │ why it is open, its tasks, its splits      │ 7  3 s ago  120 ms   │
//!   └────────────────────────────────────────────┴──────────────────────┘
//!   what slows the job down; or a message, or a name that is typed
//!   ↑↓ operator  s savepoint  ? help  q leave
//! ```

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize},
    text::{Line, Span, Text},
    widgets::{Block, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use super::{
    facts::{bytes, clean, cut, short, watermark},
    keys::Looking,
    line,
};
use crate::status::{JobStatus, OperatorStatus, Sample, SampleKind, SplitState, SplitStatus, TaskStatus, span};

/// From so many columns on there is room for two things beside each other, and for whole instants.
const WIDE: u16 = 110;
/// With fewer lines or columns there is no room for boxes.
const SMALL: (u16, u16) = (40, 12);
/// Of a share this large nothing is left.
const FULL: f64 = 0.9;
/// So many splits are listed: those that hold event time back come first.
const SPLITS: usize = 100;

/// Draws a job.
pub(super) fn draw(frame: &mut Frame<'_>, status: &JobStatus, looking: &Looking) {
    let area = frame.area();
    if area.width < SMALL.0 || area.height < SMALL.1 {
        return small(frame, status, looking);
    }
    let shown = status.operators.len().min(usize::from(area.height / 3)) as u16;
    let [head, table, rest, below, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(shown + 3),
        Constraint::Min(3),
        Constraint::Length(2),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(Line::from(line(status, usize::from(head.width))).bold(), head);
    operators(frame, status, looking, table);
    let mut checkpoints = checkpoints(status);
    let mut detail = detail(status, looking, area.width >= WIDE);
    if area.width >= WIDE {
        let [left, right] = Layout::horizontal([Constraint::Fill(1), Constraint::Length(46)]).areas(rest);
        frame.render_widget(
            Paragraph::new(checkpoints).wrap(Wrap { trim: false }).block(Block::bordered().title("checkpoints")),
            right,
        );
        boxed(frame, detail, looking, left);
    } else {
        detail.push(Line::default());
        detail.append(&mut checkpoints);
        boxed(frame, detail, looking, rest);
    }
    frame.render_widget(Paragraph::new(said(status, looking)).wrap(Wrap { trim: true }), below);
    let keys_are = "↑↓ operator  ←→ scroll  s savepoint  ? help  q leave  Ctrl-C stop";
    frame.render_widget(Line::from(keys_are).dim(), keys);
    if looking.help {
        help(frame, area);
    }
}

/// What fits where nothing fits: the line, and names with rates.
fn small(frame: &mut Frame<'_>, status: &JobStatus, looking: &Looking) {
    let area = frame.area();
    let width = usize::from(area.width);
    let mut lines = vec![Line::from(line(status, width)).bold()];
    if let Some(typed) = &looking.typed {
        lines.push(Line::from(cut(&format!("name: {typed}▏"), width)));
    }
    lines.extend(status.operators.iter().map(|one| {
        let rate = format!("{}/s", short(one.rows_in_per_s));
        let name = cut(&clean(&one.name), width.saturating_sub(rate.len() + 1));
        Line::from(format!("{name:0$}{rate}", width.saturating_sub(rate.len())))
    }));
    // The selected one stays in sight.
    let room = usize::from(area.height).saturating_sub(1);
    let hidden = (looking.selected + 1).saturating_sub(room).min(lines.len().saturating_sub(1));
    lines.drain(1..=hidden).for_each(drop);
    frame.render_widget(Text::from(lines), area);
}

fn operators(frame: &mut Frame<'_>, status: &JobStatus, looking: &Looking, area: Rect) {
    let wide = area.width >= WIDE;
    let bars = if wide { 12 } else { 6 };
    let row = |one: &OperatorStatus| {
        let cells: [Line<'_>; 6] = [
            Line::from(clean(&one.name)),
            Line::from(short(one.rows_in_per_s)).right_aligned(),
            Line::from(short(one.rows_out_per_s)).right_aligned(),
            bar(one.busiest(), bars, Style::new().green(), Style::new().yellow()),
            bar(one.blocked(), bars, Style::new().magenta(), Style::new().red()),
            Line::from(time(one.watermark_us, wide)),
        ];
        Row::new(cells)
    };
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(bars as u16 + 5),
        Constraint::Length(bars as u16 + 5),
        Constraint::Length(if wide { 27 } else { 12 }),
    ];
    let header = ["operator", "    in/s", "   out/s", "busy", "blocked", "watermark"];
    let table = Table::new(status.operators.iter().map(row), widths)
        .header(Row::new(header).dim())
        .row_highlight_style(Style::new().reversed())
        .block(Block::bordered().title(format!("operators: {}", status.operators.len())));
    let mut state = TableState::default().with_selected(Some(looking.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

/// `████░░  67%`, in another colour when little is left.
fn bar(share: f64, width: usize, usual: Style, full: Style) -> Line<'static> {
    let share = share.clamp(0.0, 1.0);
    let filled = (share * width as f64).round() as usize;
    let style = if share >= FULL { full } else { usual };
    Line::from(vec![
        Span::styled("█".repeat(filled), style),
        Span::raw("░".repeat(width - filled)).dim(),
        Span::raw(format!("{:>4.0}%", 100.0 * share)),
    ])
}

/// A watermark; where there is little room only its time of the day.
fn time(micros: Option<i64>, wide: bool) -> String {
    let whole = watermark(micros);
    match whole.split_once('T') {
        Some((_, time)) if !wide => cut(time.trim_end_matches('Z'), 12),
        _ => whole,
    }
}

/// What there is to know of the selected operator.
fn detail(status: &JobStatus, looking: &Looking, wide: bool) -> Vec<Line<'static>> {
    let Some(one) = status.operators.get(looking.selected) else { return vec!["no operator yet".into()] };
    let mut lines = vec![Line::from(clean(&one.name)).bold(), Line::from(clean(&status.why_open(&one.name)))];
    lines.push(Line::default());
    lines.extend(one.tasks.iter().enumerate().map(|(number, task)| of_task(number, task, wide)));
    if !one.splits.is_empty() {
        lines.push(Line::default());
        lines.extend(one.splits.iter().take(SPLITS).map(|split| of_split(status, split, wide)));
        let more = one.splits.len().saturating_sub(SPLITS) as u64 + one.splits_left_out;
        lines.extend((more > 0).then(|| Line::from(format!("and {more} more"))));
    }
    lines.extend(one.warnings.iter().map(|warning| Line::from(clean(warning)).yellow()));
    lines.extend(one.samples.iter().map(|sample| of_sample(status, sample)));
    lines
}

fn of_task(number: usize, task: &TaskStatus, wide: bool) -> Line<'static> {
    let mut line = Line::from(format!(
        "task {number:<3} in {:>7}  out {:>7}  busy ",
        short(task.rows_in as f64),
        short(task.rows_out as f64)
    ));
    line.extend(bar(task.busy, 6, Style::new().green(), Style::new().yellow()));
    line.push_span(Span::raw("  blocked "));
    line.extend(bar(task.blocked, 6, Style::new().magenta(), Style::new().red()));
    if wide {
        let held = if task.state_bytes == 0 { String::new() } else { format!("  state {}", bytes(task.state_bytes)) };
        line.push_span(Span::raw(format!("  {}{held}", watermark(task.watermark_us))));
    }
    line
}

fn of_split(status: &JobStatus, split: &SplitStatus, wide: bool) -> Line<'static> {
    let state = match split.state {
        SplitState::Reading => "reading",
        SplitState::Idle => "idle",
        SplitState::Paused => "paused",
        SplitState::PutOff => "not readable",
        SplitState::Ended => "ended",
    };
    let silent = split
        .rows_at_ms
        .map_or("no rows yet".into(), |at| format!("rows {} ago", span(status.now_ms.saturating_sub(at))));
    let lag = split.lag.map_or(String::new(), |lag| format!(", {lag} wait"));
    let text =
        format!("split {:<16} {state:<12} {}  {silent}{lag}", clean(&split.split), time(split.watermark_us, wide));
    match split.holds_back {
        true => Line::from(text + "  ◄ holds event time back").yellow(),
        false => Line::from(text),
    }
}

fn of_sample(status: &JobStatus, sample: &Sample) -> Line<'static> {
    let kind = match sample.kind {
        SampleKind::Late => "late",
        SampleKind::Rejected => "rejected",
        SampleKind::Failed => "failed",
    };
    let ago = span(status.now_ms.saturating_sub(sample.at_ms));
    Line::from(format!("{kind} {ago} ago: {}", clean(&sample.text))).dim()
}

fn boxed(frame: &mut Frame<'_>, lines: Vec<Line<'static>>, looking: &Looking, area: Rect) {
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((looking.scrolled, 0));
    frame.render_widget(text.block(Block::bordered().title("selected")), area);
}

fn checkpoints(status: &JobStatus) -> Vec<Line<'static>> {
    let own = &status.checkpoints;
    let mut lines = Vec::new();
    if own.store.is_none() {
        lines.push(Line::from("no checkpoints are taken").dim());
    }
    if let Some(underway) = &own.underway {
        let for_ = span(status.now_ms.saturating_sub(underway.since_ms));
        let whom =
            underway.missing.first().map_or("is being written".into(), |task| format!("waits for {}", clean(task)));
        lines.push(Line::from(format!("{:>4}  under way for {for_}: {whom}", underway.epoch)).yellow());
    }
    lines.extend(own.last.iter().map(|done| {
        let ago = span(status.now_ms.saturating_sub(done.began_ms + done.took_ms));
        let name = done.savepoint.as_ref().map_or(String::new(), |name| format!("  savepoint {}", clean(name)));
        Line::from(format!(
            "{:>4}  {ago} ago, took {}, {}{name}",
            done.epoch,
            span(done.took_ms),
            bytes(done.total_bytes)
        ))
    }));
    lines
}

/// The most important thing there is to say.
fn said(status: &JobStatus, looking: &Looking) -> Line<'static> {
    if let Some(typed) = &looking.typed {
        return Line::from(format!("name of the savepoint: {typed}▏  (Enter: take it, Esc: do not)")).bold();
    }
    if let Some(message) = &looking.message {
        return Line::from(clean(message)).bold();
    }
    if let Some(slow) = status.bottleneck() {
        return Line::from(clean(&slow)).yellow();
    }
    status.warnings.first().map_or_else(Line::default, |warning| Line::from(clean(warning)).yellow())
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let text = [
        "↑ ↓, j k, Home, End   another operator",
        "← →, PgUp, PgDn       scroll what is said of it",
        "s                     take a savepoint",
        "q, Esc                leave the view; the job goes on",
        "Ctrl-C                stop the job cleanly; of a remote job: leave",
        "",
        "busy: the busiest task's share of the last seconds",
        "blocked: its chain's, waiting for room downstream",
    ];
    let (width, height) = (56.min(area.width), (text.len() as u16 + 2).min(area.height));
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let text =
        Paragraph::new(text.map(Line::from).to_vec()).block(Block::bordered().title("keys, any of them closes this"));
    frame.render_widget(text, place);
}
