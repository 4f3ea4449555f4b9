//! A job that was changed between two incarnations: what fits goes on, what does not is refused with the reason before the
//! first row.

use std::{fs, sync::Arc};

use tests::on_two_threads;
use windrow::{
    Error,
    arrow::{
        array::{ArrayRef, Int32Array, Int64Array, RecordBatch},
        datatypes::SchemaRef,
    },
    prelude::*,
};

use super::{
    hand::{Hand, click, read, save_and_stop},
    lives::{HANGS, place, start},
    scenario::Click,
};

type Rows = Stream<Click>;

fn totals(rows: Rows) -> Stream<Untyped> {
    rows.key_by("user").window(Tumbling::of(secs(10))).aggregate([sum(col("amount")).alias("total")]).drop_late()
}

/// The first version: totals per user in ten seconds.
fn first(rows: Rows, out: MemorySink) {
    totals(rows).select(["user", "total"].map(col)).sink(out);
}

/// Runs the first version until it has read two rows, and the changed one to the end of three.
async fn changed(change: impl Fn(&Hand) -> Job) -> windrow::Result<Vec<String>> {
    let hand = Hand::new();
    hand.push(&[click(1, 10, 1), click(2, 20, 2)]);
    save_and_stop(read(|| hand.job(first), 2).await.unwrap(), "first").await;
    assert_eq!(hand.rows(), [""; 0], "the window is open");
    hand.push(&[click(1, 5, 3)]);
    hand.input.end_all();
    let running = start(|| change(&hand)).await?;
    tokio::time::timeout(HANGS, running.wait()).await.expect("it hangs")?;
    Ok(hand.rows())
}

fn accepted(change: impl Fn(Rows, MemorySink)) -> Vec<String> {
    on_two_threads(changed(|hand| hand.job(&change))).unwrap()
}

