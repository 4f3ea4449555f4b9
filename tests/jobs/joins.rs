//! Joins of two streams in whole jobs: which pairs there are, what is late, what is kept, at every parallelism.
//!
//! ```text
//!   clicks    user 1: 10 at 1 s                11 at 12 s      user 2: 20 at 4 s                user 3: 30 at 25 s
//!   payments  user 1:      100 at 3 s   101 at 11 s            user 2:           200 at 15 s    user 4: 400 at 24 s
//! ```

use tests::{rows, run};
use windrow::{arrow::datatypes::DataType, cast, prelude::*};

use super::clicks::{
    Click, ClickView, Hand, Payment, Row, balanced, clicks, ended, late_at, payments, state_bytes, written,
};

const LEFT: [Row; 4] = [(1, 11, 12), (2, 20, 4), (1, 10, 1), (3, 30, 25)];
const RIGHT: [Row; 4] = [(4, 400, 24), (1, 101, 11), (1, 100, 3), (2, 200, 15)];

/// What comes out of a join of the clicks and the payments, the same at every parallelism.
fn joined(shown: &[&str], join: impl Fn(Stream<Click>, Stream<Payment>) -> Stream<Untyped>) -> Vec<String> {
    let mut all: Vec<Vec<String>> = (1..=3)
        .map(|parallelism| {
            let job = Job::new("join").parallelism(parallelism);
            let out = MemorySink::new();
            let results = join(clicks(&job, &LEFT), payments(&job, &RIGHT));
            results.select(shown.iter().map(|name| col(*name))).sink(out.clone());
            balanced(&run(job).unwrap());
            rows(&out.batches())
        })
        .collect();
    all.dedup();
    assert_eq!(all.len(), 1, "another answer at another parallelism");
    all.remove(0)
}

#[test]
fn rows_of_one_window() {
    let within = |kind: JoinType, shown: &[&str]| {
        joined(shown, |clicks, payments| {
            let join = clicks.key_by("user").join(payments.key_by("other")).kind(kind);
            join.window(Tumbling::of(secs(10))).drop_late()
        })
    };
    let both = ["amount", "paid"];
    assert_eq!(within(JoinType::Inner, &both), ["10|100", "11|101"]);
    assert_eq!(within(JoinType::Left, &both), ["10|100", "11|101", "20|null", "30|null"]);
    assert_eq!(within(JoinType::Right, &both), ["10|100", "11|101", "null|200", "null|400"]);
    assert_eq!(within(JoinType::Full, &both), ["10|100", "11|101", "20|null", "30|null", "null|200", "null|400"]);
    assert_eq!(within(JoinType::LeftSemi, &["amount"]), ["10", "11"]);
    assert_eq!(within(JoinType::LeftAnti, &["amount"]), ["20", "30"]);
    let hopping = joined(&["window_start", "amount", "paid"], |clicks, payments| {
        let join = clicks.key_by("user").join(payments.key_by("other"));
        join.window(Hopping::of(secs(10), secs(5))).drop_late()
    });
    let at = |seconds: &str| format!("1970-01-01T00:00:{seconds}Z|");
    assert_eq!(hopping.len(), 3 + 1, "each pair in two windows: {hopping:?}");
    assert!(hopping.contains(&(at("05") + "11|101")) && hopping.contains(&(at("10") + "11|101")), "{hopping:?}");
    let cumulating = joined(&["window_end", "amount", "paid"], |clicks, payments| {
        let join = clicks.key_by("user").join(payments.key_by("other")).kind(JoinType::Left);
        join.window(Cumulating::of(secs(20), secs(10))).drop_late()
    });
    let expected = [
        ("10", "10|100"),
        ("10", "20|null"),
        ("20", "10|100"),
        ("20", "10|101"),
        ("20", "11|100"),
        ("20", "11|101"),
        ("20", "20|200"),
        ("30", "30|null"),
        ("40", "30|null"),
    ];
    assert_eq!(cumulating, expected.map(|(end, pair)| at(end) + pair));
    let start = joined(&["window_start", "window_end", "user", "other"], |clicks, payments| {
        clicks.key_by("user").join(payments.key_by("other")).window(Tumbling::of(secs(10))).drop_late()
    });
    assert_eq!(
        start,
        ["1970-01-01T00:00:00Z|1970-01-01T00:00:10Z|1|1", "1970-01-01T00:00:10Z|1970-01-01T00:00:20Z|1|1"]
    );
}

