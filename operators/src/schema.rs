//! The schema of a stream: its columns, and which of them is event time.
//!
//! Event time stays with a row through filters and projections. When the user projects the column away, or writes a
//! closure that builds new records, the time goes on in a *hidden* last column called [`HIDDEN_TIME`], which
//! expressions, closures and sinks do not see.
//!
//! A stream of *changes* says of each row what becomes of it, in a hidden column too:
//!
//! ```text
//!   auction │ bids ║ __op │ __time        the key says which row of a table it is: here auction
//!      7    │   1  ║   0  │   12          0 insert, 1 update, 2 delete
//!   └─ visible ──┘ ║ └── hidden ──┘
//! ```

use std::{fmt, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use crate::{OperatorError, Result, Timestamp, key::check_key};

/// The name of the hidden event-time column. Where it is used users' columns cannot be called so.
pub const HIDDEN_TIME: &str = "__time";
/// The name of the hidden column that says what a change does, a `UInt8`. In a stream of changes users' columns cannot be
/// called so.
pub const HIDDEN_OP: &str = "__op";

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
    /// Of a stream of changes, the columns that say which row changes.
    change_key: Option<Vec<usize>>,
}

impl StreamSchema {
    /// A stream without event time, such as the rejected rows of a source.
    pub fn without_time(columns: SchemaRef) -> Self {
        Self { columns, time: None, hidden: false, change_key: None }
    }

    /// A stream whose event time is the column called `time`, which must have the type [`Timestamp::data_type`].
    pub fn with_time(columns: SchemaRef, time: &str) -> Result<Self> {
        let index = index_of(&columns, time)?;
        let data_type = columns.field(index).data_type();
        if *data_type != Timestamp::data_type() {
            return Err(OperatorError::Plan(format!("column {time:?} is {data_type}, not event time")));
        }
        Ok(Self { columns, time: Some(index), hidden: false, change_key: None })
    }

    /// `visible` columns, and event time in a hidden last column.
    pub fn with_hidden_time(visible: &Schema) -> Result<Self> {
        reserved(visible, HIDDEN_TIME)?;
        let mut fields = visible.fields().to_vec();
        fields.push(Arc::new(Field::new(HIDDEN_TIME, Timestamp::data_type(), false)));
        let time = Some(fields.len() - 1);
        Ok(Self { columns: Arc::new(Schema::new(fields)), time, hidden: true, change_key: None })
    }

    /// Changes of a table with these columns, of which `key` say which row changes; event time is hidden. Without a key the
    /// table has one row. Fails when a key column does not exist or cannot be a key.
    ///
    /// ```
    /// use arrow::datatypes::{DataType, Field, Schema};
    /// use windrow_operators::StreamSchema;
    ///
    /// let fields = ["auction", "bids"].map(|name| Field::new(name, DataType::Int64, false));
    /// let table = StreamSchema::changes(&Schema::new(fields.to_vec()), &["auction"]).unwrap();
    /// assert_eq!(table.change_key(), Some(&[0][..]));
    /// assert_eq!((table.op(), table.time()), (Some(2), Some(3)));
    /// assert_eq!(table.to_string(), "changes by auction: auction Int64, bids Int64");
    /// ```
    pub fn changes(visible: &Schema, key: &[&str]) -> Result<Self> {
        let change_key = change_key(visible, key)?;
        Ok(Self { change_key: Some(change_key), ..Self::with_hidden_time(&with_op(visible)?)? })
    }

    /// [`StreamSchema::changes`] without event time.
    pub fn changes_without_time(visible: &Schema, key: &[&str]) -> Result<Self> {
        let change_key = change_key(visible, key)?;
        Ok(Self { change_key: Some(change_key), ..Self::without_time(Arc::new(with_op(visible)?)) })
    }

    /// Of a stream of changes, the columns that say which row changes; of a stream of rows `None`.
    pub fn change_key(&self) -> Option<&[usize]> {
        self.change_key.as_deref()
    }

    /// Where the column is that says what a change does.
    pub fn op(&self) -> Option<usize> {
        self.change_key.as_ref().map(|_| self.columns.fields().len() - 1 - usize::from(self.hidden))
    }

    /// The key of a stream of changes; the error says how a stream of rows becomes one. `what` needs it: `a filter of
    /// changes`.
    pub fn expect_changes(&self, what: &str) -> Result<&[usize]> {
        self.change_key().ok_or_else(|| {
            OperatorError::Plan(format!(
                "{what} takes changes, but this is a stream of rows: make changes of them with \
                 .key_by(…).latest()"
            ))
        })
    }

    /// Refuses a stream of changes where only rows have a meaning.
    pub fn expect_rows(&self, what: &str) -> Result<()> {
        match self.change_key {
            None => Ok(()),
            Some(_) => Err(OperatorError::Plan(format!(
                "{what} takes rows, but this is a stream of changes: make rows of them with .changelog()"
            ))),
        }
    }

    /// All columns, the hidden one included: the schema of the batches on the edge.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// Where event time is, if the stream has one.
    pub fn time(&self) -> Option<usize> {
        self.time
    }

