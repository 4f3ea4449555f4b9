//! A message into columns, by a walk over its bytes.
//!
//! Fields come in any order, more than once, and in pieces: the last of a scalar counts, the pieces of a message are merged
//! (which is the same as to read their bytes one after the other), and of a `oneof` the last member counts. So a message is
//! looked through once for where its fields are, passing over what they hold, and then each column takes its own.
//!
//! ```text
//!   08 07  12 02 6f 6b  08 09        found: id at 6 (twice), note at 2        ──►   id  note
//!   id 7   note "ok"    id 9                                                        9   ok
//! ```
//!
//! The memory that this takes grows with the columns and what goes into them alone. It goes no deeper than the columns do.

use prost::encoding::{self, DecodeContext, WireType};
use prost_reflect::Kind;

use super::plan::{Plan, Target, Value};
use crate::format::{
    columns::{Column, Columns, Misfit, Values},
    excerpt, most_values,
    text::since_1970,
};

/// Where a field is in its message.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Found {
    first: usize,
    last: usize,
    count: usize,
}

/// What is kept while a message is read.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The fields found of the messages around the one that is read.
    found: Vec<Found>,
    /// How many values its lists may hold yet.
    values: usize,
}

impl Scratch {
    /// For a message of this length.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.found.clear();
        self.values = most_values(bytes);
    }
}

/// Why a message is rejected.
#[derive(Debug)]
pub(super) struct Fault {
    path: String,
    what: String,
}

type Result<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    #[cold]
    fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    #[cold]
    fn broken(error: prost::DecodeError) -> Self {
        let text = error.to_string();
        let text = text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text);
        Self::new(format!("not a message of Protocol Buffers: {text}"))
    }

    #[cold]
    fn within(mut self, name: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{dot}{}", self.path);
        self
    }

    /// In words.
    #[cold]
    pub(super) fn explain(self) -> String {
        if self.path.is_empty() { self.what } else { format!("column {:?}: {}", self.path, self.what) }
    }
}

/// A value as it stands in a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed32(u32),
    Fixed64(u64),
    Bytes(&'a [u8]),
}

/// Reads the number of a field and its value; `None` for a group, which is passed over.
fn read<'a>(rest: &mut &'a [u8]) -> Result<(u32, Option<Wire<'a>>)> {
    let (number, wire_type) = encoding::decode_key(rest).map_err(Fault::broken)?;
    let value = match wire_type {
        WireType::StartGroup | WireType::EndGroup => {
            encoding::skip_field(wire_type, number, rest, DecodeContext::default()).map_err(Fault::broken)?;
            None
        }
        other => Some(read_value(other, rest)?),
    };
    Ok((number, value))
}

fn read_value<'a>(wire_type: WireType, rest: &mut &'a [u8]) -> Result<Wire<'a>> {
    let short = || Fault::new("not a message of Protocol Buffers: it ends within a value");
    Ok(match wire_type {
        WireType::Varint => Wire::Varint(encoding::decode_varint(rest).map_err(Fault::broken)?),
        WireType::ThirtyTwoBit => {
            let (bytes, behind) = rest.split_first_chunk().ok_or_else(short)?;
            *rest = behind;
            Wire::Fixed32(u32::from_le_bytes(*bytes))
        }
        WireType::SixtyFourBit => {
            let (bytes, behind) = rest.split_first_chunk().ok_or_else(short)?;
            *rest = behind;
            Wire::Fixed64(u64::from_le_bytes(*bytes))
        }
        _ => {
            let length = encoding::decode_varint(rest).map_err(Fault::broken)?;
            let length = usize::try_from(length).map_err(|_| short())?;
            let (bytes, behind) = rest.split_at_checked(length).ok_or_else(short)?;
            *rest = behind;
            Wire::Bytes(bytes)
        }
    })
}

/// Writes a message as a row of the columns. After an error the row is open.
pub(super) fn message(plan: &Plan, bytes: &[u8], columns: &mut Columns, scratch: &mut Scratch) -> Result {
    let base = scratch.found.len();
    scratch.found.resize(base + plan.fields.len(), Found::default());
    scan(plan, bytes, &mut scratch.found[base..])?;
    for (i, field) in plan.fields.iter().enumerate() {
        let found = scratch.found[base + i];
        let column = &mut columns.columns[field.column];
        put(field, bytes, found, column, scratch).map_err(|fault| fault.within(&field.name))?;
    }
    scratch.found.truncate(base);
    columns.end_row().map_err(|i| missing().within(columns.fields[i].name()))
}

fn missing() -> Fault {
    Fault::new("is missing, and it is not nullable")
}

