//! Where rows change tasks in whole jobs, and where they are with the task of their key already.
//!
//! ```text
//!   clicks ═══by user══► join ─► filter ─► select user → who ─► window by who      one chain
//!   payments ═by other═►  ╰──── select amount + 1 ─► … ═══════► window by amount   an exchange, as by every other key
//! ```
//!
//! That the answer is the same is checked in `tests/recovery`, with restores.

use tests::{
    on_two_threads,
    topic::{Topic, batch},
};
use windrow::prelude::*;

use super::clicks::{Click, Payment, Row, clicks, payments};

const ROWS: [Row; 2] = [(1, 5, 30), (2, 7, 1)];

/// The physical plan, for two tasks, of what is made of clicks and payments.
fn plan(build: impl FnOnce(Stream<Click>, Stream<Payment>) -> Stream<Untyped>) -> String {
    let job = Job::new("plan").parallelism(2);
    let payments = payments(&job, &ROWS);
    // Not all of them have a use for these.
    payments.clone().discard();
    build(clicks(&job, &ROWS), payments).sink(MemorySink::new());
    on_two_threads(job.explain()).unwrap()
}

fn exchanges(plan: &str) -> usize {
    plan.matches("══ by key group ══►").count()
}

/// How many exchanges there are, and the plan for who wants to know.
#[track_caller]
fn assert_exchanges(expected: usize, plan: &str) {
    assert_eq!(exchanges(plan), expected, "{plan}");
}

fn as_of(clicks: Stream<Click>, payments: Stream<Payment>) -> Stream<Untyped> {
    clicks.key_by("user").join(payments.key_by("other")).as_of().drop_late()
}

/// Something with state, that needs all rows of a key in one task.
fn sessions(rows: Stream<Untyped>, key: impl Into<windrow::Key>) -> Stream<Untyped> {
    rows.key_by(key).window(Session::gap(secs(5))).aggregate([count().alias("n")]).drop_late()
}

#[test]
fn a_key_that_stays_needs_one_exchange() {
    let plan = plan(|clicks, payments| {
        let joined = as_of(clicks, payments).filter_expr(col("amount").gt(lit(0)));
        let renamed = joined.select([col("amount"), col("paid"), col("user").alias("who")]);
        sessions(renamed, "who").key_by("who").in_order().drop_late()
    });
    assert_exchanges(2, &plan);
    let chain = "2 tasks: #3 inner join, as of per user → #4 filter amount > Int32(0) → #5 select → #6 window session gap 5s per \
                 who → #7 in order per who\n";
    assert!(plan.contains(chain), "{plan}");
    assert!(!plan.contains("first phase"), "{plan}");
}

#[test]
fn a_key_that_does_not_stay_needs_another() {
    type Between = fn(Stream<Untyped>) -> Stream<Untyped>;
    let cases: [(&str, Between); 5] = [
        ("another column", |rows| sessions(rows, "amount")),
        ("two columns, of which one is it", |rows| sessions(rows, ["user", "amount"])),
        ("computed anew", |rows| {
            let same = (col("user") + lit(0_i64)).alias("user");
            sessions(rows.select([same, col("amount")]), "user")
        }),
        ("another column under its name", |rows| {
            sessions(rows.select([col("amount").alias("user"), col("paid")]), "user")
        }),
        ("a closure in between", |rows| {
            let same =
                |click: super::clicks::ClickView<'_>| Click { user: click.user, amount: click.amount, at: click.at };
            sessions(rows.typed::<Click>().map(same).select(["user", "amount"].map(col)), "user")
        }),
    ];
    for (case, between) in cases {
        let plan = plan(|clicks, payments| between(as_of(clicks, payments)));
        assert_eq!(exchanges(&plan), 3, "{case}\n{plan}");
    }
}

/// The hash of a key is that of its columns in their order.
#[test]
fn two_columns_in_another_order_are_another_key() {
    let by = |key: [&'static str; 2]| {
        plan(|clicks, _| {
            let first = clicks.key_by(["user", "amount"]).in_order().drop_late();
            let swapped = first.select([col("amount"), col("user")]);
            sessions(swapped, key)
        })
    };
    assert_exchanges(1, &by(["user", "amount"]));
    assert_exchanges(2, &by(["amount", "user"]));
    assert_exchanges(
        2,
        &plan(|clicks, _| {
            sessions(clicks.key_by(["user", "amount"]).in_order().drop_late().select([col("user")]), "user")
        }),
    );
}

