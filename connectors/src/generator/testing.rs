//! What the tests of the generators share: reading sources to the end.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use crate::{Fetch, Position, Rows, Source, SourceReader, SplitId};

/// Everything that `reader` delivers until its end.
pub(super) async fn drain(reader: &mut dyn SourceReader) -> Vec<Rows> {
    let mut all = Vec::new();
    loop {
        match reader.fetch().await.unwrap() {
            Fetch::Rows(rows) => all.push(rows),
            Fetch::SplitEnd(_) => {}
            Fetch::End => return all,
        }
    }
}

/// A reader of all splits, each from its beginning.
pub(super) async fn open(source: &impl Source) -> Box<dyn SourceReader> {
    let splits = Source::splits(source).await.unwrap();
    source.reader(splits.into_iter().map(|split| (split, None)).collect()).await.unwrap()
}

/// All rows of the source, read by one reader, as one batch.
pub(super) async fn read_all(source: &impl Source) -> RecordBatch {
    let rows = drain(&mut *open(source).await).await;
    concat(source, rows.iter())
}

/// The rest of one split from `position`.
pub(super) async fn read_rest(source: &impl Source, split: &SplitId, position: Option<Position>) -> RecordBatch {
    let mut reader = source.reader(vec![(split.clone(), position)]).await.unwrap();
    concat(source, drain(&mut *reader).await.iter())
}

pub(super) fn concat<'a>(source: &impl Source, rows: impl Iterator<Item = &'a Rows>) -> RecordBatch {
    let batches: Vec<_> = rows.map(|rows| rows.batch.clone()).collect();
    arrow::compute::concat_batches(&source.schema().unwrap(), &batches).unwrap()
}

pub(super) fn int64(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec()
}

pub(super) fn micros(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

/// Every row as text, sorted: a multiset that can be compared.
pub(super) fn sorted_rows(batch: &RecordBatch) -> Vec<String> {
    use arrow::util::display::{ArrayFormatter, FormatOptions};
    let options = FormatOptions::default();
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    let mut rows: Vec<String> = (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect();
    rows.sort_unstable();
    rows
}
