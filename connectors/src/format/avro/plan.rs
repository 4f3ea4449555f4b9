//! How records of one writer become columns: decided once for each writer's schema, before any of its records is read.
//!
//! ```text
//!   writer's schema ─┐
//!   reader's schema ─┼──► plan ──► each value of a record: into which column and how, or passed over, or refused
//!   columns ─────────┘
//! ```
//!
//! The rules are Avro's, with two differences on the careful side. A time that was written in milliseconds is converted for a
//! column of microseconds; Avro would take the number as it stands. And a plain number does not become a time, unless a reader's
//! schema is given that says which unit it has.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as Column, Fields, TimeUnit};

use super::{
    default,
    schema::{Field, Id, Kind, Logical, Schema},
};
use crate::format::{alternatives, excerpt};

/// A plan has as many parts as the columns ask for, but unions within unions multiply.
const MOST_PARTS: usize = 100_000;

/// How to read the records of one writer.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) schema: Arc<Schema>,
    pub(super) root: Record,
}

/// How to read a record.
#[derive(Debug)]
pub(super) struct Record {
    /// In the writer's order.
    pub(super) fields: Vec<FieldPlan>,
    /// Columns that the writer does not have.
    pub(super) defaults: Vec<Default>,
}

/// What stands in a column that the writer does not have, as if it had been written by the reader's schema.
#[derive(Debug)]
pub(super) struct Default {
    pub(super) column: usize,
    pub(super) plan: Value,
    pub(super) schema: Arc<Schema>,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum FieldPlan {
    Into(usize, Value),
    Skip(Id, String),
}

/// How to read a value into its column.
#[derive(Debug)]
pub(super) enum Value {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    /// Text, or bytes that must be text.
    Text,
    Bytes,
    Fixed(usize),
    /// Text that becomes sixteen bytes.
    Uuid,
    /// A time: a number, an int or a long, of other units than the column.
    Time {
        times: i64,
    },
    Decimal {
        size: Option<usize>,
        precision: u8,
    },
    Enum(Vec<Result<String, String>>),
    List(Box<Value>),
    Map(Box<Value>),
    Record(Record),
    Union(Vec<Result<Value, String>>),
}

impl Plan {
    /// The plan for `writer`, or what does not fit.
    pub(super) fn new(writer: Arc<Schema>, reader: Option<&Arc<Schema>>, columns: &Fields) -> Result<Self, String> {
        let fields = writer.fields()?;
        let reader_fields = reader.map(|reader| reader.fields()).transpose()?;
        let mut planner = Planner { writer: &writer, reader, parts: 0 };
        let root = planner.record(fields, reader_fields, columns, "")?;
        if planner.parts > MOST_PARTS {
            // A branch that was given up must not look as if the record were at fault.
            return Err(too_many());
        }
        Ok(Self { root, schema: writer })
    }
}

struct Planner<'a> {
    writer: &'a Schema,
    reader: Option<&'a Arc<Schema>>,
    parts: usize,
}