/// One row that meets very many is called again and again; its pairs leave in steps, and everything is counted once.
#[test]
fn one_row_has_very_many_partners() {
    for parallelism in [1, 2] {
        let job = Job::new("many").parallelism(parallelism);
        let out = MemorySink::new();
        let at = Timestamp::from_micros(7);
        let lefts = (0..40_000).map(|amount| Click { user: 1, amount, at }).collect();
        let rights = (0..5).map(|paid| Payment { other: 1, paid, since: at }).collect();
        let lefts = job.source(MemorySource::records(lefts)).event_time("at", Watermarks::in_order());
        let rights = job.source(MemorySource::records(rights)).event_time("since", Watermarks::in_order());
        let join = lefts.key_by("user").join(rights.key_by("other")).within(secs(5), secs(5));
        join.drop_late().select(["amount", "paid"].map(col)).sink(out.clone());
        balanced(&run(job).unwrap());
        let batches = out.batches();
        assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 200_000);
        assert!(batches.iter().all(|batch| batch.num_rows() <= 8192), "in steps");
    }
}

#[test]
fn rows_that_are_near_each_other() {
    let both = ["amount", "paid"];
    let near = joined(&both, |clicks, payments| {
        clicks.key_by("user").join(payments.key_by("other")).within(secs(2), secs(5)).drop_late()
    });
    assert_eq!(near, ["10|100", "11|101"]);
    let before = Interval::between(-9_000_000, -1_000_000);
    let between = |kind: JoinType| {
        joined(&both, |clicks, payments| {
            clicks.key_by("user").join(payments.key_by("other")).kind(kind).between(before).drop_late()
        })
    };
    assert_eq!(between(JoinType::Inner), ["11|100", "11|101"]);
    assert_eq!(between(JoinType::Left), ["10|null", "11|100", "11|101", "20|null", "30|null"]);
    let odd = joined(&both, |clicks, payments| {
        let join = clicks.key_by("user").join(payments.key_by("other"));
        let odd = (col("paid") - left("amount")).eq(lit(90)).and(right("paid").lt(lit(101)));
        join.condition(odd).within(secs(9), secs(9)).drop_late()
    });
    assert_eq!(odd, ["10|100"]);
}

#[test]
fn rows_with_the_newest_as_of_their_time() {
    let as_of = |kind: JoinType| {
        joined(&["amount", "paid"], |clicks, payments| {
            clicks.key_by("user").join(payments.key_by("other")).kind(kind).as_of().drop_late()
        })
    };
    assert_eq!(as_of(JoinType::Inner), ["11|101"]);
    assert_eq!(as_of(JoinType::Left), ["10|null", "11|101", "20|null", "30|null"]);
    for (ttl, expected) in [(millis(1_000), "11|101"), (millis(999), "11|null")] {
        let found = joined(&["amount", "paid"], |clicks, payments| {
            let join = clicks.key_by("user").join(payments.key_by("other").ttl(ttl));
            join.kind(JoinType::Left).as_of().drop_late()
        });
        assert_eq!(found, ["10|null", expected, "20|null", "30|null"], "{ttl:?}");
    }
}

/// 100 would meet the condition, but 101 is the newest payment then.
#[test]
fn the_newest_as_of_a_time_has_to_meet_a_condition() {
    let as_of = |kind: JoinType, condition: Expr| {
        joined(&["amount", "paid"], |clicks, payments| {
            let join = clicks.key_by("user").join(payments.key_by("other")).kind(kind);
            join.condition(condition.clone()).as_of().drop_late()
        })
    };
    let (newest, older) = (left("amount").lt(right("paid") - lit(89)), col("paid").lt(lit(101)));
    assert_eq!(as_of(JoinType::Inner, newest.clone()), ["11|101"]);
    assert_eq!(as_of(JoinType::Left, newest), ["10|null", "11|101", "20|null", "30|null"]);
    assert_eq!(as_of(JoinType::Inner, older.clone()), [""; 0]);
    assert_eq!(as_of(JoinType::Left, older), ["10|null", "11|null", "20|null", "30|null"]);
}

