//! Counts per key and window of event time, over CSV or JSON-lines files.
//!
//! ```text
//!   files (one split each) ─► event time from a column ─► key by a column ─► windows: count ─► console
//! ```
//!
//! Rows go to stdout, the account of all rows to stderr.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use clap::{Parser, ValueEnum};
use windrow::{
    Report,
    arrow::datatypes::{DataType, Field, Schema},
    connectors::{ConnectorError, Source, file::FileSource},
    prelude::*,
};

/// How many records are looked at to learn the types of the columns.
const SAMPLE_RECORDS: usize = 1_000;

/// Counts rows per key and window of event time.
#[derive(Parser, Debug)]
pub struct Args {
    /// Files or patterns such as 'logs/*.jsonl'; .gz and .zst are decompressed
    #[arg(required = true)]
    pub files: Vec<String>,
    /// The column that holds event time: numbers (with --unit) or RFC 3339 text
    #[arg(long)]
    pub time: String,
    /// What numbers in the time column count since 1970
    #[arg(long)]
    pub unit: Option<Unit>,
    /// The column to count by
    #[arg(long)]
    pub key: String,
    /// The size of a window: 10s, 5m, 1h, 1day
    #[arg(long, value_parser = humantime::parse_duration)]
    pub window: Duration,
    /// The format of the files; without it, what the name of the first file says
    #[arg(long)]
    pub format: Option<Format>,
    /// How far out of order rows of one file may be
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub out_of_order: Duration,
    /// Stop at the first record that does not decode, and say why, instead of counting it
    #[arg(long)]
    pub strict: bool,
    /// Tasks per operator
    #[arg(long, default_value_t = 1)]
    pub parallelism: usize,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Unit {
    /// Seconds.
    S,
    /// Milliseconds.
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// A format of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Comma-separated values with a header.
    Csv,
    /// One JSON object per line.
    Json,
}

/// The job, up to its sink: `window_start`, `window_end`, the key, `count`.
pub fn counts(job: &Job, args: &Args) -> Result<Stream<Untyped>, ConnectorError> {
    let column = EventTime::column(&args.time);
    let time = match args.unit {
        None => column,
        Some(Unit::S) => column.seconds(),
        Some(Unit::Ms) => column.millis(),
        Some(Unit::Us) => column.micros(),
        Some(Unit::Ns) => column.nanos(),
    };
    let rows = job.source(source(args)?).event_time(time, Watermarks::out_of_order(args.out_of_order));
    let rows = if args.strict { rows.fail_on_rejects() } else { rows.drop_rejects() };
    Ok(rows.key_by(args.key.as_str()).window(Tumbling::of(args.window)).aggregate([count()]).drop_late())
}

/// The files, of which only the two columns are read.
fn source(args: &Args) -> Result<FileSource<Untyped>, ConnectorError> {
    let files = File::patterns(args.files.iter().map(String::as_str));
    let format = args.format.unwrap_or_else(|| format_of(&args.files[0]));
    let sampled = files.clone().columns([&args.time, &args.key]);
    let sampled = match format {
        Format::Csv => sampled.infer_csv(SAMPLE_RECORDS)?,
        Format::Json => sampled.infer_json(SAMPLE_RECORDS)?,
    };
    let sampled = sampled.schema()?;
    let mut fields = vec![Field::new(&args.time, time_type(sampled.field(0).data_type(), args.unit), true)];
    if args.key != args.time {
        // Any text of a CSV file is a key, whatever the sample looked like.
        let key = if format == Format::Csv { &DataType::Utf8 } else { sampled.field(1).data_type() };
        fields.push(Field::new(&args.key, key.clone(), true));
    }
    let schema = Arc::new(Schema::new(fields));
    Ok(match format {
        Format::Csv => files.csv_with(schema),
        Format::Json => files.json_with(schema),
    })
}

/// What to read from the time column. A unit says that it holds numbers, even if one odd value made a text of it in the
/// sample. Without a unit nothing is a number: times are read as text, so that a number among them is rejected.
fn time_type(sampled: &DataType, unit: Option<Unit>) -> DataType {
    match (sampled, unit) {
        (DataType::Utf8, Some(_)) => DataType::Int64,
        (DataType::Timestamp(..) | DataType::Date32, None) => DataType::Utf8,
        (sampled, _) => sampled.clone(),
    }
}

fn format_of(file: &str) -> Format {
    let name = file.to_ascii_lowercase();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        Some("json" | "jsonl" | "ndjson") => Format::Json,
        _ => Format::Csv,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(report) => summary(&report),
        Err(error) => {
            eprintln!("{error}");
            if matches!(error.downcast_ref(), Some(windrow::Error::Aborted { .. })) {
                // Not by way of main: the runtime would wait for a write that may never return.
                std::process::exit(INTERRUPTED.into());
            }
            ExitCode::FAILURE
        }
    }
}

/// What a shell expects of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

async fn run(args: Args) -> Result<Report, Box<dyn std::error::Error>> {
    let job = Job::new("windows-over-files").parallelism(args.parallelism);
    counts(&job, &args)?.sink(Console::new());
    Ok(job.run().await?)
}

/// Accounts for every row; the exit code says whether the counts can be relied on.
fn summary(report: &Report) -> ExitCode {
    let source: Vec<_> = report.metrics.named("source").collect();
    let read: u64 = source.iter().map(|source| source.rows_in).sum();
    let rejected: u64 = source.iter().map(|source| source.rejected).sum();
    let late: u64 = report.metrics.operators.iter().map(|operator| operator.late).sum();
    let processed = read - late - rejected;
    eprintln!("{read} rows in = {processed} processed + {late} late + {rejected} rejected");
    if rejected > 0 {
        eprintln!("--strict stops at the first rejected row and says what is wrong with it");
    }
    if late > 0 {
        eprintln!("late rows came after their window was closed: --out-of-order keeps windows open for longer");
    }
    if report.stopped {
        eprintln!("stopped: windows that were open gave no result");
        return ExitCode::from(INTERRUPTED);
    }
    if read > 0 && rejected == read {
        eprintln!("every row was rejected: is --time the right column, and --unit its unit?");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
