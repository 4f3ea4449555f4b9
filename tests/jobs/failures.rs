//! A job that fails says who and why, publishes nothing unfinished, and never hangs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use async_trait::async_trait;
use tests::{on_two_threads, run};
use windrow::{
    Error,
    arrow::{
        array::RecordBatch,
        datatypes::{Schema, SchemaRef},
    },
    connectors::{
        ConnectorError, Epoch, Fetch, Incarnation, Position, Receipt, Rows, Sink, SinkWriter, Source, SourceReader,
        SplitId, TypedSource,
    },
    prelude::*,
};

#[derive(Record)]
struct Number {
    value: i64,
}

fn numbers(job: &Job) -> Stream<Number> {
    job.source(Sequence::endless().splits(3)).event_time("at", Watermarks::in_order()).typed::<Number>()
}

#[test]
fn a_panic_in_a_closure_fails_the_job_with_the_operators_name() {
    for parallelism in [1, 3] {
        let job = Job::new("panic").parallelism(parallelism);
        let out = MemorySink::new();
        numbers(&job)
            .filter(|number| number.value != 70_000 || panic!("seventy thousand"))
            .key_by("value")
            .window(Tumbling::of(secs(1)))
            .aggregate([count()])
            .drop_late()
            .sink(out.clone());
        let error = run(job).unwrap_err();
        assert_eq!(error.to_string(), "#2 filter panicked: seventy thousand");
        assert_eq!(out.rows(), 0, "what was not finished is not published");
    }
}

#[test]
fn an_operator_that_fails_names_itself() {
    let job = Job::new("division").parallelism(2);
    numbers(&job).filter_expr((lit(1) / (col("value") - lit(50_000))).lt(lit(2))).sink(MemorySink::new());
    let error = run(job).unwrap_err().to_string();
    assert!(error.starts_with("#2 filter ") && error.to_lowercase().contains("divide by zero"), "{error}");
}

/// A sink whose writers fail, hang in a panic, or count.
struct Faulty {
    after_rows: usize,
    panics: bool,
    rows: Arc<AtomicUsize>,
}

#[async_trait]
impl Sink for Faulty {
    fn name(&self) -> String {
        "faulty".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Faulty { after_rows: self.after_rows, panics: self.panics, rows: self.rows.clone() }))
    }
}

#[async_trait]
impl SinkWriter for Faulty {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        let rows = self.rows.fetch_add(batch.num_rows(), SeqCst);
        match (rows >= self.after_rows, self.panics) {
            (false, _) => Ok(()),
            (true, true) => panic!("the sink is broken"),
            (true, false) => Err(ConnectorError::Config("the disk is full".into())),
        }
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_sink_that_fails_or_panics_ends_an_endless_job() {
    for (panics, expected) in
        [(false, "#3 sink faulty: the disk is full"), (true, "#3 sink faulty panicked: the sink is broken")]
    {
        let job = Job::new("faulty").parallelism(2);
        let sink = Faulty { after_rows: 100_000, panics, rows: Arc::default() };
        numbers(&job).filter(|number| number.value >= 0).sink(sink);
        assert_eq!(run(job).unwrap_err().to_string(), expected);
    }
}

/// A source that delivers nothing and then fails, panics, or goes back to an earlier position.
#[derive(Clone, Copy)]
enum Broken {
    Fails,
    Panics,
    GoesBack,
    ForeignSplit,
    OtherColumns,
}

#[async_trait]
impl Source for Broken {
    fn name(&self) -> String {
        "broken".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Sequence::new(0).schema()
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok(vec![SplitId::new("only")])
    }

    async fn reader(&self, _: Vec<(SplitId, Option<Position>)>) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(BrokenReader(*self, 10)))
    }
}

impl TypedSource for Broken {
    type Row = Untyped;
}

struct BrokenReader(Broken, u64);

