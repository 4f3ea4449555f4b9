//! Defaults in a reader's schema: from JSON into the bytes that a writer would have written, so that they are read like any value.

use serde_json::Value;

use super::schema::{Id, Kind, Schema};
use crate::format::excerpt;

/// The bytes of `default`, or why it is none for this type.
pub(super) fn encode(schema: &Schema, id: Id, default: &Value) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    put(schema, id, default, 0, &mut 100_000, &mut bytes)?;
    Ok(bytes)
}

/// How deep defaults may be nested.
const DEEPEST: u32 = 64;

/// `values`: how many it may have yet. A record can have itself within its default, also twice on every level.
fn put(
    schema: &Schema,
    id: Id,
    default: &Value,
    depth: u32,
    values: &mut u32,
    bytes: &mut Vec<u8>,
) -> Result<(), String> {
    *values = values.saturating_sub(1);
    if depth > DEEPEST || *values == 0 {
        return Err("a default without end: a record that has itself within it".to_string());
    }
    let deeper = depth + 1;
    let wrong = || format!("the default {} is not {}", excerpt(&default.to_string()), schema.describe(id));
    match (schema.kind(id), default) {
        (Kind::Null, Value::Null) => {}
        (Kind::Boolean, Value::Bool(truth)) => bytes.push((*truth).into()),
        (Kind::Int, number) => {
            let number = number.as_i64().and_then(|number| i32::try_from(number).ok()).ok_or_else(wrong)?;
            long(number.into(), bytes);
        }
        (Kind::Long, number) => long(number.as_i64().ok_or_else(wrong)?, bytes),
        (Kind::Float, number) => bytes.extend((number.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
        (Kind::Double, number) => bytes.extend(number.as_f64().ok_or_else(wrong)?.to_le_bytes()),
        (Kind::String, Value::String(text)) => {
            long(text.len() as i64, bytes);
            bytes.extend(text.as_bytes());
        }
        (Kind::Bytes, Value::String(text)) => {
            let raw = latin(text).ok_or_else(wrong)?;
            long(raw.len() as i64, bytes);
            bytes.extend(raw);
        }
        (Kind::Fixed(size), Value::String(text)) => {
            let raw = latin(text).filter(|raw| raw.len() == *size).ok_or_else(wrong)?;
            bytes.extend(raw);
        }
        (Kind::Enum { symbols, .. }, Value::String(symbol)) => {
            let at = symbols.iter().position(|known| known == symbol).ok_or_else(wrong)?;
            long(at as i64, bytes);
        }
        (Kind::Array(item), Value::Array(list)) => {
            if !list.is_empty() {
                long(list.len() as i64, bytes);
                list.iter().try_for_each(|value| put(schema, *item, value, deeper, values, bytes))?;
            }
            bytes.push(0);
        }
        (Kind::Map(of), Value::Object(entries)) => {
            if !entries.is_empty() {
                long(entries.len() as i64, bytes);
            }
            for (key, value) in entries {
                long(key.len() as i64, bytes);
                bytes.extend(key.as_bytes());
                put(schema, *of, value, deeper, values, bytes)?;
            }
            bytes.push(0);
        }
        (Kind::Record(fields), Value::Object(object)) => {
            for field in fields {
                let value = object.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                put(schema, field.id, value, deeper, values, bytes)?;
            }
        }
        (Kind::Union(branches), value) => {
            // A default is of the first branch, say the older rules; of any, say the newer ones.
            for (i, branch) in branches.iter().enumerate() {
                let start = bytes.len();
                long(i as i64, bytes);
                if put(schema, *branch, value, deeper, values, bytes).is_ok() {
                    return Ok(());
                }
                bytes.truncate(start);
            }
            return Err(wrong());
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

/// Bytes, which JSON writes as the characters of the same numbers.
fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn long(number: i64, bytes: &mut Vec<u8>) {
    let mut left = ((number << 1) ^ (number >> 63)) as u64;
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_within_its_own_default_ends() {
        let itself = r#"{"type":"record","name":"R","fields":[{"name":"r","type":"R","default":{}}]}"#;
        let twice = r#"{"type":"record","name":"R","fields":[
            {"name":"a","type":["R","null"],"default":{}}, {"name":"b","type":["R",{"type":"map","values":"R"}],"default":{}}]}"#;
        for text in [itself, twice] {
            let schema = Schema::parse(text, std::iter::empty()).unwrap();
            let _ = encode(&schema, schema.root, &serde_json::json!({}));
        }
        let schema = Schema::parse(itself, std::iter::empty()).unwrap();
        let reason = encode(&schema, schema.root, &serde_json::json!({})).unwrap_err();
        assert!(reason.contains("a default without end"), "{reason}");
    }
}