/// Finds the fields of a message that have a column.
fn scan(plan: &Plan, bytes: &[u8], found: &mut [Found]) -> Result {
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        let (number, wire) = read(&mut rest)?;
        let Some(arrival) = plan.arrival(number) else { continue };
        for rival in &arrival.rivals {
            found[*rival] = Found::default();
        }
        let Some(i) = arrival.field else { continue };
        let field = &plan.fields[i];
        if !wire.is_some_and(|wire| is_expected(field, wire)) {
            return Err(mismatch().within(&field.name));
        }
        let found = &mut found[i];
        if found.count == 0 {
            found.first = at;
        }
        (found.last, found.count) = (at, found.count + 1);
    }
    Ok(())
}

fn mismatch() -> Fault {
    Fault::new("it is encoded as another type than the schema says")
}

fn is_expected(field: &Target, wire: Wire) -> bool {
    let Value::Scalar(kind) = &field.value else { return matches!(wire, Wire::Bytes(_)) };
    let is_packed = field.repeated && matches!(wire, Wire::Bytes(_));
    is_packed || std::mem::discriminant(&wire) == std::mem::discriminant(&zero(kind))
}

/// The default of a scalar, as it would stand in a message.
fn zero(kind: &Kind) -> Wire<'static> {
    match wire_type(kind) {
        WireType::Varint => Wire::Varint(0),
        WireType::ThirtyTwoBit => Wire::Fixed32(0),
        WireType::SixtyFourBit => Wire::Fixed64(0),
        _ => Wire::Bytes(b""),
    }
}

pub(super) fn wire_type(kind: &Kind) -> WireType {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => WireType::SixtyFourBit,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => WireType::ThirtyTwoBit,
        Kind::String | Kind::Bytes | Kind::Message(_) => WireType::LengthDelimited,
        _ => WireType::Varint,
    }
}

/// Writes a field into its column.
fn put(field: &Target, bytes: &[u8], found: Found, column: &mut Column, scratch: &mut Scratch) -> Result {
    let there = bytes.get(found.first..).unwrap_or_default();
    if field.repeated {
        let there = if found.count == 0 { &[] } else { there };
        return list(field, there, column, scratch);
    }
    if found.count == 0 {
        return match &field.value {
            _ if field.presence => column.push_null().map_err(|_| missing()),
            Value::Scalar(kind) => scalar(kind, zero(kind), column),
            _ => value(&field.value, Wire::Bytes(b""), column, scratch),
        };
    }
    if found.count > 1 && !matches!(field.value, Value::Scalar(_)) {
        let merged = merged(field.number, there)?;
        return value(&field.value, Wire::Bytes(&merged), column, scratch);
    }
    let (_, wire) = read(&mut bytes.get(found.last..).unwrap_or_default())?;
    value(&field.value, wire.ok_or_else(mismatch)?, column, scratch)
}

/// The pieces of a message that comes more than once.
fn merged(number: u32, mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut merged = Vec::new();
    while !rest.is_empty() {
        if let (found, Some(Wire::Bytes(piece))) = read(&mut rest)?
            && found == number
        {
            merged.extend_from_slice(piece);
        }
    }
    Ok(merged)
}

/// Writes all elements of a repeated field.
fn list(field: &Target, mut rest: &[u8], column: &mut Column, scratch: &mut Scratch) -> Result {
    let Values::List { ends, item } = &mut column.values else { return Err(mismatch()) };
    let start = ends.last().map_or(0, |end| *end as usize);
    while !rest.is_empty() {
        let (number, wire) = read(&mut rest)?;
        let Some(wire) = wire.filter(|_| number == field.number) else { continue };
        let place = |item: &Column| format!("[{}]", item.len().saturating_sub(start));
        match (&field.value, wire) {
            (Value::Scalar(kind), Wire::Bytes(mut packed)) if wire_type(kind) != WireType::LengthDelimited => {
                while !packed.is_empty() {
                    let wire = read_value(wire_type(kind), &mut packed)?;
                    scalar(kind, wire, item).map_err(|fault| fault.within(&place(item)))?;
                }
            }
            (element, wire) => {
                let left = scratch.values.checked_sub(item.width());
                scratch.values = left.ok_or_else(|| Fault::new("too many values for a message of its size"))?;
                value(element, wire, item, scratch).map_err(|fault| fault.within(&place(item)))?;
            }
        }
    }
    column.end_list().map_err(|_| Fault::new("the list does not fit into one batch"))
}

