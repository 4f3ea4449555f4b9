//! Tables that change in whole jobs: aggregates and newest rows by key, into a table or as a changelog.

use tests::{rows, run};
use windrow::{
    arrow::array::{AsArray, Int64Array},
    arrow::datatypes::Int64Type,
    prelude::*,
};

use super::clicks::{Click, Hand, Row, balanced, clicks, ended, late_at, state_bytes, written};

const ROWS: [Row; 6] = [(1, 5, 3), (2, 7, 1), (1, 6, 1), (2, -1, 9), (3, 0, 5), (1, 9, 2)];

/// What a table of changes of [`ROWS`] comes to, the same at every parallelism.
fn table(build: impl Fn(Stream<Click>, MemoryTable)) -> Vec<String> {
    let mut all: Vec<Vec<String>> = (1..=3)
        .map(|parallelism| {
            let job = Job::new("table").parallelism(parallelism);
            let table = MemoryTable::new();
            build(clicks(&job, &ROWS), table.clone());
            balanced(&run(job).unwrap());
            rows(&table.batches())
        })
        .collect();
    all.dedup();
    assert_eq!(all.len(), 1, "another answer at another parallelism");
    all.remove(0)
}

fn totals() -> [Expr; 2] {
    [count(), sum(col("amount")).alias("total")]
}

#[test]
fn aggregates_of_each_key() {
    let found = table(|rows, table| rows.key_by("user").aggregate(totals()).sink(table));
    assert_eq!(found, ["1|3|20", "2|2|6", "3|1|0"]);
    let found = table(|rows, table| {
        let changes = rows.key_by("user").aggregate(totals());
        changes.filter_expr(col("total").gt(lit(6))).sink(table);
    });
    assert_eq!(found, ["1|3|20"], "the total of user 2 was 7 for a while");
    let found = table(|rows, table| {
        let changes = rows.key_by("user").aggregate(totals());
        changes.select([col("user"), (col("total") * lit(2)).alias("double")]).sink(table);
    });
    assert_eq!(found, ["1|40", "2|12", "3|0"]);
}

#[test]
fn the_newest_row_of_each_key() {
    let shown = || ["user", "amount"].map(col);
    let found = table(|rows, table| rows.key_by("user").latest().select(shown()).sink(table));
    assert_eq!(found, ["1|5", "2|-1", "3|0"]);
    let found = table(|rows, table| {
        rows.key_by("user").latest_unless(col("amount").lt(lit(0))).drop_late().select(shown()).sink(table);
    });
    assert_eq!(found, ["1|5", "3|0"]);
}

#[test]
fn a_row_of_a_table_is_found_by_its_key() {
    let job = Job::new("get").parallelism(2);
    let table = MemoryTable::new();
    clicks(&job, &ROWS).key_by("user").aggregate(totals()).sink(table.clone());
    run(job).unwrap();
    let row = table.get(&[&Int64Array::new_scalar(1)]).unwrap().unwrap();
    assert_eq!(row.column(2).as_primitive::<Int64Type>().values(), &[20]);
    assert!(table.get(&[&Int64Array::new_scalar(4)]).unwrap().is_none());
}

/// No event time is needed as long as nothing is to be forgotten.
#[test]
fn aggregates_without_event_time() {
    let job = Job::new("timeless").parallelism(2);
    let table = MemoryTable::new();
    let source = job.source(Sequence::new(100)).fail_on_rejects();
    let odd = source.select([(col("value") % lit(2_i64)).alias("odd"), col("value")]);
    odd.key_by("odd").aggregate([sum(col("value")).alias("total")]).sink(table.clone());
    balanced(&run(job).unwrap());
    assert_eq!(rows(&table.batches()), ["0|2450", "1|2500"]);
}

