//! States of functions, which are MessagePack in a checkpoint, as JSON for people.

use std::{fmt, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeStringArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Schema},
    error::ArrowError,
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The rows with these columns as text: JSON, or hexadecimal digits of what is no MessagePack.
pub(super) fn unpack(rows: &RecordBatch, packed: &[usize]) -> Result<RecordBatch, ArrowError> {
    let mut fields: Vec<FieldRef> = rows.schema_ref().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for &column in packed {
        fields[column] = Arc::new(Field::new(fields[column].name(), DataType::LargeUtf8, true));
        columns[column] = text(&columns[column])?;
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

fn text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let column = cast(column, &DataType::LargeBinary)?;
    let bytes = column.as_binary::<i64>();
    let text = (0..bytes.len()).map(|row| bytes.is_valid(row).then(|| json(bytes.value(row))));
    Ok(Arc::new(text.collect::<LargeStringArray>()))
}

fn json(bytes: &[u8]) -> String {
    match rmp_serde::from_slice::<Json>(bytes) {
        Ok(Json(value)) => value.to_string(),
        Err(_) => hexadecimal(bytes),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Any value, as JSON has it: keys of maps are text, and so are bytes and numbers that JSON does not have.
struct Json(Value);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any).map(Self)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of MessagePack")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(if value.is_finite() { value.into() } else { value.to_string().into() })
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(hexadecimal(value).into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Json(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut values = Map::new();
        while let Some((Json(key), Json(value))) = entries.next_entry()? {
            let key = if let Value::String(key) = key { key } else { key.to_string() };
            values.insert(key, value);
        }
        Ok(values.into())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    enum Kind {
        None,
        Of(u8),
        With { depth: f32 },
    }

    #[derive(Serialize)]
    struct State<'a> {
        count: u64,
        least: i64,
        names: Vec<Option<&'a str>>,
        by_day: BTreeMap<i64, f64>,
        by_pair: BTreeMap<(u8, u8), char>,
        kinds: [Kind; 3],
        nothing: (),
    }

    #[test]
    fn a_state_is_json_with_the_names_of_its_fields() {
        let state = State {
            count: u64::MAX,
            least: i64::MIN,
            names: vec![Some("ann"), None],
            by_day: [(-1, 0.5), (2, f64::NAN)].into(),
            by_pair: [((1, 2), 'x')].into(),
            kinds: [Kind::None, Kind::Of(3), Kind::With { depth: 1.5 }],
            nothing: (),
        };
        let bytes = rmp_serde::to_vec_named(&state).unwrap();
        let expected = serde_json::json!({
            "count": u64::MAX,
            "least": i64::MIN,
            "names": ["ann", null],
            "by_day": { "-1": 0.5, "2": "NaN" },
            "by_pair": { "[1,2]": "x" },
            "kinds": ["None", { "Of": 3 }, { "With": { "depth": 1.5 } }],
            "nothing": null,
        });
        assert_eq!(serde_json::from_str::<Value>(&json(&bytes)).unwrap(), expected);
    }

    #[test]
    fn other_bytes_are_digits() {
        assert_eq!(json(&[0xc1, 0xff]), "c1ff");
        assert_eq!(json(&[]), "");
    }
}
