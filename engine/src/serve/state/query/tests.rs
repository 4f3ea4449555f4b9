//! Queries that want too much, with bounds that a test can reach.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use http_body_util::BodyExt;
use windrow_connectors::{ConnectorError, Incarnation, MemorySink, Receipt, Sequence, Sink, SinkWriter};

use super::{
    super::{Asked, States},
    *,
};
use crate::Job;

const LONG: Duration = Duration::from_secs(60);

/// What a query within these bounds gives over the state of a job that has ended.
async fn asked(bounds: Bounds, sql: &str) -> Result<serde_json::Value, Refusal> {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().to_str().unwrap();
    let job = Job::new("numbers").checkpoint(store, LONG);
    job.source(Sequence::new(10)).sink(MemorySink::new());
    job.run().await.unwrap();
    let (store, id) = (format!("{store}/numbers"), Some("source_1".into()));
    let query = Query { store, of: Of::Newest, operator: "1".into(), id, sql: sql.into() };
    let answer = Queries::within(bounds).run(query).await?;
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn time_is_bounded() {
    let bounds = Bounds { time: Duration::from_millis(300), ..Bounds::default() };
    let sql = "select sum(a.value + b.value) from generate_series(1, 10000000) a, generate_series(1, 10000000) b";
    let refused = tokio::time::timeout(LONG, asked(bounds, sql)).await.expect("it does not end").unwrap_err();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.words.contains("given up after 300ms"), "{}", refused.words);
}

#[tokio::test]
async fn who_would_wait_behind_too_many_is_told_at_once() {
    let queries = Queries::within(Bounds { time: LONG, ..Bounds::default() });
    let query =
        || Query { store: "/nowhere".into(), of: Of::Newest, operator: "1".into(), id: None, sql: "select 1".into() };
    let turn = queries.turn.clone().acquire_owned().await.unwrap();
    let _answered = queries.places.clone().try_acquire_owned().unwrap();
    let mut waiting: Vec<_> = (0..WAITING).map(|_| Box::pin(queries.run(query()))).collect();
    for waits in &mut waiting {
        assert!(futures::poll!(waits).is_pending());
    }
    let refused = tokio::time::timeout(LONG, queries.run(query())).await.expect("it waits").unwrap_err();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.words.contains("4 wait for their turn"), "{}", refused.words);
    // Who goes away leaves a place.
    waiting.pop();
    drop(turn);
    let refused = tokio::time::timeout(LONG, queries.run(query()));
    let (first, last) = tokio::join!(futures::future::join_all(waiting), refused);
    for had_its_turn in first.into_iter().chain([last.expect("it does not end")]) {
        let said = had_its_turn.unwrap_err().words;
        assert!(!said.contains("wait for their turn"), "there is no such store: {said}");
    }
}

fn states() -> States {
    States { queries: Queries::within(Bounds { time: LONG, ..Bounds::default() }) }
}

async fn json_of(answer: Answered) -> serde_json::Value {
    let bytes = answer.unwrap().into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&bytes).unwrap()
}

fn asks(fresh: bool) -> Asked {
    Asked { sql: "select position from state".into(), epoch: None, fresh }
}

/// What happened before it was asked is in what it is told, and what is newer when it has its turn.
#[tokio::test]
async fn what_is_to_be_fresh_is_taken_before_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new("numbers").checkpoint(directory.path().to_str().unwrap(), LONG * 60);
    job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let (handle, states) = (running.handle(), states());
    let asks = async {
        let turn = states.queries.turn.clone().acquire_owned().await.unwrap();
        let before = handle.checkpoint().await.unwrap();
        let mut asked = Box::pin(states.ask(&handle, "1", asks(true)));
        assert!(futures::poll!(&mut asked).is_pending());
        // One after the other: with this one, that of the query is complete too.
        let after = tokio::select! {
            biased;
            _ = &mut asked => panic!("it had its turn"),
            after = handle.checkpoint() => after.unwrap(),
        };
        drop(turn);
        let answer = json_of(asked.await).await;
        handle.stop();
        (before, after, answer)
    };
    let ((before, after, answer), ended) = tokio::join!(asks, running.wait());
    ended.unwrap();
    assert_eq!(after.0, before.0 + 2, "the query had one taken while others had their turn");
    assert_eq!(answer["epoch"].as_u64(), Some(after.0), "the newest");
}

/// A sink that completes so many epochs as it is let.
#[derive(Clone)]
struct Held(Arc<Semaphore>);

