//! What the encoders write, and what they refuse to write.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, DictionaryArray, DurationSecondArray, FixedSizeListArray, Float64Array,
        Int32Array, LargeListArray, ListArray, MapArray, RecordBatch, RunArray, StringArray, StructArray,
        Time32SecondArray, Time64MicrosecondArray, TimestampMillisecondArray, TimestampSecondArray,
    },
    buffer::{NullBuffer, OffsetBuffer},
    datatypes::{DataType, Field, Fields, Int32Type, TimeUnit},
};

use super::schema;
use crate::format::{Encoder, Format};

fn encoded(format: Format, column: ArrayRef) -> crate::Result<String> {
    let batch = RecordBatch::try_from_iter_with_nullable([("at", column, true)]).unwrap();
    let mut bytes = Vec::new();
    Encoder::new(format).encode(&batch, &mut bytes)?;
    Ok(String::from_utf8(bytes).unwrap())
}

#[test]
fn times_that_no_calendar_holds_are_refused_and_not_written_as_text() {
    for value in [i64::MIN, i64::MAX] {
        for format in [Format::Json, Format::CSV] {
            let plain: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, value]));
            let error = encoded(format, plain.clone()).unwrap_err().to_string();
            assert!(error.contains(r#"column "at""#) && error.contains(&value.to_string()), "{error}");
        }
        let inner: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![value]));
        let field = Field::new("x", inner.data_type().clone(), true);
        let nested = StructArray::new(Fields::from(vec![field]), vec![inner], None);
        let error = encoded(Format::Json, Arc::new(nested)).unwrap_err().to_string();
        assert!(error.contains("at.x"), "{error}");
    }
    let fine: ArrayRef = Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(253_402_300_799)]));
    assert_eq!(encoded(Format::CSV, fine.clone()).unwrap(), "at\n1969-12-31T23:59:59\n\"\"\n9999-12-31T23:59:59\n");
    let json = "{\"at\":\"1969-12-31T23:59:59\"}\n{}\n{\"at\":\"9999-12-31T23:59:59\"}\n";
    assert_eq!(encoded(Format::Json, fine).unwrap(), json);
}

/// Each holds a time that has no text in its row 1.
fn bad_at_row_1() -> Vec<ArrayRef> {
    let days = Time32SecondArray::from(vec![86_399, 86_400]);
    let item = |values: &dyn Array| Arc::new(Field::new("item", values.data_type().clone(), true));
    let ones = OffsetBuffer::<i32>::from_lengths([1, 1]);
    let stamps: ArrayRef = Arc::new(TimestampSecondArray::from(vec![0, i64::MAX]));
    let fields = vec![Field::new("key", DataType::Utf8, false), Field::new("value", stamps.data_type().clone(), true)];
    let entries =
        StructArray::new(fields.into(), vec![Arc::new(StringArray::from(vec!["a", "b"])), stamps.clone()], None);
    let entries_field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let keys = Int32Array::from(vec![0, 1]);
    vec![
        Arc::new(days.clone()),
        Arc::new(Time32SecondArray::from(vec![0, -1])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 1 << 60])),
        Arc::new(DurationSecondArray::from(vec![0, i64::MAX])),
        Arc::new(ListArray::new(item(&days), ones.clone(), Arc::new(days.clone()), None)),
        Arc::new(LargeListArray::new(item(&stamps), OffsetBuffer::from_lengths([1, 1]), stamps.clone(), None)),
        Arc::new(FixedSizeListArray::new(item(&stamps), 1, stamps.clone(), None)),
        Arc::new(MapArray::new(entries_field, ones, entries, None, false)),
        Arc::new(DictionaryArray::<Int32Type>::new(keys, stamps.clone())),
        Arc::new(RunArray::<Int32Type>::try_new(&Int32Array::from(vec![1, 2]), &stamps).unwrap()),
    ]
}

#[test]
fn times_without_a_text_are_found_wherever_they_stand_and_only_where_they_are_written() {
    for column in bad_at_row_1() {
        let data_type = column.data_type().clone();
        let error = encoded(Format::Json, column.clone()).err().unwrap_or_else(|| panic!("{data_type}")).to_string();
        assert!(error.contains("column \"at"), "{data_type}: {error}");
        // The other row is good.
        let good = encoded(Format::Json, column.slice(0, 1)).unwrap();
        assert!(good.starts_with("{\"at\":") && !good.contains("ERROR"), "{data_type}: {good}");
        assert!(encoded(Format::Json, column.slice(1, 1)).is_err(), "{data_type}");
        // And so it is if the bad one lies within a null.
        let field = Field::new("x", data_type.clone(), true);
        let nulls = Some(NullBuffer::from(vec![true, false]));
        let hidden = StructArray::new(Fields::from(vec![field]), vec![column], nulls);
        encoded(Format::Json, Arc::new(hidden)).unwrap_or_else(|error| panic!("{data_type}: {error}"));
    }
}

#[test]
fn not_a_number_is_null_in_json() {
    let column: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::INFINITY, 0.1]));
    assert_eq!(encoded(Format::Json, column).unwrap(), "{\"at\":null}\n{\"at\":null}\n{\"at\":0.1}\n");
}

#[test]
fn columns_that_cannot_be_written_are_named() {
    let list = DataType::new_list(DataType::Int64, true);
    let error = Encoder::accepts(Format::CSV, &schema(&[("tags", list.clone(), true)])).unwrap_err().to_string();
    assert!(error.contains(r#""tags""#) && error.contains("CSV"), "{error}");
    Encoder::accepts(Format::Json, &schema(&[("tags", list, true)])).unwrap();
    let wait = schema(&[("wait", DataType::Interval(arrow::datatypes::IntervalUnit::DayTime), true)]);
    let _ = Encoder::accepts(Format::Json, &wait);
    Encoder::accepts(Format::CSV, &schema(&[("at", DataType::Timestamp(TimeUnit::Second, None), true)])).unwrap();
}

#[test]
fn binary_is_written_as_hexadecimal_digits() {
    let column: ArrayRef = Arc::new(BinaryArray::from(vec![b"\x01\xff".as_slice()]));
    assert_eq!(encoded(Format::Json, column).unwrap(), "{\"at\":\"01ff\"}\n");
}
