//! What an async task leaves to a checkpoint: the rows that have no result downstream yet.
//!
//! The disk format: one segment per save, `__key_group` (the first group of the task, so that all its rows go to one task
//! of a later run), `__call` (`Int64`, counts the rows of the task in the order in which they came), `__after` (event time,
//! null for none: a watermark that came between the row before and this one, and has not left either), then all columns of
//! the input, hidden event time included. There are no numbers.
//!
//! A row behind such a watermark may be late, and a restore must not make it punctual. The rows of several former tasks
//! have stood behind different watermarks, none of which is true of the others; then they are left out. A watermark at the
//! beginning of time promises nothing and is none.
//!
//! What the form means are the rows of what calls, so rows that waited for one operator are not given to another.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array},
    compute::cast,
    datatypes::{DataType, Field, Schema, TimestampMicrosecondType},
};
use windrow_operators::{
    Result, StreamSchema, Timestamp, Watermark,
    bytes::own_bytes,
    state::{KEY_GROUP, Reading, SegmentId, StateForm, StateReader, StateWriter, TaskState},
};

use super::rows::{Came, Piece, gather};

/// What is in front of the columns of the input.
const OWN_COLUMNS: usize = 3;

/// Where the watermarks are.
const AFTER: usize = 2;

/// Of rows that wait for `what`: `an async map to Priced`.
pub(super) fn form(input: &StreamSchema, what: &str) -> StateForm {
    let own = [
        Field::new(KEY_GROUP, DataType::UInt8, false),
        Field::new("__call", DataType::Int64, false),
        Field::new("__after", Timestamp::data_type(), true),
    ];
    let fields = own.into_iter().map(Arc::new).chain(input.columns().fields().iter().cloned());
    let columns = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let meaning = format!("rows that wait for {what}");
    StateForm { columns, identity: 1, meaning, reading: Reading::each([]) }
}

/// Numbers the segments of a task.
pub(super) struct Saved {
    form: StateForm,
    key_group: u8,
    next: SegmentId,
}

impl Saved {
    /// Begins with what former tasks left; returns their rows, each task's in its order.
    pub(super) fn load(input: &StreamSchema, form: StateForm, state: &StateReader) -> Result<(Self, Vec<Came<Piece>>)> {
        let mut came = Vec::new();
        let segments = state.parts.iter().flat_map(|part| &part.segments);
        let next = SegmentId(segments.clone().count() as u64);
        let together = state.parts.iter().filter(|part| !part.segments.is_empty()).count() > 1;
        for (_, rows) in segments {
            let rows = form.widen(rows)?;
            let columns = rows.columns()[OWN_COLUMNS..].to_vec();
            let Some(mut left) = Piece::of(RecordBatch::try_new(input.columns().clone(), columns)?) else { continue };
            let after = rows.column(AFTER).as_primitive::<TimestampMicrosecondType>();
            let mut begin = 0;
            for row in (0..after.len()).filter(|row| after.is_valid(*row) && !together) {
                if row > begin {
                    came.push(Came::Rows(left.split(row - begin)));
                }
                came.push(Came::Time(Watermark::At(Timestamp::from_micros(after.value(row)))));
                begin = row;
            }
            came.push(Came::Rows(left));
        }
        let key_group = u8::try_from(state.key_groups.start).unwrap_or(u8::MAX);
        Ok((Self { form, key_group, next }, came))
    }