#[async_trait]
impl Sink for Held {
    fn name(&self) -> String {
        "held".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Held {
    async fn write(&mut self, _: RecordBatch) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        self.0.acquire().await.unwrap().forget();
        Ok(Vec::new())
    }
}

/// A job that hangs is just the one that somebody wants to look into.
#[tokio::test]
async fn who_needs_no_checkpoint_does_not_wait_for_one() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new("numbers").checkpoint(directory.path().to_str().unwrap(), LONG * 60);
    let held = Arc::new(Semaphore::new(1));
    job.source(Sequence::endless().rate(1_000)).sink(Held(held.clone()));
    let running = job.start().await.unwrap();
    let (handle, states) = (running.handle(), states());
    let looks = async {
        // The first one, before a row is read.
        while handle.status().checkpoints.newest.is_none() {
            tokio::task::yield_now().await;
        }
        let mut fresh: Vec<_> = (0..FRESH).map(|_| Box::pin(states.ask(&handle, "1", asks(true)))).collect();
        for waits in &mut fresh {
            assert!(futures::poll!(waits).is_pending());
        }
        let refused = states.ask(&handle, "1", asks(true)).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.words.contains("2 queries wait for a checkpoint"), "{}", refused.words);
        let fresh = futures::future::join_all(fresh);
        tokio::pin!(fresh);
        let plain = tokio::select! {
            biased;
            _ = &mut fresh => panic!("the checkpoint is complete"),
            plain = states.ask(&handle, "1", asks(false)) => json_of(plain).await,
        };
        held.add_permits(100);
        for answer in fresh.await {
            assert!(json_of(answer).await["epoch"].as_u64() > plain["epoch"].as_u64(), "{plain}");
        }
        handle.stop();
    };
    let ((), ended) = tokio::join!(looks, running.wait());
    ended.unwrap();
}

#[tokio::test]
async fn what_holds_more_than_is_accounted_for_is_refused() {
    let refused = [
        "select array_agg(value) over (order by value) from generate_series(1, 10)",
        "select median(value) over () from generate_series(1, 10)",
        "select approx_percentile_cont(value, 0.5, 1000000000) from generate_series(1, 10)",
    ];
    for sql in refused {
        let refused = asked(Bounds::default(), sql).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{sql}");
        assert!(refused.words.contains("nothing bounds the memory"), "{sql}: {}", refused.words);
    }
    let sql = "select value, sum(value) over (order by value) s, row_number() over (order by value) n \
               from generate_series(1, 10)";
    asked(Bounds::default(), sql).await.unwrap();
    asked(Bounds::default(), "select approx_percentile_cont(value, 0.5) from generate_series(1, 10)").await.unwrap();
}

#[tokio::test]
async fn memory_is_bounded() {
    let bounds = Bounds { memory: 1 << 20, time: LONG, ..Bounds::default() };
    let queries = [
        "select value from generate_series(1, 1000000) order by value % 7",
        "select count(distinct value * 7 % 1000003) from generate_series(1, 1000000)",
        "select a.value from generate_series(1, 1000000) a join generate_series(1, 1000000) b on a.value = b.value",
        "select array_agg(value) from generate_series(1, 1000000)",
    ];
    for sql in queries {
        let refused = asked(bounds.clone(), sql).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{sql}: {}", refused.words);
        assert!(refused.words.contains("more memory than it may have"), "{}", refused.words);
    }
}

#[tokio::test]
async fn what_is_read_and_what_is_answered_is_bounded() {
    let rows = |answer: &serde_json::Value| answer["rows"].as_array().unwrap().len();
    let sql = "select value from generate_series(1, 10001)";
    let answer = asked(Bounds::default(), sql).await.unwrap();
    assert_eq!((rows(&answer), answer["truncated"].as_bool()), (10_000, Some(true)));
    let answer = asked(Bounds::default(), "select value from generate_series(1, 10000)").await.unwrap();
    assert_eq!((rows(&answer), answer["truncated"].as_bool()), (10_000, Some(false)));
    let answer = asked(Bounds { answer_bytes: 100, ..Bounds::default() }, sql).await.unwrap();
    assert_eq!((rows(&answer), answer["truncated"].as_bool()), (STEP, Some(true)));
    let bounds = Bounds { state_bytes: 0, ..Bounds::default() };
    // Nothing but positions is in it.
    assert_eq!(rows(&asked(bounds, "select * from state").await.unwrap()), 1);
}

/// On a stack that is large enough for them: it would not be the query alone that ends.
#[tokio::test]
async fn what_is_nested_deeply_ends_nothing() {
    let sums = format!("select 1{}", "+1".repeat(2_040));
    let conditions = format!("select 1 from state where {}", ["idle"; 450].join(" or "));
    let unions = ["select 1"; 200].join(" union all ");
    let brackets = format!("select {}1{}", "(".repeat(2_000), ")".repeat(2_000));
    let nots = format!("select {}idle from state", "not ".repeat(1_000));
    let cases = format!("select {}1{}", "case when 1=1 then ".repeat(170), " end".repeat(170));
    for sql in [sums, conditions, unions, brackets, nots, cases] {
        let bounds = Bounds { time: LONG, ..Bounds::default() };
        if let Err(refused) = asked(bounds, &sql).await {
            assert!([StatusCode::BAD_REQUEST].contains(&refused.status), "{}: {}", &sql[..30], refused.words);
        }
    }
}
