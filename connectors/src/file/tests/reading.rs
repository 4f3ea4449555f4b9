//! Which files are found, what is read from them, and what is said about those that cannot be read.

use arrow::{
    array::AsArray,
    datatypes::{DataType, Int64Type, TimeUnit},
};
use typed_arrow::Record;

use super::{Place, compress, error_of, read_all, read_from, read_well, schema};
use crate::{Fetch, File, Position, Rejected, Rows, Source, SourceReader, SplitId, TypedSource};

#[derive(Record)]
struct Bid {
    price: i64,
    name: Option<String>,
}

#[tokio::test]
async fn reads_typed_rows_of_both_formats() {
    fn row_type<S: TypedSource<Row = Bid>>(_: &S) {}
    let place = Place::new();
    place.write("a.jsonl", b"{\"price\": 1, \"name\": \"x\"}\n{\"price\": 2}\n");
    place.write("a.csv", b"name,price\nx,1\n,2\n");
    let json = File::pattern(place.path("*.jsonl")).json::<Bid>();
    let csv = File::pattern(place.path("*.csv")).csv::<Bid>();
    row_type(&json);
    assert_eq!(json.name(), format!("file {}", place.path("*.jsonl")));
    let schema = json.schema().unwrap();
    assert_eq!(read_well(&json).await.batch(&schema), read_well(&csv).await.batch(&schema));
    assert_eq!(read_well(&json).await.rows(), 2);
}

#[tokio::test]
async fn patterns_find_each_file_once_and_in_order() {
    let place = Place::new();
    for name in ["b.jsonl", "a.jsonl", "deep/c.jsonl", ".part-1.tmp", "odd[1].jsonl"] {
        place.write(name, b"{\"price\":1}\n");
    }
    let dotted = place.path("./b.jsonl");
    let patterns =
        [place.path("*.jsonl"), dotted, place.path("**/c*"), place.path("odd[1].jsonl"), place.path("b.jsonl")];
    let source = File::patterns(patterns).json::<Bid>();
    let found: Vec<String> = source.splits().await.unwrap().iter().map(|split| split.to_string()).collect();
    let expected = ["a.jsonl", "b.jsonl", "deep/c.jsonl", "odd[1].jsonl"].map(|name| place.path(name));
    assert_eq!(found, expected);
    assert_eq!(
        File::pattern(place.path("*")).json::<Bid>().splits().await.unwrap_err().to_string().matches("deep").count(),
        2
    );
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let place = Place::new();
    let json = |pattern: &str| File::pattern(place.path(pattern)).json::<Bid>();
    let missing = error_of(&json("missing.jsonl")).await;
    assert!(missing.contains("no such file") && missing.contains("missing.jsonl"), "{missing}");
    let nothing = error_of(&json("*.jsonl")).await;
    assert!(nothing.contains("no file matches") && nothing.contains("*.jsonl"), "{nothing}");
    let bad = error_of(&json("***")).await;
    assert!(bad.contains("not a file pattern"), "{bad}");
    place.write("inner/a.jsonl", b"");
    assert!(error_of(&json("inner")).await.contains("is a directory"));
    let none: [&str; 0] = [];
    assert!(error_of(&File::patterns(none).json::<Bid>()).await.contains("without a pattern"));
    #[cfg(unix)]
    {
        let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
        assert!(error_of(&json("socket")).await.contains("not a regular file"));
    }
}

