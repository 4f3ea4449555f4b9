//! Raw payloads and lines of CSV, one for each row.

use std::sync::Arc;

use arrow::{
    array::{Array, AsArray, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampSecondArray},
    datatypes::{DataType, TimeUnit},
};
use proptest::prelude::*;

use super::schema;
use crate::format::{CsvDecoder, CsvRowEncoder, Decoder, Frame, Payloads, RawDecoder, RawEncoder, RowEncoder};

fn payloads(encoder: &mut dyn RowEncoder, batch: &RecordBatch) -> Vec<Option<Vec<u8>>> {
    let mut out = Payloads::new();
    encoder.encode(batch, &mut out).unwrap();
    (0..out.len()).map(|row| out.get(row).map(<[u8]>::to_vec)).collect()
}

#[test]
fn raw_payloads_are_taken_as_they_are() {
    let mut decoder = RawDecoder::new(schema(&[("v", DataType::Binary, true)]), 100).unwrap();
    decoder.push(b"\xff\n\0").unwrap();
    assert_eq!(decoder.push_null(), Ok(true));
    decoder.push(b"").unwrap();
    let batch = decoder.flush().unwrap();
    let values: Vec<_> = batch.column(0).as_binary::<i32>().iter().collect();
    assert_eq!(values, [Some(&b"\xff\n\0"[..]), None, Some(&b""[..])]);
    assert_eq!(decoder.len(), 0);

    let mut strict = RawDecoder::new(schema(&[("v", DataType::Utf8, false)]), 100).unwrap();
    strict.push(b"a").unwrap();
    assert_eq!(strict.push_null().unwrap_err(), r#"it has no payload, and the column "v" is not nullable"#);
    assert!(strict.push(b"\xff").unwrap_err().starts_with("not UTF-8"));
    strict.push(b"b").unwrap();
    let batch = strict.flush().unwrap();
    assert_eq!(batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
    assert!(matches!(strict.frame(b"a\nb", true), Frame::Record(span) if span.end == 1));
}

#[test]
fn raw_is_one_column_of_bytes_or_text() {
    for fields in
        [&[][..], &[("v", DataType::Int64, true)], &[("v", DataType::Binary, true), ("w", DataType::Binary, true)]]
    {
        let columns = schema(fields);
        assert!(RawDecoder::new(columns.clone(), 100).unwrap_err().to_string().contains("one column"));
        assert!(RawEncoder::new(&columns).unwrap_err().to_string().contains("one column"));
    }
    for columns in [DataType::Utf8, DataType::LargeUtf8, DataType::Utf8View, DataType::Binary] {
        let columns = schema(&[("v", columns, true)]);
        let mut decoder = RawDecoder::new(columns.clone(), 100).unwrap();
        decoder.push(b"abc").unwrap();
        decoder.push_null().unwrap();
        let batch = decoder.flush().unwrap();
        assert_eq!(payloads(&mut RawEncoder::new(&columns).unwrap(), &batch), [Some(b"abc".to_vec()), None]);
    }
}

#[test]
fn csv_lines_have_no_header_and_hide_line_feeds() {
    let columns = schema(&[("n", DataType::Int64, true), ("t", DataType::Utf8, true)]);
    let (n, t) = (vec![Some(1), None, Some(3)], vec![Some("a\nb\"c\n"), None, Some("x;,y")]);
    let batch =
        RecordBatch::try_new(columns.clone(), vec![Arc::new(Int64Array::from(n)), Arc::new(StringArray::from(t))]);
    let lines = payloads(&mut CsvRowEncoder::new(&columns, b';').unwrap(), &batch.unwrap());
    let expected = ["1;\"a\nb\"\"c\n\"", ";", "3;\"x;,y\""];
    assert_eq!(lines, expected.map(|line| Some(line.as_bytes().to_vec())));
}

#[test]
fn csv_lines_refuse_what_files_refuse() {
    let nested = schema(&[("l", DataType::new_list(DataType::Int64, true), true)]);
    assert!(CsvRowEncoder::new(&nested, b',').unwrap_err().to_string().contains("nested"));
    assert!(CsvRowEncoder::new(&nested, b'"').unwrap_err().to_string().contains("delimiter"));
    let times = schema(&[("at", DataType::Timestamp(TimeUnit::Second, None), false)]);
    let batch =
        RecordBatch::try_new(times.clone(), vec![Arc::new(TimestampSecondArray::from(vec![i64::MAX]))]).unwrap();
    let mut out = Payloads::new();
    let error = CsvRowEncoder::new(&times, b',').unwrap().encode(&batch, &mut out).unwrap_err();
    assert!(error.to_string().contains("outside the calendar"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn raw_takes_any_bytes(records in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), 0..8)) {
        let (bytes, text) = (schema(&[("v", DataType::Binary, true)]), schema(&[("v", DataType::Utf8, true)]));
        let mut decoder = RawDecoder::new(bytes.clone(), 100).unwrap();
        let mut texts = RawDecoder::new(text, 100).unwrap();
        let mut valid = 0;
        for record in &records {
            match record {
                Some(record) => {
                    decoder.push(record).unwrap();
                    let taken = texts.push(record).is_ok();
                    prop_assert_eq!(taken, std::str::from_utf8(record).is_ok());
                    valid += usize::from(taken);
                }
                None => {
                    decoder.push_null().unwrap();
                }
            }
        }
        prop_assert_eq!(texts.flush().unwrap().num_rows(), valid);
        let batch = decoder.flush().unwrap();
        let expected = BinaryArray::from_iter(records.iter());
        prop_assert_eq!(batch.column(0).as_binary::<i32>(), &expected);
        prop_assert_eq!(payloads(&mut RawEncoder::new(&bytes).unwrap(), &batch), records);
    }

    #[test]
    fn csv_lines_are_read_back(rows in prop::collection::vec(
        (any::<i64>(), prop::option::of("[a\",;\r\n\\\\ é]{1,8}"), prop::option::of(any::<f64>())), 0..10)) {
        let columns = schema(&[("n", DataType::Int64, false), ("t", DataType::Utf8, true), ("f", DataType::Float64, true)]);
        let arrays: Vec<Arc<dyn Array>> = vec![
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.clone()))),
            Arc::new(Float64Array::from_iter(rows.iter().map(|row| row.2))),
        ];
        let batch = RecordBatch::try_new(columns.clone(), arrays).unwrap();
        let lines = payloads(&mut CsvRowEncoder::new(&columns, b',').unwrap(), &batch);
        prop_assert_eq!(lines.len(), rows.len());
        let mut decoder = CsvDecoder::new(columns, b',', 1000).unwrap();
        for line in lines.iter().flatten() {
            decoder.push(line).unwrap();
        }
        prop_assert_eq!(decoder.flush().unwrap(), batch);
    }
}
