//! The columns of an Avro schema, for streams whose rows have no type of their own.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field as Column, Fields, Schema as Columns, SchemaRef, TimeUnit};

use super::schema::{Id, Kind, Logical, Schema};

/// A type this deep was made by nobody.
const DEEPEST: usize = 32;
const MOST_COLUMNS: usize = 10_000;

/// The columns of a record.
pub(super) fn columns(schema: &Schema) -> Result<SchemaRef, String> {
    let mut finder = Finder { schema, open: vec![schema.root], found: 0 };
    let fields = schema.fields()?;
    Ok(Arc::new(Columns::new(finder.fields(fields, "")?)))
}

struct Finder<'a> {
    schema: &'a Schema,
    /// The types that the present one is within.
    open: Vec<Id>,
    found: usize,
}

impl Finder<'_> {
    fn fields(&mut self, fields: &[super::schema::Field], within: &str) -> Result<Fields, String> {
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            let path = if within.is_empty() { field.name.clone() } else { format!("{within}.{}", field.name) };
            columns.push(self.column(&field.name, field.id, &path)?);
        }
        Ok(columns.into())
    }

    fn column(&mut self, name: &str, id: Id, path: &str) -> Result<Column, String> {
        self.found += 1;
        if self.found > MOST_COLUMNS {
            return Err(format!("it has more than {MOST_COLUMNS} columns"));
        }
        let Kind::Union(branches) = self.schema.kind(id) else {
            return Ok(Column::new(name, self.data_type(id, path)?, matches!(self.schema.kind(id), Kind::Null)));
        };
        let mut others = branches.iter().filter(|id| !matches!(self.schema.kind(**id), Kind::Null));
        let (Some(only), None) = (others.next(), others.next()) else {
            let found = self.schema.describe(id);
            return Err(format!(
                "field {path:?} is a {found}, and a column is of one type, or null: choose the columns yourself"
            ));
        };
        let nullable = branches.len() > 1;
        Ok(Column::new(name, self.data_type(*only, path)?, nullable))
    }

    fn data_type(&mut self, id: Id, path: &str) -> Result<DataType, String> {
        if self.open.len() > DEEPEST {
            return Err(format!("field {path:?} is nested more than {DEEPEST} deep"));
        }
        let found = self.schema.get(id);
        let utc = |instant: bool| instant.then(|| Arc::from("+00:00"));
        Ok(match (&found.kind, found.logical) {
            (_, Some(Logical::Date)) => DataType::Date32,
            (_, Some(Logical::Time(TimeUnit::Millisecond))) => DataType::Time32(TimeUnit::Millisecond),
            (_, Some(Logical::Time(unit))) => DataType::Time64(unit),
            (_, Some(Logical::Timestamp { unit, instant })) => DataType::Timestamp(unit, utc(instant)),
            (_, Some(Logical::Decimal { precision, scale })) if precision <= 38 => {
                DataType::Decimal128(precision, scale)
            }
            (Kind::Null, _) => return Err(format!("field {path:?} is always null: choose the columns yourself")),
            (Kind::Boolean, _) => DataType::Boolean,
            (Kind::Int, _) => DataType::Int32,
            (Kind::Long, _) => DataType::Int64,
            (Kind::Float, _) => DataType::Float32,
            (Kind::Double, _) => DataType::Float64,
            (Kind::Bytes, _) => DataType::Binary,
            (Kind::String | Kind::Enum { .. }, _) => DataType::Utf8,
            (Kind::Fixed(size), _) => DataType::FixedSizeBinary(i32::try_from(*size).unwrap_or(i32::MAX)),
            (Kind::Array(_) | Kind::Map(_) | Kind::Record(_), _) => {
                if self.open.contains(&id) {
                    return Err(format!(
                        "field {path:?} is {}, which contains itself: rows have no end then, choose the columns yourself",
                        self.schema.describe(id)
                    ));
                }
                self.open.push(id);
                let nested = self.nested(id, path)?;
                self.open.pop();
                nested
            }
            (Kind::Union(_), _) => return Err(format!("field {path:?} is a union directly within a union")),
        })
    }

    fn nested(&mut self, id: Id, path: &str) -> Result<DataType, String> {
        let schema = self.schema;
        match schema.kind(id) {
            Kind::Array(item) => Ok(DataType::List(Arc::new(self.column("item", *item, &format!("{path}[]"))?))),
            Kind::Map(value) => {
                let value = self.column("value", *value, &format!("{path}{{}}"))?;
                let entries = Fields::from(vec![Column::new("key", DataType::Utf8, false), value]);
                Ok(DataType::Map(Arc::new(Column::new("entries", DataType::Struct(entries), false)), false))
            }
            Kind::Record(fields) => Ok(DataType::Struct(self.fields(fields, path)?)),
            _ => Err(format!("field {path:?} has no parts")),
        }
    }
}
