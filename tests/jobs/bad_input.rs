//! Input that is missing, damaged, or not what it should be: a message that helps, or a row elsewhere, and every row
//! accounted for.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use tests::{rows, run};
use windrow::{
    Error, Report,
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType, UInt64Type},
    },
    connectors::{TypedSource, file::FileSource},
    prelude::*,
};

use crate::files::{Place, compressed};

#[derive(Record)]
struct Reading {
    sensor: String,
    value: i64,
    at: Option<i64>,
}

fn readings(path: &str) -> FileSource<Reading> {
    match path.contains(".csv") {
        true => File::pattern(path).csv(),
        false => File::pattern(path).json(),
    }
}

/// Why a job fails that only moves what it reads.
fn failure<T: TypedSource>(source: T) -> String {
    let job = Job::new("copy");
    job.source(source).sink(MemorySink::new());
    run(job).unwrap_err().to_string()
}

/// Every row is accounted for, and the source has seen all of them.
fn accounted(report: &Report, read: u64, rejected: u64) {
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
    let source: Vec<_> = report.metrics.named("source").collect();
    assert_eq!((source.len(), source[0].rows_in, source[0].rejected), (1, read, rejected), "{}", report.metrics);
}

/// The rows of a file, and its rejected records as `source|split|position|line|reason|bytes`.
fn read(path: &str, limit: usize, time: EventTime) -> (Vec<String>, Vec<RecordBatch>, Report) {
    let (good, bad) = (MemorySink::new(), MemorySink::new());
    let job = Job::new("with rejects");
    let input = File::pattern(path).max_record_bytes(limit);
    let source: FileSource<Reading> = if path.contains(".csv") { input.csv() } else { input.json() };
    let (stream, rejects) = job.source(source).event_time(time, Watermarks::in_order()).with_rejects();
    stream.sink(good.clone());
    rejects.sink(bad.clone());
    let report = run(job).unwrap();
    (rows(&good.batches()), bad.batches(), report)
}

fn at_seconds() -> EventTime {
    EventTime::column("at").seconds()
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::new();
    let path = place.path("readings.jsonl");
    assert_eq!(
        failure(readings(&path)),
        format!("#1 source file {path}: no such file: {path} (a file source must find its files)")
    );
    let pattern = place.path("*.csv");
    let error = failure(readings(&pattern));
    let expected = format!("#1 source file {pattern}: no file matches the pattern {pattern:?} (in the directory /");
    assert!(error.starts_with(&expected), "{error}");
}

/// Lines that no compression makes small, and where each of them ends.
fn many_lines() -> (String, Vec<usize>) {
    let (mut text, mut ends) = (String::new(), Vec::new());
    for value in 0..20_000_u64 {
        let sensor = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text += &format!("{{\"sensor\":\"{sensor:x}\",\"value\":{value},\"at\":{value}}}\n");
        ends.push(text.len());
    }
    (text, ends)
}

#[test]
fn rows_before_damage_are_delivered_and_the_place_of_the_damage_is_named() {
    let place = Place::new();
    let (text, ends) = many_lines();
    for (ending, compression) in [("gz", "gzip"), ("zst", "zstd")] {
        let whole = compressed(&format!("x.{ending}"), text.as_bytes());
        // A second member or frame that does not begin as one: with damage within one, nobody knows where it begins.
        let corrupt = [&compressed(&format!("x.{ending}"), &text.as_bytes()[..ends[9_999]]), &[0x55; 50][..]].concat();
        for (what, bytes) in [("cut off", &whole[..whole.len() / 2]), ("corrupt", &corrupt)] {
            let path = place.path(&format!("{}.jsonl.{ending}", what.len()));
            std::fs::write(&path, bytes).unwrap();
            let (seen, out) = (Arc::new(Mutex::new(Vec::new())), MemorySink::new());
            let job = Job::new("damage").channel_bytes(1);
            let chain_saw = seen.clone();
            job.source(File::pattern(&path).batch_rows(10).json::<Reading>())
                .filter(move |reading| {
                    chain_saw.lock().unwrap().push(reading.value);
                    true
                })
                .sink(out.clone());
            let error = run(job).unwrap_err().to_string();

            let start = format!("#1 source file {path}: {path}: the file is {what}");
            let before = format!(": {compression} decompression stopped at decompressed byte ");
            assert!(error.starts_with(&start) && error.contains(&before), "{error}");
            let position: usize = error.rsplit_once(' ').unwrap().1.parse().unwrap();

            let seen = seen.lock().unwrap();
            let complete = ends.iter().filter(|&&end| end <= position).count();
            assert!(seen.len() > 1_000, "{} rows", seen.len());
            assert!(seen.iter().copied().eq(0..complete as i64), "every line before byte {position}, no more");
            // The sink is another task. It is at most the message in the channel, and the one it holds, behind.
            let written: usize = out.written().iter().map(RecordBatch::num_rows).sum();
            assert!((complete.saturating_sub(20)..=complete).contains(&written), "{written} of {complete}");
            assert_eq!(out.rows(), 0, "nothing of a job that failed is published");
        }
    }
}

