//! Files as the beginning and the end of jobs: what one job writes another reads, in every format and compression.

use std::{collections::BTreeMap, fs, io::Write, path::Path};

use tests::{rows, run};
use windrow::{
    Report,
    arrow::{
        array::{Array, AsArray, RecordBatch},
        datatypes::{Int64Type, TimestampMicrosecondType},
        util::display::{ArrayFormatter, FormatOptions},
    },
    connectors::file::{FileInput, FileOutput, FileSink, FileSource},
    prelude::*,
};

use crate::windows_over_files::{Args, Format, Unit, counts};

/// A directory that is removed with its files.
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_string()
    }

    /// Writes a file, compressed as its name says.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, compressed(name, bytes)).unwrap();
        path
    }

    /// The files in a directory below, hidden ones too; none if it is not there.
    pub(crate) fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(below)).into_iter().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn compressed(name: &str, bytes: &[u8]) -> Vec<u8> {
    match Path::new(name).extension().and_then(|ending| ending.to_str()) {
        Some("gz") => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).unwrap();
            out.finish().unwrap()
        }
        Some("zst") => zstd::encode_all(bytes, 1).unwrap(),
        _ => bytes.to_vec(),
    }
}

#[derive(Record, Clone)]
struct Event {
    id: i64,
    text: String,
    price: f64,
    sold: Option<bool>,
    buyer: Option<i64>,
    at: Timestamp,
}

/// Rows with everything in them that has ever been hard to quote.
fn events(range: std::ops::Range<i64>) -> Vec<Event> {
    let texts = [
        "plain",
        "a,b",
        "say \"hi\"",
        "\"",
        "two\nlines",
        "cr\r\nlf",
        "\r",
        "\t tab ",
        "",
        "Zürich ☃",
        "null",
        "\\n",
        "\u{feff}",
    ];
    let ids = [i64::MIN, i64::MAX, -1];
    let prices = [f64::MAX, 5e-324, -0.1, 1.0 / 3.0, 1e16];
    let event = |id: i64| Event {
        id: ids.get(id as usize).copied().unwrap_or(id),
        text: texts[id as usize % texts.len()].to_string(),
        price: prices.get(id as usize).copied().unwrap_or(id as f64 / 7.0),
        sold: [None, Some(true), Some(false)][id as usize % 3],
        buyer: (id % 4 != 0).then_some(-id),
        at: Timestamp::from_micros((id - 50) * 86_400_123_457),
    };
    range.map(event).collect()
}

fn memory(events: Vec<Event>) -> MemorySource<Event> {
    MemorySource::records(events).batch_rows(7).splits(2)
}

/// What a job makes of a source that it only copies.
fn copied(source: FileSource<Event>, parallelism: usize) -> Vec<String> {
    let (job, out) = (Job::new("read").parallelism(parallelism), MemorySink::new());
    job.source(source).sink(out.clone());
    accounted(&run(job).unwrap());
    rows(&out.batches())
}