/// What a join of the newest clicks and the newest payments comes to, the same at every parallelism.
fn tables(kind: JoinType, condition: Option<Expr>, shown: &[&str]) -> Vec<String> {
    let mut all: Vec<Vec<String>> = (1..=3)
        .map(|parallelism| {
            let job = Job::new("tables").parallelism(parallelism);
            let table = MemoryTable::new();
            let clicks = clicks(&job, &LEFT).key_by("user").latest();
            let payments = payments(&job, &RIGHT).key_by("other").latest();
            let mut join = clicks.key_by("user").join(payments.key_by("other")).kind(kind);
            if let Some(condition) = &condition {
                join = join.condition(condition.clone());
            }
            join.tables().select(shown.iter().map(|name| col(*name))).sink(table.clone());
            balanced(&run(job).unwrap());
            rows(&table.batches())
        })
        .collect();
    all.dedup();
    assert_eq!(all.len(), 1, "{kind}: another answer at another parallelism");
    all.remove(0)
}

#[test]
fn tables_joined_row_by_row() {
    let shown = ["user", "other", "amount", "paid"];
    let (one, two) = ("1|1|11|101", "2|2|20|200");
    let cases = [
        (JoinType::Inner, vec![one, two]),
        (JoinType::Left, vec![one, two, "3|null|30|null"]),
        (JoinType::Right, vec![one, two, "null|4|null|400"]),
        (JoinType::Full, vec![one, two, "3|null|30|null", "null|4|null|400"]),
    ];
    for (kind, expected) in cases {
        assert_eq!(tables(kind, None, &shown), expected, "{kind}");
    }
    assert_eq!(tables(JoinType::LeftSemi, None, &["user", "amount"]), ["1|11", "2|20"]);
    assert_eq!(tables(JoinType::LeftAnti, None, &["user", "amount"]), ["3|30"]);
}