#[test]
fn a_column_that_does_not_exist_is_answered_with_the_one_that_was_meant() {
    let place = Place::new();
    let path = place.write("a.jsonl", b"");
    let mistake = |build: &dyn Fn(Stream<Reading>) -> Stream<Untyped>, time: &str| {
        let job = Job::new("typo");
        let time = EventTime::column(time).seconds();
        build(job.source(readings(&path)).event_time(time, Watermarks::in_order()).drop_rejects())
            .sink(MemorySink::new());
        let error = run(job).unwrap_err();
        assert!(matches!(&error, Error::Plan { mistakes, .. } if mistakes.len() == 1), "{error}");
        error.to_string()
    };
    let columns = "(columns: sensor, value, at)";
    assert_eq!(
        mistake(&|rows| rows.select([col("value")]), "att"),
        format!(
            "job \"typo\" cannot run:\n  #1 source file {path}: there is no column \"att\", did you mean \"at\"? {columns}"
        )
    );
    let window = |key: &'static str| {
        move |rows: Stream<Reading>| rows.key_by(key).window(Tumbling::of(secs(1))).aggregate([count()]).drop_late()
    };
    let error = mistake(&window("senso"), "at");
    assert!(error.ends_with(&format!("there is no column \"senso\", did you mean \"sensor\"? {columns}")), "{error}");
    assert!(error.contains("#2 window tumbling 1s per senso: "), "{error}");
    let error = mistake(&|rows| rows.filter_expr(col("valeu").gt(lit(1))).select([col("at")]), "at");
    assert!(error.contains("#2 filter valeu > Int32(1): "), "{error}");
    assert!(error.contains("there is no column \"valeu\", did you mean \"value\"?"), "{error}");

    let path = place.write("a.csv", b"sensor,Value,at\na,1,1\n");
    assert_eq!(
        failure(readings(&path)),
        format!(
            "#1 source file {path}: {path}: the header has no column \"value\"; it has \"sensor\", \"Value\", \"at\"; did \
             you mean \"Value\"?"
        )
    );
}

#[test]
fn a_column_that_cannot_be_event_time_is_refused_before_anything_is_read() {
    let place = Place::new();
    let path = place.write("a.jsonl", b"rubbish");
    let refused = |data_type: DataType, time: EventTime| {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("at", data_type, true)]));
        let job = Job::new("no time");
        job.source(File::pattern(&path).json_with(schema)).event_time(time, Watermarks::in_order()).discard();
        let error = run(job).unwrap_err().to_string();
        let start = format!("job \"no time\" cannot run:\n  #1 source file {path}: ");
        error.strip_prefix(&start).map(str::to_string).unwrap_or(error)
    };
    let kinds = "event time is a timestamp, a whole number with a unit, a date, or RFC 3339 text";
    let at = || EventTime::column("at");
    assert_eq!(refused(DataType::Boolean, at()), format!("column \"at\" is Boolean: {kinds}"));
    assert_eq!(refused(DataType::Float64, at()), format!("column \"at\" is Float64: {kinds}"));
    assert_eq!(refused(DataType::Float64, at().seconds()), format!("column \"at\" is Float64: {kinds}"));
    assert_eq!(
        refused(DataType::Int64, at()),
        "column \"at\" is Int64: name its unit, as in EventTime::column(\"at\").millis()"
    );
    assert_eq!(
        refused(DataType::Timestamp(TimeUnit::Second, None), at().millis()),
        "column \"at\" is Timestamp(s): it has a unit, do not name one"
    );
}