#[test]
fn of_a_join_the_columns_count_that_every_row_has() {
    use JoinType::{Full, Inner, Left, LeftAnti, LeftSemi, Right};
    // By kind: behind a join on user = other by user and by other, and behind one on user = user.
    let cases = [
        (Inner, Some(2), Some(2), 2),
        (Left, Some(2), Some(3), 2),
        (Right, Some(3), Some(2), 2),
        (Full, Some(3), Some(3), 2),
        (LeftSemi, Some(2), None, 2),
        (LeftAnti, Some(2), None, 2),
    ];
    for (kind, by_left, by_right, alike) in cases {
        let behind = |key: &'static str| {
            plan(|clicks, payments| {
                let join = clicks.key_by("user").join(payments.key_by("other")).kind(kind);
                sessions(join.window(Tumbling::of(secs(10))).drop_late(), key)
            })
        };
        for (key, expected) in [("user", by_left), ("other", by_right)] {
            if let Some(expected) = expected {
                assert_eq!(exchanges(&behind(key)), expected, "{kind} by {key}\n{}", behind(key));
            }
        }
        let plan = plan(|clicks, payments| {
            let payments = payments.select([col("other").alias("user"), col("paid")]);
            let join = clicks.key_by("user").join(payments.key_by("user")).kind(kind);
            sessions(join.window(Tumbling::of(secs(10))).drop_late(), "user")
        });
        assert_eq!(exchanges(&plan), alike, "{kind}, alike\n{plan}");
    }
}

/// Rows that wait for a partner hold the promise of their task back: behind an exchange all tasks stand at the same time.
#[test]
fn behind_a_join_that_waits_for_partners_there_is_an_exchange() {
    for (kind, expected) in [(JoinType::Inner, 2), (JoinType::Left, 3), (JoinType::LeftSemi, 3)] {
        let plan = plan(|clicks, payments| {
            let join = clicks.key_by("user").join(payments.key_by("other")).kind(kind);
            sessions(join.within(secs(5), secs(5)).drop_late(), "user")
        });
        assert_eq!(exchanges(&plan), expected, "{kind}\n{plan}");
    }
}

#[test]
fn each_input_of_a_join_is_looked_at_alone() {
    let plan = plan(|clicks, payments| {
        let sessions = sessions(clicks.select(["user", "amount"].map(col)), "user");
        sessions.key_by("user").join(payments.key_by("other")).as_of().drop_late()
    });
    assert_exchanges(2, &plan);
    assert!(plan.contains("2 tasks: #4 window session gap 5s per user\n  ══ forward ══► chain 3\n"), "{plan}");
    assert!(plan.contains("source memory\n  ══ by key group ══► chain 3\n"), "{plan}");
    // Both sides, of tables.
    let job = Job::new("plan").parallelism(2);
    let rows = clicks(&job, &ROWS);
    let (newest, totals) = (rows.clone().key_by("user").latest(), rows.key_by("user").aggregate([count().alias("n")]));
    let joined = newest.key_by("user").join(totals.key_by("user")).tables();
    joined.changelog().key_by("user").aggregate([count().alias("changes")]).sink(MemoryTable::new());
    assert_exchanges(2, &on_two_threads(job.explain()).unwrap());
}