/// Older rows of user 1 meet the condition or do not: what counts are the newest ones.
#[test]
fn tables_joined_where_rows_meet_a_condition() {
    let near = || Some((right("paid") - col("amount")).lt(lit(100)));
    let shown = ["user", "other", "amount", "paid"];
    let (lefts, rights) = (["2|null|20|null", "3|null|30|null"], ["null|2|null|200", "null|4|null|400"]);
    let all = |parts: &[&[&'static str]]| [&["1|1|11|101"], parts.concat().as_slice()].concat();
    assert_eq!(tables(JoinType::Inner, near(), &shown), all(&[]));
    assert_eq!(tables(JoinType::Left, near(), &shown), all(&[&lefts]));
    assert_eq!(tables(JoinType::Right, near(), &shown), all(&[&rights]));
    assert_eq!(tables(JoinType::Full, near(), &shown), all(&[&lefts, &rights]));
    assert_eq!(tables(JoinType::LeftSemi, near(), &["user", "amount"]), ["1|11"]);
    assert_eq!(tables(JoinType::LeftAnti, near(), &["user", "amount"]), ["2|20", "3|30"]);
}

/// Pairs come and go as the columns of the condition change.
#[tokio::test(start_paused = true)]
async fn a_pair_of_tables_is_there_while_it_meets_the_condition() {
    for parallelism in [1, 2] {
        let job = Job::new("while").parallelism(parallelism);
        let out = MemorySink::new();
        let (clicks, payments) = (Hand::of_clicks(), Hand::of_payments());
        let table = clicks.timed::<Click>(&job).key_by("user").latest_unless(col("amount").eq(lit(0))).drop_late();
        let other = payments.timed::<Payment>(&job).key_by("other").latest();
        let join = table.key_by("user").join(other.key_by("other")).kind(JoinType::Left);
        let joined = join.condition(col("amount").lt(col("paid"))).tables();
        joined.changelog().select(["op", "amount", "paid"].map(col)).sink(out.clone());
        let running = job.start().await.unwrap();
        let mut seen = 0;
        let mut new = |out: &MemorySink| {
            let mut batches = out.written();
            let new = batches.split_off(seen);
            seen += new.len();
            rows(&new)
        };
        clicks.push(&[(1, 10, 1)]).await;
        assert_eq!(new(&out), ["insert|10|null"]);
        payments.push(&[(1, 5, 2)]).await;
        assert_eq!(new(&out), [""; 0], "it is not more");
        payments.push(&[(1, 20, 3)]).await;
        assert_eq!(new(&out), ["delete|10|null", "insert|10|20"]);
        clicks.push(&[(1, 30, 4)]).await;
        assert_eq!(new(&out), ["delete|10|20", "insert|30|null"]);
        clicks.push(&[(1, 0, 5)]).await;
        assert_eq!(new(&out), ["delete|30|null"]);
        clicks.push(&[(1, 15, 6)]).await;
        assert_eq!(new(&out), ["insert|15|20"]);
        clicks.end();
        payments.end();
        ended(running).await;
    }
}

/// Says how the two sides are joined, with the late rows of both.
type Join = fn(Stream<Click>, Stream<Payment>) -> (Stream<Untyped>, Stream<Click>, Stream<Payment>);

#[tokio::test(start_paused = true)]
async fn late_rows_leave_by_their_side_and_what_has_passed_is_forgotten() {
    let joins: [(&str, Join, &[&str]); 3] = [
        (
            "inner join, tumbling 10s per user",
            |clicks, payments| {
                clicks.key_by("user").join(payments.key_by("other")).window(Tumbling::of(secs(10))).with_late()
            },
            &["10|100", "30|300"],
        ),
        (
            "inner join, right within",
            |clicks, payments| {
                clicks.key_by("user").join(payments.key_by("other")).within(secs(1), secs(1)).with_late()
            },
            &["10|100", "30|300"],
        ),
        (
            "inner join, as of per user",
            |clicks, payments| clicks.key_by("user").join(payments.key_by("other").ttl(secs(10))).as_of().with_late(),
            &["10|100", "30|300"],
        ),
    ];
    for (name, join, expected) in joins {
        for parallelism in 1..=3 {
            let job = Job::new("late").parallelism(parallelism);
            let [out, left, right] = [(); 3].map(|()| MemorySink::new());
            let (clicks, payments) = (Hand::of_clicks(), Hand::of_payments());
            let (pairs, late, late_right) = join(clicks.timed(&job), payments.timed(&job));
            pairs.select(["amount", "paid"].map(col)).sink(out.clone());
            late.select([col("amount")]).sink(left.clone());
            late_right.select([col("paid")]).sink(right.clone());
            let running = job.start().await.unwrap();
            let handle = running.handle();
            let many: Vec<Row> = (0..500).map(|user| (100 + user, 0, 1)).collect();
            clicks.push(&[many.as_slice(), &[(1, 10, 1)]].concat()).await;
            payments.push(&[(1, 100, 1), (2, 0, 1)]).await;
            let full = state_bytes(&handle, name);
            clicks.push(&[(1, 30, 50)]).await;
            payments.push(&[(1, 300, 50), (1, 301, 49)]).await;
            // One side alone does not move time, but then both have.
            let one = state_bytes(&handle, name);
            assert!(one < full / 4, "{name}: {full} bytes, then {one}");
            clicks.push(&[(1, 12, 2)]).await;
            payments.push(&[(1, 102, 2)]).await;
            clicks.end();
            payments.end();
            let report = ended(running).await;
            let found = (written(&left), written(&right), late_at(&report, name));
            let (late_left, late_right): (Vec<&str>, Vec<&str>) = (vec!["12"], vec!["102"]);
            assert_eq!(found.0, late_left, "{name}, parallelism {parallelism}");
            assert_eq!(found.1, late_right, "{name}, parallelism {parallelism}");
            assert_eq!(found.2, 2, "{name}");
            let mut pairs = written(&out);
            // 301 is at 49 s: in the window of nobody, near 50 s, and older than 300.
            pairs.retain(|pair| pair != "30|301");
            assert_eq!(pairs, expected, "{name}, parallelism {parallelism}");
        }
    }
}

/// Rejected records have no event time. A join with them goes on without waiting for any, and so does what is behind rules of
/// them.
#[tokio::test(start_paused = true)]
async fn rejected_records_are_the_second_input_of_a_join() {
    for parallelism in 1..=3 {
        let job = Job::new("rejected").parallelism(parallelism);
        let [out, windows] = [(); 2].map(|()| MemorySink::new());
        let hand = Hand::of_clicks();
        let (clicks, rejected) = hand.with_rejects::<Click>(&job);
        let rejected = rejected.select([cast(col("line"), DataType::Int64).alias("line"), col("reason")]);
        let table = clicks.clone().key_by("user").latest();
        let reasons = rejected.clone().key_by("line").latest();
        let joined = table.key_by("user").join(reasons.key_by("line")).kind(JoinType::Left).tables();
        joined.changelog().select(["op", "user", "amount", "reason"].map(col)).sink(out.clone());
        let counted = clicks.key_by("user").with_rules(rejected.typed::<Bad>()).process(Lines);
        counted.window(Tumbling::of(secs(10))).aggregate([max(col("lines"))]).drop_late().sink(windows.clone());
        let running = job.start().await.unwrap();
        hand.push(&[(1, 10, 1), (2, 20, 2)]).await;
        assert_eq!(written(&out), ["insert|1|10|null", "insert|2|20|null"]);
        hand.reject(2, "not JSON");
        hand.push(&[]).await; // no row comes with it, which could be in front of it
        hand.push(&[(1, 11, 3)]).await;
        // The line is a part of the key of the result.
        let told =
            ["delete|2|20|null", "insert|1|10|null", "insert|2|20|not JSON", "insert|2|20|null", "update|1|11|null"];
        assert_eq!(written(&out), told);
        hand.push(&[(1, 12, 12)]).await;
        let closed = written(&windows);
        assert_eq!(closed, ["1970-01-01T00:00:00Z|1970-01-01T00:00:10Z|1"], "nothing is waited for");
        hand.end();
        ended(running).await;
    }
}

#[derive(Record)]
struct Bad {
    line: Option<i64>,
}

#[derive(Record)]
struct Seen {
    lines: u64,
}

/// How many records have been rejected, with each click.
#[derive(Clone)]
struct Lines;

impl BroadcastProcess for Lines {
    type Row = Click;
    type Rule = Bad;
    type Rules = u64;
    type State = ();
    type Output = Seen;
    type Side = NoSide;

    fn rule(&mut self, _: BadView<'_>, lines: &mut u64) {
        *lines += 1;
    }

    fn row(&mut self, _: ClickView<'_>, lines: &u64, key: &mut KeyedBy<'_, Self>) {
        key.emit(Seen { lines: *lines });
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_has_not_changed_for_its_time_to_live_is_forgotten() {
    for parallelism in [1, 2] {
        let job = Job::new("ttl").parallelism(parallelism);
        let out = MemorySink::new();
        let (clicks, payments) = (Hand::of_clicks(), Hand::of_payments());
        let table = clicks.timed::<Click>(&job).key_by("user").latest();
        let other = payments.timed::<Payment>(&job).key_by("other").latest();
        let (joined, late, late_right) =
            table.key_by("user").ttl(secs(10)).join(other.key_by("other")).tables().with_late();
        joined.changelog().select(["op", "amount", "paid"].map(col)).sink(out.clone());
        late.changelog().sink(MemorySink::new());
        late_right.discard();
        let running = job.start().await.unwrap();
        let handle = running.handle();
        clicks.push(&[(1, 10, 1), (2, 20, 9)]).await;
        payments.push(&[(1, 100, 1), (2, 200, 9)]).await;
        assert_eq!(written(&out), ["insert|10|100", "insert|20|200"]);
        let full = state_bytes(&handle, "join, tables");
        clicks.push(&[(3, 30, 15)]).await;
        payments.push(&[(3, 300, 15)]).await;
        assert_eq!(written(&out), ["delete|10|100", "insert|10|100", "insert|20|200", "insert|30|300"]);
        clicks.push(&[(3, 31, 60)]).await;
        payments.push(&[(3, 301, 60)]).await;
        assert!(state_bytes(&handle, "join, tables") < full, "{} and not {full}", state_bytes(&handle, "join, tables"));
        clicks.end();
        payments.end();
        ended(running).await;
    }
}

#[test]
fn sides_of_different_jobs_are_not_joined() {
    let (one, two) = (Job::new("one"), Job::new("two"));
    let join = clicks(&one, &LEFT).key_by("user").join(payments(&two, &RIGHT).key_by("other"));
    join.as_of().drop_late().sink(MemorySink::new());
    assert!(run(one).unwrap_err().to_string().contains("the other stream belongs to another job"));
}