const GOOD: &str = "{\"sensor\":\"a\",\"value\":1,\"at\":1}\n";
const BROKEN: &str = "{\"sensor\":\"b\",\"value\":2,\"at\":";

#[test]
fn without_a_choice_the_first_bad_record_fails_the_job_and_says_how_to_keep_it() {
    let place = Place::new();
    let path = place.write("a.jsonl", format!("{GOOD}\n{BROKEN}\n{GOOD}").as_bytes());
    assert_eq!(
        failure(readings(&path)),
        format!(
            "#1 source file {path}: rejected a record of {path} at line 3 (position 33): column \"at\": not JSON: EOF \
             while parsing a value (byte 29)\n  the record: {BROKEN}\n  to keep such records call .with_rejects() on \
             the source, to count and drop them .drop_rejects()"
        )
    );
    // So does one that decodes, but has no event time; and the first in the file is told, whatever is wrong with it.
    let timeless = "{\"sensor\":\"c\",\"value\":3}";
    let path = place.write("null.jsonl", format!("{GOOD}{timeless}\n{BROKEN}\n").as_bytes());
    let job = Job::new("no time");
    job.source(readings(&path)).event_time(at_seconds(), Watermarks::in_order()).discard();
    let error = run(job).unwrap_err().to_string();
    let told = format!("at line 2 (position 32): column \"at\": event time is null\n  the record: {timeless}\n");
    assert!(error.starts_with(&format!("#1 source file {path}: rejected a record of {path} {told}")), "{error}");
    // A record of megabytes does not make a message of megabytes.
    let path = place.write("long.jsonl", "x".repeat(100_000).as_bytes());
    let error = failure(readings(&path));
    assert!(error.contains(&format!("the record: {}…\n", "x".repeat(200))), "{error}");
    assert!(error.len() < 1_000);
}

#[test]
fn rejects_are_dropped_and_counted_or_kept_with_everything_about_them() {
    let place = Place::new();
    let timeless = "{\"sensor\": \"c\", \"value\": 3}";
    let text = format!("{GOOD}{BROKEN}\n{GOOD}{timeless}\nnot json\n{GOOD}");
    let path = place.write("a.jsonl", text.as_bytes());

    let (job, out) = (Job::new("drop"), MemorySink::new());
    let stream = job.source(readings(&path)).event_time(at_seconds(), Watermarks::in_order());
    stream.drop_rejects().sink(out.clone());
    accounted(&run(job).unwrap(), 6, 3);
    assert_eq!(rows(&out.batches()), ["a|1|1"; 3]);

    let (good, bad, report) = read(&path, 1_000, at_seconds());
    accounted(&report, 6, 3);
    assert_eq!(good, ["a|1|1"; 3]);
    let columns: Vec<String> = bad[0].schema().fields().iter().map(|field| field.name().clone()).collect();
    let all_have = ["source", "split", "position", "line", "reason", "bytes"];
    let some_have = ["key", "truncated", "headers", "timestamp", "partition"];
    assert_eq!(columns, [&all_have[..], &some_have].concat());
    let batch = &bad[0];
    assert_eq!(batch.num_rows(), 3);
    assert!(batch.columns()[6..].iter().all(|column| column.null_count() == 3), "what files do not have");
    let of = |row: usize| {
        let number = |column: usize| {
            let column = batch.column(column).as_primitive::<UInt64Type>();
            (!column.is_null(row)).then(|| column.value(row))
        };
        let text = |column: usize| batch.column(column).as_string::<i32>().value(row).to_string();
        assert_eq!((text(0), text(1)), (format!("file {path}"), path.clone()));
        let bytes = String::from_utf8(batch.column(5).as_binary::<i32>().value(row).to_vec()).unwrap();
        (number(2), number(3), text(4), bytes)
    };
    let position = |record: &str| Some(text.find(record).unwrap() as u64);
    let reason = "column \"at\": not JSON: EOF while parsing a value (byte 29)";
    assert_eq!(of(0), (position(BROKEN), Some(2), reason.into(), BROKEN.into()));
    // One that decodes and has no event time is the record it was, and stands where it stood.
    let reason = "column \"at\": event time is null";
    assert_eq!(of(1), (position(timeless), Some(4), reason.into(), timeless.into()));
    assert_eq!(of(2), (position("not"), Some(5), "not JSON: expected ident (byte 2)".into(), "not json".into()));
}

