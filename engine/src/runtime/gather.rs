//! Small batches that wait for a task, or that the reader of one has ready, are made one before they go through its operators.
//!
//! ```text
//!   waiting      90 rows ─ up to 1 s ─ 85 rows ─ up to 2 s ─ 91 rows ─ up to 3 s ─ 8,000 rows ─ …
//!   said         266 rows ─ up to 3 s ─ 8,000 rows ─ …
//! ```
//!
//! An exchange sends each task its part of a batch: of 500 rows to eight tasks, 60 rows each. Operators and kernels cost
//! some microseconds a batch, however small. Nobody waits for rows to gather: only what has come is taken together, so this
//! costs no latency, and grows with the load. A watermark moves behind rows that came after it, which it allows: it says
//! what will not come, and that has not become less true. It does not move behind a row that is late: which rows are late
//! must not depend on what waits. The rows of each input keep their order, and stay together: those who sort by event time
//! find as many runs as there are inputs.
//!
//! How much is taken is bounded in rows, in bytes by what a channel holds, and by tokio, which interrupts a task that has
//! received about a hundred messages.

use std::collections::VecDeque;

use arrow::{array::RecordBatch, compute::concat_batches, datatypes::Schema, error::ArrowError};
use windrow_operators::{Port, Timestamp, Watermark, bytes::lean_bytes, schema::has_dictionary, time::event_times};

use super::channel::{Message, SizedBatch};

/// Of how many rows and bytes a batch is not small: copying would cost more than it saves.
const SMALL: (usize, usize) = (1_024, 128 << 10);
/// With how many rows or bytes a task has enough to do.
const FULL: (usize, usize) = (8_192, 1 << 20);

/// Whether batches of such columns may be made one. Arrow panics where the numbers of joined dictionaries do not fit.
pub(super) fn joins(schema: &Schema) -> bool {
    !has_dictionary(schema)
}

/// What is to be said next, in order.
pub(super) struct Gathered {
    /// How many bytes are enough.
    full: usize,
    said: VecDeque<(Port, Message)>,
    /// Small batches that came after all that, with the port and the input they came by.
    small: Vec<((Port, usize), SizedBatch)>,
    rows: usize,
    bytes: usize,
    /// The last watermark that came with them. It is said behind them.
    time: Option<Timestamp>,
}

impl Gathered {
    /// Nothing yet. A channel holds so many bytes.
    pub(super) fn new(channel_bytes: usize) -> Self {
        Self {
            full: FULL.1.min(channel_bytes),
            said: VecDeque::new(),
            small: Vec::new(),
            rows: 0,
            bytes: 0,
            time: None,
        }
    }

    /// Whether more may be said together with what there is.
    pub(super) fn wants_more(&self) -> bool {
        self.said.is_empty() && self.rows < FULL.0 && self.bytes < self.full
    }

    /// Takes rows of an input, with the column of their event time if they may be late.
    pub(super) fn batch(&mut self, (port, input): (Port, usize), batch: SizedBatch, time: Option<usize>) {
        let bytes = batch.bytes();
        if batch.num_rows() >= SMALL.0 || bytes >= SMALL.1 {
            return self.say(port, Message::Batch(batch));
        }
        if time.is_some_and(|column| self.is_late(&batch, column)) {
            self.settle();
        }
        (self.rows, self.bytes) = (self.rows + batch.num_rows(), self.bytes + bytes);
        self.small.push(((port, input), batch));
    }

    /// Whether one of the rows is earlier than the watermark that is still to be said.
    fn is_late(&self, batch: &RecordBatch, column: usize) -> bool {
        let earliest = || event_times(batch, column)?.iter().min().copied();
        self.time.is_some_and(|said| earliest().is_some_and(|earliest| earliest < said.micros()))
    }

    pub(super) fn watermark(&mut self, watermark: Watermark) {
        match watermark {
            Watermark::At(time) => self.time = Some(time),
            Watermark::Idle => self.say(Port::MAIN, Message::Watermark(Watermark::Idle)),
        }
    }

