//! The spans and events of a job that fails once: who belongs to whom, and what they say. In a program of its own, because what is
//! collected on one thread depends on what others of the program have said before.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record as Recorded},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};
use windrow::prelude::*;

type Fields = BTreeMap<&'static str, String>;

/// A span, or an event, with the indexes of others.
#[derive(Debug)]
struct Seen {
    name: String,
    parent: Option<usize>,
    /// The index of the span that it follows from.
    follows: Option<usize>,
    level: Level,
    fields: Fields,
    /// Of a span: whether it is over.
    over: bool,
}

#[derive(Debug, Default)]
struct Memory {
    spans: Vec<Seen>,
    /// The spans that are not over.
    open: BTreeMap<u64, usize>,
    events: Vec<Seen>,
}

/// Remembers what the engine says.
#[derive(Clone, Default)]
struct Remembers(Arc<Mutex<Memory>>);

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Remembers {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if !attributes.metadata().target().starts_with("windrow") {
            return;
        }
        let mut memory = self.0.lock().unwrap();
        let parent = context.span(id).and_then(|span| Some(memory.open[&span.parent()?.id().into_u64()]));
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let (name, level) = (attributes.metadata().name().into(), *attributes.metadata().level());
        let index = memory.spans.len();
        memory.open.insert(id.into_u64(), index);
        memory.spans.push(Seen { name, parent, follows: None, level, fields, over: false });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, _: Context<'_, S>) {
        let mut memory = self.0.lock().unwrap();
        let index_of = |id: &Id| memory.open.get(&id.into_u64()).copied();
        if let (Some(index), follows) = (index_of(id), index_of(follows)) {
            memory.spans[index].follows = follows;
        }
    }

    fn on_record(&self, id: &Id, values: &Recorded<'_>, _: Context<'_, S>) {
        let mut memory = self.0.lock().unwrap();
        if let Some(index) = memory.open.get(&id.into_u64()).copied() {
            values.record(&mut Into(&mut memory.spans[index].fields));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !event.metadata().target().starts_with("windrow") {
            return;
        }
        let mut memory = self.0.lock().unwrap();
        let parent = context.event_span(event).and_then(|span| memory.open.get(&span.id().into_u64()).copied());
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let name = fields.remove("message").unwrap_or_default();
        memory.events.push(Seen { name, parent, follows: None, level: *event.metadata().level(), fields, over: true });
    }

    fn on_close(&self, id: Id, _: Context<'_, S>) {
        let mut memory = self.0.lock().unwrap();
        if let Some(index) = memory.open.remove(&id.into_u64()) {
            memory.spans[index].over = true;
        }
    }
}

/// Spans are of the thread that the test is on: that is the whole runtime.
#[tokio::test]
async fn spans_have_their_parents_and_events_their_spans() {
    #[derive(Record)]
    struct Number {
        value: i64,
    }

    let remembers = Remembers::default();
    let _collecting = tracing::subscriber::set_default(Registry::default().with(remembers.clone()));
    let store = tempfile::tempdir().unwrap();
    let (fails, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let fail = fails.clone();
    let restarts = Restarts::at_most(5).waiting(millis(1)..=millis(1));
    let job = Job::new("traced").checkpoint(store.path().to_str().unwrap(), millis(5)).restarts(restarts);
    job.source(Sequence::endless().rate(1_000))
        .typed::<Number>()
        .map_async(move |number| {
            let (value, fails) = (number.value, fail.swap(false, SeqCst));
            let failed = failed.clone();
            async move {
                failed.fetch_or(fails, SeqCst);
                if fails { Err("https://ann:CANARY@example.org refused") } else { Ok(Number { value }) }
            }
        })
        .fail_on_failure()
        .sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let waits = tokio::spawn(running.wait());
    let until = async |is_it: fn(&windrow::status::JobStatus) -> bool| {
        while !is_it(&handle.status()) {
            tokio::time::sleep(millis(1)).await;
        }
    };
    until(|status| status.checkpoints.completed >= 2).await;
    fails.store(true, SeqCst);
    until(|status| status.restarts == 1).await;
    let epoch = handle.savepoint("before-lunch").await.unwrap();
    handle.stop();
    waits.await.unwrap().unwrap();

    let memory = remembers.0.lock().unwrap();
    let Memory { spans, open, events } = &*memory;
    // The handle is still there, and keeps none of them.
    assert!(open.is_empty() && spans.iter().all(|span| span.over), "{spans:#?}");
    assert!(spans.iter().all(|span| span.level == Level::INFO));
    let named = |name: &'static str| spans.iter().enumerate().filter(move |(_, span)| span.name == name);
    let [(job, first)] = named("job").collect::<Vec<_>>()[..] else { panic!("{spans:#?}") };
    assert_eq!((first.parent, first.fields["job"].as_str()), (None, "\"traced\""));
    let [(one, first), (two, second)] = named("attempt").collect::<Vec<_>>()[..] else { panic!("{spans:#?}") };
    assert_eq!((first.parent, second.parent), (Some(job), Some(job)));
    assert_eq!((first.fields["attempt"].as_str(), second.fields["attempt"].as_str()), ("1", "2"));
    assert!(!first.fields.contains_key("restored_from") && second.fields.contains_key("restored_from"));
    let complete = |attempt: &'static str| {
        let of = move |(_, span): &(usize, &Seen)| span.fields["attempt"] == attempt;
        named("checkpoint").filter(of).filter(|(_, span)| span.fields["complete"] == "true")
    };
    // A job's span closes at its end, which may be weeks away.
    let follows = |span: &Seen| span.follows == Some(if span.fields["attempt"] == "1" { one } else { two });
    assert!(named("checkpoint").all(|(_, span)| span.parent.is_none() && span.fields["job"] == "\"traced\""));
    assert!(named("checkpoint").all(|(_, span)| follows(span)), "{spans:#?}");
    assert!(complete("1").count() >= 2 && complete("2").count() >= 2, "{spans:#?}");
    for (_, span) in complete("1").chain(complete("2")) {
        let said = |field: &&str| span.fields.contains_key(field);
        assert!(["kind", "duration_ms", "answered_ms", "bytes", "segments"].iter().all(said), "{span:?}");
    }
    let (savepoint, span) = complete("2").find(|(_, span)| span.fields["epoch"] == epoch.0.to_string()).unwrap();
    assert_eq!(
        (span.fields["kind"].as_str(), span.fields["savepoint"].as_str()),
        ("\"savepoint\"", "\"before-lunch\"")
    );

    let event = |words: &str| events.iter().find(|event| event.name.contains(words)).expect(words);
    let failure = event("failed: ");
    assert_eq!((failure.parent, failure.level), (Some(one), Level::ERROR));
    assert!(failure.name.contains("https://***@example.org refused"), "{}", failure.name);
    assert_eq!((event("restarted").parent, event("restarted").level), (Some(job), Level::WARN));
    assert_eq!(event("savepoint complete").parent, Some(savepoint));
    assert_eq!((event("the job ended").parent, event("the job ended").fields["stopped"].as_str()), (Some(job), "true"));
    // A warning may come by the way, on a slow machine.
    let is_warning = |event: &&Seen| event.level == Level::WARN && [Some(one), Some(two)].contains(&event.parent);
    assert_eq!(events.iter().filter(|event| !is_warning(event)).count(), 4, "nothing is said of batches: {events:#?}");
}