#[test]
fn a_record_of_csv_without_a_usable_time_is_kept_as_it_was() {
    let place = Place::new();
    let text = "sensor,value,at\r\na,1,1\r\n\"b\nb\",2,\r\na,1,1\r\n\"c\",3,9223372036854775807\r\n";
    let path = place.write("a.csv", text.as_bytes());
    let (good, bad, report) = read(&path, 1_000, at_seconds());
    accounted(&report, 4, 2);
    assert_eq!(good, ["a|1|1"; 2]);
    let kept: Vec<_> = bad.iter().flat_map(|batch| batch.column(5).as_binary::<i32>().iter().flatten()).collect();
    assert_eq!(kept, [&b"\"b\nb\",2,"[..], b"\"c\",3,9223372036854775807"]);
    let lines = bad.iter().flat_map(|batch| batch.column(3).as_primitive::<UInt64Type>().iter().flatten());
    assert_eq!(lines.collect::<Vec<_>>(), [3, 6]);
}

#[test]
fn a_bad_record_is_rejected_alone_with_its_line_and_reason() {
    let json: [(&[u8], &str); 9] = [
        (b"[1, 2]", "not an object: invalid type: sequence, expected an object"),
        (b"{\"sensor\":\"b\"}", "column \"value\" is missing, and it is not nullable"),
        (b"{\"sensor\":7,\"value\":2}", "column \"sensor\": 7 is not Utf8"),
        (
            b"{\"sensor\":\"b\",\"value\":9223372036854775808,\"at\":2}",
            "column \"value\": 9223372036854775808 does not fit Int64",
        ),
        (b"{\"sensor\":\"b\",\"value\":1e999,\"at\":2}", "column \"value\": 1e999 does not fit Int64"),
        (b"{\"sensor\":\"b\",\"value\":2.5,\"at\":2}", "column \"value\": 2.5 does not fit Int64"),
        (b"{\"sensor\":\"\xff\"}", "not UTF-8: invalid utf-8 sequence of 1 bytes from index 11"),
        (b"{\"value\":2,\"value\":3}", "column \"value\" stands twice in the record"),
        (
            b"{\"sensor\":\"long long long long long long long long long\",\"value\":2,\"at\":2}",
            "the record is longer than max_record_bytes (60): 75 bytes with its line end",
        ),
    ];
    let good = "{\"sensor\":\"a\",\"value\":1,\"at\":1}\n";
    json.iter().for_each(|(record, reason)| rejected_alone("a.jsonl", "", good, record, reason));

    let csv: [(&[u8], &str); 7] = [
        (b"b,2", "has 2 fields instead of 3"),
        (b"b,2,3,4", "has 4 fields instead of 3"),
        (b"b,two,2", "column \"value\": \"two\" is not Int64"),
        (b"b,,2", "column \"value\" is empty, and it is not nullable"),
        (b"\xff,2,2", "not UTF-8: invalid utf-8 sequence of 1 bytes from index 0"),
        (
            b"\"b,2,2",
            "a quote opens and does not close: neither in this line nor before the end of the file or the limit on a \
             record's length",
        ),
        (
            b"long long long long long long long long long long long long long,2,2",
            "the record is longer than max_record_bytes (60): 69 bytes with its line end",
        ),
    ];
    csv.iter().for_each(|(record, reason)| rejected_alone("a.csv", "sensor,value,at\n", "a,1,1\n", record, reason));
}