#[tokio::test]
async fn empty_and_unfinished_files_are_all_right() {
    let place = Place::new();
    let cases: &[(&str, &[u8], usize)] = &[
        ("empty.csv", b"", 0),
        ("header.csv", b"price,name", 0),
        ("header-line.csv", b"price,name\r\n", 0),
        ("mark.csv", b"\xef\xbb\xbf", 0),
        ("mark-rows.csv", b"\xef\xbb\xbfprice,name\n1,x", 1),
        ("blank.csv", b"\n\nprice,name\n\n1,x\n\r\n2,y", 2),
        ("empty.jsonl", b"", 0),
        ("blank.jsonl", b"\n \r\n\n", 0),
        ("mark.jsonl", b"\xef\xbb\xbf{\"price\":1}", 1),
        ("mark-only.jsonl.gz", b"\xef\xbb\xbf", 0),
        ("unfinished.jsonl", b"{\"price\":1}\r\n{\"price\":2}", 2),
        ("nothing.jsonl.zst", b"", 0),
    ];
    for (name, bytes, rows) in cases {
        let path = place.write(name, bytes);
        let delivered = if name.contains("csv") {
            read_well(&File::pattern(path).csv::<Bid>()).await
        } else {
            read_well(&File::pattern(path).json::<Bid>().chunk(2)).await
        };
        assert_eq!((delivered.rows(), delivered.rejected.len(), delivered.ended.len()), (*rows, 0, 1), "{name}");
    }
}

#[tokio::test]
async fn rejected_records_carry_their_place() {
    let place = Place::new();
    let long = "y".repeat(5000);
    let text =
        format!("{{\"price\":1}}\n\nrubbish\r\n{{\"price\":\"{long}\"}}\n{{\"price\":1e400}}\n{{\"price\":2}}\n");
    let source = File::pattern(place.write("a.jsonl", text.as_bytes())).max_record_bytes(2000).json::<Bid>().chunk(100);
    let delivered = read_well(&source).await;
    assert_eq!(delivered.rows(), 2);
    let length = |r: &Rejected| r.bytes.as_ref().map_or(0, Vec::len);
    let places: Vec<_> = delivered.rejected.iter().map(|r| (r.position.unwrap().0, r.line, length(r))).collect();
    let last = text.find("{\"price\":1e400}").unwrap() as u64;
    assert_eq!(places, [(13, Some(3), 7), (22, Some(4), 1024), (last, Some(5), 15)]);
    let truncated: Vec<_> = delivered.rejected.iter().map(|r| r.truncated).collect();
    assert_eq!(truncated, [None, Some(5013), None]);
    assert!(
        delivered.rejected[1].reason.contains("max_record_bytes (2000): 5013 bytes"),
        "{}",
        delivered.rejected[1].reason
    );
    assert_eq!(delivered.rejected[2].reason, "column \"price\": 1e400 does not fit Int64");
    assert_eq!(delivered.rejected[0].bytes.as_deref(), Some(&b"rubbish"[..]));

    let source = File::pattern(place.write("a.csv", b"price,name\n1,\"a\nb\"\nx,y\n2,\"open\n3,z")).csv::<Bid>();
    let delivered = read_well(&source).await;
    assert_eq!(delivered.rejected.iter().map(|r| r.line).collect::<Vec<_>>(), [Some(4), Some(5)]);
    assert_eq!(delivered.rows(), 2);
}

/// A row that decodes may still be rejected, for its event time.
#[tokio::test]
async fn rows_know_the_records_they_were() {
    let place = Place::new();
    let json = "{\"price\":1}\n\nrubbish\r\n  {\"price\": 2}\r\n{\"price\":3}";
    let csv = "\u{feff}price,name\n1,\"a\nb\"\nx,y\n\n2,z\r\n3,";
    let cases = [
        ("a.jsonl", json, [("{\"price\":1}", 1), ("  {\"price\": 2}", 4), ("{\"price\":3}", 5)]),
        ("a.csv", csv, [("1,\"a\nb\"", 2), ("2,z", 6), ("3,", 7)]),
    ];
    for (name, text, records) in cases {
        for (ending, rows, chunk) in [("", 1, 1), ("", 2, 7), ("", 8192, 1 << 18), (".gz", 2, 7)] {
            let files = File::pattern(place.write(&format!("{name}{ending}"), text.as_bytes())).batch_rows(rows);
            let source = if name.contains("csv") { files.csv::<Bid>() } else { files.json::<Bid>() }.chunk(chunk);
            let delivered = read_well(&source).await;
            assert_eq!((delivered.rows(), delivered.rejected.len()), (3, 1), "{:?}", delivered.rejected);
            for (was, (record, line)) in delivered.origins.iter().zip(&records) {
                assert_eq!(String::from_utf8_lossy(was.bytes.as_deref().unwrap()), *record, "{name}{ending}");
                let position = text.find(record).map(|at| Position(at as u64));
                assert_eq!((was.position, was.line, &was.key), (position, Some(*line), &None));
            }
            // A reader that begins in the middle knows the place in the file, not the line.
            let from = delivered.origins[1].position;
            let splits = Source::splits(&source).await.unwrap();
            let (rest, end) = read_from(&source, vec![(splits[0].clone(), from)]).await;
            end.unwrap();
            let place = |was: &Rejected| (was.position, was.bytes.clone());
            let places = |of: &[Rejected]| of.iter().map(place).collect::<Vec<_>>();
            assert_eq!(places(&rest.origins), places(&delivered.origins[1..]));
            assert_eq!(rest.origins[0].line, None);
        }
    }
}

