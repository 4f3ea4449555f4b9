//! Values out of the bytes of a record, into columns or past them.
//!
//! Everything is checked before it is done: lengths against what is left, choices against what there is, text for being text. A
//! record that fails leaves an open row behind, which [`Columns::truncate`] takes away.

use super::{
    cursor::{Bad, Cursor, Read, bad},
    plan::{Default, FieldPlan, Record, Value},
    schema::{Id, Kind, Schema},
};
use crate::format::columns::{Column, Columns, Misfit, Values};

/// Reads a record into the next row of `columns`.
pub(super) fn record(plan: &Record, schema: &Schema, cursor: &mut Cursor<'_>, columns: &mut Columns) -> Read {
    for field in &plan.fields {
        match field {
            FieldPlan::Into(i, plan) => {
                let column = &mut columns.columns[*i];
                value(plan, schema, cursor, column).map_err(|bad| bad.within(columns.fields[*i].name()))?;
            }
            FieldPlan::Skip(id, name) => skip(schema, *id, cursor).map_err(|bad| bad.passed_over(name))?,
        }
    }
    for Default { column: i, plan, schema, bytes } in &plan.defaults {
        cursor.spend(1 + bytes.len() / 8)?;
        let column = &mut columns.columns[*i];
        value(plan, schema, &mut Cursor::new(bytes), column).map_err(|bad| bad.within(columns.fields[*i].name()))?;
    }
    columns.end_row().map_err(|i| bad("null, and the column is not nullable").within(columns.fields[i].name()))
}