/// A long record is told with its line end.
fn one_byte_more(reason: &str) -> String {
    reason.replace("75 bytes", "76 bytes").replace("69 bytes", "70 bytes")
}

fn rejected_alone(name: &str, header: &str, good: &str, record: &[u8], reason: &str) {
    let before = [header.as_bytes(), good.as_bytes()].concat();
    let lines = before.iter().filter(|byte| **byte == b'\n').count() as u64;
    for line_end in ["\n", "\r\n"] {
        let place = Place::new();
        let path = place.write(name, &[&before, record, line_end.as_bytes(), good.as_bytes()].concat());
        let (rows, bad, report) = read(&path, 60, at_seconds());
        accounted(&report, 3, 1);
        assert_eq!(rows, ["a|1|1"; 2], "the neighbours of {reason}");
        let batch = &bad[0];
        let reason = if line_end == "\n" { reason.to_string() } else { one_byte_more(reason) };
        assert_eq!(batch.column(4).as_string::<i32>().value(0), reason);
        let number = |column: usize| batch.column(column).as_primitive::<UInt64Type>().value(0);
        assert_eq!((number(2), number(3)), (before.len() as u64, lines + 1), "{reason}");
        let kept = batch.column(5).as_binary::<i32>().value(0);
        assert!(kept == record || (record.starts_with(kept) && kept.len() == 60), "{reason}");
    }
}

#[test]
fn files_with_little_in_them_and_all_line_ends() {
    let cases: [(&str, &str, u64); 9] = [
        ("empty.jsonl", "", 0),
        ("empty.csv", "", 0),
        ("header.csv", "sensor,value,at", 0),
        ("header-line.csv", "sensor,value,at\r\n", 0),
        ("no-final-newline.csv", "sensor,value,at\na,1,1\na,1,1", 2),
        ("no-final-newline.jsonl", "{\"sensor\":\"a\",\"value\":1,\"at\":1}", 1),
        ("crlf.csv", "sensor,value,at\r\na,1,1\r\n\r\n\"a\",1,1\r\n", 2),
        ("crlf.jsonl", "{\"sensor\":\"a\",\"value\":1,\"at\":1}\r\n\r\n{\"sensor\":\"a\",\"value\":1,\"at\":1}\r\n", 2),
        ("bom.csv", "\u{feff}sensor,value,at\na,1,1", 1),
    ];
    for ending in ["", ".gz", ".zst"] {
        for (name, text, expected) in cases {
            let place = Place::new();
            let path = place.write(&format!("{name}{ending}"), text.as_bytes());
            let (good, bad, report) = read(&path, 1_000, at_seconds());
            accounted(&report, expected, 0);
            assert_eq!((good, bad.len()), (vec!["a|1|1".to_string(); expected as usize], 0), "{name}{ending}");
        }
    }
}

/// What a job says of times: the windows of an hour that they are in, and how many were rejected.
fn windows(values: &[String], data_type: DataType, time: EventTime) -> (Vec<(i64, i64)>, u64) {
    let place = Place::new();
    let text: String = values.iter().map(|value| format!("{{\"at\":{value}}}\n")).collect();
    let path = place.write("a.jsonl", text.as_bytes());
    let schema = Arc::new(Schema::new(vec![Field::new("at", data_type, true)]));
    let (job, out) = (Job::new("times"), MemorySink::new());
    let rows = job.source(File::pattern(path).json_with(schema)).event_time(time, Watermarks::in_order());
    rows.drop_rejects().window(Tumbling::of(hours(1))).aggregate([count()]).drop_late().sink(out.clone());
    let report = run(job).unwrap();
    let rejected = report.metrics.named("source").map(|source| source.rejected).sum();
    accounted(&report, values.len() as u64, rejected);
    assert!(report.metrics.operators.iter().all(|operator| operator.late == 0));
    let mut windows = Vec::new();
    for batch in out.batches() {
        let [starts, ends] = [0, 1].map(|column| batch.column(column).as_primitive::<TimestampMicrosecondType>());
        windows.extend(starts.values().iter().copied().zip(ends.values().iter().copied()));
    }
    windows.sort_unstable();
    (windows, rejected)
}