#[test]
fn results_of_every_kind_are_where_their_key_is() {
    type Build = fn(Stream<Click>) -> Stream<Untyped>;
    let results: [(&str, Build); 9] = [
        ("tumbling", |rows| {
            rows.key_by("user").window(Tumbling::of(secs(5))).aggregate([max(col("amount"))]).drop_late()
        }),
        ("hopping, with corrections", |rows| {
            let hopping = Hopping::of(secs(10), secs(5)).allowed_lateness(secs(5)).corrections();
            rows.key_by("user").window(hopping).aggregate([count()]).drop_late()
        }),
        ("session", |rows| rows.key_by("user").window(Session::gap(secs(5))).aggregate([count()]).drop_late()),
        ("count", |rows| rows.key_by("user").window(Count::of(3)).aggregate([count()]).drop_late()),
        ("top", |rows| rows.key_by("user").window(Tumbling::of(secs(5))).top(2, "amount").drop_late()),
        ("dedup", |rows| rows.key_by("user").deduplicate(secs(5)).drop_late().select([col("user")])),
        ("sort", |rows| rows.key_by("user").in_order().drop_late().select([col("user")])),
        ("table of aggregates", |rows| rows.key_by("user").aggregate([count().alias("n")]).changelog()),
        ("newest rows", |rows| rows.key_by("user").latest().filter_expr(col("amount").gt(lit(1))).changelog()),
    ];
    for (case, build) in results {
        let plan = plan(|clicks, _| sessions(build(clicks), "user"));
        assert_eq!(exchanges(&plan), 1, "{case}\n{plan}");
    }
}

#[test]
fn what_says_nothing_of_its_rows_is_followed_by_an_exchange() {
    // The bounds of the windows of the ranking take the place of those that were the key.
    let plan_of_top = plan(|clicks, _| {
        let windows = clicks.key_by("user").window(Tumbling::of(secs(5))).aggregate([count().alias("n")]).drop_late();
        let top = windows.key_by("window_start").window(Tumbling::of(secs(10))).top(1, "n").drop_late();
        top.key_by("window_start").in_order().drop_late()
    });
    assert_exchanges(3, &plan_of_top);
    // Late rows have been set aside wherever they were.
    let job = Job::new("plan").parallelism(2);
    let windows = clicks(&job, &ROWS).key_by("user").window(Tumbling::of(secs(5))).aggregate([count()]);
    let (results, late) = windows.with_late();
    results.discard();
    late.key_by("user").aggregate([count().alias("n")]).sink(MemoryTable::new());
    assert_exchanges(2, &on_two_threads(job.explain()).unwrap());
    // The results of a function may be of any key.
    let folded = plan(|clicks, _| {
        let same = clicks.key_by("user").fold::<i64, Click, _>(|_, click, out| {
            out.emit(Click { user: click.amount, amount: click.user, at: click.at });
        });
        sessions(same.drop_late().select([col("user")]), "user")
    });
    assert_exchanges(2, &folded);
}

/// Where inputs fall idle tasks may stand at different times. Only a sort that is part of an operator stays with it.
#[test]
fn where_inputs_may_fall_idle_results_are_exchanged() {
    let job = Job::new("plan").parallelism(2);
    let source =
        job.source(MemorySource::records(vec![Click { user: 1, amount: 2, at: Timestamp::from_micros(3) }; 2]));
    let rows = source.event_time("at", Watermarks::in_order().idle_after(secs(1))).fail_on_rejects();
    let first = rows.key_by("user").deduplicate(secs(5)).drop_late();
    sessions(first.select([col("user")]), "user").sink(MemorySink::new());
    let plan = on_two_threads(job.explain()).unwrap();
    assert_exchanges(2, &plan);
    assert!(plan.contains("#2 in order per user → #3 first within 5s per user → #4 select\n"), "{plan}");
}

/// A task that begins without anything to read wakes behind the others, like one that has fallen idle.
#[test]
fn where_a_source_begins_without_splits_nothing_is_counted_before_the_exchange() {
    let plan = |splits| {
        let job = Job::new("plan").parallelism(2);
        let topic = Topic::new(batch(&[]).schema(), splits, secs(1));
        let rows = job.source(topic).event_time("at", Watermarks::in_order());
        let counts = rows.key_by("n").window(Tumbling::of(secs(5))).aggregate([count()]).drop_late();
        sessions(counts.select([col("n").alias("key")]), "key").sink(MemorySink::new());
        on_two_threads(job.explain()).unwrap()
    };
    for (splits, phases, expected) in [(2, 1, 1), (0, 0, 2)] {
        let plan = plan(splits);
        assert_eq!(plan.matches("first phase").count(), phases, "{plan}");
        assert_exchanges(expected, &plan);
    }
}