/// Why the changed job is refused.
fn refused(change: impl Fn(Rows, MemorySink)) -> String {
    match on_two_threads(changed(|hand| hand.job(&change))) {
        Err(error @ Error::Misfit { .. }) => {
            let said = error.to_string();
            assert!(said.starts_with(r#"job "by-hand" cannot go on from checkpoint "#), "{said}");
            said.lines().skip(1).map(str::trim).collect::<Vec<_>>().join("\n")
        }
        other => panic!("{other:?}"),
    }
}

const SAME: [&str; 2] = ["1|15", "2|20"];

#[test]
fn stateless_operators_come_and_go() {
    assert_eq!(accepted(first), SAME);
    let more = |rows: Rows, out: MemorySink| {
        let rows = rows.filter(|click| click.amount > 0).select(["user", "shop", "amount", "at"].map(col)).typed();
        first(rows, out);
    };
    assert_eq!(accepted(more), SAME);
    let behind = |rows: Rows, out: MemorySink| {
        totals(rows).select([col("user"), (col("total") * lit(2)).alias("twice")]).sink(out);
    };
    assert_eq!(accepted(behind), ["1|30", "2|40"]);
    let forked = |rows: Rows, out: MemorySink| {
        rows.clone().filter(|click| click.user == 7).sink(MemorySink::new());
        first(rows, out);
    };
    assert_eq!(accepted(forked), SAME);
    // And gone again.
    on_two_threads(async {
        let hand = Hand::new();
        let with = |hand: &Hand| hand.job(|rows, out| first(rows.filter(|click| click.user != 9), out));
        hand.push(&[click(1, 10, 1), click(9, 1, 1)]);
        save_and_stop(read(|| with(&hand), 2).await.unwrap(), "with").await;
        hand.push(&[click(9, 5, 3)]);
        hand.input.end_all();
        start(|| hand.job(first)).await.unwrap().wait().await.unwrap();
        assert_eq!(hand.rows(), ["1|10", "9|5"]);
    });
}

#[test]
fn a_window_that_is_new_begins_empty() {
    let grand = |rows: Rows, out: MemorySink| {
        let (a, b) = (rows.clone(), rows);
        first(a, out.clone());
        b.window(Tumbling::of(secs(10)))
            .aggregate([count().alias("n"), sum(col("amount")).alias("sum")])
            .drop_late()
            .select(["n", "sum"].map(col))
            .sink(out);
    };
    assert_eq!(accepted(grand), ["1|15", "1|5", "2|20"], "one row of 5 is all that the new window has seen");
}

#[test]
fn a_window_is_found_by_its_id() {
    // A new window before the old one would take its name.
    let before = |named: bool| {
        move |rows: Rows, out: MemorySink| {
            let new = rows.clone().window(Tumbling::of(secs(60))).aggregate([count().alias("n")]).drop_late();
            let old = totals(rows);
            let (new, old) = if named { (new.id("minutes"), old.id("window_1")) } else { (new, old) };
            new.select([col("n")]).sink(out.clone());
            old.select(["user", "total"].map(col)).sink(out);
        }
    };
    assert_eq!(accepted(before(true)), ["1", "1|15", "2|20"]);
    let reasons = refused(before(false));
    assert!(reasons.contains("window tumbling 60s (window_1): ") && reasons.contains("tumbling 10s"), "{reasons}");
    // A new name without the old one is a window that has gone.
    let renamed = |rows: Rows, out: MemorySink| totals(rows).id("totals").select(["user", "total"].map(col)).sink(out);
    let reasons = refused(renamed);
    assert!(reasons.contains(r#"state of operator "window_1""#) && reasons.contains(r#".id("window_1")"#), "{reasons}");
    // With a name from the beginning it may move anywhere.
    on_two_threads(async {
        let hand = Hand::new();
        let named = |hand: &Hand| hand.job(renamed);
        hand.push(&[click(1, 10, 1)]);
        save_and_stop(read(|| named(&hand), 1).await.unwrap(), "named").await;
        hand.push(&[click(1, 5, 3)]);
        hand.input.end_all();
        let moved = |rows: Rows, out: MemorySink| {
            rows.clone().window(Tumbling::of(secs(60))).aggregate([count()]).drop_late().sink(MemorySink::new());
            renamed(rows, out);
        };
        start(|| hand.job(moved)).await.unwrap().wait().await.unwrap();
        assert_eq!(hand.rows(), ["1|15"]);
    });
}

/// The rows that wait until their turn comes belong to the operator that they wait for, and move with it.
#[test]
fn rows_that_wait_for_an_operator_are_found_by_its_id() {
    let mine = |rows: Rows, name: Option<&str>, out: MemorySink| {
        let first = rows.key_by("user").deduplicate(millis(1)).drop_late();
        let first = if let Some(name) = name { first.id(name) } else { first };
        first.select(["user", "amount"].map(col)).sink(out);
    };
    // A new operator of the same kind before it, by the same key.
    let moved = |rows: Rows, name: &str, out: MemorySink| {
        let other = rows.clone().key_by("user").deduplicate(millis(2)).drop_late().id("other");
        other.select(["user", "shop", "amount"].map(col)).sink(out.clone());
        mine(rows, Some(name), out);
    };
    for (before, after) in [(Some("mine"), "mine"), (None, "dedup_1")] {
        on_two_threads(async {
            let hand = Hand::new();
            hand.push(&[click(1, 10, 1), click(2, 20, 2)]);
            save_and_stop(read(|| hand.job(|rows, out| mine(rows, before, out)), 2).await.unwrap(), "first").await;
            hand.push(&[click(1, 5, 3)]);
            hand.input.end_all();
            start(|| hand.job(|rows, out| moved(rows, after, out))).await.unwrap().wait().await.unwrap();
            assert_eq!(hand.rows(), ["1|10", "1|1|5", "1|5", "2|20"], "the new one has seen one row");
        });
    }
}

#[test]
fn a_window_that_is_gone_is_refused_unless_its_state_is_given_up() {
    let without = |rows: Rows, out: MemorySink| rows.select(["user", "amount"].map(col)).sink(out);
    assert_eq!(
        refused(without),
        r#"the checkpoint has state of operator "window_1", which the job does not have: give the operator that has taken its place the same name with .id("window_1"), or drop the state with .drop_state()"#
    );
    let rows = on_two_threads(changed(|hand| hand.job(without).drop_state())).unwrap();
    assert_eq!(rows, ["1|5"], "it goes on behind what was read");
}

#[test]
fn a_window_that_means_something_else_is_refused_by_name_and_difference() {
    let window = |key: &'static str, size: u64, aggregate: fn() -> Expr| {
        move |rows: Rows, out: MemorySink| {
            rows.key_by(key).window(Tumbling::of(secs(size))).aggregate([aggregate()]).drop_late().sink(out);
        }
    };
    let total = || sum(col("amount")).alias("total");
    let longer = refused(window("user", 20, total));
    assert_eq!(
        longer,
        "#2 window tumbling 20s per user (window_1): the state that was saved is of `tumbling 10s; sum(amount)`, but now it is `tumbling 20s; sum(amount)`: undo the change, or let it begin empty, under another name with .id(…) and with .drop_state()"
    );
    let other = refused(window("user", 10, || max(col("amount")).alias("total")));
    assert!(
        other.contains("(window_1): ") && other.contains("sum(amount)") && other.contains("max(amount)"),
        "{other}"
    );
    let key = refused(window("shop", 10, total));
    assert!(key.contains("per shop (window_1): ") && key.contains(r#"column "user""#), "{key}");
    let text = |rows: Rows, out: MemorySink| {
        let rows = rows.select([windrow::cast(col("user"), TEXT).alias("user"), col("amount"), col("at")]);
        rows.key_by("user").window(Tumbling::of(secs(10))).aggregate([total()]).drop_late().sink(out);
    };
    let reason = refused(text);
    assert!(reason.contains(r#"the column "user" was saved as Int64 and is Utf8 now"#), "{reason}");
}

const TEXT: windrow::arrow::datatypes::DataType = windrow::arrow::datatypes::DataType::Utf8;

/// Two numbers and a time, with a `user` of 32 or of 64 bits.
fn numbers(rows: &[(i64, i64, i64)], wide: bool) -> RecordBatch {
    let users = rows.iter().map(|row| row.0);
    let users: ArrayRef = match wide {
        true => Arc::new(Int64Array::from_iter_values(users)),
        false => Arc::new(Int32Array::from_iter_values(users.map(|user| i32::try_from(user).unwrap()))),
    };
    let amounts: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.1)));
    let at = Timestamp::column(rows.iter().map(|row| row.2).collect());
    RecordBatch::try_from_iter([("user", users), ("amount", amounts), ("at", at)]).unwrap()
}

#[test]
fn a_key_may_become_wider_and_keeps_its_state() {
    let schema = |wide| -> SchemaRef { numbers(&[], wide).schema() };
    let before: Vec<(i64, i64, i64)> = (0..400).map(|n| (n % 300 - 150, n, n)).collect();
    let after: Vec<(i64, i64, i64)> = (0..400).map(|n| (n % 300 - 150, 1_000 * n, n)).collect();
    for (from, to) in [(1, 1), (1, 3), (3, 2)] {
        on_two_threads(async {
            let directory = place();
            let out = MemorySink::new();
            let job = |source: MemorySource, parallelism: usize| {
                let job = Job::new("wider").parallelism(parallelism);
                job.source(source)
                    .event_time("at", Watermarks::in_order())
                    .key_by("user")
                    .window(Tumbling::of(hours(1)))
                    .aggregate([sum(col("amount")).alias("total")])
                    .drop_late()
                    .select(["user", "total"].map(col))
                    .sink(out.clone());
                job.checkpoint(directory.path().to_str().unwrap(), hours(1))
            };
            let (narrow, source) = MemorySource::by_hand(schema(false), 1);
            narrow.push(0, numbers(&before, false));
            save_and_stop(read(|| job(source.clone(), from), 400).await.unwrap(), "narrow").await;
            let (wide, source) = MemorySource::by_hand(schema(true), 1);
            wide.push(0, numbers(&before, true));
            wide.push(0, numbers(&after, true));
            wide.end_all();
            start(|| job(source.clone(), to)).await.unwrap().wait().await.unwrap();
            let mut sums = std::collections::BTreeMap::new();
            before.iter().chain(&after).for_each(|row| *sums.entry(row.0).or_insert(0) += row.1);
            let mut right: Vec<String> = sums.iter().map(|(user, total)| format!("{user}|{total}")).collect();
            right.sort_unstable();
            assert_eq!(tests::rows(&out.batches()), right, "{from} → {to}");
            // Narrower again is refused.
            let error =
                start(|| job(MemorySource::new(schema(false), vec![vec![]]), to)).await.err().unwrap().to_string();
            assert!(error.contains(r#"the column "user" was saved as Int64 and is Int32 now"#), "{error}");
        });
    }
}

#[derive(Record, Clone)]
struct Line {
    n: i64,
    at: i64,
}

#[test]
fn files_may_come_but_not_go_before_they_are_read() {
    on_two_threads(async {
        let directory = place();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("in")).unwrap();
        let write = |name: &str, numbers: std::ops::Range<i64>| {
            let lines: String = numbers.map(|n| format!("{{\"n\":{n},\"at\":{n}}}\n")).collect();
            fs::write(path("in").join(name), lines).unwrap();
        };
        write("short.json", 0..5);
        write("long.json", 5..40_000);
        let out = MemorySink::new();
        let job = || {
            let job = Job::new("files").channel_bytes(1);
            let files = File::pattern(path("in").join("*.json").to_str().unwrap()).batch_rows(100);
            job.source(files.json::<Line>())
                .event_time(EventTime::column("at").millis(), Watermarks::out_of_order(hours(1)))
                .select([col("n")])
                .sink(out.clone());
            job.checkpoint(path("store").to_str().unwrap(), hours(1))
        };
        save_and_stop(read(job, 1_000).await.unwrap(), "middle").await;
        let read_so_far = out.rows();
        assert!((1_000..40_000).contains(&read_so_far), "{read_so_far}");

        // One that was read to its end may go.
        fs::remove_file(path("in").join("short.json")).unwrap();
        fs::rename(path("in").join("long.json"), path("elsewhere")).unwrap();
        write("new.json", 40_000..40_010);
        let error = start(job).await.err().unwrap();
        assert!(matches!(&error, Error::Misfit { .. }), "{error}");
        let said = error.to_string();
        assert!(said.contains("long.json was read up to position ") && said.contains("would be lost"), "{said}");
        assert!(!said.contains("short.json"), "{said}");
        assert_eq!(out.rows(), read_so_far);

        fs::rename(path("elsewhere"), path("in").join("long.json")).unwrap();
        start(job).await.unwrap().wait().await.unwrap();
        let mut right: Vec<String> = (0..40_010).map(|n| n.to_string()).collect();
        right.sort_unstable();
        assert!(tests::rows(&out.batches()) == right, "{} rows", out.rows());
    });
}
