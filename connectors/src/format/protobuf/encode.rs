//! Rows into messages.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    datatypes::{
        DataType, Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimeUnit,
        TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::{Kind, MessageDescriptor};

use super::{
    plan::{For, Plan, Target, Value},
    schema::{path_of, write_indexes},
    walk::{Wire, wire_type},
};
use crate::{
    ConnectorError, Result, SchemaRegistry,
    format::{Payloads, RowEncoder, config},
    registry::{SchemaKind, frame},
};

/// Makes a message of each row; made by [`Protobuf::encoder`](super::Protobuf::encoder), which has an example.
#[derive(Debug)]
pub struct ProtobufEncoder {
    schema: SchemaRef,
    plan: Plan,
    /// What stands before each message.
    frame: Vec<u8>,
}

impl ProtobufEncoder {
    pub(super) fn new(schema: &SchemaRef, message: &MessageDescriptor, frame: Vec<u8>) -> Result<Self> {
        let plan = Plan::new(message, schema.fields(), "", For::Writing).map_err(config)?;
        Ok(Self { schema: schema.clone(), plan, frame })
    }

    /// With the frame of a registry, which takes the schema.
    pub(super) fn registered(
        schema: &SchemaRef,
        message: &MessageDescriptor,
        text: &str,
        subject: &str,
        registry: &SchemaRegistry,
    ) -> Result<Self> {
        let mut encoder = Self::new(schema, message, Vec::new())?;
        let id = registry.register(subject, SchemaKind::Protobuf, text)?;
        encoder.frame.extend_from_slice(&frame(id));
        write_indexes(&path_of(message), &mut encoder.frame);
        Ok(encoder)
    }
}

impl RowEncoder for ProtobufEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        let (given, made_for) = (batch.schema_ref().fields(), self.schema.fields());
        if given.iter().map(|field| field.name()).ne(made_for.iter().map(|field| field.name())) {
            return Err(config("the rows have other columns than the encoder was made for".to_string()));
        }
        for row in 0..batch.num_rows() {
            out.buffer().extend_from_slice(&self.frame);
            message(&self.plan, batch.columns(), row, out.buffer())?;
            out.end();
        }
        Ok(())
    }
}

fn message(plan: &Plan, columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<()> {
    let there = |field: &Target| columns.get(field.column).filter(|array| array.is_valid(row));
    for (oneof, members) in &plan.oneofs {
        let mut set =
            members.iter().filter_map(|member| plan.fields.get(*member)).filter(|field| there(field).is_some());
        if let (Some(first), Some(second)) = (set.next(), set.next()) {
            let reason = format!(
                "it and {:?} are not null in one row, and the oneof {oneof} can hold one of them: make the others null",
                second.name
            );
            return Err(within(data(reason), &first.name));
        }
    }
    for field in &plan.fields {
        let Some(array) = there(field) else {
            if field.required {
                return Err(within(data("it is null, and the field is required".to_string()), &field.name));
            }
            continue;
        };
        let written = match array.as_list_opt::<i32>() {
            Some(lists) if field.repeated => list(field, &lists.value(row), out),
            _ => value(field, &field.value, array, row, !field.presence, out),
        };
        written.map_err(|error| within(error, &field.name))?;
    }
    Ok(())
}

/// An error about a value names the column, from the outermost in.
fn within(error: ConnectorError, name: &str) -> ConnectorError {
    match error {
        ConnectorError::Data { at, reason } => {
            let inner = at.strip_prefix("column \"").map(|inner| format!(".{inner}"));
            ConnectorError::Data { at: format!("column \"{name}{}", inner.unwrap_or("\"".to_string())), reason }
        }
        other => other,
    }
}

fn data(reason: String) -> ConnectorError {
    ConnectorError::Data { at: String::new(), reason }
}

fn list(field: &Target, items: &ArrayRef, out: &mut Vec<u8>) -> Result<()> {
    if items.null_count() > 0 {
        return Err(data("a list has a null in it, which Protobuf has no form for".to_string()));
    }
    match &field.value {
        Value::Scalar(kind) if field.packed && !items.is_empty() => {
            let mut packed = Vec::new();
            for row in 0..items.len() {
                bare(scalar(kind, items, row)?, &mut packed);
            }
            put(field.number, Wire::Bytes(&packed), out);
            Ok(())
        }
        element => (0..items.len()).try_for_each(|row| value(field, element, items, row, false, out)),
    }
}

/// Writes a field, unless it is the default and `implied` says that this goes without saying.
fn value(field: &Target, value: &Value, array: &ArrayRef, row: usize, implied: bool, out: &mut Vec<u8>) -> Result<()> {
    let is_default =
        |wire: Wire| matches!(wire, Wire::Varint(0) | Wire::Fixed32(0) | Wire::Fixed64(0) | Wire::Bytes([]));
    let mut inner = Vec::new();
    match value {
        Value::Scalar(kind) => {
            let wire = scalar(kind, array, row)?;
            if !(implied && is_default(wire)) {
                put(field.number, wire, out);
            }
            return Ok(());
        }
        Value::Wrapper(kind) => {
            let wire = scalar(kind, array, row)?;
            if !is_default(wire) {
                put(1, wire, &mut inner);
            }
        }
        Value::Timestamp => {
            let (seconds, nanos) = timestamp(array, row).ok_or_else(|| unexpected(array))?;
            for (number, value) in [(1, seconds), (2, nanos)] {
                if value != 0 {
                    put(number, Wire::Varint(value as u64), &mut inner);
                }
            }
        }
        Value::Message(plan) => {
            let columns: &StructArray = array.as_struct_opt().ok_or_else(|| unexpected(array))?;
            message(plan, columns.columns(), row, &mut inner)?;
        }
    }
    put(field.number, Wire::Bytes(&inner), out);
    Ok(())
}

fn unexpected(array: &ArrayRef) -> ConnectorError {
    config(format!("{} is not what the encoder was made for", array.data_type()))
}

/// Seconds since 1970, and nanoseconds of the second.
fn timestamp(array: &ArrayRef, row: usize) -> Option<(i64, i64)> {
    let DataType::Timestamp(unit, _) = array.data_type() else { return None };
    let value = whole(array, row)? as i64;
    let (per_second, nanos) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    Some((value.div_euclid(per_second), value.rem_euclid(per_second) * nanos))
}

/// A whole number, sign-extended to 64 bits.
fn whole(array: &ArrayRef, row: usize) -> Option<u64> {
    Some(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row) as u64,
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row) as u64,
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row) as u64,
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row) as u64,
        DataType::UInt8 => u64::from(array.as_primitive::<UInt8Type>().value(row)),
        DataType::UInt16 => u64::from(array.as_primitive::<UInt16Type>().value(row)),
        DataType::UInt32 => u64::from(array.as_primitive::<UInt32Type>().value(row)),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row),
        DataType::Date32 => array.as_primitive::<Date32Type>().value(row) as u64,
        DataType::Timestamp(TimeUnit::Second, _) => array.as_primitive::<TimestampSecondType>().value(row) as u64,
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            array.as_primitive::<TimestampMillisecondType>().value(row) as u64
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            array.as_primitive::<TimestampMicrosecondType>().value(row) as u64
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            array.as_primitive::<TimestampNanosecondType>().value(row) as u64
        }
        _ => return None,
    })
}

