//! Laws that hold for any bytes: nothing panics, no line is lost, and neither chunks nor neighbours matter.

use std::{io::Cursor, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    compute::concat_batches,
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
    json::ReaderBuilder,
};
use proptest::prelude::*;

use super::{Rejects, read, schema};
use crate::format::{CsvDecoder, Decoder, Encoder, Format, JsonDecoder};

fn columns() -> SchemaRef {
    schema(&[
        ("a", DataType::Int64, false),
        ("b", DataType::Utf8, true),
        ("c", DataType::Float64, true),
        ("d", DataType::Timestamp(TimeUnit::Millisecond, None), true),
        ("e", DataType::Boolean, true),
    ])
}

fn nested() -> SchemaRef {
    let inner =
        DataType::Struct(vec![Field::new("a", DataType::Int64, false), Field::new("b", DataType::Utf8, true)].into());
    schema(&[("a", DataType::Int64, true), ("s", inner.clone(), true), ("l", DataType::new_list(inner, false), true)])
}

/// Lines that look like records, nearly like records, and like nothing.
fn json_lines() -> impl Strategy<Value = Vec<u8>> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "[-+]?[0-9]{0,25}(\\.[0-9]{0,3})?(e[0-9]{1,4})?",
    ];
    let value = prop_oneof![
        number,
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\"[0-9T:.Z+-]{0,30}\"",
        Just("null".to_string()),
        Just("true".to_string()),
        Just("{\"a\": 1, \"b\": \"x\"}".to_string()),
        Just("[{\"a\": 1}, {\"a\": 2, \"b\": null}]".to_string()),
    ];
    let member = ("[a-esl]", value).prop_map(|(name, value)| format!("\"{name}\": {value}"));
    let object = prop::collection::vec(member, 0..5).prop_map(|members| format!("{{{}}}", members.join(", ")));
    let line = prop_oneof![
        6 => object.prop_map(String::into_bytes),
        1 => "[\\[\\]{}\",:a-e0-9 ]{0,30}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => Just(b" \r".to_vec()),
    ];
    (prop::collection::vec(line, 0..12), any::<bool>()).prop_map(|(lines, ended)| {
        let mut bytes = lines.join(&b'\n');
        if ended {
            bytes.push(b'\n');
        }
        bytes
    })
}

