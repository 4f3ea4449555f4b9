//! Queries that want too much, with bounds that a test can reach.

use http_body_util::BodyExt;
use windrow_connectors::{MemorySink, Sequence};

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

/// What happened while it waited is in what it is told, also when others had a checkpoint taken meanwhile.
#[tokio::test]
async fn what_is_to_be_fresh_is_so_when_it_has_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let job = Job::new("numbers").checkpoint(directory.path().to_str().unwrap(), LONG * 60);
    job.source(Sequence::endless().rate(1_000)).sink(MemorySink::new());
    let running = job.start().await.unwrap();
    let handle = running.handle();
    let states = States { queries: Queries::within(Bounds { time: LONG, ..Bounds::default() }) };
    let asks = async {
        let turn = states.queries.turn.clone().acquire_owned().await.unwrap();
        let asked = Asked { sql: "select position from state".into(), epoch: None, fresh: true };
        let mut asked = Box::pin(states.ask(&handle, "1", asked));
        assert!(futures::poll!(&mut asked).is_pending(), "it waits for its turn");
        // One after the other: with this one, one that was asked for before is complete too.
        let before = tokio::select! {
            biased;
            _ = &mut asked => panic!("it had its turn"),
            before = handle.checkpoint() => before.unwrap(),
        };
        drop(turn);
        let answer = asked.await.unwrap();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        handle.stop();
        (before, serde_json::from_slice::<serde_json::Value>(&bytes).unwrap())
    };
    let ((before, answer), ended) = tokio::join!(asks, running.wait());
    ended.unwrap();
    assert!(answer["epoch"].as_u64().unwrap() > before.0, "{before}: {answer}");
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