impl Planner<'_> {
    fn record(
        &mut self,
        writer: &[Field],
        reader: Option<&[Field]>,
        columns: &Fields,
        within: &str,
    ) -> Result<Record, String> {
        self.parts += writer.len();
        let mut fields: Vec<FieldPlan> =
            writer.iter().map(|field| FieldPlan::Skip(field.id, field.name.clone())).collect();
        let mut defaults = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            let path = if within.is_empty() { column.name().clone() } else { format!("{within}.{}", column.name()) };
            let wanted = reader.map(|reader| reader_field(reader, column.name(), &path)).transpose()?;
            let place = place(writer, wanted, column.name());
            match place {
                Some(at) if matches!(fields[at], FieldPlan::Into(..)) => {
                    return Err(format!("column {path:?}: two columns are the field {:?}", writer[at].name));
                }
                Some(at) => {
                    fields[at] =
                        FieldPlan::Into(i, self.value(writer[at].id, wanted.map(|field| field.id), column, &path)?);
                }
                None => {
                    defaults.extend(self.missing(writer, wanted, i, column, &path)?);
                }
            }
        }
        Ok(Record { fields, defaults })
    }

    /// What stands in a column that the writer does not have: its default; nothing said is null.
    fn missing(
        &mut self,
        writer: &[Field],
        wanted: Option<&Field>,
        place: usize,
        column: &Column,
        path: &str,
    ) -> Result<Option<Default>, String> {
        if let (Some(reader), Some(Field { id, default: Some(default), .. })) = (self.reader, wanted) {
            let bytes = default::encode(reader, *id, default).map_err(|reason| format!("column {path:?}: {reason}"))?;
            let mut planner = Planner { writer: reader, reader: None, parts: 0 };
            // The reader's own types, so that its logical types count as written.
            let plan = planner.value(*id, None, column, path)?;
            return Ok(Some(Default { column: place, plan, schema: reader.clone(), bytes }));
        }
        if wanted.is_none() && column.is_nullable() {
            return Ok(None);
        }
        let there = writer.iter().map(|field| field.name.as_str());
        let remedy = if wanted.is_some() { "has no default in the reader's schema" } else { "is not nullable" };
        Err(format!(
            "column {path:?} {remedy}, and the writer has no such field; it has {}",
            alternatives(column.name(), there)
        ))
    }

    fn value(&mut self, id: Id, wanted: Option<Id>, column: &Column, path: &str) -> Result<Value, String> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(too_many());
        }
        if let Kind::Union(branches) = self.writer.kind(id) {
            return self.union(branches, wanted, column, path);
        }
        if let Kind::Null = self.writer.kind(id) {
            let nullable = if column.is_nullable() { Ok(Value::Null) } else { Err(null(path)) };
            return nullable;
        }
        let wanted = wanted.map(|wanted| self.not_null(wanted, path)).transpose()?;
        let misfit = || self.misfit(id, wanted, column, path);
        if let Some((reader, wanted)) = self.reader.zip(wanted)
            && !promotes(self.writer, id, reader, wanted)
        {
            return Err(misfit());
        }
        match (self.writer.kind(id), column.data_type()) {
            (Kind::Array(item), DataType::List(to)) => {
                let wanted = self.child(wanted, |kind| if let Kind::Array(item) = kind { Some(*item) } else { None });
                Ok(Value::List(Box::new(self.value(*item, wanted, to, &format!("{path}[]"))?)))
            }
            (Kind::Map(value), DataType::Map(entries, _)) => {
                let wanted = self.child(wanted, |kind| if let Kind::Map(value) = kind { Some(*value) } else { None });
                let DataType::Struct(entries) = entries.data_type() else { return Err(misfit()) };
                let [_, to] = entries.as_ref() else { return Err(misfit()) };
                Ok(Value::Map(Box::new(self.value(*value, wanted, to, &format!("{path}{{}}"))?)))
            }
            (Kind::Record(fields), DataType::Struct(columns)) => {
                let reader = match (self.reader, wanted) {
                    (Some(reader), Some(wanted)) => match reader.kind(wanted) {
                        Kind::Record(fields) => Some(fields.as_slice()),
                        _ => return Err(misfit()),
                    },
                    _ => None,
                };
                Ok(Value::Record(self.record(fields, reader, columns, path)?))
            }
            (Kind::Enum { symbols, .. }, DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8) => {
                Ok(Value::Enum(self.symbols(symbols, wanted)))
            }
            (kind, to) => {
                let given = self.reader.zip(wanted).and_then(|(reader, wanted)| reader.get(wanted).logical);
                simple(kind, self.writer.get(id).logical.or(given), to).ok_or_else(misfit)
            }
        }
    }

    fn union(&mut self, branches: &[Id], wanted: Option<Id>, column: &Column, path: &str) -> Result<Value, String> {
        let values: Vec<Result<Value, String>> =
            branches.iter().map(|branch| self.value(*branch, wanted, column, path)).collect();
        // If nothing but null could ever be read, the writer means something else by this field.
        let of_use = branches
            .iter()
            .zip(&values)
            .any(|(id, value)| value.is_ok() && !matches!(self.writer.kind(*id), Kind::Null));
        let only_nulls = branches.iter().all(|id| matches!(self.writer.kind(*id), Kind::Null));
        if of_use || (only_nulls && column.is_nullable()) {
            return Ok(Value::Union(values));
        }
        let reasons = branches.iter().zip(values).filter(|(id, _)| !matches!(self.writer.kind(**id), Kind::Null));
        let reason = reasons.filter_map(|(_, value)| value.err()).next();
        Err(reason.unwrap_or_else(|| null(path)))
    }

    /// The one type in a reader's union that is not null.
    fn not_null(&self, wanted: Id, path: &str) -> Result<Id, String> {
        let Some(reader) = self.reader else { return Ok(wanted) };
        let Kind::Union(branches) = reader.kind(wanted) else { return Ok(wanted) };
        let mut others = branches.iter().filter(|id| !matches!(reader.kind(**id), Kind::Null));
        match (others.next(), others.next()) {
            (Some(only), None) => Ok(*only),
            _ => Err(format!(
                "column {path:?}: the reader's schema has a {} there, and a column is of one type, or null",
                reader.describe(wanted)
            )),
        }
    }

    fn child(&self, wanted: Option<Id>, of: impl Fn(&Kind) -> Option<Id>) -> Option<Id> {
        self.reader.zip(wanted).and_then(|(reader, wanted)| of(reader.kind(wanted)))
    }

    /// What each symbol of the writer is for the reader.
    fn symbols(&self, symbols: &[String], wanted: Option<Id>) -> Vec<Result<String, String>> {
        let reader = self.reader.zip(wanted).map(|(reader, wanted)| reader.kind(wanted));
        let Some(Kind::Enum { symbols: known, default }) = reader else {
            return symbols.iter().cloned().map(Ok).collect();
        };
        let of = |symbol: &String| match default {
            _ if known.contains(symbol) => Ok(symbol.clone()),
            Some(default) => Ok(default.clone()),
            None => Err(format!("the reader's schema has no symbol {:?}, and no default", excerpt(symbol))),
        };
        symbols.iter().map(of).collect()
    }

    fn misfit(&self, id: Id, wanted: Option<Id>, column: &Column, path: &str) -> String {
        let by_reader = match (self.reader, wanted) {
            (Some(reader), Some(wanted)) => format!(" by way of the reader's {}", reader.describe(wanted)),
            _ => String::new(),
        };
        format!(
            "column {path:?}: the writer has {} there, which does not become {}{by_reader}",
            self.writer.describe(id),
            column.data_type()
        )
    }
}

