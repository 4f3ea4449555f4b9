//! A reader that starts where another stopped delivers what the other would have delivered.

use arrow::{array::RecordBatch, datatypes::DataType};
use proptest::prelude::*;

use super::{Delivered, Place, error_of, read_from, read_well, schema};
use crate::{File, Position, Source, SplitId, Untyped, file::FileSource};

const JSON: &str =
    "\u{feff}{\"n\":1,\"t\":\"x\"}\n\nrubbish\n{\"n\":2}\r\n{\"n\":3,\"t\":\"\u{1f33e}\\n\"}\n  \n{\"n\":4}";
const CSV: &str = "\u{feff}t,\"n\"\r\nx,1\r\n\r\n\"two\nlines, \"\"quoted\"\"\",2\nbad,x\n\"open,3\n\u{1f33e},4\n,5";

fn source(path: &str, rows: usize, chunk: usize) -> FileSource<Untyped> {
    let columns = schema(&[("n", DataType::Int64, false), ("t", DataType::Utf8, true)]);
    let files = File::pattern(path).batch_rows(rows);
    if path.contains(".csv") { files.csv_with(columns) } else { files.json_with(columns) }.chunk(chunk)
}

fn whole(source: &FileSource<Untyped>, delivered: &Delivered) -> (RecordBatch, Vec<(Position, String)>) {
    let rejected = delivered.rejected.iter().map(|r| (r.position.unwrap(), r.reason.clone())).collect();
    (delivered.batch(&source.schema().unwrap()), rejected)
}

async fn resumes_everywhere(path: &str, rows: usize, chunk: usize) {
    let source = source(path, rows, chunk);
    let delivered = read_well(&source).await;
    let (batch, rejected) = whole(&source, &delivered);
    for (split, next, rows, rejects) in &delivered.steps {
        let (rest, end) = read_from(&source, vec![(split.clone(), Some(*next))]).await;
        end.unwrap();
        let (rest_batch, rest_rejected) = whole(&source, &rest);
        assert_eq!(rest_batch, batch.slice(*rows, batch.num_rows() - rows), "{path} at {next}");
        assert_eq!(rest_rejected, rejected[*rejects..], "{path} at {next}");
        assert!(rest.rejected.iter().all(|record| record.line.is_none()), "lines before were not counted");
    }
}

#[tokio::test]
async fn from_every_position_of_every_kind_of_file() {
    let place = Place::new();
    for (name, text) in [("a.jsonl", JSON), ("a.csv", CSV)] {
        for ending in ["", ".gz", ".zst"] {
            let path = place.write(&format!("{name}{ending}"), text.as_bytes());
            let delivered = read_well(&source(&path, 1, 7)).await;
            let expected = if name == "a.csv" { (4, 2) } else { (4, 1) };
            assert_eq!((delivered.rows(), delivered.rejected.len()), expected, "{path}");
            for (rows, chunk) in [(1, 1), (1, 1 << 18), (2, 5), (100, 3)] {
                resumes_everywhere(&path, rows, chunk).await;
            }
        }
    }
}

#[tokio::test]
async fn position_zero_is_the_beginning_and_counts_lines() {
    let place = Place::new();
    let path = place.write("a.csv.gz", CSV.as_bytes());
    let source = source(&path, 2, 9);
    let (delivered, _) = read_from(&source, vec![(SplitId::new(path), Some(Position(0)))]).await;
    assert_eq!(delivered.rejected.iter().map(|r| r.line).collect::<Vec<_>>(), [Some(6), Some(7)]);
}

#[tokio::test]
async fn a_position_that_is_not_there_any_more_is_an_error() {
    let place = Place::new();
    for (name, text) in [("a.jsonl", JSON), ("a.csv", CSV)] {
        for ending in ["", ".gz", ".zst"] {
            let path = place.write(&format!("{name}{ending}"), text.as_bytes());
            let source = source(&path, 10, 16);
            let read_at =
                async |at: u64| read_from(&source, vec![(SplitId::new(path.as_str()), Some(Position(at)))]).await;
            let end = text.len() as u64;
            let (delivered, result) = read_at(end).await;
            result.unwrap();
            assert_eq!((delivered.rows(), delivered.ended.len()), (0, 1));
            let error = read_at(end + 1).await.1.unwrap_err().to_string();
            assert!(error.contains(&path) && error.contains(&format!("byte {}", end + 1)), "{error}");
            assert!(error.contains(&format!("only {end} ")) && error.contains("truncated or replaced"), "{error}");
        }
    }
    let path = place.path("a.csv");
    let (_, result) = read_from(&source(&path, 1, 9), vec![(SplitId::new(path), Some(Position(5)))]).await;
    assert!(result.unwrap_err().to_string().contains("within the header"));
}

#[tokio::test]
async fn a_file_that_went_away_is_named() {
    let place = Place::new();
    let source = source(&place.write("a.jsonl", JSON.as_bytes()), 1, 9);
    let gone = place.path("gone.jsonl");
    let (_, result) = read_from(&source, vec![(SplitId::new(gone.as_str()), Some(Position(3)))]).await;
    assert!(result.unwrap_err().to_string().contains(&gone));
    std::fs::remove_file(place.path("a.jsonl")).unwrap();
    assert!(error_of(&source).await.contains("no such file"));
}

fn records() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b"1,x\n".to_vec()),
        4 => Just(b"{\"n\":1,\"t\":\"x\"}\n".to_vec()),
        2 => Just(b"2,\"a\n\"\"b\"\r\n".to_vec()),
        1 => "[1x,\"\n\r{}:]{0,12}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..15).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_file_resumes_and_batches_do_not_matter(body in records(), rows in 1..5usize, chunk in 1..30usize) {
        let place = Place::new();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (name, header) in [("a.jsonl.zst", ""), ("a.csv", "n,t\n"), ("a.csv.gz", "n,t\n")] {
            let path = place.write(name, &[header.as_bytes(), &body].concat());
            runtime.block_on(async {
                resumes_everywhere(&path, rows, chunk).await;
                let (one, other) = (source(&path, rows, chunk), source(&path, 8192, 1 << 18));
                assert_eq!(whole(&one, &read_well(&one).await), whole(&other, &read_well(&other).await));
            });
        }
    }
}