#[tokio::test]
async fn headers_and_columns_that_do_not_fit() {
    let place = Place::new();
    let path = place.write("a.csv", b"Price,who\n1,x\n");
    let error = error_of(&File::pattern(&path).csv::<Bid>()).await;
    assert!(error.contains(&path) && error.contains("\"who\"") && error.contains("did you mean \"Price\"?"), "{error}");
    let open = error_of(&File::pattern(place.write("b.csv", b"\"price\nname")).csv::<Bid>()).await;
    assert!(open.contains("b.csv") && open.contains("header"), "{open}");
    let long = File::pattern(place.write("c.csv", b"price,name\n")).max_record_bytes(4).csv::<Bid>();
    assert!(error_of(&long).await.contains("max_record_bytes (4)"));
    let unreadable = File::pattern(&path).csv_with(schema(&[("raw", DataType::Binary, true)]));
    assert!(unreadable.schema().unwrap_err().to_string().contains("\"raw\""));
    let delimiter = File::pattern(&path).delimiter(b'"').csv::<Bid>();
    assert!(delimiter.schema().unwrap_err().to_string().contains("delimiter"));
}

#[tokio::test]
async fn damaged_files_give_their_rows_and_then_an_error() {
    let place = Place::new();
    let text =
        (0..20_000).map(|i| format!("{{\"price\":{i},\"name\":\"{}\"}}\n", i * 7919 % 10_007)).collect::<String>();
    for (ending, compression) in [("gz", "gzip"), ("zst", "zstd")] {
        let whole = compress(&format!("x.{ending}"), text.as_bytes());
        let mut corrupt = whole.clone();
        let middle = corrupt.len() / 2;
        corrupt[middle..middle + 50].fill(0x55);
        let cut = whole[..whole.len() / 2].to_vec();
        let mut wrong_sum = whole.clone();
        *wrong_sum.last_mut().unwrap() ^= 1;
        for (name, bytes, what) in [("corrupt", corrupt, "corrupt"), ("cut", cut, "cut off")] {
            let path = place.path(&format!("{name}.jsonl.{ending}"));
            std::fs::write(&path, bytes).unwrap();
            let (delivered, end) = read_all(&File::pattern(&path).json::<Bid>()).await;
            let error = end.unwrap_err().to_string();
            for part in [path.as_str(), compression, what, "byte "] {
                assert!(error.contains(part), "{error}: no {part}");
            }
            assert!(what == "corrupt" || delivered.rows() > 1000, "{} rows", delivered.rows());
            let prices: Vec<i64> = delivered
                .batches
                .iter()
                .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
                .collect();
            assert!(what == "corrupt" || prices == (0..prices.len() as i64).collect::<Vec<_>>());
            assert!(delivered.ended.is_empty(), "a damaged file does not end");
        }
        let empty = place.path(&format!("empty.{ending}"));
        std::fs::write(&empty, b"").unwrap();
        let error = error_of(&File::pattern(&empty).json::<Bid>()).await;
        assert!(error.contains("is empty") && error.contains(compression), "{error}");
        if ending == "gz" {
            let path = place.path("sum.gz");
            std::fs::write(&path, wrong_sum).unwrap();
            let (delivered, end) = read_all(&File::pattern(&path).json::<Bid>()).await;
            assert_eq!((delivered.rows(), end.is_err()), (20_000, true));
        }
    }
    let plain = place.write("plain.gz", b"");
    std::fs::write(&plain, b"{\"price\":1}\n").unwrap();
    assert!(error_of(&File::pattern(&plain).csv::<Bid>()).await.contains("corrupt"));
}