fn bytes(array: &ArrayRef, row: usize) -> Option<&[u8]> {
    Some(match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(row).as_bytes(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).as_bytes(),
        DataType::Utf8View => array.as_string_view().value(row).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(row),
        DataType::LargeBinary => array.as_binary::<i64>().value(row),
        DataType::BinaryView => array.as_binary_view().value(row),
        _ => return None,
    })
}

/// A value as it stands in a message. The plan has made sure that whole numbers fit.
fn scalar<'a>(kind: &Kind, array: &'a ArrayRef, row: usize) -> Result<Wire<'a>> {
    let wire = match (kind, array.data_type()) {
        (Kind::Bool, _) => array.as_boolean_opt().map(|array| Wire::Varint(u64::from(array.value(row)))),
        (Kind::Float, _) => {
            array.as_primitive_opt::<Float32Type>().map(|array| Wire::Fixed32(array.value(row).to_bits()))
        }
        (Kind::Double, DataType::Float32) => {
            let array = array.as_primitive_opt::<Float32Type>();
            array.map(|array| Wire::Fixed64(f64::from(array.value(row)).to_bits()))
        }
        (Kind::Double, _) => {
            array.as_primitive_opt::<Float64Type>().map(|array| Wire::Fixed64(array.value(row).to_bits()))
        }
        (Kind::String | Kind::Bytes, _) => bytes(array, row).map(Wire::Bytes),
        (Kind::Enum(values), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => {
            let name = std::str::from_utf8(bytes(array, row).unwrap_or_default()).unwrap_or_default();
            let Some(value) = values.get_value_by_name(name) else {
                let name = crate::format::excerpt(name);
                return Err(data(format!("{name:?} is no value of the enum {}", values.full_name())));
            };
            Some(Wire::Varint(i64::from(value.number()) as u64))
        }
        (Kind::Sint32 | Kind::Sint64, _) => whole(array, row).map(|value| {
            let value = value as i64;
            Wire::Varint(((value << 1) ^ (value >> 63)) as u64)
        }),
        (kind, _) => whole(array, row).map(|value| match wire_type(kind) {
            WireType::ThirtyTwoBit => Wire::Fixed32(value as u32),
            WireType::SixtyFourBit => Wire::Fixed64(value),
            _ => Wire::Varint(value),
        }),
    };
    wire.ok_or_else(|| unexpected(array))
}

fn put(number: u32, wire: Wire, out: &mut Vec<u8>) {
    let wire_type = match wire {
        Wire::Varint(_) => WireType::Varint,
        Wire::Fixed32(_) => WireType::ThirtyTwoBit,
        Wire::Fixed64(_) => WireType::SixtyFourBit,
        Wire::Bytes(_) => WireType::LengthDelimited,
    };
    encode_key(number, wire_type, out);
    if let Wire::Bytes(bytes) = wire {
        encode_varint(bytes.len() as u64, out);
    }
    bare(wire, out);
}

/// A value without its length.
fn bare(wire: Wire, out: &mut Vec<u8>) {
    match wire {
        Wire::Varint(value) => encode_varint(value, out),
        Wire::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Wire::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Wire::Bytes(bytes) => out.extend_from_slice(bytes),
    }
}
