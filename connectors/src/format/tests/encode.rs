//! What the encoders write, and what they refuse to write.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, Float64Array, RecordBatch, StructArray, TimestampMillisecondArray, TimestampSecondArray,
    },
    datatypes::{DataType, Field, Fields, TimeUnit},
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