#[tokio::test]
async fn several_members_and_frames_are_one_file() {
    let place = Place::new();
    for ending in ["gz", "zst"] {
        let name = format!("x.{ending}");
        let both = [compress(&name, b"{\"price\":1}\n{\"pri"), compress(&name, b"ce\":2}\n")].concat();
        std::fs::write(place.path(&name), both).unwrap();
        assert_eq!(read_well(&File::pattern(place.path(&name)).json::<Bid>()).await.rows(), 2);
    }
}

#[tokio::test]
async fn a_little_file_that_expands_to_one_endless_line_stays_small() {
    let place = Place::new();
    let path = place.write("bomb.jsonl.gz", &vec![b'x'; 64 << 20]);
    let delivered = read_well(&File::pattern(path).max_record_bytes(1 << 20).json::<Bid>()).await;
    assert_eq!((delivered.rows(), delivered.rejected.len()), (0, 1));
    assert_eq!(delivered.rejected[0].bytes.as_ref().unwrap().len(), 1024);
    assert_eq!(delivered.steps[0].1, Position(64 << 20));
}

#[tokio::test]
async fn files_take_turns_also_when_there_are_many() {
    let place = Place::new();
    for i in 0..70 {
        place.write(&format!("{i:02}.jsonl"), "{\"price\":1}\n".repeat(3).as_bytes());
    }
    let delivered = read_well(&File::pattern(place.path("*.jsonl")).batch_rows(1).json::<Bid>()).await;
    assert_eq!((delivered.rows(), delivered.ended.len()), (210, 70));
    let first: std::collections::HashSet<_> = delivered.steps[..64].iter().map(|step| step.0.clone()).collect();
    assert_eq!(first.len(), 64, "64 files had a turn before any had a second");
}

async fn rows(reader: &mut dyn SourceReader) -> Rows {
    match reader.fetch().await.unwrap() {
        Fetch::Rows(rows) => rows,
        other => panic!("rows expected, not {other:?}"),
    }
}

#[tokio::test]
async fn what_rows_were_is_not_kept_when_nobody_asks() {
    let place = Place::new();
    place.write("a.jsonl", b"{\"price\":1}\n{\"price\":2}\n");
    let source = File::pattern(place.path("*.jsonl")).json::<Bid>();
    let splits = Source::splits(&source).await.unwrap();
    let mut reader = source.reader(splits.iter().map(|split| (split.clone(), None)).collect()).await.unwrap();
    reader.without_origins();
    let rows = rows(reader.as_mut()).await;
    assert_eq!((rows.batch.num_rows(), rows.origins.is_none()), (2, true));
}

#[tokio::test(start_paused = true)]
async fn paused_files_make_room_for_those_that_wait_and_go_on_where_they_were() {
    let place = Place::new();
    for i in 0..150 {
        let suffix = ["jsonl", "jsonl.gz"][i % 2];
        place.write(&format!("{i:03}.{suffix}"), b"{\"price\":1}\n{\"price\":2}\n");
    }
    let source = File::pattern(place.path("*.jsonl*")).batch_rows(1).json::<Bid>();
    let splits = Source::splits(&source).await.unwrap();
    let mut reader = source.reader(splits.iter().map(|split| (split.clone(), None)).collect()).await.unwrap();
    let mut seen: Vec<SplitId> = Vec::new();
    let mut prices = Vec::new();
    while seen.len() < splits.len() {
        let next = rows(&mut *reader).await;
        assert!(!seen.contains(&next.split), "it is paused");
        seen.push(next.split);
        prices.push(next.batch.column(0).as_primitive::<Int64Type>().value(0));
        assert!(reader.pause(&seen));
    }
    assert!(tokio::time::timeout(std::time::Duration::from_secs(1), reader.fetch()).await.is_err(), "all are paused");
    // The slowest may be one that gave up its place.
    for last in [&splits[0], &splits[149]] {
        let others: Vec<SplitId> = splits.iter().filter(|split| *split != last).cloned().collect();
        assert!(reader.pause(&others));
        let next = rows(&mut *reader).await;
        assert_eq!(&next.split, last);
        prices.push(next.batch.column(0).as_primitive::<Int64Type>().value(0));
    }
    assert!(reader.pause(&[]));
    loop {
        match reader.fetch().await.unwrap() {
            Fetch::Rows(rows) => prices.push(rows.batch.column(0).as_primitive::<Int64Type>().value(0)),
            Fetch::SplitEnd(_) => {}
            Fetch::End => break,
        }
    }
    assert_eq!(prices[..150], [1; 150]);
    assert_eq!(prices[150..], [2; 150]);
}

