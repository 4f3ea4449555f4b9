//! Some lines about a job, once: for `windrow status`, and for a log.

use super::facts::{bytes, checkpoint, clean, lag, not_processed, short, state, watermark};
use crate::status::{JobStatus, OperatorStatus, span};

/// What a job does, in a few lines: its state, a line for each operator, what slows it down, and its warnings.
///
/// ```
/// use windrow::{prelude::*, terminal::summary};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow::Result<()> {
/// let job = Job::new("numbers");
/// job.source(Sequence::new(1_000)).sink(MemorySink::new());
/// let running = job.start().await?;
/// let handle = running.handle();
/// running.wait().await?;
/// assert!(summary(&handle.status()).starts_with("job numbers: ended"));
/// # Ok(())
/// # }
/// ```
pub fn summary(status: &JobStatus) -> String {
    let mut facts = vec![format!("job {}: {} for {}", status.job, state(status.state), span(status.elapsed_ms))];
    facts.extend(lag(status).map(|lag| format!("event time {lag} behind")));
    facts.extend(not_processed(status));
    facts.extend(checkpoint(status));
    facts.extend((status.restarts > 0).then(|| format!("started again {} times", status.restarts)));
    let mut lines = vec![facts.join(", "), String::new()];
    lines.extend(operators(status));
    lines.push(String::new());
    lines.extend(status.bottleneck());
    if let Some(failure) = &status.last_failure {
        let ago = span(status.now_ms.saturating_sub(failure.at_ms));
        lines.push(format!("It failed {ago} ago: {}", failure.error));
    }
    lines.extend(status.warnings.iter().map(|warning| format!("warning: {warning}")));
    let lines: Vec<String> = lines.iter().map(|line| clean(line).trim_end().to_owned()).collect();
    lines.join("\n").trim_end().to_owned() + "\n"
}

/// A table with a line for each operator.
fn operators(status: &JobStatus) -> Vec<String> {
    let header = ["OPERATOR", "IN", "IN/S", "OUT", "OUT/S", "BUSY", "BLOCKED", "STATE", "WATERMARK"].map(String::from);
    let row = |one: &OperatorStatus| {
        [
            one.name.clone(),
            short(one.rows_in as f64),
            short(one.rows_in_per_s),
            short(one.rows_out as f64),
            short(one.rows_out_per_s),
            format!("{:.0}%", 100.0 * one.busiest()),
            format!("{:.0}%", 100.0 * one.blocked()),
            if one.state_bytes == 0 { "-".into() } else { bytes(one.state_bytes) },
            watermark(one.watermark_us),
        ]
    };
    let rows: Vec<_> = std::iter::once(header).chain(status.operators.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 9] = std::array::from_fn(width);
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
            0 | 8 => format!("{cell:width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect()
}