fn too_many() -> String {
    format!("unions within unions, with more than {MOST_PARTS} ways to read them")
}

fn null(path: &str) -> String {
    format!("column {path:?}: the writer has null there, and the column is not nullable")
}

fn reader_field<'a>(reader: &'a [Field], name: &str, path: &str) -> Result<&'a Field, String> {
    reader.iter().find(|field| field.name == name).ok_or_else(|| {
        let there = reader.iter().map(|field| field.name.as_str());
        format!("column {path:?} is not in the reader's schema, which has {}", alternatives(name, there))
    })
}

/// Where the writer has a field: under its name, or else under an alias.
fn place(writer: &[Field], wanted: Option<&Field>, name: &str) -> Option<usize> {
    let at = |name: &str| writer.iter().position(|field| field.name == name);
    at(name).or_else(|| wanted?.aliases.iter().find_map(|alias| at(alias)))
}

/// Whether what was written as `id` may be read as `wanted`, by the rules of Avro. Neither is a union.
fn promotes(writer: &Schema, id: Id, reader: &Schema, wanted: Id) -> bool {
    let names = || match (&writer.get(id).name, &reader.get(wanted).name) {
        (Some(written), Some(wanted)) => wanted.is(written),
        _ => true,
    };
    match (writer.kind(id), reader.kind(wanted)) {
        (Kind::Boolean, Kind::Boolean) => true,
        (Kind::Int, Kind::Int | Kind::Long | Kind::Float | Kind::Double) => true,
        (Kind::Long, Kind::Long | Kind::Float | Kind::Double) => true,
        (Kind::Float, Kind::Float | Kind::Double) => true,
        (Kind::Double, Kind::Double) => true,
        (Kind::Bytes | Kind::String, Kind::Bytes | Kind::String) => true,
        (Kind::Array(_), Kind::Array(_)) | (Kind::Map(_), Kind::Map(_)) => true,
        (Kind::Fixed(written), Kind::Fixed(wanted)) => written == wanted && names(),
        (Kind::Enum { .. }, Kind::Enum { .. }) | (Kind::Record(_), Kind::Record(_)) => names(),
        _ => false,
    }
}

