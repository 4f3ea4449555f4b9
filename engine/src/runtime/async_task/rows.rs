//! Rows that are in flight: pieces of the batches they came in, gathered again with what has become of them.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt32Array},
    compute::interleave,
    datatypes::{DataType, Field, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use windrow_operators::{OperatorError, Result, StreamSchema, Watermark, bytes::bytes_of};

use super::call::Failure;

/// How many characters of a row an error shows.
const EXCERPT: usize = 200;

/// What came in, in order.
pub(super) enum Came<P> {
    Rows(P),
    Time(Watermark),
}

/// Some rows of a batch that came in. A clone is cheap, and a batch lives as long as one of its rows is in flight.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    batch: Arc<RecordBatch>,
    start: usize,
    len: usize,
}

impl Piece {
    /// All rows of a batch, if there are any.
    pub(crate) fn of(batch: RecordBatch) -> Option<Self> {
        let len = batch.num_rows();
        (len > 0).then(|| Self { batch: Arc::new(batch), start: 0, len })
    }

    /// Takes at most `rows` rows from its beginning.
    pub(crate) fn split(&mut self, rows: usize) -> Self {
        let first = Self { len: rows.min(self.len), ..self.clone() };
        (self.start, self.len) = (self.start + first.len, self.len - first.len);
        first
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn rows(&self) -> RecordBatch {
        self.batch.slice(self.start, self.len)
    }

    /// The bytes of its rows.
    pub(super) fn bytes(&self) -> usize {
        bytes_of(self.rows().columns())
    }
}

/// One column of pieces, one after the other.
pub(crate) fn gather_column<'a>(pieces: impl IntoIterator<Item = &'a Piece>, column: usize) -> Result<ArrayRef> {
    let (batches, rows) = places(pieces);
    let arrays: Vec<_> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
    Ok(interleave(&arrays, &rows)?)
}

/// All columns of pieces, one after the other; none without a piece.
pub(super) fn gather<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> Result<Vec<ArrayRef>> {
    let (batches, rows) = places(pieces);
    let columns = batches.first().map_or(0, |batch| batch.num_columns());
    let column = |column: usize| {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(column).as_ref()).collect();
        interleave(&arrays, &rows)
    };
    Ok((0..columns).map(column).collect::<std::result::Result<_, _>>()?)
}

/// The batches of pieces, each once if its pieces follow each other, and where each row is among them.
fn places<'a>(pieces: impl IntoIterator<Item = &'a Piece>) -> (Vec<&'a RecordBatch>, Vec<(usize, usize)>) {
    let (mut batches, mut rows): (Vec<&'a RecordBatch>, Vec<_>) = (Vec::new(), Vec::new());
    for piece in pieces {
        if !batches.last().is_some_and(|last| std::ptr::eq(*last, piece.batch.as_ref())) {
            batches.push(&piece.batch);
        }
        let batch = batches.len() - 1;
        rows.extend((piece.start..piece.start + piece.len).map(|row| (batch, row)));
    }
    (batches, rows)
}

/// The columns of `input` and further ones; event time stays what it is.
pub(crate) fn extended(input: &StreamSchema, further: &[Field]) -> Result<StreamSchema> {
    let visible = input.visible();
    for field in further {
        if visible.column_with_name(field.name()).is_some() {
            return Err(OperatorError::Plan(format!(
                "the rows have a column {:?} already: give it another name with .select([col({0:?}).alias(…), …])",
                field.name()
            )));
        }
    }
    let fields = visible.fields().iter().cloned().chain(further.iter().cloned().map(Arc::new));
    let columns = Schema::new(fields.collect::<Vec<_>>());
    match input.time() {
        None => Ok(StreamSchema::without_time(Arc::new(columns))),
        Some(_) if input.time_is_hidden() => StreamSchema::with_hidden_time(&columns),
        Some(time) => StreamSchema::with_time(Arc::new(columns), visible.field(time).name()),
    }
}

/// Rows of `input`, column by column, with the further columns of `output`, which [`extended`] has made.
pub(crate) fn extend(
    input: &StreamSchema,
    output: &StreamSchema,
    rows: &[ArrayRef],
    further: Vec<ArrayRef>,
) -> Result<RecordBatch> {
    let (visible, hidden) = rows.split_at(rows.len() - usize::from(input.time_is_hidden()));
    let columns = visible.iter().cloned().chain(further).chain(hidden.iter().cloned());
    Ok(RecordBatch::try_new(output.columns().clone(), columns.collect())?)
}

/// The columns of rows whose call has failed: those of `input`, why, and after how many attempts.
pub(crate) fn failed_schema(input: &StreamSchema) -> Result<StreamSchema> {
    extended(input, &[Field::new("error", DataType::Utf8, false), Field::new("attempts", DataType::UInt32, false)])
}

pub(super) fn failed_rows(
    input: &StreamSchema,
    output: &StreamSchema,
    failed: &[(Piece, Failure)],
) -> Result<RecordBatch> {
    let each = failed.iter().flat_map(|(piece, failure)| std::iter::repeat_n(failure, piece.len));
    let each: Vec<&Failure> = each.collect();
    let reasons = StringArray::from_iter_values(each.iter().map(|failure| failure.reason.as_str()));
    let attempts = UInt32Array::from_iter_values(each.iter().map(|failure| failure.attempts));
    let rows = gather(failed.iter().map(|(piece, _)| piece))?;
    extend(input, output, &rows, vec![Arc::new(reasons), Arc::new(attempts)])
}

/// The first row of a piece, for people.
pub(super) fn excerpt(input: &StreamSchema, piece: &Piece) -> String {
    let options = FormatOptions::default().with_null("null");
    let (row, visible) = (piece.rows(), input.visible());
    let values = visible.fields().iter().zip(row.columns()).map(|(field, column)| {
        let value = ArrayFormatter::try_new(column.as_ref(), &options).map(|text| text.value(0).to_string());
        format!("{}: {}", field.name(), value.unwrap_or_else(|_| "…".into()))
    });
    let text = values.collect::<Vec<_>>().join(", ");
    match text.char_indices().nth(EXCERPT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