    /// Where event time is in a stream of rows; the error says how a stream gets one. `what` needs it: `a window`.
    pub fn event_time(&self, what: &str) -> Result<usize> {
        self.expect_rows(what)?;
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
        match self.hidden_columns() {
            0 => self.columns.clone(),
            hidden => Arc::new(Schema::new(self.columns.fields()[..self.columns.fields().len() - hidden].to_vec())),
        }
    }

    /// The columns of `batch` that a user sees, without a copy.
    pub fn show(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        match self.hidden_columns() {
            0 => Ok(batch.clone()),
            hidden => Ok(batch.project(&(0..batch.num_columns() - hidden).collect::<Vec<_>>())?),
        }
    }

    /// The columns that a sink gets: those a user sees, and what a change does as the last one.
    pub fn delivered(&self) -> SchemaRef {
        match self.hidden {
            false => self.columns.clone(),
            true => Arc::new(Schema::new(self.columns.fields()[..self.columns.fields().len() - 1].to_vec())),
        }
    }

    /// The same of a batch, without a copy.
    pub fn deliver(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        match self.hidden {
            false => Ok(batch.clone()),
            true => Ok(batch.project(&(0..batch.num_columns() - 1).collect::<Vec<_>>())?),
        }
    }

    /// How many of the last columns are hidden.
    fn hidden_columns(&self) -> usize {
        usize::from(self.hidden) + usize::from(self.change_key.is_some())
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
pub fn likely<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let hint = datafusion_common::utils::datafusion_strsim::normalized_levenshtein;
    let likeness = |n: &str| if n.eq_ignore_ascii_case(name) { 1.0 } else { hint(n, name) };
    let near = names.map(|n| (likeness(n), n)).filter(|(near, _)| *near >= 0.6);
    near.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, n)| n)
}

/// Whether a column, or what is nested in one, is a dictionary. To join many batches with dictionaries takes long, and fails where
/// the numbers of the joined ones do not fit.
///
/// ```
/// use arrow::datatypes::{DataType, Field, Schema};
/// let names = DataType::Dictionary(DataType::Int8.into(), DataType::Utf8.into());
/// let lists = DataType::new_list(names, true);
/// assert!(windrow_operators::schema::has_dictionary(&Schema::new(vec![Field::new("names", lists, true)])));
/// ```
pub fn has_dictionary(schema: &Schema) -> bool {
    schema.flattened_fields().iter().any(|field| matches!(field.data_type(), DataType::Dictionary(..)))
}

/// Refuses a user's column with a name that the engine needs.
pub(crate) fn reserved(visible: &Schema, name: &str) -> Result<()> {
    match visible.column_with_name(name) {
        None => Ok(()),
        Some(_) => Err(OperatorError::Plan(format!("the column name {name:?} is reserved"))),
    }
}

fn with_op(visible: &Schema) -> Result<Schema> {
    reserved(visible, HIDDEN_OP)?;
    let mut fields = visible.fields().to_vec();
    fields.push(Arc::new(Field::new(HIDDEN_OP, DataType::UInt8, false)));
    Ok(Schema::new(fields))
}

fn change_key(visible: &Schema, key: &[&str]) -> Result<Vec<usize>> {
    let columns = key.iter().map(|name| index_of(visible, name)).collect::<Result<Vec<_>>>()?;
    check_key(visible, &columns)?;
    match columns.iter().enumerate().find(|(i, column)| columns[..*i].contains(column)) {
        Some((_, &column)) => Err(OperatorError::Plan(format!("the key has {:?} twice", visible.field(column).name()))),
        None => Ok(columns),
    }
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

/// `name`, or with as many underscores before it as it needs to be another's.
pub(crate) fn unused(name: &str, used: impl Fn(&str) -> bool) -> String {
    let mut name = name.to_string();
    while used(&name) {
        name.insert(0, '_');
    }
    name
}

impl fmt::Display for StreamSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = self.change_key() {
            let key: Vec<&str> = key.iter().map(|&column| self.columns.field(column).name().as_str()).collect();
            write!(f, "changes by {}: ", if key.is_empty() { "nothing".to_string() } else { key.join(", ") })?;
        }
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

    #[test]
    fn what_a_change_does_is_not_seen() {
        let fields = ["a", "b"].map(|name| Field::new(name, DataType::Int64, false));
        let visible = Schema::new(fields.to_vec());
        for stream in [StreamSchema::changes(&visible, &["b"]), StreamSchema::changes_without_time(&visible, &["b"])] {
            let stream = stream.unwrap();
            assert_eq!(
                (stream.visible().as_ref(), stream.change_key(), stream.op()),
                (&visible, Some(&[1][..]), Some(2))
            );
            assert_eq!(stream.show(&RecordBatch::new_empty(stream.columns().clone())).unwrap().num_columns(), 2);
            assert!(stream.event_time("a window").unwrap_err().to_string().contains(".changelog()"));
            assert!(StreamSchema::changes(stream.columns(), &[]).is_err(), "the name is reserved");
        }
        let rows = StreamSchema::without_time(Arc::new(visible));
        assert!(rows.expect_changes("a join").unwrap_err().to_string().contains(".key_by(…).latest()"));
    }
}
