//! The schema of a stream: its columns, and which of them is event time.
//!
//! Event time stays with a row through filters and projections. When the user projects the column away, or writes a
//! closure that builds new records, the time goes on in a *hidden* last column called [`HIDDEN_TIME`], which
//! expressions, closures and sinks do not see.

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::{OperatorError, Result, Timestamp};

/// The name of the hidden event-time column. Where it is used users' columns cannot be called so.
pub const HIDDEN_TIME: &str = "__time";

/// The columns that travel on an edge, and what they mean.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_operators::{StreamSchema, Timestamp};
///
/// let columns = Arc::new(Schema::new(vec![
///     Field::new("price", DataType::Int64, false),
///     Field::new("at", Timestamp::data_type(), false),
/// ]));
/// let stream = StreamSchema::with_time(columns, "at").unwrap();
/// assert_eq!(stream.time(), Some(1));
/// assert_eq!(stream.to_string(), "price Int64, at time");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSchema {
    columns: SchemaRef,
    time: Option<usize>,
    hidden: bool,
}

impl StreamSchema {
    /// A stream without event time, such as the rejected rows of a source.
    pub fn without_time(columns: SchemaRef) -> Self {
        Self { columns, time: None, hidden: false }
    }

    /// A stream whose event time is the column called `time`, which must have the type [`Timestamp::data_type`].
    pub fn with_time(columns: SchemaRef, time: &str) -> Result<Self> {
        let index = index_of(&columns, time)?;
        let data_type = columns.field(index).data_type();
        if *data_type != Timestamp::data_type() {
            return Err(OperatorError::Plan(format!("column {time:?} is {data_type}, not event time")));
        }
        Ok(Self { columns, time: Some(index), hidden: false })
    }

    /// `visible` columns, and event time in a hidden last column.
    pub fn with_hidden_time(visible: &Schema) -> Result<Self> {
        if visible.column_with_name(HIDDEN_TIME).is_some() {
            return Err(OperatorError::Plan(format!("the column name {HIDDEN_TIME:?} is reserved")));
        }
        let mut fields = visible.fields().to_vec();
        fields.push(Arc::new(Field::new(HIDDEN_TIME, Timestamp::data_type(), false)));
        let time = Some(fields.len() - 1);
        Ok(Self { columns: Arc::new(Schema::new(fields)), time, hidden: true })
    }

    /// All columns, the hidden one included: the schema of the batches on the edge.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Where event time is, if the stream has one.
    pub fn time(&self) -> Option<usize> {
        self.time
    }

    /// Where event time is; the error says how a stream gets one. `what` needs it: `a window`.
    pub fn event_time(&self, what: &str) -> Result<usize> {
        self.time.ok_or_else(|| {
            OperatorError::Plan(format!(
                "{what} needs event time: declare it at the source with .event_time(column, …)"
            ))
        })
    }

    /// Whether event time is a hidden column.
    pub fn time_is_hidden(&self) -> bool {
        self.hidden
    }

    /// The columns a user sees.
    pub fn visible(&self) -> SchemaRef {
        if !self.time_is_hidden() {
            return self.columns.clone();
        }
        let fields: Vec<_> = self.columns.fields()[..self.columns.fields().len() - 1].to_vec();
        Arc::new(Schema::new(fields))
    }

    /// The columns of `batch` that a user sees, without a copy.
    pub fn show(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        if !self.time_is_hidden() {
            return Ok(batch.clone());
        }
        let indices: Vec<usize> = (0..batch.num_columns() - 1).collect();
        Ok(batch.project(&indices)?)
    }

    /// Where the visible column called `name` is; the error names the columns there are.
    pub fn index_of(&self, name: &str) -> Result<usize> {
        index_of(&self.visible(), name)
    }
}

/// Where the column called `name` is in `schema`; otherwise an error that lists the columns and the likely typo.
pub fn index_of(schema: &Schema, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let near = likely(name, names.iter().copied()).map(|n| format!(", did you mean {n:?}?"));
        OperatorError::Plan(format!(
            "there is no column {name:?}{} (columns: {})",
            near.unwrap_or_default(),
            names.join(", ")
        ))
    })
}

/// The name that was probably meant by `name`, which is none of them.
pub(crate) fn likely<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let hint = datafusion_common::utils::datafusion_strsim::normalized_levenshtein;
    let likeness = |n: &str| if n.eq_ignore_ascii_case(name) { 1.0 } else { hint(n, name) };
    let near = names.map(|n| (likeness(n), n)).filter(|(near, _)| *near >= 0.6);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}

/// Refuses a schema with two columns of one name, which no later operator could tell apart.
pub(crate) fn no_duplicates(fields: &[Field]) -> Result<()> {
    for (i, field) in fields.iter().enumerate() {
        if fields[..i].iter().any(|former| former.name() == field.name()) {
            return Err(OperatorError::Plan(format!(
                "two columns of the result are called {:?}: give one another name with .alias(…)",
                field.name()
            )));
        }
    }
    Ok(())
}

impl fmt::Display for StreamSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.visible().fields().iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            let kind = match field.data_type() {
                _ if Some(i) == self.time => "time".to_string(),
                DataType::Timestamp(..) if *field.data_type() == Timestamp::data_type() => "Timestamp".to_string(),
                other => other.to_string(),
            };
            write!(f, "{comma}{} {kind}", field.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_answered_with_the_likely_column() {
        let schema = Schema::new(vec![
            Field::new("auction", DataType::Int64, false),
            Field::new("price", DataType::Int64, false),
        ]);
        let error = index_of(&schema, "auctoin").unwrap_err().to_string();
        assert_eq!(error, r#"there is no column "auctoin", did you mean "auction"? (columns: auction, price)"#);
        let error = index_of(&schema, "x").unwrap_err().to_string();
        assert_eq!(error, r#"there is no column "x" (columns: auction, price)"#);
    }

    #[test]
    fn hidden_time_is_not_seen() {
        let visible = Schema::new(vec![Field::new("a", DataType::Int64, false)]);
        let stream = StreamSchema::with_hidden_time(&visible).unwrap();
        assert_eq!(stream.visible().as_ref(), &visible);
        assert!(stream.index_of(HIDDEN_TIME).is_err());
        assert!(StreamSchema::with_hidden_time(stream.columns()).is_err(), "the name is reserved");
    }
}
