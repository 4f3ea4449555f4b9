//! The columns of the three kinds of events, and the choice among them.
//!
//! Each column is filled by a loop of its own: the loops are tight, and a column that nobody asked for costs nothing.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, Int64Array, RecordBatch, StringBuilder, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{
    super::{UTC, event_time},
    model::Model,
    timeline::Kind,
};
use crate::{ConnectorError, Result};

/// How the values of a column come from the numbers of the events.
#[derive(Clone, Copy)]
enum Fill {
    Number(fn(&Model, &[u64]) -> Vec<i64>),
    Time(fn(&Model, &[u64]) -> Vec<i64>),
    /// One string, with its usual length, from which the buffer is sized.
    Text(fn(&Model, u64, &mut String), usize),
}

struct Column {
    name: &'static str,
    fill: Fill,
}

/// A column whose value is computed by a method of the model. A macro, because a function pointer called for every
/// row would keep the compiler from optimising the loop.
macro_rules! column {
    ($name:literal, $fill:ident, $method:ident) => {
        Column { name: $name, fill: Fill::$fill(|model, events| events.iter().map(|n| model.$method(*n)).collect()) }
    };
    ($name:literal, Text, $method:ident, $length:literal) => {
        Column { name: $name, fill: Fill::Text(|model, n, out| model.$method(n, out), $length) }
    };
}

const BID: [Column; 7] = [
    column!("auction", Number, bid_auction),
    column!("bidder", Number, bidder),
    column!("price", Number, price),
    column!("channel", Text, channel, 10),
    column!("url", Text, url, 68),
    column!("at", Time, at),
    column!("extra", Text, bid_extra, 4),
];

const AUCTION: [Column; 10] = [
    column!("id", Number, auction_id),
    column!("item_name", Text, item_name, 12),
    column!("description", Text, description, 54),
    column!("initial_bid", Number, price),
    column!("reserve", Number, reserve),
    column!("at", Time, at),
    column!("expires", Time, expires),
    column!("seller", Number, seller),
    column!("category", Number, category),
    column!("extra", Text, auction_extra, 390),
];

const PERSON: [Column; 8] = [
    column!("id", Number, person_id),
    column!("name", Text, name, 12),
    column!("email", Text, email, 14),
    column!("credit_card", Text, credit_card, 19),
    column!("city", Text, city, 10),
    column!("state", Text, state, 2),
    column!("at", Time, at),
    column!("extra", Text, person_extra, 132),
];

/// The columns that a source generates.
pub(super) struct Columns {
    fills: Vec<Fill>,
    schema: SchemaRef,
}

impl Columns {
    /// The columns of `kind` called `names`, in that order, or all of them; `source` is named in errors.
    pub(super) fn choose(source: &str, kind: Kind, names: Option<&[String]>) -> Result<Self> {
        let all: &[Column] = match kind {
            Kind::Bid => &BID,
            Kind::Auction => &AUCTION,
            Kind::Person => &PERSON,
        };
        let Some(names) = names else {
            return Ok(Self::new(all.iter()));
        };
        if names.is_empty() {
            return Err(ConnectorError::Config(format!(
                "source {source}: columns() names no column; name at least one"
            )));
        }
        let mut chosen = Vec::with_capacity(names.len());
        for (i, name) in names.iter().enumerate() {
            if names[..i].contains(name) {
                return Err(ConnectorError::Config(format!("source {source}: columns() names `{name}` twice")));
            }
            chosen.push(all.iter().find(|column| column.name == name).ok_or_else(|| unknown(source, name, all))?);
        }
        Ok(Self::new(chosen.into_iter()))
    }

    fn new<'a>(columns: impl Iterator<Item = &'a Column>) -> Self {
        let (fields, fills): (Vec<Field>, Vec<Fill>) =
            columns.map(|column| (Field::new(column.name, column.fill.data_type(), false), column.fill)).unzip();
        Self { fills, schema: Arc::new(Schema::new(fields)) }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// One row for each of the `events`.
    pub(super) fn batch(&self, model: &Model, events: &[u64]) -> Result<RecordBatch> {
        let arrays = self.fills.iter().map(|fill| fill.array(model, events)).collect();
        Ok(RecordBatch::try_new(self.schema.clone(), arrays)?)
    }
}

impl Fill {
    fn data_type(self) -> DataType {
        match self {
            Self::Number(_) => DataType::Int64,
            Self::Time(_) => event_time(),
            Self::Text(..) => DataType::Utf8,
        }
    }

    fn array(self, model: &Model, events: &[u64]) -> ArrayRef {
        match self {
            Self::Number(fill) => Arc::new(Int64Array::from(fill(model, events))),
            Self::Time(fill) => Arc::new(TimestampMicrosecondArray::from(fill(model, events)).with_timezone(UTC)),
            Self::Text(write, usual) => {
                let mut strings = StringBuilder::with_capacity(events.len(), events.len() * usual);
                let mut text = String::new();
                for n in events {
                    text.clear();
                    write(model, *n, &mut text);
                    strings.append_value(&text);
                }
                Arc::new(strings.finish())
            }
        }
    }
}

fn unknown(source: &str, name: &str, all: &[Column]) -> ConnectorError {
    let hint = match all.iter().map(|column| (distance(name, column.name), column.name)).min() {
        Some((distance, nearest)) if distance <= 1 + nearest.len() / 3 => format!("did you mean `{nearest}`? "),
        _ => String::new(),
    };
    let names: Vec<_> = all.iter().map(|column| column.name).collect();
    ConnectorError::Config(format!(
        "source {source} has no column `{name}`; {hint}its columns are {}",
        names.join(", ")
    ))
}

/// How many letters must be changed, added or removed to make `a` into `b`, whatever their case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("price", "price"), 0);
        assert_eq!(distance("Pirce", "price"), 2);
        assert_eq!(distance("prices", "price"), 1);
        assert_eq!(distance("", "at"), 2);
    }

    #[test]
    fn a_misspelt_column_gets_a_hint_and_a_strange_one_the_list() {
        let message = |name: &str| Columns::choose("nexmark.bids", Kind::Bid, Some(&[name.to_owned()])).err().unwrap();
        assert_eq!(
            message("prise").to_string(),
            "source nexmark.bids has no column `prise`; did you mean `price`? its columns are auction, bidder, price, \
             channel, url, at, extra"
        );
        assert!(!message("temperature").to_string().contains("did you mean"));
    }

    #[test]
    fn no_columns_and_a_column_twice_are_refused() {
        assert!(Columns::choose("x", Kind::Bid, Some(&[])).is_err());
        let twice = ["at".to_owned(), "at".to_owned()];
        assert!(Columns::choose("x", Kind::Bid, Some(&twice)).err().unwrap().to_string().contains("`at` twice"));
    }
}
