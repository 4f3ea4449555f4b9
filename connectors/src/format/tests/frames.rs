//! Framing: open quotes, limits, line counts, and input made to be slow.

use arrow::datatypes::DataType;

use super::{read, schema};
use crate::format::{CsvDecoder, Decoder, Frame, JsonDecoder};

fn csv(limit: usize) -> CsvDecoder {
    CsvDecoder::new(schema(&[("a", DataType::Utf8, true), ("b", DataType::Utf8, true)]), b',', limit).unwrap()
}

fn json(limit: usize) -> JsonDecoder {
    JsonDecoder::new(schema(&[("a", DataType::Int64, true)]), limit).unwrap()
}

#[test]
fn an_open_quote_rejects_its_first_line_only() {
    for chunk in [1, 2, 5, 100] {
        let (batch, rejects) = read(&mut csv(1000), b"1,2\n\"3,4\n5,6\n7,8", chunk);
        assert_eq!(batch.num_rows(), 3);
        assert_eq!(rejects.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [4]);
        assert!(rejects[0].1.contains("quote"), "{}", rejects[0].1);
    }
}

#[test]
fn an_open_quote_stops_at_the_limit() {
    let lines = "5,6\n".repeat(20);
    let input = format!("1,\"2\n{lines}7,\"8\"\n");
    for chunk in [1, 7, 1000] {
        let (batch, rejects) = read(&mut csv(30), input.as_bytes(), chunk);
        assert_eq!(batch.num_rows(), 21);
        assert_eq!(rejects.len(), 1);
    }
}

#[test]
fn long_lines_are_rejected_and_passed() {
    let long = "x".repeat(50);
    let input = format!("{{\"a\":1}}\n{{\"a\":\"{long}\"}}\n{{\"a\":2}}\n{long}");
    for chunk in [1, 9, 1000] {
        let (batch, rejects) = read(&mut json(20), input.as_bytes(), chunk);
        assert_eq!(batch.num_rows(), 2);
        assert_eq!(rejects, [(8, "too long".to_string()), (75, "too long".to_string())]);
        let (_, rejects) = read(&mut csv(20), input.as_bytes(), chunk);
        assert!(rejects.contains(&(75, "too long".to_string())), "{rejects:?}");
    }
}

#[test]
fn the_limit_counts_the_record_without_its_line_end() {
    for ending in ["\n", "\r\n", ""] {
        let fits = format!("{{\"a\":12}}{ending}");
        assert_eq!(read(&mut json(8), fits.as_bytes(), 1).1, []);
        assert_eq!(read(&mut json(7), fits.as_bytes(), 1).1.len(), 1);
        let fits = format!("1,\"234\"{ending}");
        assert_eq!(read(&mut csv(7), fits.as_bytes(), 1).1, []);
        assert_eq!(read(&mut csv(6), fits.as_bytes(), 1).1.len(), 1);
    }
}

#[test]
fn lines_are_counted_within_quotes() {
    let Frame::Record(span) = csv(100).frame(b"1,\"a\nb\n\"\r\n2", false) else { panic!("no record") };
    assert_eq!((span.end, span.next, span.lines), (8, 10, 3));
    let Frame::Blank(span) = csv(100).frame(b"\r\n2", false) else { panic!("not blank") };
    assert_eq!((span.end, span.next, span.lines), (0, 2, 1));
    assert_eq!(json(100).frame(b"", true), Frame::More);
    assert_eq!(csv(100).frame(b"", true), Frame::More);
}

/// Every line leaves a quote open, whether or not one was open before it. Searching each to the limit would take hours.
#[test]
fn quotes_that_never_close_take_linear_time() {
    let lines = 100_000;
    let input = "a\",b,\"c\n".repeat(lines);
    let (batch, rejects) = read(&mut csv(256 << 10), input.as_bytes(), 64 << 10);
    assert_eq!((batch.num_rows(), rejects.len()), (0, lines));
    let (batch, rejects) = read(&mut csv(10 << 20), input.as_bytes(), 64 << 10);
    assert_eq!((batch.num_rows(), rejects.len()), (0, lines));
}