fn value(value: &Value, wire: Wire, column: &mut Column, scratch: &mut Scratch) -> Result {
    let bytes = match (value, wire) {
        (Value::Scalar(kind), wire) => return scalar(kind, wire, column),
        (_, Wire::Bytes(bytes)) => bytes,
        _ => return Err(mismatch()),
    };
    match value {
        Value::Message(plan) => {
            let Values::Struct(columns) = &mut column.values else { return Err(mismatch()) };
            message(plan, bytes, columns, scratch)?;
            column.written();
            Ok(())
        }
        Value::Wrapper(kind) => {
            let mut rest = bytes;
            let mut wrapped = zero(kind);
            while !rest.is_empty() {
                if let (1, wire) = read(&mut rest)? {
                    wrapped = wire.ok_or_else(mismatch)?;
                }
            }
            scalar(kind, wrapped, column)
        }
        _ => timestamp(bytes, column),
    }
}

fn timestamp(mut rest: &[u8], column: &mut Column) -> Result {
    let Values::Timestamp { unit, .. } = column.values else { return Err(mismatch()) };
    let (mut seconds, mut nanos) = (0, 0);
    while !rest.is_empty() {
        match read(&mut rest)? {
            (1, Some(Wire::Varint(value))) => seconds = value as i64,
            (2, Some(Wire::Varint(value))) => nanos = value as i32,
            (1 | 2, _) => return Err(mismatch()),
            _ => {}
        }
    }
    let fraction = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let Some(fraction) = fraction else {
        return Err(Fault::new(format!("its {nanos} nanoseconds are not a part of one second")));
    };
    let pushed = since_1970(seconds, fraction, unit).and_then(|time| column.push_i64(time));
    pushed.map_err(|_| Fault::new(format!("{seconds} s since 1970 does not fit {}", column.field.data_type())))
}

fn scalar(kind: &Kind, wire: Wire, column: &mut Column) -> Result {
    let signed = |column: &mut Column, value: i64| column.push_i64(value).map_err(|misfit| (value.to_string(), misfit));
    let unsigned =
        |column: &mut Column, value: u64| column.push_u64(value).map_err(|misfit| (value.to_string(), misfit));
    let pushed = match (kind, wire) {
        (Kind::Bool, Wire::Varint(value)) => column.push_bool(value != 0).map_err(|misfit| (value.to_string(), misfit)),
        (Kind::Int32, Wire::Varint(value)) => signed(column, i64::from(value as i32)),
        (Kind::Int64, Wire::Varint(value)) => signed(column, value as i64),
        (Kind::Uint32, Wire::Varint(value)) => unsigned(column, u64::from(value as u32)),
        (Kind::Uint64, Wire::Varint(value)) => unsigned(column, value),
        (Kind::Sint32, Wire::Varint(value)) => {
            let value = value as u32;
            signed(column, i64::from((value >> 1) as i32 ^ -((value & 1) as i32)))
        }
        (Kind::Sint64, Wire::Varint(value)) => signed(column, (value >> 1) as i64 ^ -((value & 1) as i64)),
        (Kind::Fixed32, Wire::Fixed32(value)) => unsigned(column, u64::from(value)),
        (Kind::Sfixed32, Wire::Fixed32(value)) => signed(column, i64::from(value as i32)),
        (Kind::Fixed64, Wire::Fixed64(value)) => unsigned(column, value),
        (Kind::Sfixed64, Wire::Fixed64(value)) => signed(column, value as i64),
        (Kind::Float, Wire::Fixed32(value)) => {
            column.push_f32(f32::from_bits(value)).map_err(|misfit| (f32::from_bits(value).to_string(), misfit))
        }
        (Kind::Double, Wire::Fixed64(value)) => {
            column.push_f64(f64::from_bits(value)).map_err(|misfit| (f64::from_bits(value).to_string(), misfit))
        }
        (Kind::Enum(values), Wire::Varint(value)) => {
            let number = value as i32;
            if !matches!(column.values, Values::Text { .. } | Values::LargeText { .. }) {
                signed(column, i64::from(number))
            } else if let Some(value) = values.get_value(number) {
                column.push_text(value.name()).map_err(|misfit| (value.name().to_string(), misfit))
            } else {
                return Err(Fault::new(format!("{number} is no value of the enum {}", values.full_name())));
            }
        }
        (Kind::String, Wire::Bytes(bytes)) => {
            let text = std::str::from_utf8(bytes).map_err(|error| Fault::new(format!("not UTF-8: {error}")))?;
            column.push_text(text).map_err(|misfit| (format!("{:?}", excerpt(text)), misfit))
        }
        (Kind::Bytes, Wire::Bytes(bytes)) => {
            column.push_bytes(bytes).map_err(|misfit| (format!("{} bytes", bytes.len()), misfit))
        }
        _ => return Err(mismatch()),
    };
    pushed.map_err(|(shown, misfit)| {
        let fits = if misfit == Misfit::Range { "does not fit" } else { "is not" };
        Fault::new(format!("{shown} {fits} {}", column.field.data_type()))
    })
}