/// The window of an hour around `micros`.
fn hour_of(micros: i64) -> (i64, i64) {
    const HOUR: i64 = 3_600_000_000;
    let start = micros.div_euclid(HOUR) * HOUR;
    (start, start + HOUR)
}

#[test]
fn extreme_times_are_in_the_right_window_or_rejected() {
    let year_9999 = 253_402_300_799_i128;
    let units = [
        (TimeUnit::Second, 1_i128, EventTime::column("at").seconds()),
        (TimeUnit::Millisecond, 1_000, EventTime::column("at").millis()),
        (TimeUnit::Microsecond, 1_000_000, EventTime::column("at").micros()),
        (TimeUnit::Nanosecond, 1_000_000_000, EventTime::column("at").nanos()),
    ];
    for (unit, per_second, named) in units {
        let ends = [i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX].map(i128::from);
        let beyond = [i128::from(i64::MIN) - 1, i128::from(i64::MAX) + 1];
        let near = [-1, 0, 1, -86_400 * per_second, -62_167_219_200 * per_second, year_9999 * per_second];
        let values: BTreeSet<i128> = ends.into_iter().chain(beyond).chain(near).collect();

        let micros = |value: i128| {
            let value = i64::try_from(value).ok()?;
            let micros = i64::try_from((i128::from(value) * 1_000_000).div_euclid(per_second)).ok()?;
            // Event time reaches 2^62 microseconds before and after 1970.
            (micros.unsigned_abs() < 1 << 62).then_some(micros)
        };
        let expected: BTreeSet<(i64, i64)> = values.iter().filter_map(|value| micros(*value)).map(hour_of).collect();
        let rejected = values.iter().filter(|value| micros(**value).is_none()).count() as u64;
        let expected = (Vec::from_iter(expected), rejected);

        let values: Vec<String> = values.iter().map(i128::to_string).collect();
        assert_eq!(windows(&values, DataType::Int64, named), expected, "{unit:?}");
        let timestamp = DataType::Timestamp(unit, None);
        assert_eq!(windows(&values, timestamp, EventTime::column("at")), expected, "{unit:?} as a type");
    }
}

#[test]
fn times_as_text_are_in_the_right_window_or_rejected() {
    let good = [
        ("0000-01-01T00:00:00Z", -62_167_219_200_000_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("1970-01-01T00:30:00+01:00", -1_800_000_000),
        ("2005-06-03T15:42:50", 1_117_813_370_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ];
    let bad = ["yesterday", "", "2005-13-01T00:00:00Z", "2005-02-29T00:00:00Z", "1117838570", "NaN"];
    let values: Vec<String> = good.iter().map(|(text, _)| text).chain(&bad).map(|text| format!("\"{text}\"")).collect();
    let expected = Vec::from_iter(good.iter().map(|(_, micros)| hour_of(*micros)).collect::<BTreeSet<_>>());
    for data_type in [DataType::Utf8, DataType::Timestamp(TimeUnit::Microsecond, None), Timestamp::data_type()] {
        let found = windows(&values, data_type.clone(), EventTime::column("at"));
        assert_eq!(found, (expected.clone(), bad.len() as u64), "{data_type}");
    }
}

#[test]
fn a_time_beyond_all_calendars_is_rejected_and_does_not_stop_a_file_sink() {
    let place = Place::new();
    let line = |at: i64| format!("{{\"sensor\":\"a\",\"value\":1,\"at\":{at}}}\n");
    let text = [line(i64::MAX), line((1 << 62) - 1), line(0), line(-(1 << 62) + 1), line(i64::MIN)].concat();
    let path = place.write("a.jsonl", text.as_bytes());
    let job = Job::new("end of time");
    job.source(readings(&path))
        .event_time(EventTime::column("at").micros(), Watermarks::out_of_order(hours(1 << 40)))
        .drop_rejects()
        .window(Tumbling::of(hours(1)))
        .aggregate([count()])
        .drop_late()
        .sink(File::directory(place.path("out")).json());
    let report = run(job).unwrap();
    accounted(&report, 5, 2);
    assert_eq!(report.metrics.named("sink").map(|sink| sink.rows_out).sum::<u64>(), 3);
}