#[async_trait]
impl SourceReader for BrokenReader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        match self.0 {
            Broken::Fails => Err(ConnectorError::Data { at: "only".into(), reason: "the tape is torn".into() }),
            Broken::Panics => panic!("out of tape"),
            Broken::GoesBack => {
                self.1 -= 1;
                Ok(Fetch::Rows(empty_rows("only", self.0.schema()?, self.1)))
            }
            Broken::ForeignSplit => Ok(Fetch::Rows(empty_rows("other", self.0.schema()?, 1))),
            Broken::OtherColumns => Ok(Fetch::Rows(empty_rows("only", Arc::new(Schema::empty()), 1))),
        }
    }
}

fn empty_rows(split: &str, schema: SchemaRef, next: u64) -> Rows {
    let (split, next) = (SplitId::new(split), Position(next));
    Rows { split, batch: RecordBatch::new_empty(schema), rejected: Vec::new(), passed_over: 0, next, origins: None }
}

#[test]
fn a_source_that_fails_panics_or_breaks_its_contract_is_named() {
    let said = |broken: Broken| {
        let job = Job::new("broken");
        job.source(broken).sink(MemorySink::new());
        run(job).unwrap_err().to_string()
    };
    assert_eq!(said(Broken::Fails), "#1 source broken: only: the tape is torn");
    assert_eq!(said(Broken::Panics), "#1 source broken panicked: out of tape");
    assert_eq!(
        said(Broken::GoesBack),
        "#1 source broken: only: the reader went back to position 8: a bug in the connector"
    );
    assert!(said(Broken::ForeignSplit).starts_with("#1 source broken: other: the reader delivered rows of a split it"));
    assert!(
        said(Broken::OtherColumns).starts_with("#1 source broken: only: the reader delivered columns that are not")
    );
}

#[test]
fn stopping_processes_what_was_read_and_completes_no_window() {
    let (report, rows, windows) = on_two_threads(async {
        let job = Job::new("stop").parallelism(2);
        let (raw, counts) = (MemorySink::new(), MemorySink::new());
        let source = numbers(&job);
        let source = source.filter(|_| true);
        source.clone().sink(raw.clone());
        // One window that is never complete.
        source.window(Tumbling::of(hours(1_000_000))).aggregate([count()]).drop_late().sink(counts.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        while handle.metrics().named("sink").all(|sink| sink.rows_in == 0) {
            tokio::task::yield_now().await;
        }
        handle.stop();
        (running.wait().await.unwrap(), raw.rows() as u64, counts.rows())
    });
    assert!(report.stopped);
    assert_eq!(windows, 0, "a window that is not complete gives no result");
    let read: u64 = report.metrics.named("source").map(|source| source.rows_in).sum();
    assert_eq!(rows, read, "every row that was read is written and published");
    assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
}

#[test]
fn a_running_job_that_is_dropped_ends() {
    on_two_threads(async {
        let job = Job::new("dropped");
        let out = MemorySink::new();
        numbers(&job).sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        while handle.metrics().named("sink").all(|sink| sink.rows_in == 0) {
            tokio::task::yield_now().await;
        }
        drop(running);
        assert!(out.batches().is_empty(), "nothing was published");
    });
}

#[test]
fn a_job_runs_on_a_single_thread_and_still_hears_a_stop() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let job = Job::new("one-thread");
        numbers(&job).sink(MemorySink::new());
        let running = job.start().await.unwrap();
        running.handle().stop();
        let report = tokio::time::timeout(tests::TOO_LONG, running.wait()).await.expect("it hangs").unwrap();
        assert!(report.stopped);
    });
}

#[test]
fn errors_are_echoes_only_of_errors() {
    // Whichever task notices first, the cause is what is reported.
    for _ in 0..20 {
        let job = Job::new("race").parallelism(4);
        numbers(&job)
            .filter(|number| number.value < 5_000 || panic!("cause"))
            .key_by("value")
            .window(Tumbling::of(millis(1)))
            .aggregate([count()])
            .drop_late()
            .sink(MemorySink::new());
        assert!(matches!(run(job).unwrap_err(), Error::Panic { message, .. } if message == "cause"));
    }
}
