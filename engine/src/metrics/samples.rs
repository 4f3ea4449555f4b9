//! A few late, rejected and failed rows of an operator, for who asks what they look like.
//!
//! At most one a second is taken, so that a flood of them costs nothing; a few are kept, each cut to so many bytes. They are of the
//! data, and shown to who may see the data; no setting of the job is in them, and credentials in addresses are taken out.

use std::{
    collections::VecDeque,
    fmt::{self, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
};

use arrow::{
    array::RecordBatch,
    util::display::{ArrayFormatter, FormatOptions},
};
use windrow_operators::{
    Timestamp,
    schema::{HIDDEN_OP, HIDDEN_TIME},
};

use super::redact::redacted;
use crate::status::{Sample, SampleKind};

/// How many are kept.
const KEPT: usize = 8;
/// The most bytes of a text.
const LONGEST: usize = 256;
/// How much processing time lies between two, in microseconds.
const EVERY: i64 = 1_000_000;

#[derive(Debug)]
pub(crate) struct Samples {
    /// When the next is taken, in processing time.
    next: AtomicI64,
    kept: Mutex<VecDeque<Sample>>,
}

impl Samples {
    pub(super) fn new() -> Self {
        Self { next: AtomicI64::new(i64::MIN), kept: Mutex::default() }
    }

    /// Takes one, unless another was taken less than a second ago: then `text` is not asked.
    pub(crate) fn offer(&self, kind: SampleKind, now: Timestamp, text: impl FnOnce() -> String) {
        let (now, next) = (now.micros(), self.next.load(Relaxed));
        let after = now.saturating_add(EVERY);
        if now < next || self.next.compare_exchange(next, after, Relaxed, Relaxed).is_err() {
            return;
        }
        let sample =
            Sample { kind, at_ms: u64::try_from(now / 1_000).unwrap_or(0), text: shortened(&redacted(&text())) };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_back();
        }
        kept.push_front(sample);
    }

    /// The newest first.
    pub(crate) fn read(&self) -> Vec<Sample> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// The first row of a batch as text, without the columns that users do not see, and no more of it than is shown.
pub(crate) fn first_row(rows: &RecordBatch) -> String {
    let options = FormatOptions::default().with_null("null");
    let mut text = Bounded(String::new());
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let visible = columns.filter(|(field, _)| ![HIDDEN_TIME, HIDDEN_OP].contains(&field.name().as_str()));
    for (index, (field, column)) in visible.enumerate().filter(|_| rows.num_rows() > 0) {
        let comma = if index > 0 { ", " } else { "" };
        // What does not fit ends it.
        let written = match ArrayFormatter::try_new(column.as_ref(), &options) {
            Ok(values) => write!(text, "{comma}{}: {}", field.name(), values.value(0)),
            Err(_) => write!(text, "{comma}{}: …", field.name()),
        };
        if written.is_err() {
            break;
        }
    }
    text.0
}

/// Takes a little more than is shown, so that it is seen that something is missing.
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (2 * LONGEST).saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        if text.len() > room { Err(fmt::Error) } else { Ok(()) }
    }
}

fn shortened(text: &str) -> String {
    const MORE: &str = "…";
    if text.len() <= LONGEST {
        return text.into();
    }
    format!("{}{MORE}", &text[..text.floor_char_boundary(LONGEST - MORE.len())])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};

    use super::*;

    #[test]
    fn one_a_second_is_taken_and_eight_are_kept() {
        let samples = Samples::new();
        let mut asked = 0;
        for millis in (0..20_000).step_by(100) {
            samples.offer(SampleKind::Late, Timestamp::from_micros(millis * 1_000), || {
                asked += 1;
                format!("row {millis}")
            });
        }
        assert_eq!(asked, 20);
        let read = samples.read();
        assert_eq!(read.len(), 8);
        assert_eq!(read[0], Sample { kind: SampleKind::Late, at_ms: 19_000, text: "row 19000".into() });
        assert_eq!(read[7].text, "row 12000");
    }

    #[test]
    fn a_text_is_short_and_whole_characters() {
        let samples = Samples::new();
        samples.offer(SampleKind::Rejected, Timestamp::from_micros(0), || "ä".repeat(1_000));
        let text = &samples.read()[0].text;
        assert!(text.len() <= 256 && text.len() > 250 && text.ends_with("ä…"), "{text}");
    }

    #[test]
    fn a_row_shows_what_the_user_sees() {
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(3)]));
        let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let hidden: ArrayRef = Arc::new(Int64Array::from(vec![5, 6]));
        let rows = RecordBatch::try_from_iter([("n", numbers), ("name", names), (HIDDEN_TIME, hidden)]).unwrap();
        assert_eq!(first_row(&rows), "n: null, name: a");
        assert_eq!(first_row(&rows.slice(1, 1)), "n: 3, name: b");
        assert_eq!(first_row(&rows.slice(0, 0)), "");
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1_000_000)]));
        let rows = RecordBatch::try_from_iter([("long", long)]).unwrap();
        assert_eq!(first_row(&rows).len(), 512);
    }
}