    /// The rows, each with the watermark right before it. What came behind the last is left out.
    pub(super) fn save<'a>(&mut self, came: impl Iterator<Item = Came<&'a Piece>>) -> Result<TaskState> {
        let (mut pieces, mut after, mut before) = (Vec::new(), Vec::new(), None);
        for came in came {
            match came {
                Came::Time(Watermark::At(at)) if at > Timestamp::MIN => before = Some(at.micros()),
                Came::Time(_) => {}
                Came::Rows(piece) => {
                    pieces.push(piece);
                    after.push(before.take());
                    after.extend(std::iter::repeat_n(None, piece.len() - 1));
                }
            }
        }
        let mut state = StateWriter::new(&mut self.next);
        if !pieces.is_empty() {
            let count = after.len();
            let groups: ArrayRef = Arc::new(UInt8Array::from(vec![self.key_group; count]));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count as i64));
            let after = cast(&Int64Array::from(after), &Timestamp::data_type())?;
            let rows = gather(pieces)?.into_iter().map(own_bytes);
            let columns = [groups, numbers, after].into_iter().chain(rows).collect();
            state.seal(RecordBatch::try_new(self.form.columns.clone(), columns)?);
        }
        Ok(state.finish())
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Int64Type;
    use windrow_operators::state::Part;

    use super::*;

    fn input() -> StreamSchema {
        let fields = vec![Field::new("n", DataType::Int64, false), Field::new("at", Timestamp::data_type(), false)];
        StreamSchema::with_time(Arc::new(Schema::new(fields)), "at").unwrap()
    }

    fn piece(numbers: std::ops::Range<i64>) -> Piece {
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int64Array::from_iter_values(numbers.clone())), Timestamp::column(numbers.collect())];
        Piece::of(RecordBatch::try_new(input().columns().clone(), columns).unwrap()).unwrap()
    }

    fn at(time: i64) -> Came<Piece> {
        Came::Time(Watermark::At(Timestamp::from_micros(time)))
    }

    fn rows(numbers: std::ops::Range<i64>) -> Came<Piece> {
        Came::Rows(piece(numbers))
    }

    fn load(state: &StateReader) -> (Saved, Vec<Came<Piece>>) {
        Saved::load(&input(), form(&input(), "an async map to N"), state).unwrap()
    }

    fn borrowed(came: &Came<Piece>) -> Came<&Piece> {
        match came {
            Came::Rows(piece) => Came::Rows(piece),
            Came::Time(watermark) => Came::Time(*watermark),
        }
    }

    /// What a task leaves to a later run.
    fn part(task: StateReader, came: &[Came<Piece>]) -> Part {
        let (mut saved, _) = load(&task);
        let state = saved.save(came.iter().map(borrowed)).unwrap();
        let segments = state.segments.into_iter().map(|(id, rows)| (id, rows.unwrap())).collect();
        Part { first_phase: false, numbers: state.numbers, segments, stored: Vec::new() }
    }

    fn of(key_groups: std::ops::Range<usize>, parts: Vec<Part>) -> StateReader {
        StateReader { key_groups, parts }
    }

    /// Rows by their numbers, watermarks as text.
    fn loaded(state: &StateReader) -> Vec<String> {
        let numbers = |piece: &Piece| piece.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
        let shown = |came: &Came<Piece>| match came {
            Came::Rows(piece) => format!("{:?}", numbers(piece)),
            Came::Time(Watermark::At(at)) => format!("at {}", at.micros()),
            Came::Time(Watermark::Idle) => "idle".into(),
        };
        load(state).1.iter().map(shown).collect()
    }

    #[test]
    fn rows_come_back_in_order_and_behind_their_watermarks() {
        let idle = || Came::Time(Watermark::Idle);
        let came = [
            at(i64::MIN),
            rows(0..3),
            idle(),
            at(6),
            at(7),
            idle(),
            rows(3..4),
            at(i64::MIN),
            rows(4..6),
            at(9),
            rows(6..8),
            at(10),
        ];
        let left = part(of(128..256, Vec::new()), &came);
        let groups = left.segments[0].1.column(0).as_primitive::<arrow::datatypes::UInt8Type>().values().to_vec();
        assert_eq!(groups, [128; 8], "all rows go to one task");
        let back = loaded(&of(0..256, vec![left.clone()]));
        assert_eq!(back, ["[0, 1, 2]", "at 7", "[3, 4, 5]", "at 9", "[6, 7]"]);
        // Of several tasks each stood at a time of its own.
        let back = loaded(&of(0..256, vec![left, part(of(0..128, Vec::new()), &[at(100), rows(9..10)])]));
        assert_eq!(back, ["[0, 1, 2, 3, 4, 5, 6, 7]", "[9]"]);
    }

    #[test]
    fn without_rows_nothing_is_sealed_and_numbers_go_on() {
        let left = part(of(0..256, Vec::new()), &[at(3)]);
        assert!(left.segments.is_empty());
        let left = part(of(0..256, Vec::new()), &[at(1), rows(0..1)]);
        let (mut saved, _) = load(&of(0..256, vec![left]));
        let state = saved.save([Came::Rows(&piece(1..2))].into_iter()).unwrap();
        assert_eq!(state.segments[0].0, SegmentId(1), "0 is the segment that it was loaded from");
    }
}