fn value(plan: &Value, schema: &Schema, cursor: &mut Cursor<'_>, column: &mut Column) -> Read {
    match plan {
        Value::Int => {
            let number = cursor.int()?.into();
            column.push_i64(number).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Long => {
            let number = cursor.long()?;
            column.push_i64(number).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Time { times } => {
            let number = cursor.long()?;
            let scaled = number.checked_mul(*times).ok_or(Misfit::Range);
            scaled.and_then(|scaled| column.push_i64(scaled)).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Text => {
            let text = cursor.text()?;
            column.push_text(text).map_err(|misfit| unfit(misfit, column, "the text"))
        }
        Value::Float => {
            let number = cursor.float()?;
            column.push_f32(number).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Double => {
            let number = cursor.double()?;
            column.push_f64(number).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Boolean => {
            let truth = cursor.boolean()?;
            column.push_bool(truth).map_err(|misfit| unfit(misfit, column, truth))
        }
        Value::Null => column.push_null().map_err(|misfit| unfit(misfit, column, "null")),
        Value::Bytes => {
            let bytes = cursor.bytes()?;
            column.push_bytes(bytes).map_err(|misfit| unfit(misfit, column, "the value"))
        }
        Value::Fixed(size) => {
            let bytes = cursor.take(*size)?;
            column.push_bytes(bytes).map_err(|misfit| unfit(misfit, column, "the value"))
        }
        Value::Uuid => {
            let bytes = uuid(cursor.text()?)?;
            column.push_bytes(&bytes).map_err(|misfit| unfit(misfit, column, "the value"))
        }
        Value::Decimal { size, precision } => {
            let bytes = match size {
                Some(size) => cursor.take(*size)?,
                None => cursor.bytes()?,
            };
            let number = decimal(bytes, *precision)?;
            column.push_decimal(number).map_err(|misfit| unfit(misfit, column, number))
        }
        Value::Enum(symbols) => {
            let symbol = &symbols[cursor.choice("symbol", symbols.len())?];
            let symbol = symbol.as_ref().map_err(|reason| bad(reason.clone()))?;
            column.push_text(symbol).map_err(|misfit| unfit(misfit, column, "the symbol"))
        }
        Value::Union(branches) => {
            let branch = &branches[cursor.choice("branch", branches.len())?];
            match branch {
                Ok(plan) => value(plan, schema, cursor, column),
                Err(reason) => Err(Bad::named(reason)),
            }
        }
        Value::List(_) | Value::Map(_) | Value::Record(_) => {
            cursor.down()?;
            nested(plan, schema, cursor, column)?;
            cursor.up();
            Ok(())
        }
    }
}

fn nested(plan: &Value, schema: &Schema, cursor: &mut Cursor<'_>, column: &mut Column) -> Read {
    match (plan, &mut column.values) {
        (Value::List(plan), Values::List { item, ends }) => {
            let start = ends.last().map_or(0, |end| *end as usize);
            cursor.items(|cursor| {
                let at = item.len() - start;
                // One is spent already.
                cursor.spend(item.width() - 1)?;
                value(plan, schema, cursor, item).map_err(|bad| bad.within(&format!("[{at}]")))
            })?;
            column.end_list().map_err(|misfit| unfit(misfit, column, "the array"))
        }
        (Value::Map(plan), Values::Map { entries, .. }) => {
            cursor.items(|cursor| entry(plan, schema, cursor, entries))?;
            column.end_list().map_err(|misfit| unfit(misfit, column, "the map"))
        }
        (Value::Record(plan), Values::Struct(columns)) => {
            cursor.spend(1 + plan.fields.len().max(columns.columns.len()))?;
            record(plan, schema, cursor, columns)?;
            column.written();
            Ok(())
        }
        _ => Err(bad("a plan for another column: a bug")),
    }
}

fn entry(plan: &Value, schema: &Schema, cursor: &mut Cursor<'_>, entries: &mut Columns) -> Read {
    let key = cursor.text()?;
    let [keys, values] = entries.columns.as_mut_slice() else { return Err(bad("a map that is none: a bug")) };
    keys.push_text(key).map_err(|misfit| unfit(misfit, keys, "the key"))?;
    value(plan, schema, cursor, values)?;
    entries.end_row().map_err(|_| bad("null, and the map's values are not nullable"))
}

/// Passes over a value, as carefully as if it were read: what follows it is read.
fn skip(schema: &Schema, id: Id, cursor: &mut Cursor<'_>) -> Read {
    match schema.kind(id) {
        Kind::Null => Ok(()),
        Kind::Boolean => cursor.boolean().map(drop),
        Kind::Int => cursor.int().map(drop),
        Kind::Long => cursor.long().map(drop),
        Kind::Float => cursor.take(4).map(drop),
        Kind::Double => cursor.take(8).map(drop),
        Kind::Bytes => cursor.bytes().map(drop),
        Kind::String => cursor.text().map(drop),
        Kind::Fixed(size) => cursor.take(*size).map(drop),
        Kind::Enum { symbols, .. } => cursor.choice("symbol", symbols.len()).map(drop),
        Kind::Union(branches) => {
            let branch = branches[cursor.choice("branch", branches.len())?];
            skip(schema, branch, cursor)
        }
        Kind::Array(_) | Kind::Map(_) | Kind::Record(_) => {
            cursor.down()?;
            skip_nested(schema, id, cursor)?;
            cursor.up();
            Ok(())
        }
    }
}

fn skip_nested(schema: &Schema, id: Id, cursor: &mut Cursor<'_>) -> Read {
    match schema.kind(id) {
        Kind::Array(item) => cursor.items(|cursor| skip(schema, *item, cursor)),
        Kind::Map(value) => cursor.items(|cursor| {
            cursor.text()?;
            skip(schema, *value, cursor)
        }),
        Kind::Record(fields) => {
            cursor.spend(1 + fields.len())?;
            fields.iter().try_for_each(|field| skip(schema, field.id, cursor).map_err(|bad| bad.within(&field.name)))
        }
        _ => Ok(()),
    }
}

/// A whole number from bytes, the highest first, the sign in the first bit.
fn decimal(bytes: &[u8], precision: u8) -> Read<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let filler = if negative { 0xFF } else { 0 };
    let too_large = || bad(format!("a decimal of more than {precision} digits"));
    let beyond = bytes.len().saturating_sub(16);
    let (beyond, rest) = bytes.split_at(beyond);
    let same_sign = rest.first().is_none_or(|first| (first & 0x80 != 0) == negative);
    if beyond.iter().any(|byte| *byte != filler) || !same_sign {
        return Err(too_large());
    }
    let number = rest.iter().fold(if negative { -1 } else { 0 }, |number: i128, byte| number << 8 | i128::from(*byte));
    match 10_u128.checked_pow(precision.into()) {
        Some(limit) if number.unsigned_abs() >= limit => Err(too_large()),
        _ => Ok(number),
    }
}

fn uuid(text: &str) -> Read<[u8; 16]> {
    let wrong = || bad("the text is not a UUID");
    let mut bytes = [0; 16];
    let mut digits = text.bytes().filter(|byte| *byte != b'-').map(|byte| char::from(byte).to_digit(16));
    for byte in &mut bytes {
        let high = digits.next().flatten().ok_or_else(wrong)?;
        let low = digits.next().flatten().ok_or_else(wrong)?;
        *byte = (high * 16 + low) as u8;
    }
    if digits.next().is_some() { Err(wrong()) } else { Ok(bytes) }
}

#[cold]
fn unfit(misfit: Misfit, column: &Column, value: impl ToString) -> Box<Bad> {
    let (value, to) = (value.to_string(), column.field.data_type());
    bad(match misfit {
        Misfit::Range => format!("{value} does not fit {to}"),
        Misfit::Kind => format!("{value} is not {to}"),
        Misfit::Null => "null, and the column is not nullable".to_string(),
    })
}
