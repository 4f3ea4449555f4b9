//! Which field of a message goes into which column, found once for each schema.

use arrow::datatypes::{DataType, Fields};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, OneofDescriptor};

use crate::format::text::alternatives;

/// The fields of a message that have a column, for both directions.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) fields: Vec<Target>,
    /// By the number of a field, in order: what happens when it comes. Others are passed over.
    numbers: Vec<(u32, Arrival)>,
    /// Each `oneof` of which several columns are members: its name, and their places in `fields`. A row has one of them at most.
    pub(super) oneofs: Vec<(String, Vec<usize>)>,
}

/// A field that has a column.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) column: usize,
    pub(super) name: String,
    pub(super) number: u32,
    pub(super) value: Value,
    /// `repeated`, or a map.
    pub(super) repeated: bool,
    /// Written packed.
    pub(super) packed: bool,
    /// Whether "not there" can be told from the default.
    pub(super) presence: bool,
    /// Whether a message without it is none: `required`.
    pub(super) required: bool,
}

/// What a field holds, or each of its elements.
#[derive(Debug)]
pub(super) enum Value {
    Scalar(Kind),
    /// A message that is one scalar, in the field 1 without presence.
    Wrapper(Kind),
    Timestamp,
    Message(Plan),
}

/// What happens when a field comes.
#[derive(Debug)]
pub(super) struct Arrival {
    /// Its place in [`Plan::fields`].
    pub(super) field: Option<usize>,
    /// The fields of the same `oneof`, which this one takes away.
    pub(super) rivals: Vec<usize>,
}

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Read messages of a schema that is given: every column has a field.
    Reading,
    /// Read messages of a schema that may be older or newer: a nullable column may have none.
    Evolving,
    /// Write: every column has a field, and no value is too large for it.
    Writing,
}

impl Plan {
    /// The plan for these columns. `within` is the path of the struct, empty for a batch. The error names the column, the field
    /// and their types.
    pub(super) fn new(message: &MessageDescriptor, columns: &Fields, within: &str, aim: For) -> Result<Self, String> {
        let mut fields = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            let path = if within.is_empty() { column.name().clone() } else { format!("{within}.{}", column.name()) };
            match message.get_field_by_name(column.name()) {
                Some(field) => fields.push(Target::new(i, &field, column.data_type(), &path, aim)?),
                None if aim == For::Evolving && column.is_nullable() => {}
                None => {
                    let all: Vec<FieldDescriptor> = message.fields().collect();
                    let there = alternatives(column.name(), all.iter().map(FieldDescriptor::name));
                    let name = message.full_name();
                    return Err(format!("column {path:?}: the message {name} has no such field; it has {there}"));
                }
            }
        }
        if let (For::Writing, Some(field)) = (
            aim,
            message.fields().find(|field| {
                field.is_required() && !fields.iter().any(|target: &Target| target.number == field.number())
            }),
        ) {
            let (name, message) = (field.name(), message.full_name());
            return Err(format!("the field {name:?} of the message {message} is required, and has no column"));
        }
        let oneofs = oneofs(message, &fields);
        let always = |place: &&usize| {
            let column = fields.get(**place).and_then(|field| columns.get(field.column));
            column.is_some_and(|column| !column.is_nullable())
        };
        let two = |(_, members): &&(String, Vec<usize>)| members.iter().filter(always).count() > 1;
        if let (For::Writing, Some((name, _))) = (aim, oneofs.iter().find(two)) {
            return Err(format!("two columns are of the oneof {name}, which can hold one, and neither is nullable"));
        }
        let numbers = numbers(message, &fields);
        Ok(Self { fields, numbers, oneofs })
    }

    /// What happens when the field with this number comes; `None` if it is passed over.
    pub(super) fn arrival(&self, number: u32) -> Option<&Arrival> {
        let place = self.numbers.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        self.numbers.get(place).map(|(_, arrival)| arrival)
    }
}

fn oneofs(message: &MessageDescriptor, fields: &[Target]) -> Vec<(String, Vec<usize>)> {
    let members = |oneof: OneofDescriptor| {
        let place = |member: FieldDescriptor| fields.iter().position(|field| field.number == member.number());
        (oneof.full_name().to_string(), oneof.fields().filter_map(place).collect())
    };
    message.oneofs().map(members).filter(|(_, members): &(_, Vec<usize>)| members.len() > 1).collect()
}

fn numbers(message: &MessageDescriptor, fields: &[Target]) -> Vec<(u32, Arrival)> {
    let arrival = |(i, field): (usize, &Target)| (field.number, Arrival { field: Some(i), rivals: Vec::new() });
    let mut numbers: Vec<(u32, Arrival)> = fields.iter().enumerate().map(arrival).collect();
    for oneof in message.oneofs() {
        let members: Vec<u32> = oneof.fields().map(|member| member.number()).collect();
        let place = |number: &u32| fields.iter().position(|field| field.number == *number);
        let wanted: Vec<usize> = members.iter().filter_map(place).collect();
        for number in members.into_iter().filter(|_| !wanted.is_empty()) {
            let field = place(&number);
            let rivals = wanted.iter().copied().filter(|rival| Some(*rival) != field).collect();
            let arrival = Arrival { field, rivals };
            match field.and_then(|field| numbers.get_mut(field)) {
                Some(former) => former.1 = arrival,
                None => numbers.push((number, arrival)),
            }
        }
    }
    numbers.sort_by_key(|(number, _)| *number);
    numbers
}