/// Where no watermark comes by, what is held is looked at all the same: it is kept for ever.
#[tokio::test(start_paused = true)]
async fn what_is_held_without_event_time_is_told() {
    let builds: [fn(Stream<Click>, MemorySink); 3] = [
        |rows, out| rows.key_by("user").aggregate([count()]).changelog().sink(out),
        |rows, out| rows.key_by("user").latest().changelog().sink(out),
        |rows, out| rows.key_by("user").on_arrival().reduce(|_, click| click).sink(out),
    ];
    for (build, parallelism) in builds.into_iter().flat_map(|build| [(build, 1), (build, 2)]) {
        let job = Job::new("held").parallelism(parallelism);
        let hand = Hand::of_clicks();
        build(hand.source(&job), MemorySink::new());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let mut held = 0;
        for first in [0, 1_000, 2_000] {
            let many: Vec<Row> = (first..first + 1_000).map(|user| (user, 0, 0)).collect();
            hand.push(&many).await;
            hand.push(&[(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]).await;
            hand.push(&[(0, 0, 0), (1, 0, 0), (2, 0, 0), (3, 0, 0)]).await;
            let now = state_bytes(&handle, "per user");
            assert!(now > held + 10_000, "{held} bytes, then {now}, parallelism {parallelism}");
            held = now;
        }
        hand.end();
        ended(running).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_changelog_of_aggregates_that_are_forgotten() {
    for parallelism in 1..=3 {
        let job = Job::new("ttl").parallelism(parallelism);
        let [out, late_out] = [(); 2].map(|()| MemorySink::new());
        let hand = Hand::of_clicks();
        let clicks = hand.timed::<Click>(&job);
        let (changes, late) = clicks.key_by("user").ttl(secs(10)).aggregate(totals()).with_late();
        changes.changelog().select(["op", "user", "count", "total"].map(col)).sink(out.clone());
        late.sink(late_out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        hand.push(&[(1, 5, 0), (2, 7, 2)]).await;
        assert_eq!(written(&out), ["insert|1|1|5", "insert|2|1|7"]);
        hand.push(&[(1, 6, 1)]).await;
        assert_eq!(written(&out)[2..], ["update|1|2|11"], "no row is late within the time to live");
        let many: Vec<Row> = (100..400).map(|user| (user, 0, 3)).collect();
        hand.push(&many).await;
        let full = state_bytes(&handle, "aggregate per user");
        out.take();
        hand.push(&[(3, 1, 12)]).await;
        let deleted: Vec<String> = written(&out).into_iter().filter(|row| row.starts_with("delete")).collect();
        assert_eq!(deleted, ["delete|1|2|11"], "at 12 s what is of 1 s and not what is of 2 s");
        hand.push(&[(3, 1, 100), (1, 50, 100)]).await;
        let left = state_bytes(&handle, "aggregate per user");
        assert!(left < full / 4, "{full} bytes, then {left}");
        assert!(written(&out).contains(&"insert|1|1|50".to_string()), "it begins again");
        hand.push(&[(1, 1, 89), (1, 2, 91)]).await;
        hand.end();
        let report = ended(running).await;
        assert_eq!(rows(&late_out.batches()), ["1|1|1970-01-01T00:01:29Z"]);
        assert_eq!(late_at(&report, "aggregate per user"), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn newest_rows_that_are_forgotten() {
    for (parallelism, deletes) in [(1, false), (2, false), (3, true)] {
        let job = Job::new("ttl").parallelism(parallelism);
        let [out, late_out] = [(); 2].map(|()| MemorySink::new());
        let hand = Hand::of_clicks();
        let by_user = hand.timed::<Click>(&job).key_by("user").ttl(secs(10));
        let newest = if deletes { by_user.latest_unless(col("amount").lt(lit(0))) } else { by_user.latest() };
        let (changes, late) = newest.with_late();
        changes.changelog().select(["op", "user", "amount"].map(col)).sink(out.clone());
        late.select(["user", "amount"].map(col)).sink(late_out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        hand.push(&[(1, 5, 0), (2, 7, 2)]).await;
        hand.push(&[(1, 6, 1)]).await;
        assert_eq!(written(&out), ["insert|1|5", "insert|2|7", "update|1|6"], "no row is late within the time to live");
        let many: Vec<Row> = (100..400).map(|user| (user, 0, 3)).collect();
        hand.push(&many).await;
        let full = state_bytes(&handle, "latest per user");
        hand.push(&[(3, 1, 12)]).await;
        let deleted: Vec<String> = written(&out).into_iter().filter(|row| row.starts_with("delete")).collect();
        assert_eq!(deleted, ["delete|1|6"], "at 12 s what is of 1 s and not what is of 2 s");
        hand.push(&[(3, 1, 100), (1, 50, 100)]).await;
        let left = state_bytes(&handle, "latest per user");
        assert!(left < full / 4, "{full} bytes, then {left}");
        hand.push(&[(4, 1, 89), (4, 2, 91)]).await;
        let told = written(&out);
        assert!(told.contains(&"insert|1|50".to_string()) && told.contains(&"insert|4|2".to_string()), "{told:?}");
        hand.end();
        let report = ended(running).await;
        assert_eq!((rows(&late_out.batches()), late_at(&report, "latest per user")), (vec!["4|1".to_string()], 1));
        let ops = |op: &str| rows(&out.batches()).iter().filter(|row| row.starts_with(op)).count();
        assert_eq!(ops("delete"), ops("insert"), "at the end all have gone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_that_takes_its_key_away_makes_older_ones_late() {
    for parallelism in 1..=3 {
        let job = Job::new("latest").parallelism(parallelism);
        let [out, late_out] = [(); 2].map(|()| MemorySink::new());
        let hand = Hand::of_clicks();
        let clicks = hand.timed::<Click>(&job);
        let (changes, late) = clicks.key_by("user").latest_unless(col("amount").eq(lit(0))).with_late();
        changes.changelog().select(["op", "user", "amount"].map(col)).sink(out.clone());
        late.select(["user", "amount"].map(col)).sink(late_out.clone());
        let running = job.start().await.unwrap();
        hand.push(&[(1, 5, 5), (1, 4, 4)]).await;
        hand.push(&[(1, 6, 6)]).await;
        hand.push(&[(1, 0, 7), (2, 1, 7)]).await;
        hand.push(&[(1, 9, 6)]).await;
        hand.push(&[(1, 8, 8)]).await;
        hand.end();
        let report = ended(running).await;
        let changes = ["delete|1|6", "insert|1|5", "insert|1|8", "insert|2|1", "update|1|6"];
        assert_eq!(rows(&out.batches()), changes);
        assert_eq!((rows(&late_out.batches()), late_at(&report, "latest per user")), (vec!["1|9".to_string()], 1));
    }
}

/// Changes keep their key over an exchange by it: the join of tables needs one for each side.
#[tokio::test]
async fn a_job_of_tables_prints_itself() {
    let job = Job::new("print").parallelism(2);
    let rows = clicks(&job, &ROWS);
    let newest = rows.clone().key_by("user").latest();
    let totals = rows.key_by("user").aggregate(totals());
    let joined = newest.key_by("user").join(totals.key_by("user")).kind(JoinType::Full).tables();
    joined.sink(MemoryTable::new());
    let printed = job.to_string();
    for part in
        ["latest per user", "aggregate per user", "full join, tables per user", "sink memory table", "changes by user"]
    {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    let plan = job.explain().await.unwrap();
    assert!(plan.contains("latest per user"), "{plan}");
}
