//! What an async task leaves to a checkpoint: the rows that have no result downstream yet.
//!
//! The disk format: one segment per save, `__key_group` (the first group of the task, so that all its rows go to one task
//! of a later run), `__call` (`Int64`, counts the rows of the task in the order in which they came), `__after` (event time,
//! null for none: a watermark that came between the row before and this one, and has not left either), then all columns of
//! the input, hidden event time included. There are no numbers.
//!
//! A row behind such a watermark may be late, and a restore must not make it punctual. The rows of several former tasks
//! have stood behind different watermarks, none of which is true of the others; then they are left out.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt8Array},
    compute::cast,
    datatypes::{DataType, Field, Schema, TimestampMicrosecondType},
};
use windrow_operators::{
    Result, StreamSchema, Timestamp,
    state::{KEY_GROUP, SegmentId, StateForm, StateReader, StateWriter, TaskState},
};

use super::rows::{Piece, gather};

/// What is in front of the columns of the input.
const OWN_COLUMNS: usize = 3;

/// Where the watermarks are.
const AFTER: usize = 2;

/// Rows, and a watermark that came right before them.
pub(super) type After<P> = (Option<Timestamp>, P);

pub(super) fn form(input: &StreamSchema) -> StateForm {
    let own = [
        Field::new(KEY_GROUP, DataType::UInt8, false),
        Field::new("__call", DataType::Int64, false),
        Field::new("__after", Timestamp::data_type(), true),
    ];
    let fields = own.into_iter().map(Arc::new).chain(input.columns().fields().iter().cloned());
    let columns = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    StateForm { columns, identity: 1, meaning: "rows that wait for their calls".into() }
}

/// Numbers the segments of a task.
pub(super) struct Saved {
    key_group: u8,
    next: SegmentId,
}

impl Saved {
    /// Begins with what former tasks left; returns their rows, each task's in its order.
    pub(super) fn load(input: &StreamSchema, state: &StateReader) -> Result<(Self, Vec<After<Piece>>)> {
        let form = form(input);
        let mut waiting = Vec::new();
        let segments = state.parts.iter().flat_map(|part| &part.segments);
        let next = SegmentId(segments.clone().count() as u64);
        let together = state.parts.iter().filter(|part| !part.segments.is_empty()).count() > 1;
        for (_, rows) in segments {
            let rows = form.widen(rows)?;
            let columns = rows.columns()[OWN_COLUMNS..].to_vec();
            let Some(mut left) = Piece::of(RecordBatch::try_new(input.columns().clone(), columns)?) else { continue };
            let after = rows.column(AFTER).as_primitive::<TimestampMicrosecondType>();
            let behind: Vec<usize> = (0..after.len()).filter(|row| after.is_valid(*row) && !together).collect();
            let mut begin = (None, 0);
            for row in behind {
                if row > begin.1 {
                    waiting.push((begin.0, left.split(row - begin.1)));
                }
                begin = (Some(Timestamp::from_micros(after.value(row))), row);
            }
            waiting.push((begin.0, left));
        }
        let key_group = u8::try_from(state.key_groups.start).unwrap_or(u8::MAX);
        Ok((Self { key_group, next }, waiting))
    }

    pub(super) fn save<'a>(
        &mut self,
        input: &StreamSchema,
        pieces: impl Iterator<Item = After<&'a Piece>>,
    ) -> Result<TaskState> {
        let pieces: Vec<After<&Piece>> = pieces.collect();
        let rows = gather(pieces.iter().map(|(_, piece)| *piece))?;
        let mut state = StateWriter::new(&mut self.next);
        if let Some(first) = rows.first() {
            let count = first.len();
            let groups: ArrayRef = Arc::new(UInt8Array::from(vec![self.key_group; count]));
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count as i64));
            let first = |at: Option<Timestamp>| std::iter::once(at.map(Timestamp::micros));
            let after =
                pieces.iter().flat_map(|(at, piece)| first(*at).chain(std::iter::repeat_n(None, piece.len() - 1)));
            let after = cast(&after.collect::<Int64Array>(), &Timestamp::data_type())?;
            let columns = [groups, numbers, after].into_iter().chain(rows.into_iter().map(own_bytes)).collect();
            state.seal(RecordBatch::try_new(form(input).columns, columns)?);
        }
        Ok(state.finish())
    }
}

/// A view array with the bytes of its own rows only, or those of all rows of its batch would be written to disk.
fn own_bytes(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => array,
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

    fn at(time: i64) -> Option<Timestamp> {
        Some(Timestamp::from_micros(time))
    }

    /// What a task leaves to a later run.
    fn part(task: StateReader, pieces: &[After<Piece>]) -> Part {
        let (mut saved, _) = Saved::load(&input(), &task).unwrap();
        let state = saved.save(&input(), pieces.iter().map(|(after, piece)| (*after, piece))).unwrap();
        let segments = state.segments.into_iter().map(|(id, rows)| (id, rows.unwrap())).collect();
        Part { first_phase: false, numbers: state.numbers, segments }
    }

    fn of(key_groups: std::ops::Range<usize>, parts: Vec<Part>) -> StateReader {
        StateReader { key_groups, parts }
    }

    fn loaded(state: &StateReader) -> Vec<(Option<Timestamp>, Vec<i64>)> {
        let (_, waiting) = Saved::load(&input(), state).unwrap();
        let numbers = |piece: &Piece| piece.rows().column(0).as_primitive::<Int64Type>().values().to_vec();
        waiting.iter().map(|(after, piece)| (*after, numbers(piece))).collect()
    }

    #[test]
    fn rows_come_back_in_order_and_behind_their_watermarks() {
        let pieces = [(None, piece(0..3)), (at(7), piece(3..4)), (None, piece(4..6)), (at(9), piece(6..8))];
        let left = part(of(128..256, Vec::new()), &pieces);
        let groups = left.segments[0].1.column(0).as_primitive::<arrow::datatypes::UInt8Type>().values().to_vec();
        assert_eq!(groups, [128; 8], "all rows go to one task");
        let back = loaded(&of(0..256, vec![left.clone()]));
        assert_eq!(back, [(None, vec![0, 1, 2]), (at(7), vec![3, 4, 5]), (at(9), vec![6, 7])]);
        // Of several tasks each stood at a time of its own.
        let back = loaded(&of(0..256, vec![left, part(of(0..128, Vec::new()), &[(at(100), piece(9..10))])]));
        assert_eq!(back, [(None, (0..8).collect::<Vec<_>>()), (None, vec![9])]);
    }

    #[test]
    fn without_rows_nothing_is_sealed_and_numbers_go_on() {
        let left = part(of(0..256, Vec::new()), &[]);
        assert!(left.segments.is_empty());
        let left = part(of(0..256, Vec::new()), &[(at(1), piece(0..1))]);
        let (mut saved, _) = Saved::load(&input(), &of(0..256, vec![left])).unwrap();
        let state = saved.save(&input(), [(None, &piece(1..2))].into_iter()).unwrap();
        assert_eq!(state.segments[0].0, SegmentId(1), "0 is the segment that it was loaded from");
    }
}