impl Target {
    fn new(column: usize, field: &FieldDescriptor, data_type: &DataType, path: &str, aim: For) -> Result<Self, String> {
        let repeated = field.is_list() || field.is_map();
        let kind = field.kind();
        let refused = |hint: &str| {
            let many = if field.is_map() {
                "a map of "
            } else if repeated {
                "repeated "
            } else {
                ""
            };
            let field = field.full_name();
            format!("column {path:?} is {data_type}, and the field {field} is {many}{}: {hint}", described(&kind))
        };
        if field.is_group() {
            return Err(refused("groups are not read or written"));
        }
        let element = match (repeated, data_type) {
            (true, DataType::List(item)) => item.data_type(),
            (true, _) => return Err(refused("choose a List")),
            (false, other) => other,
        };
        let inner = if repeated { format!("{path}[]") } else { path.to_string() };
        let value = match (&kind, element) {
            (Kind::Message(message), DataType::Struct(columns)) => {
                let mut plan = Plan::new(message, columns, &inner, aim)?;
                if field.is_map() {
                    // A key or value that is not there is the default, whatever it is.
                    plan.fields.iter_mut().for_each(|field| field.presence = false);
                }
                Value::Message(plan)
            }
            (Kind::Message(message), DataType::Timestamp(..)) if message.full_name() == TIMESTAMP => Value::Timestamp,
            (Kind::Message(message), other) => match wrapped(message) {
                Some(kind) if go_together(&kind, other, aim) => Value::Wrapper(kind),
                _ => return Err(refused(&hint(&kind))),
            },
            (scalar, other) if go_together(scalar, other, aim) => Value::Scalar(scalar.clone()),
            _ => return Err(refused(&hint(&kind))),
        };
        let (name, number) = (field.name().to_string(), field.number());
        let (packed, presence, required) = (field.is_packed(), field.supports_presence(), field.is_required());
        Ok(Self { column, name, number, value, repeated, packed, presence, required })
    }
}

pub(super) const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// What a wrapper of Google's wraps.
pub(super) fn wrapped(message: &MessageDescriptor) -> Option<Kind> {
    Some(match message.full_name() {
        "google.protobuf.DoubleValue" => Kind::Double,
        "google.protobuf.FloatValue" => Kind::Float,
        "google.protobuf.Int64Value" => Kind::Int64,
        "google.protobuf.UInt64Value" => Kind::Uint64,
        "google.protobuf.Int32Value" => Kind::Int32,
        "google.protobuf.UInt32Value" => Kind::Uint32,
        "google.protobuf.BoolValue" => Kind::Bool,
        "google.protobuf.StringValue" => Kind::String,
        "google.protobuf.BytesValue" => Kind::Bytes,
        _ => return None,
    })
}

/// The least and the most that whole numbers of the kind can be.
fn range_of_kind(kind: &Kind) -> Option<(i128, i128)> {
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Enum(_) => (i32::MIN.into(), i32::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => (i64::MIN.into(), i64::MAX.into()),
        Kind::Uint32 | Kind::Fixed32 => (0, u32::MAX.into()),
        Kind::Uint64 | Kind::Fixed64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

fn range_of_type(data_type: &DataType) -> Option<(i128, i128)> {
    Some(match data_type {
        DataType::Int8 => (i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => (i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 | DataType::Date32 => (i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 | DataType::Timestamp(..) => (i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => (0, u8::MAX.into()),
        DataType::UInt16 => (0, u16::MAX.into()),
        DataType::UInt32 => (0, u32::MAX.into()),
        DataType::UInt64 => (0, u64::MAX.into()),
        _ => return None,
    })
}

/// Whether values of a scalar field and of a column go together. A whole number that is read may be too large for the column,
/// which is found then; what is written always fits.
fn go_together(kind: &Kind, data_type: &DataType, aim: For) -> bool {
    if let (Some((least, most)), Some((low, high))) = (range_of_kind(kind), range_of_type(data_type)) {
        return aim != For::Writing || (least <= low && high <= most);
    }
    let is_text = matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let is_time = matches!(data_type, DataType::Timestamp(..) | DataType::Date32);
    match kind {
        Kind::Double => {
            matches!(data_type, DataType::Float64) || (aim == For::Writing && *data_type == DataType::Float32)
        }
        Kind::Float => {
            matches!(data_type, DataType::Float32) || (aim != For::Writing && *data_type == DataType::Float64)
        }
        Kind::Bool => *data_type == DataType::Boolean,
        Kind::String => is_text || (is_time && aim != For::Writing),
        Kind::Enum(_) => is_text,
        Kind::Bytes => match data_type {
            DataType::Binary => true,
            DataType::LargeBinary | DataType::BinaryView => aim == For::Writing,
            _ => false,
        },
        _ => false,
    }
}

fn described(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.full_name().to_string(),
        Kind::Enum(values) => format!("the enum {}", values.full_name()),
        scalar => format!("{scalar:?}"),
    }
}

fn hint(kind: &Kind) -> String {
    let choice = match kind {
        Kind::Double => "Float64",
        Kind::Float => "Float32",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "Int32",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "Int64",
        Kind::Uint32 | Kind::Fixed32 => "UInt32",
        Kind::Uint64 | Kind::Fixed64 => "UInt64",
        Kind::Bool => "Boolean",
        Kind::String | Kind::Enum(_) => "Utf8",
        Kind::Bytes => "Binary",
        Kind::Message(message) if message.full_name() == TIMESTAMP => "a Timestamp",
        Kind::Message(message) => return wrapped(message).map_or("choose a Struct".to_string(), |kind| hint(&kind)),
    };
    format!("choose {choice}")
}
