//! Rust closures over zero-copy views of the rows of a batch.
//!
//! ```text
//!   RecordBatch ──project by name──► columns of T ──typed-arrow──► T::View<'_> per row ──► closure
//! ```
//!
//! A record is a `#[derive(Record)]` struct. Its fields are found in the stream by name, so a record may name fewer
//! columns than the stream has. A view borrows from the batch: text is `&str`, nothing is copied. Closures and
//! expressions therefore meet on the same stream without a bridge.

mod aggregate;
mod filter;
mod flat_map;
mod map;

use std::{marker::PhantomData, sync::Arc};

use arrow::{array::RecordBatch, datatypes::Field};
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
    record: PhantomData<fn() -> T>,
}

impl<T> Clone for Rows<T> {
    fn clone(&self) -> Self {
        Self { indices: self.indices.clone(), record: PhantomData }
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
            if column.data_type() != field.data_type() {
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
        let indices = T::fields().iter().map(find).collect::<Result<_>>()?;
        Ok(Self { indices, record: PhantomData })
    }

    /// The columns of `T`, in its order, without a copy. Views borrow from this batch.
    pub fn columns(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(batch.project(&self.indices)?)
    }

    /// The rows of a batch that [`Rows::columns`] made.
    pub fn views<'a>(&self, columns: &'a RecordBatch) -> Result<impl Iterator<Item = Result<T::View<'a>>>> {
        let views = T::from_record_batch(columns).map_err(|error| bug::<T>(&error))?;
        Ok(views.map(|view| view.map_err(|error| bug::<T>(&error))))
    }
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