fn accounted(report: &Report) {
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

/// How rows of a type are written and read in a format.
type ThereAndBack<T> = (&'static str, fn(FileOutput) -> FileSink, fn(FileInput) -> FileSource<T>);

fn formats<T: typed_arrow::schema::SchemaMeta>() -> [ThereAndBack<T>; 3] {
    [
        ("json", FileOutput::json, FileInput::json),
        ("csv", FileOutput::csv, FileInput::csv),
        ("parquet", FileOutput::parquet, FileInput::parquet),
    ]
}

#[test]
fn what_one_job_writes_another_reads_back() {
    let place = Place::new();
    for (name, write, read) in formats() {
        let (job, kept) = (Job::new("write").parallelism(2), MemorySink::new());
        let stream = job.source(memory(events(0..500))).event_time("at", Watermarks::out_of_order(hours(24 * 365)));
        let stream = stream.drop_rejects();
        stream.clone().sink(kept.clone());
        stream.sink(write(File::directory(place.path(name))));
        accounted(&run(job).unwrap());

        let names = place.names(name);
        assert!(names.len() == 2 && names.iter().all(|name| name.starts_with("part-")), "{names:?}");
        let files = File::pattern(place.path(&format!("{name}/part-*")));
        for parallelism in [1, 2, 3] {
            let read = copied(read(files.clone()), parallelism);
            assert_eq!((read.len(), read), (500, rows(&kept.batches())), "{name}");
        }
    }
}

/// One column, which may be empty: a line of CSV without a single character would be no row.
#[derive(Record, Clone)]
struct Little {
    text: Option<String>,
}

#[test]
fn rows_of_nothing_are_rows() {
    let place = Place::new();
    for (name, write, read) in formats::<Little>() {
        let texts = [None, Some("x"), None, None, Some("y"), None];
        let little: Vec<Little> = texts.map(|text| Little { text: text.map(str::to_string) }).to_vec();
        let job = Job::new("write");
        job.source(MemorySource::records(little)).sink(write(File::directory(place.path(name))));
        run(job).unwrap();

        let (job, out) = (Job::new("read"), MemorySink::new());
        job.source(read(File::pattern(place.path(&format!("{name}/*"))))).sink(out.clone());
        accounted(&run(job).unwrap());
        assert_eq!(rows(&out.batches()), ["null", "null", "null", "null", "x", "y"], "{name}");
    }
}

/// A price that is null where none may be, and a time that the engine cannot keep.
#[test]
fn rows_of_parquet_that_are_none_are_rejected_with_their_columns() {
    #[derive(Record, Clone)]
    struct Loose {
        price: Option<i64>,
        at: i64,
    }
    #[derive(Record)]
    struct Strict {
        price: i64,
        at: i64,
    }
    let place = Place::new();
    let loose = |n: i64| Loose { price: (n != 5).then_some(n), at: if n == 7 { i64::MAX } else { n } };
    let (write, directory) = (Job::new("write"), File::directory(place.path("in")));
    write.source(MemorySource::records((0..10).map(loose).collect())).sink(directory.parquet());
    run(write).unwrap();

    let source = || File::pattern(place.path("in/*")).parquet::<Strict>();
    let (job, kept, rejects) = (Job::new("strict"), MemorySink::new(), MemorySink::new());
    let strict = job.source(source()).event_time(EventTime::column("at").millis(), Watermarks::in_order());
    let (strict, rejected) = strict.with_rejects();
    strict.sink(kept.clone());
    rejected.sink(rejects.clone());
    accounted(&run(job).unwrap());
    let expected = (0..10).filter(|n| ![5, 7].contains(n)).map(|n| format!("{n}|{n}"));
    assert_eq!(rows(&kept.batches()), expected.collect::<Vec<_>>());
    let rejects = rows(&rejects.batches()).join("\n");
    assert!(rejects.contains("column \"price\" is null, and it is not nullable"), "{rejects}");
    assert!(rejects.contains("column \"at\"") && rejects.contains("not an event time"), "{rejects}");

    let job = Job::new("fails");
    job.source(source()).sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains("column \"price\" is null") && error.contains("price=null at=5"), "{error}");

    // A typing mistake is told with all others, before the first row.
    #[derive(Record)]
    struct Typo {
        prise: Option<i64>,
    }
    let job = Job::new("typo");
    job.source(File::pattern(place.path("in/*")).parquet::<Typo>())
        .filter(|it| it.prise.is_none())
        .sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    assert!(error.contains("no column \"prise\"") && error.contains("did you mean \"price\"?"), "{error}");
}

#[test]
fn a_job_that_fails_leaves_no_file() {
    let place = Place::new();
    let good = "{\"id\":1,\"text\":\"x\",\"price\":1,\"at\":1}\n";
    let path = place.write("a.jsonl", format!("{}rubbish\n{good}", good.repeat(1_000)).as_bytes());
    for parallelism in [1, 2] {
        let job = Job::new("fails").parallelism(parallelism).channel_bytes(1);
        // The directory is the sink's: rows have reached it, one message a row, when the last record fails the job.
        let source = File::pattern(&path).batch_rows(1).json::<Event>();
        job.source(source).sink(File::directory(place.path("out")).csv());
        let error = run(job).unwrap_err().to_string();
        assert!(error.contains("rejected a record of") && error.contains("at line 1001 "), "{error}");
        assert!(Path::new(&place.path("out")).is_dir());
        assert_eq!(place.names("out"), [""; 0], "neither finished nor hidden");
    }
}

#[test]
fn writing_twice_into_one_directory_loses_nothing() {
    let place = Place::new();
    let write = |events: Vec<Event>, sink| {
        let job = Job::new("write").parallelism(2);
        job.source(memory(events)).sink(sink);
        run(job)
    };
    let sink = File::directory(place.path("out")).json();
    write(events(0..100), sink.clone()).unwrap();
    write(events(100..200), File::directory(place.path("out")).json()).unwrap();
    // The very same sink again: names are of a run, not of a sink.
    write(events(200..300), sink).unwrap();
    assert_eq!(place.names("out").len(), 6);
    assert_eq!(copied(File::pattern(place.path("out/*.jsonl")).json(), 1).len(), 300);
}

#[test]
fn windows_over_many_files_are_those_of_all_their_rows() {
    let place = Place::new();
    let mut expected = BTreeMap::new();
    for (file, name) in ["a.csv", "b.csv.gz", "c.csv.zst", "d.csv", "e.csv.gz"].into_iter().enumerate() {
        let mut text = "level,at\n".to_string();
        for row in 0..1_500 * (file as i64 + 1) {
            // Up to 9 s out of order, also before 1970.
            let at = row * 3_500 - row * 7_919 % 9_000 - 5_000_000;
            let level = ["INFO", "WARN", "FATAL"][(row * row % 7 % 3) as usize];
            text += &format!("{level},{at}\n");
            *expected.entry((at.div_euclid(60_000) * 60_000_000, level.to_string())).or_insert(0) += 1;
        }
        place.write(name, text.as_bytes());
    }
    // Splits without a row hold nobody back.
    place.write("f.csv", b"level,at");
    place.write("g.csv.zst", b"");
    #[derive(Record)]
    struct Line {
        level: String,
        at: i64,
    }
    for parallelism in 1..=4 {
        for batch_rows in [100, 8192] {
            let (job, out) = (Job::new("windows").parallelism(parallelism), MemorySink::new());
            job.source(File::pattern(place.path("*.csv*")).batch_rows(batch_rows).csv::<Line>())
                .event_time(EventTime::column("at").millis(), Watermarks::out_of_order(secs(10)))
                .filter(|line| line.at < i64::MAX && !line.level.is_empty())
                .key_by("level")
                .window(Tumbling::of(mins(1)))
                .aggregate([count()])
                .drop_late()
                .sink(out.clone());
            let report = run(job).unwrap();
            accounted(&report);
            assert_eq!(report.metrics.named("source").map(|source| source.rows_in).sum::<u64>(), 22_500);
            assert_eq!(counted(&out.batches()), expected, "parallelism {parallelism}, batches of {batch_rows}");
        }
    }
}

/// Counts by the start of their window in microseconds, and their key.
pub(crate) type Counts = BTreeMap<(i64, String), i64>;

/// The rows `window_start`, `window_end`, key, count.
pub(crate) fn counted(batches: &[RecordBatch]) -> Counts {
    let options = FormatOptions::default().with_null("null");
    let mut counted = BTreeMap::new();
    for batch in batches {
        let starts = batch.column(0).as_primitive::<TimestampMicrosecondType>();
        let keys = ArrayFormatter::try_new(batch.column(2).as_ref(), &options).unwrap();
        let counts = batch.column(3).as_primitive::<Int64Type>();
        for row in 0..batch.num_rows() {
            let key = (starts.value(row), keys.value(row).to_string());
            assert_eq!(counted.insert(key.clone(), counts.value(row)), None, "{key:?} has two results");
        }
        assert_eq!(counts.null_count(), 0);
    }
    counted
}

/// Rows read, late, rejected, as the example adds them up.
pub(crate) fn account(report: &Report) -> (u64, u64, u64) {
    accounted(report);
    let source: Vec<_> = report.metrics.named("source").collect();
    let late = report.metrics.operators.iter().map(|operator| operator.late).sum();
    (source.iter().map(|s| s.rows_in).sum(), late, source.iter().map(|s| s.rejected).sum())
}

/// Runs the example, with a sink that keeps the counts.
pub(crate) fn example(args: &Args) -> Result<(Counts, Report), String> {
    let (job, out) = (Job::new("windows-over-files").parallelism(args.parallelism), MemorySink::new());
    counts(&job, args).map_err(|error| error.to_string())?.sink(out.clone());
    let report = run(job).map_err(|error| error.to_string())?;
    Ok((counted(&out.batches()), report))
}

pub(crate) fn args(files: Vec<String>, time: &str, unit: Option<Unit>, key: &str) -> Args {
    let (time, key) = (time.to_string(), key.to_string());
    let (window, out_of_order) = (hours(1), mins(1));
    Args { files, time, unit, key, window, format: None, out_of_order, strict: false, parallelism: 1 }
}

/// An instant as the example's input writes it.
#[derive(Clone, Copy, Debug)]
struct Written(Option<Unit>);

impl Written {
    fn time(self, millis: i64, json: bool) -> String {
        match self.0 {
            Some(Unit::S) => millis.div_euclid(1_000).to_string(),
            Some(Unit::Ms) => millis.to_string(),
            Some(Unit::Us) => (millis * 1_000 + 999).to_string(),
            Some(Unit::Ns) => (millis * 1_000_000 + 999_999).to_string(),
            None => {
                let text = Timestamp::from_millis(millis).unwrap().to_string();
                if json { format!("\"{text}\"") } else { text }
            }
        }
    }
}

/// A file of the example's input, with what it adds to the counts; rows read, late and rejected.
fn log(file: i64, json: bool, written: Written, expected: &mut Counts) -> (String, (u64, u64, u64)) {
    const START: i64 = 1_117_838_570_000;
    let levels = ["INFO", "a, \"quoted\" level", "ÄRGER", "x,y"];
    let mut text = if json { String::new() } else { "n,level,when,rest\n".to_string() };
    let (mut read, mut late, mut rejected) = (0, 0, 0);
    for row in 0..10_000_i64 {
        let level = levels[((row / 3 + file) % 4) as usize];
        // The reader's first batch has moved time on by hours when the last rows come: they are too late by far.
        let is_late = row >= 9_900 && row % 2 == 0;
        let disorder = if is_late { 5 * 3_600_000 } else { row * 7_919 % 59_000 };
        let at = START + row * 2_001 - disorder;
        let time = written.time(at, json);
        text += &match json {
            true => format!("{{\"n\":{row},\"level\":{level:?},\"when\":{time},\"rest\":[{{}}]}}\n"),
            false => format!("{row},\"{}\",{time},\"two\nlines, \"\"and quotes\"\"\"\n", level.replace('"', "\"\"")),
        };
        match is_late {
            true => late += 1,
            false => *expected.entry((at.div_euclid(3_600_000) * 3_600_000_000, level.to_string())).or_insert(0) += 1,
        }
        read += 1;
        if row % 500 == 7 {
            text += match (json, row % 1_000) {
                (true, 7) => "{\"level\":\"no time\"}\n",
                (true, _) => "2005-06-03 not json\n",
                (false, 7) => "1,no time,,\n",
                (false, _) => "1,too few\n",
            };
            read += 1;
            rejected += 1;
        }
    }
    (text, (read, late, rejected))
}

#[test]
fn the_example_counts_files_in_every_form_of_time() {
    for unit in [Some(Unit::S), Some(Unit::Ms), Some(Unit::Us), Some(Unit::Ns), None] {
        for (json, name) in [(false, "csv"), (true, "jsonl")] {
            let (place, mut expected, mut sum) = (Place::new(), Counts::new(), (0, 0, 0));
            for (file, ending) in [(0, ""), (1, ".gz"), (2, ".zst")] {
                let (text, account) = log(file, json, Written(unit), &mut expected);
                place.write(&format!("{file}.{name}{ending}"), text.as_bytes());
                sum = (sum.0 + account.0, sum.1 + account.1, sum.2 + account.2);
            }
            for parallelism in [1, 2] {
                let files = vec![place.path(&format!("*.{name}*"))];
                let format = Some(if json { Format::Json } else { Format::Csv });
                let args = Args { format, parallelism, ..args(files, "when", unit, "level") };
                let (counts, report) = example(&args).unwrap();
                assert_eq!(account(&report), sum, "{unit:?} {name} at {parallelism}");
                assert_eq!(counts, expected, "{unit:?} {name} at {parallelism}");
                let counted = counts.values().sum::<i64>() as u64;
                assert_eq!(sum.0, counted + sum.1 + sum.2);
                let error = example(&Args { strict: true, ..args }).unwrap_err();
                assert!(error.contains("rejected a record of"), "{error}");
            }
        }
    }
}

#[test]
fn an_odd_row_in_the_sample_does_not_spoil_the_others() {
    let place = Place::new();
    let csv = place.write("a.csv", b"level,when\nINFO,soon\nINFO,7200\n7,7201\n");
    let json = place.write("a.jsonl", b"{\"level\":\"INFO\",\"when\":\"soon\"}\n{\"level\":\"INFO\",\"when\":7200}\n");
    let (counts, report) = example(&args(vec![csv], "when", Some(Unit::S), "level")).unwrap();
    assert_eq!(account(&report), (3, 0, 1));
    let key = |level: &str| (7_200_000_000, level.to_string());
    assert_eq!(counts, BTreeMap::from([(key("INFO"), 1), (key("7"), 1)]));
    for (column, key) in [("level", key("INFO")), ("when", key("7200"))] {
        let (counts, report) = example(&args(vec![json.clone()], "when", Some(Unit::S), column)).unwrap();
        assert_eq!((account(&report), counts), ((2, 0, 1), BTreeMap::from([(key, 1)])));
    }
}

#[test]
fn other_columns_of_the_examples_input_do_not_matter() {
    let place = Place::new();
    let csv = place.write("a.csv", b"level,when,,,x,x\nINFO,7200,,,1,2\n");
    let json = place.write(
        "a.jsonl",
        b"{\"level\":\"INFO\",\"when\":7200,\"x\":{\"y\":1}}\n{\"level\":\"INFO\",\"when\":7200,\"x\":[\"z\"]}\n{\"level\":\"INFO\",\"when\":7200,\"x\":1}\n",
    );
    for (path, rows) in [(csv, 1), (json, 3)] {
        let (counts, report) = example(&args(vec![path], "when", Some(Unit::S), "level")).unwrap();
        assert_eq!(account(&report), (rows, 0, 0));
        assert_eq!(counts, BTreeMap::from([((7_200_000_000, "INFO".to_string()), rows as i64)]));
    }
}

#[test]
fn times_as_text_keep_digits_that_the_sample_does_not_have() {
    let place = Place::new();
    let mut text = "level,when\n".to_string();
    text += &"INFO,2005-06-03T15:42:50Z\n".repeat(1_000);
    text += "INFO,2005-06-03T15:42:50.500Z\nINFO,2005-06-03T15:42:50.000001Z\n";
    let path = place.write("a.csv", text.as_bytes());
    let (counts, report) = example(&Args { window: millis(1), ..args(vec![path], "when", None, "level") }).unwrap();
    assert_eq!(account(&report), (1_002, 0, 0));
    let expected = [(1_117_813_370_000_000, 1_001), (1_117_813_370_500_000, 1)];
    assert_eq!(counts, expected.map(|(start, count)| ((start, "INFO".to_string()), count)).into());
}

#[test]
fn the_example_helps_with_names_that_are_not_there() {
    let place = Place::new();
    let csv = place.write("a.csv", b"Level,Timestamp\nINFO,7200\n");
    let json = place.write("a.jsonl", b"{\"Level\":\"INFO\",\"Timestamp\":7200}\n");
    for path in [csv, json] {
        let error = |time: &str, key: &str| example(&args(vec![path.clone()], time, Some(Unit::S), key)).unwrap_err();
        let found = "it has \"Level\", \"Timestamp\"; did you mean \"Timestamp\"?";
        assert_eq!(
            error("Timestmp", "Level"),
            format!("{path}: the columns cannot be inferred: the sample has no column \"Timestmp\"; {found}")
        );
        let wrong = error("Timestamp", "level");
        assert!(wrong.contains("has no column \"level\"") && wrong.ends_with("did you mean \"Level\"?"), "{wrong}");
        let wrong = example(&args(vec![path.clone()], "Timestamp", None, "Level")).unwrap_err();
        assert!(wrong.contains("name its unit, as in EventTime::column(\"Timestamp\").millis()"), "{wrong}");
    }
}