#[tokio::test]
async fn infers_schemas_from_a_sample() {
    let place = Place::new();
    let json = place
        .write("a.jsonl.gz", b"rubbish\n{\"n\":1,\"t\":\"x\",\"no\":null}\n{\"n\":2.5,\"l\":[1],\"s\":{\"b\":true}}\n");
    let source = File::pattern(&json).infer_json(100).unwrap();
    let schema = source.schema().unwrap();
    let type_of = |name: &str| schema.field_with_name(name).unwrap().data_type().clone();
    assert_eq!((type_of("n"), type_of("t"), type_of("no")), (DataType::Float64, DataType::Utf8, DataType::Utf8));
    assert!(matches!((type_of("l"), type_of("s")), (DataType::List(_), DataType::Struct(_))));
    let delivered = read_well(&source).await;
    assert_eq!((delivered.rows(), delivered.rejected.len()), (2, 1));

    let text = b"n;at;t;no\n1;2020-01-01T00:00:00Z;\"a;\nb\";\n2;short\n3;;x;\n";
    let source = File::pattern(place.write("a.csv", text)).delimiter(b';').infer_csv(10).unwrap();
    let schema = source.schema().unwrap();
    let type_of = |name: &str| schema.field_with_name(name).unwrap().data_type().clone();
    assert_eq!((type_of("n"), type_of("t"), type_of("no")), (DataType::Int64, DataType::Utf8, DataType::Utf8));
    assert_eq!(type_of("at"), DataType::Timestamp(TimeUnit::Microsecond, None), "fractions may come later");
    let delivered = read_well(&source).await;
    assert_eq!((delivered.rows(), delivered.rejected.len()), (2, 1));

    let torn = place.write("torn.jsonl", b"{\"a\":1}\n{\"a\":{\"b\":1}}\n");
    let error = File::pattern(&torn).infer_json(10).unwrap_err().to_string();
    assert!(error.contains(&torn) && error.contains("schema"), "{error}");
    let source = File::pattern(place.write("part.jsonl", b"{\"a\":1,\"n\":7}\n{\"a\":{}}\n")).columns(["n"]);
    let schema = source.clone().infer_json(10).unwrap().schema().unwrap();
    assert_eq!((schema.fields().len(), schema.field(0).data_type()), (1, &DataType::Int64));
    let error = source.columns(["N"]).infer_json(10).unwrap_err().to_string();
    assert!(error.ends_with("the sample has no column \"N\"; it has \"a\", \"n\"; did you mean \"n\"?"), "{error}");
    let source = File::pattern(place.write("part.csv", b"x,n,x\n1,7,2\n")).columns(["n"]);
    assert_eq!(read_well(&source.clone().infer_csv(10).unwrap()).await.rows(), 1);
    let error = source.columns(["m"]).infer_csv(10).unwrap_err().to_string();
    assert!(
        error.ends_with("the sample has no column \"m\"; it has \"x\", \"n\", \"x\"; did you mean \"x\"?"),
        "{error}"
    );

    let empty = place.write("empty.csv", b"a,b\n");
    assert!(File::pattern(&empty).infer_csv(10).unwrap_err().to_string().contains("inferred"));
    assert!(File::pattern(place.path("no.csv")).infer_json(10).unwrap_err().to_string().contains("no such file"));
}
