//! Who collects what a job tells may ask the job in the middle of it: nothing is told while something is held that the answer needs. In a
//! program of its own, because what is collected on one thread depends on what others of the program have said before.

#![allow(missing_docs, reason = "derive(Record) makes public types")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tracing::{
    Event, Metadata, Subscriber,
    span::{Attributes, Id, Record as Recorded},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};
use windrow::{
    JobHandle,
    arrow::{
        array::{ArrayRef, Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    },
    connectors::{ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId},
    prelude::*,
    status::JobStatus,
};

/// What runs into it hangs.
const TOO_LONG: Duration = Duration::from_secs(60);

/// Asks the job about everything, each time that it tells anything, and counts what that was.
#[derive(Clone, Default)]
struct Asks {
    job: Arc<OnceLock<JobHandle>>,
    told: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Asks {
    fn asks(&self, what: &str, of: &Metadata<'_>) {
        if !of.target().starts_with("windrow") {
            return;
        }
        let Some(job) = self.job.get() else { return };
        let status = job.status();
        assert!(!status.why_open("1").is_empty());
        assert_eq!((status.job, job.metrics().operators.len()), ("asked".into(), status.operators.len()));
        job.warnings();
        let name = if of.is_span() { of.name() } else { "event" };
        *self.told.lock().unwrap().entry(format!("{name} {what}")).or_default() += 1;
    }

    fn of_span<S: Subscriber + for<'a> LookupSpan<'a>>(&self, what: &str, id: &Id, context: &Context<'_, S>) {
        if let Some(span) = context.span(id) {
            self.asks(what, span.metadata());
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Asks {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.asks("begins", attributes.metadata());
    }

    fn on_record(&self, id: &Id, _: &Recorded<'_>, context: Context<'_, S>) {
        self.of_span("says", id, &context);
    }

    fn on_follows_from(&self, id: &Id, _: &Id, context: Context<'_, S>) {
        self.of_span("follows", id, &context);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        self.asks(event.metadata().level().as_str(), event.metadata());
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        self.of_span("is entered", id, &context);
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        self.of_span("is left", id, &context);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        self.of_span("is over", &id, &context);
    }
}

/// Numbers without end. It is asked for its splits in vain some times, each a warning of its own, and then has one more.
#[derive(Clone, Default)]
struct Numbers {
    asked: Arc<AtomicU32>,
    next: u64,
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]))
}

#[async_trait]
impl Source for Numbers {
    fn name(&self) -> String {
        "numbers".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        let splits = match self.asked.fetch_add(1, SeqCst) {
            0 => 1,
            asked @ 1..10 => return Err(ConnectorError::Config(format!("nobody knows, {asked} times"))),
            _ => 2,
        };
        Ok((0..splits).map(|split| SplitId::new(split.to_string())).collect())
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let first = assigned.iter().find(|(split, _)| split.as_str() == "0");
        let next = first.and_then(|(_, position)| *position).unwrap_or_default().0;
        Ok(Box::new(Self { next, ..self.clone() }))
    }

    fn discover_every(&self) -> Option<Duration> {
        Some(millis(1))
    }
}

impl TypedSource for Numbers {
    type Row = Untyped;
}

#[async_trait]
impl SourceReader for Numbers {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        tokio::time::sleep(millis(1)).await;
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values([self.next as i64]));
        let batch =
            RecordBatch::try_new(schema(), vec![numbers]).map_err(|error| ConnectorError::Config(error.to_string()))?;
        self.next += 1;
        let (split, next) = (SplitId::new("0"), Position(self.next));
        Ok(Fetch::Rows(Rows { split, batch, rejected: Vec::new(), passed_over: 0, next, origins: None }))
    }

    async fn add(&mut self, _: Vec<SplitId>) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[derive(Record)]
struct Number {
    value: i64,
}

/// A job that does all that is told of: it warns, finds a split, fails, starts again, takes a savepoint, and ends.
async fn tells_all(asks: &Asks) {
    let store = tempfile::tempdir().unwrap();
    let fails = Arc::new(AtomicBool::new(false));
    let (fail, source) = (fails.clone(), Numbers::default());
    let restarts = Restarts::at_most(5).waiting(millis(1)..=millis(1));
    let job = Job::new("asked").checkpoint(store.path().to_str().unwrap(), millis(5)).restarts(restarts);
    job.source(source)
        .typed::<Number>()
        .map_async(move |number| {
            let (value, fails) = (number.value, fail.swap(false, SeqCst));
            async move { if fails { Err("refused") } else { Ok(Number { value }) } }
        })
        .fail_on_failure()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    assert!(asks.job.set(handle.clone()).is_ok());
    let waits = tokio::spawn(running.wait());
    let until = async |is_it: fn(&JobStatus) -> bool| {
        while !is_it(&handle.status()) {
            tokio::time::sleep(millis(1)).await;
        }
    };
    until(|status| status.operators[0].splits.len() == 2 && status.checkpoints.completed >= 2).await;
    fails.store(true, SeqCst);
    until(|status| status.restarts == 1).await;
    handle.savepoint("one").await.unwrap();
    handle.stop();
    waits.await.unwrap().unwrap();
}

/// All on one thread: who waits there for what it holds itself waits for ever.
#[test]
fn whoever_collects_may_ask_in_the_middle_of_it() {
    let asks = Asks::default();
    let (done, ended) = channel();
    let asked = asks.clone();
    let works = thread::spawn(move || {
        let _collecting = tracing::subscriber::set_default(Registry::default().with(asked.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tells_all(&asked));
        done.send(()).unwrap();
    });
    if let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TOO_LONG) {
        // Who is asked while somebody holds what it needs never returns, so the last that was told is not among these.
        panic!("it hangs, behind {:?}", asks.told.lock().unwrap());
    }
    works.join().unwrap();
    let told = asks.told.lock().unwrap();
    for what in [
        "attempt begins",
        "attempt says",
        "attempt is entered",
        "attempt is left",
        "attempt is over",
        "checkpoint begins",
        "checkpoint follows",
        "checkpoint says",
        "checkpoint is over",
        "event DEBUG",
        "event ERROR",
        "event INFO",
        "job is entered",
        "job is left",
        "job is over",
    ] {
        assert!(told.contains_key(what), "{what}: {told:?}");
    }
    assert!(told["event WARN"] > 5, "warnings too: {told:?}");
}