fn csv_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => "[a1,\"\n]{0,8}".prop_map(String::into_bytes),
        2 => Just(b"1,x,1.5,2020-01-01T00:00:00Z,true\n".to_vec()),
        2 => Just(b"2,\"x\n\"\"y\",,0,\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat())
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// The CSV framing rule, as plainly as it can be written: the length of the record's lines, or of one bad line.
fn plain_frame(input: &[u8], limit: usize) -> (usize, bool) {
    let line = input.iter().position(|byte| *byte == b'\n').map_or(input.len(), |at| at + 1);
    let (mut quoted, mut field_start, mut at) = (false, true, 0);
    while at < input.len() {
        let byte = input[at];
        if quoted {
            if byte == b'"' && input.get(at + 1) == Some(&b'"') {
                at += 1;
            } else if byte == b'"' {
                quoted = false;
            }
        } else if byte == b'"' && field_start {
            quoted = true;
        } else if byte == b'\n' {
            break;
        }
        field_start = !quoted && byte == b',';
        at += 1;
    }
    let ended = at < input.len();
    let length = if at > 0 && input[at - 1] == b'\r' { at - 1 } else { at };
    if quoted || length > limit { (line, false) } else { (at + usize::from(ended), true) }
}

fn plain_frames(input: &[u8], limit: usize) -> Vec<(usize, bool)> {
    let (mut at, mut frames) = (0, Vec::new());
    while at < input.len() {
        let (length, good) = plain_frame(&input[at..], limit);
        frames.push((at, good));
        at += length;
    }
    frames
}

fn assert_same(one: &(RecordBatch, Rejects), other: &(RecordBatch, Rejects)) -> Result<(), TestCaseError> {
    prop_assert_eq!(&one.1, &other.1);
    prop_assert_eq!(&one.0, &other.0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn json_loses_no_line(input in json_lines(), chunk in 1..40usize, limit in 1..80usize) {
        for columns in [columns(), nested()] {
            let decoder = || JsonDecoder::new(columns.clone(), limit).unwrap();
            let whole = read(&mut decoder(), &input, usize::MAX);
            let lines = input.split(|byte| *byte == b'\n').filter(|line| !is_blank(line) || line.len() > limit + 1).count();
            let long_blank = |line: &&[u8]| is_blank(line) && line.len() > limit;
            prop_assume!(!input.split(|byte| *byte == b'\n').any(|line| long_blank(&line)));
            prop_assert_eq!(whole.0.num_rows() + whole.1.len(), lines);
            assert_same(&whole, &read(&mut decoder(), &input, chunk))?;
        }
    }

    #[test]
    fn json_lines_do_not_touch_their_neighbours(input in json_lines()) {
        for columns in [columns(), nested()] {
            let mut decoder = JsonDecoder::new(columns.clone(), 1 << 20).unwrap();
            let (together, _) = read(&mut decoder, &input, usize::MAX);
            let mut alone = Vec::new();
            for line in input.split(|byte| *byte == b'\n').filter(|line| !is_blank(line)) {
                let mut fresh = JsonDecoder::new(columns.clone(), 1 << 20).unwrap();
                if fresh.push(line).is_ok() {
                    alone.push(fresh.flush().unwrap());
                }
            }
            let alone = concat_batches(&columns, &alone).unwrap();
            assert_same(&(together, vec![]), &(alone, vec![]))?;
        }
    }

    /// What we take, arrow-json takes, and reads the same. (It takes more: numbers in quotes, for one.)
    #[test]
    fn json_agrees_with_arrow(input in json_lines()) {
        for columns in [columns(), nested()] {
            for line in input.split(|byte| *byte == b'\n') {
                let mut decoder = JsonDecoder::new(columns.clone(), 1 << 20).unwrap();
                if decoder.push(line).is_ok() {
                    let ours = decoder.flush().unwrap();
                    let theirs = ReaderBuilder::new(columns.clone()).build(Cursor::new(line)).unwrap().next();
                    assert_same(&(ours, vec![]), &(theirs.unwrap().unwrap(), vec![]))?;
                }
            }
        }
    }

    #[test]
    fn csv_frames_follow_the_plain_rule(input in csv_bytes(), chunk in 1..40usize, limit in 3..60usize) {
        let decoder = || CsvDecoder::new(columns(), b',', limit).unwrap();
        let whole = read(&mut decoder(), &input, usize::MAX);
        assert_same(&whole, &read(&mut decoder(), &input, chunk))?;

        let bad = |reason: &String| reason == "too long" || reason.contains("neither in this line");
        let ours: Vec<usize> = whole.1.iter().filter(|(_, reason)| bad(reason)).map(|(at, _)| *at).collect();
        let frames = plain_frames(&input, limit);
        let plain: Vec<usize> = frames.iter().filter(|(_, good)| !good).map(|(at, _)| *at).collect();
        prop_assert_eq!(ours, plain);
        let filled = frames.iter().filter(|(at, _)| !matches!(input[*at..], [b'\n', ..] | [b'\r', b'\n', ..] | [b'\r']));
        prop_assert_eq!(whole.0.num_rows() + whole.1.len(), filled.count());
    }

    #[test]
    fn any_record_may_be_pushed(record in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut json = JsonDecoder::new(nested(), 100).unwrap();
        let mut csv = CsvDecoder::new(columns(), b',', 100).unwrap();
        for decoder in [&mut json as &mut dyn Decoder, &mut csv] {
            let taken = usize::from(decoder.push(&record).is_ok());
            prop_assert_eq!(decoder.flush().unwrap().num_rows(), taken);
            let _ = decoder.header(&record);
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_the_same(rows in prop::collection::vec(
        (any::<i64>(), prop::option::of("(?s).{1,10}"), prop::option::of(prop::num::f64::NORMAL | prop::num::f64::ZERO),
         prop::option::of(-62_167_219_200_000..253_402_300_799_999i64), any::<Option<bool>>()), 1..20)) {
        let (mut a, mut b, mut c, mut d, mut e) = (vec![], vec![], vec![], vec![], vec![]);
        for row in rows {
            a.push(row.0);
            b.push(row.1);
            c.push(row.2);
            d.push(row.3);
            e.push(row.4);
        }
        let arrays: Vec<Arc<dyn Array>> = vec![
            Arc::new(arrow::array::Int64Array::from(a)),
            Arc::new(arrow::array::StringArray::from(b)),
            Arc::new(arrow::array::Float64Array::from(c)),
            Arc::new(arrow::array::TimestampMillisecondArray::from(d)),
            Arc::new(arrow::array::BooleanArray::from(e)),
        ];
        let batch = RecordBatch::try_new(columns(), arrays).unwrap();
        for format in [Format::Json, Format::CSV] {
            let mut bytes = Vec::new();
            Encoder::new(format).encode(&batch, &mut bytes).unwrap();
            let mut decoder = format.decoder(columns(), 1 << 20).unwrap();
            let start = if format == Format::CSV { bytes.iter().position(|b| *b == b'\n').unwrap() + 1 } else { 0 };
            let (decoded, rejects) = read(decoder.as_mut(), &bytes[start..], 64);
            prop_assert_eq!(rejects, vec![]);
            prop_assert_eq!(&decoded, &batch);
        }
    }
}
