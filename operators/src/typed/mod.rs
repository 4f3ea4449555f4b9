//! Rust closures over zero-copy views of the rows of a batch.
//!
//! ```text
//!   RecordBatch ──project by name──► columns of T ──typed-arrow──► T::View<'_> per row ──► closure
//! ```
//!
//! A record is a `#[derive(Record)]` struct. Its fields are found in the stream by name, so a record may name fewer
//! columns than the stream has. A view borrows from the batch: text is `&str`, nothing is copied. Closures and
//! expressions therefore meet on the same stream without a bridge. Only text that is in views (`Utf8View`) is made plain text
//! (`Utf8`, as a `String` in a record is) for each batch that comes to a closure, of the columns that the record names.

mod aggregate;
mod filter;
mod flat_map;
mod map;

use std::{marker::PhantomData, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, SchemaRef},
};
use typed_arrow::schema::{BuildRows, FromRecordBatch, SchemaMeta};

pub use aggregate::{Aggregate, custom};
pub use filter::FilterRows;
pub use flat_map::FlatMapRows;
pub use map::MapRows;
pub(crate) use map::output as output_of;

use crate::{OperatorError, Result, StreamSchema};

/// A struct whose fields are the columns of a stream. Derive it: `#[derive(Record)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    note = "a struct becomes one by `#[derive(Record)]`",
    note = "an untyped stream is given a record by `.typed::<MyRecord>()`"
)]
pub trait Record: FromRecordBatch + BuildRows + SchemaMeta + 'static {}
#[diagnostic::do_not_recommend]
impl<T: FromRecordBatch + BuildRows + SchemaMeta + 'static> Record for T {}

/// Gives the rows of a stream as views of `T`.
#[derive(Debug)]
pub struct Rows<T> {
    indices: Arc<[usize]>,
    /// The columns of `T`, when some of them are text in views.
    plain: Option<SchemaRef>,
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self { indices: self.indices.clone(), plain: self.plain.clone(), record: PhantomData }
    }
}

impl<T: FromRecordBatch + SchemaMeta> Rows<T> {
    /// Finds the fields of `T` among the columns of `stream`; the error names the field that is missing, has another
    /// type, or may be null where `T` cannot say so.
    pub fn new(stream: &StreamSchema) -> Result<Self> {
        let name = short_name::<T>();
        stream.expect_rows("a closure over records")?;
        let visible = stream.visible();
        let find = |field: &Field| {
            let index = crate::schema::index_of(&visible, field.name())
                .map_err(|error| OperatorError::Plan(format!("record {name}: {error}")))?;
            let column = visible.field(index);
            if column.data_type() != field.data_type() && !is_in_views(column, field) {
                return Err(OperatorError::Plan(format!(
                    "record {name}: field {:?} is {}, but the column is {}",
                    field.name(),
                    field.data_type(),
                    column.data_type()
                )));
            }
            if column.is_nullable() && !field.is_nullable() {
                return Err(OperatorError::Plan(format!(
                    "record {name}: column {:?} may be null: make the field an Option",
                    field.name()
                )));
            }
            Ok(index)
        };
        let indices = T::fields().iter().map(find).collect::<Result<Arc<[usize]>>>()?;
        let is_plain = indices.iter().zip(&T::fields()).all(|(&at, field)| !is_in_views(visible.field(at), field));
        Ok(Self { indices, plain: (!is_plain).then(T::schema), record: PhantomData })
    }

    /// The columns of `T`, in its order, without a copy but of text that is in views. Views of rows borrow from this batch.
    pub fn columns(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let columns = batch.project(&self.indices)?;
        let Some(schema) = &self.plain else { return Ok(columns) };
        let plain = columns.columns().iter().map(plain).collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(schema.clone(), plain)?)
    }

    /// The rows of a batch that [`Rows::columns`] made.
    pub fn views<'a>(&self, columns: &'a RecordBatch) -> Result<impl Iterator<Item = Result<T::View<'a>>>> {
        let views = T::from_record_batch(columns).map_err(|error| bug::<T>(&error))?;
        Ok(views.map(|view| view.map_err(|error| bug::<T>(&error))))
    }
}

/// Whether the column has in views what is plain text in the record.
fn is_in_views(column: &Field, field: &Field) -> bool {
    (column.data_type(), field.data_type()) == (&DataType::Utf8View, &DataType::Utf8)
}

/// Text in views as plain text; other columns as they are. Arrow counts the bytes of plain text in 32 bits, and many rows may show
/// one large text.
fn plain(column: &ArrayRef) -> Result<ArrayRef> {
    let Some(views) = column.as_string_view_opt() else { return Ok(column.clone()) };
    let bytes: u64 = views.lengths().map(u64::from).sum();
    if bytes > i32::MAX as u64 {
        return Err(OperatorError::TooLarge(format!(
            "{} rows that come to a closure together have {bytes} bytes of text in one column, and it can take 2 GiB: \
             leave the column out with .select(…), or out of the record",
            column.len()
        )));
    }
    Ok(cast(column, &DataType::Utf8)?)
}

/// [`Rows::new`] has checked names, types and nulls, so a view that fails is a fault of ours.
#[cold]
fn bug<T>(error: &dyn std::fmt::Display) -> OperatorError {
    OperatorError::Internal(format!("record {}: {error}", short_name::<T>()))
}

pub(crate) fn short_name<T>() -> &'static str {
    let name = std::any::type_name::<T>();
    let name = name.split('<').next().unwrap_or(name);
    name.rsplit("::").next().unwrap_or(name)
}

/// The name of a type with those of its parameters, without modules: `Option<(String, i64)>`.
pub(crate) fn type_label<T>() -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut label = String::new();
    let mut rest = std::any::type_name::<T>();
    while let Some(first) = rest.chars().next() {
        let end = if is_part(first) { rest.find(|c| !is_part(c)).unwrap_or(rest.len()) } else { first.len_utf8() };
        let (part, after) = rest.split_at(end);
        label.push_str(part.rsplit("::").next().unwrap_or(part));
        rest = after;
    }
    label
}
