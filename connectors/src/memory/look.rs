//! Rows in memory, to be looked at: as a table of text, and as records.

use std::{fmt, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::Schema,
    util::pretty::pretty_format_batches,
};
use typed_arrow::schema::{FromRecordBatch, SchemaMeta};

use crate::{ConnectorError, Result};

/// The rows as a table of text; nothing when there are none.
pub(super) fn print(batches: &[RecordBatch], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match batches {
        [] => Ok(()),
        batches => write!(f, "{}", pretty_format_batches(batches).map_err(|_| fmt::Error)?),
    }
}

/// The rows as records, whose fields are found among the columns by name.
pub(super) fn records<R>(batches: &[RecordBatch]) -> Result<Vec<R>>
where
    R: FromRecordBatch + SchemaMeta,
    R: for<'a> TryFrom<R::View<'a>, Error: fmt::Display>,
{
    let mut records = Vec::new();
    for batch in batches {
        let batch = fields_of(&R::schema(), batch)?;
        let views = R::from_record_batch(&batch).map_err(|error| not_a::<R>(&error))?;
        for view in views {
            let view = view.map_err(|error| not_a::<R>(&error))?;
            records.push(R::try_from(view).map_err(|error| not_a::<R>(&error))?);
        }
    }
    Ok(records)
}

fn fields_of(schema: &Arc<Schema>, batch: &RecordBatch) -> Result<RecordBatch> {
    let column = |name: &str| {
        batch.column_by_name(name).cloned().ok_or_else(|| {
            let there = batch.schema();
            let there: Vec<&str> = there.fields().iter().map(|field| field.name().as_str()).collect();
            ConnectorError::Config(format!(
                "the record has the field {name:?}, but the columns are {}",
                there.join(", ")
            ))
        })
    };
    let columns: Vec<ArrayRef> = schema.fields().iter().map(|field| column(field.name())).collect::<Result<_>>()?;
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

fn not_a<R>(error: &dyn fmt::Display) -> ConnectorError {
    ConnectorError::Config(format!("the rows are no {}: {error}", std::any::type_name::<R>()))
}