    /// Takes a message that nothing moves across.
    pub(super) fn say(&mut self, port: Port, message: Message) {
        self.settle();
        self.said.push_back((port, message));
    }

    /// Nothing more comes to what has been gathered.
    pub(super) fn settle(&mut self) {
        (self.rows, self.bytes) = (0, 0);
        self.small.sort_by_key(|(from, _)| *from);
        for together in self.small.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let port = together[0].0.0;
            let batches = together.iter().map(|(_, batch)| batch);
            let one = (together.len() > 1).then(|| one(batches.clone()));
            match one {
                Some(Ok(batch)) => self.said.push_back((port, Message::Batch(batch))),
                _ => self.said.extend(batches.map(|batch| (port, Message::Batch(batch.clone())))),
            }
        }
        self.small.clear();
        let time = self.time.take().map(|time| (Port::MAIN, Message::Watermark(Watermark::At(time))));
        self.said.extend(time);
    }

    /// The next message. There is none of what has not been settled.
    pub(super) fn next(&mut self) -> Option<(Port, Message)> {
        self.said.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.said.is_empty()
    }

    /// How many rows wait for others.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Whether rows wait for others.
    pub(super) fn holds(&self) -> bool {
        !self.small.is_empty()
    }
}

/// The rows of all these batches, of which there is one at least. Texts in views would come with the buffers of all of them.
fn one<'a>(batches: impl Iterator<Item = &'a SizedBatch> + Clone) -> Result<SizedBatch, ArrowError> {
    let bytes = batches.clone().map(SizedBatch::bytes).sum();
    let schema = batches.clone().next().map(|batch| batch.schema()).unwrap_or_else(|| Schema::empty().into());
    let rows = concat_batches(&schema, batches.map(|batch| &**batch))?;
    let columns = rows.columns().iter().cloned().map(lean_bytes).collect();
    Ok(SizedBatch::of(RecordBatch::try_new(schema, columns)?, bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, AsArray, Int64Array, StringViewArray},
        datatypes::{DataType, Field},
    };
    use windrow_connectors::Epoch;

    use super::*;

    const OTHER: Port = Port(1);

    fn rows(from: i64, rows: i64) -> SizedBatch {
        let column: ArrayRef = Arc::new((from..from + rows).collect::<Int64Array>());
        RecordBatch::try_from_iter([("n", column)]).unwrap().into()
    }

    fn at(time: i64) -> Watermark {
        Watermark::At(Timestamp::from_micros(time))
    }

    /// Of a batch its port and rows, of anything else its name.
    fn said(gathered: &mut Gathered) -> Vec<String> {
        gathered.settle();
        let name = |(port, message): (Port, Message)| match message {
            Message::Batch(batch) => {
                let first = arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap();
                format!("{} rows from {first} on {}", batch.num_rows(), port.0)
            }
            Message::Watermark(Watermark::At(time)) => format!("up to {}", time.micros()),
            other => format!("{other:?}"),
        };
        std::iter::from_fn(|| gathered.next()).map(name).collect()
    }

    #[test]
    fn small_batches_of_a_port_are_one_and_the_last_watermark_is_behind_them() {
        let mut gathered = Gathered::new(1 << 30);
        for step in 0..3 {
            gathered.batch((Port::MAIN, 1 - step as usize % 2), rows(step * 10, 10), None);
            gathered.batch((OTHER, 2), rows(step * 5 + 1_000, 5), None);
            gathered.watermark(at(step));
        }
        assert!(gathered.wants_more() && gathered.is_empty());
        assert_eq!(said(&mut gathered), ["30 rows from 10 on 0", "15 rows from 1000 on 1", "up to 2"]);
        assert!(said(&mut gathered).is_empty());
    }

    #[test]
    fn a_row_that_is_late_stays_behind_the_watermark() {
        let times = |times: &[i64]| {
            let columns = [
                ("n", rows(times[0], times.len() as i64).column(0).clone()),
                ("at", Timestamp::column(times.to_vec())),
            ];
            SizedBatch::from(RecordBatch::try_from_iter(columns).unwrap())
        };
        for (time, expected) in [
            (Some(1), &["3 rows from 3 on 0", "up to 9", "2 rows from 10 on 0"][..]),
            (None, &["5 rows from 3 on 0", "up to 9"][..]),
        ] {
            let mut gathered = Gathered::new(1 << 30);
            gathered.watermark(at(3));
            gathered.batch((Port::MAIN, 0), times(&[3, 4]), time);
            gathered.watermark(at(9));
            gathered.batch((Port::MAIN, 0), times(&[9]), time);
            gathered.batch((Port::MAIN, 0), times(&[10, 8]), time);
            assert_eq!(said(&mut gathered), expected);
        }
    }

    #[test]
    fn large_batches_and_what_nothing_moves_across_keep_their_place() {
        for (message, name) in [
            (Message::Batch(rows(0, 2_000)), "2000 rows from 0 on 0"),
            (Message::Barrier(Epoch(7)), "Barrier(Epoch(7))"),
            (Message::Watermark(Watermark::Idle), "Watermark(Idle)"),
        ] {
            let mut gathered = Gathered::new(1 << 30);
            gathered.batch((Port::MAIN, 0), rows(1, 1), None);
            gathered.watermark(at(5));
            match message {
                Message::Batch(batch) => gathered.batch((Port::MAIN, 1), batch, None),
                Message::Watermark(watermark) => gathered.watermark(watermark),
                other => gathered.say(Port::MAIN, other),
            }
            assert!(!gathered.wants_more());
            gathered.batch((Port::MAIN, 0), rows(2, 1), None);
            assert_eq!(said(&mut gathered), ["1 rows from 1 on 0", "up to 5", name, "1 rows from 2 on 0"]);
        }
    }

    #[test]
    fn what_is_gathered_is_bounded_in_rows_and_in_bytes() {
        let mut gathered = Gathered::new(1 << 30);
        while gathered.wants_more() {
            gathered.batch((Port::MAIN, 0), rows(0, 1_000), None);
        }
        assert_eq!(said(&mut gathered), ["9000 rows from 0 on 0"]);
        while gathered.wants_more() {
            gathered.batch((Port::MAIN, 0), SizedBatch::of(rows(0, 1).into_rows(), 100_000), None);
        }
        assert_eq!(said(&mut gathered), ["11 rows from 0 on 0"]);
        assert!(gathered.wants_more());
        let mut gathered = Gathered::new(10_000);
        gathered.batch((Port::MAIN, 0), rows(0, 1_000), None);
        assert!(gathered.wants_more());
        gathered.batch((Port::MAIN, 0), rows(0, 1_000), None);
        assert!(!gathered.wants_more(), "as much as a channel holds");
    }

    #[test]
    fn what_has_been_counted_is_known_and_texts_do_not_come_with_all_buffers() {
        let mut gathered = Gathered::new(1 << 30);
        let text = |of: usize| {
            let column: ArrayRef = Arc::new(StringViewArray::from_iter_values([format!("{of:>20}")]));
            RecordBatch::try_from_iter([("text", column)]).unwrap()
        };
        (0..200).for_each(|of| gathered.batch((Port::MAIN, 0), SizedBatch::of(text(of), 100), None));
        gathered.settle();
        let Some((_, Message::Batch(batch))) = gathered.next() else { unreachable!("one batch") };
        assert_eq!((batch.num_rows(), batch.bytes()), (200, 20_000));
        assert!(batch.column(0).as_string_view().data_buffers().len() <= 32);
        assert_eq!(batch.column(0).as_string_view().value(199).trim(), "199");
    }

    #[test]
    fn columns_of_dictionaries_stay_apart() {
        let names = DataType::Dictionary(DataType::Int8.into(), DataType::Utf8View.into());
        let list = DataType::new_list(names.clone(), true);
        for (kind, expected) in [(DataType::Utf8View, true), (names, false), (list, false)] {
            assert_eq!(joins(&Schema::new(vec![Field::new("name", kind, true)])), expected);
        }
    }
}