/// How a value without parts goes into a column of a type; `None` if it does not.
fn simple(kind: &Kind, logical: Option<Logical>, to: &DataType) -> Option<Value> {
    use DataType as D;
    Some(match (kind, to) {
        (_, D::Timestamp(..) | D::Date32 | D::Time32(_) | D::Time64(_)) => return time(kind, logical?, to),
        (_, D::Decimal128(precision, scale)) => {
            let Some(Logical::Decimal { precision: written, scale: same }) = logical else { return None };
            let size = match kind {
                Kind::Bytes => None,
                Kind::Fixed(size) => Some(*size),
                _ => return None,
            };
            if same != *scale || written > *precision {
                return None;
            }
            Value::Decimal { size, precision: written }
        }
        (Kind::Boolean, D::Boolean) => Value::Boolean,
        (Kind::Int, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16) => Value::Int,
        (Kind::Int, D::Int64 | D::UInt32 | D::UInt64 | D::Float32 | D::Float64) => Value::Int,
        (Kind::Long, D::Int64 | D::UInt32 | D::UInt64 | D::Float32 | D::Float64) => Value::Long,
        (Kind::Float, D::Float32 | D::Float64) => Value::Float,
        (Kind::Double, D::Float64) => Value::Double,
        (Kind::String | Kind::Bytes, D::Utf8 | D::Utf8View | D::LargeUtf8) => Value::Text,
        (Kind::String | Kind::Bytes, D::Binary) => Value::Bytes,
        (Kind::Fixed(size), D::Binary) => Value::Fixed(*size),
        (Kind::Fixed(size), D::FixedSizeBinary(wanted)) if usize::try_from(*wanted) == Ok(*size) => Value::Fixed(*size),
        (Kind::String, D::FixedSizeBinary(16)) if logical == Some(Logical::Uuid) => Value::Uuid,
        _ => return None,
    })
}

/// How a time goes into a column: never so that digits are lost, and what a clock on a wall shows is no point in time.
fn time(kind: &Kind, logical: Logical, to: &DataType) -> Option<Value> {
    if !matches!(kind, Kind::Int | Kind::Long) {
        return None;
    }
    let (from, to) = match (logical, to) {
        (Logical::Date, DataType::Date32) => return Some(Value::Int),
        (Logical::Timestamp { unit, instant }, DataType::Timestamp(to, zone)) if instant || zone.is_none() => {
            (unit, *to)
        }
        (Logical::Time(unit), DataType::Time32(to) | DataType::Time64(to)) => (unit, *to),
        _ => return None,
    };
    let per_second = |unit| match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000_i64,
    };
    let times = per_second(to) / per_second(from);
    (times > 0).then_some(Value::Time { times })
}
