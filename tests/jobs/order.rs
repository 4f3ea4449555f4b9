//! What follows the order of event time, in whole jobs: sorted rows, processes, reduce and fold, the first of each key,
//! patterns, count windows; and sessions.
//!
//! ```text
//!   rows by key ──► #2 in order per user ──► #3 process | pattern | first of | count window    one chain, one exchange
//!                        └─ late
//! ```

use tests::{rows, run};
use windrow::prelude::*;

use super::clicks::{Click, ClickView, Hand, Row, balanced, clicks, ended, late_at, state_bytes, written};

/// Out of order, in batches of one row.
const ROWS: [Row; 8] = [(1, 5, 30), (2, 7, 1), (1, 600, 31), (1, 3, 2), (2, 900, 9), (1, 4, 1), (2, 8, 9), (1, 500, 3)];

/// What is made of [`ROWS`], the same at every parallelism.
fn made(build: impl Fn(Stream<Click>, MemorySink)) -> Vec<String> {
    let mut all: Vec<Vec<String>> = (1..=3)
        .map(|parallelism| {
            let job = Job::new("order").parallelism(parallelism);
            let out = MemorySink::new();
            build(clicks(&job, &ROWS), out.clone());
            balanced(&run(job).unwrap());
            rows(&out.batches())
        })
        .collect();
    all.dedup();
    assert_eq!(all.len(), 1, "another answer at another parallelism");
    all.remove(0)
}

#[derive(Record, Clone, Debug)]
pub(crate) struct Told {
    user: i64,
    what: String,
}

/// Tells the amounts of a user one after the other, and the pauses of ten seconds and more; small ones go aside.
#[derive(Clone)]
struct Amounts;

impl Process for Amounts {
    type Row = Click;
    type State = (i64, Vec<i64>);
    type Output = Told;
    type Side = Told;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        if click.amount < 4 {
            key.emit_side(Told { user: click.user, what: format!("small {}", click.amount) });
        }
        key.set_timer(key.time() + secs(10));
        let (user, amounts) = key.state_mut();
        *user = click.user;
        amounts.push(click.amount);
        let what = amounts.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
        key.emit(Told { user: click.user, what });
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let (user, amounts) = key.state();
        let (user, what) = (*user, format!("pause after {}", amounts.len()));
        key.emit(Told { user, what });
        key.clear();
    }
}

#[test]
fn a_process_sees_rows_in_order_and_timers_between_them() {
    let shown = || ["user", "what"].map(col);
    let expected = [
        "1|4",
        "1|4 3",
        "1|4 3 500",
        "1|5",
        "1|5 600",
        "1|pause after 2",
        "1|pause after 3",
        "2|7",
        "2|7 8",
        "2|7 8 900",
        "2|pause after 3",
    ];
    // The first timer is set anew by no one: it fires ten seconds after the first row, when there were three.
    let (found, side) = (
        made(|rows, out| {
            let (told, side) = rows.key_by("user").process_with_side(Amounts);
            told.drop_late().select(shown()).sink(out);
            side.discard();
        }),
        made(|rows, out| {
            let (told, side) = rows.key_by("user").process_with_side(Amounts);
            told.drop_late().discard();
            side.select(shown()).sink(out);
        }),
    );
    let mut found = found;
    // Later timers find nothing any more.
    found.retain(|row| !row.ends_with("pause after 0"));
    assert_eq!((found, side), (expected.map(String::from).into(), vec!["1|small 3".to_string()]));
}

#[test]
fn reduce_and_fold_are_in_order() {
    let shown = || ["user", "amount"].map(col);
    let found = made(|rows, out| {
        let chain =
            rows.key_by("user").reduce(|former, click| Click { amount: former.amount * 2 + click.amount, ..click });
        chain.drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|1049", "1|11", "1|2698", "1|4", "1|522", "2|22", "2|7", "2|944"]);
    let found = made(|rows, out| {
        let steps = rows.key_by("user").fold::<i64, Told, _>(|last, click, out| {
            out.emit(Told { user: click.user, what: (click.amount - *last).to_string() });
            *last = click.amount;
        });
        steps.drop_late().select(["user", "what"].map(col)).sink(out);
    });
    assert_eq!(found, ["1|-1", "1|-495", "1|4", "1|497", "1|595", "2|1", "2|7", "2|892"]);
    let found = made(|rows, out| {
        let live = rows
            .key_by("user")
            .ttl(secs(10))
            .reduce(|former, click| Click { amount: former.amount + click.amount, ..click });
        live.drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|4", "1|5", "1|507", "1|605", "1|7", "2|15", "2|7", "2|915"], "user 1 begins again at 30 s");
}

#[test]
fn on_arrival_nothing_waits() {
    let job = Job::new("arrival");
    let out = MemorySink::new();
    let chain = clicks(&job, &ROWS).key_by("user").on_arrival();
    let chain = chain.reduce(|former, click| Click { amount: former.amount * 2 + click.amount, ..click });
    chain.select(["user", "amount"].map(col)).sink(out.clone());
    let plan = job.to_string();
    assert!(!plan.contains("in order"), "{plan}");
    run(job).unwrap();
    assert_eq!(rows(&out.batches())[..2], ["1|1223", "1|2450"]);
}

#[test]
fn the_first_of_each_key_and_rows_in_order() {
    let shown = || ["user", "amount"].map(col);
    let found = made(|rows, out| rows.key_by("user").deduplicate(secs(8)).drop_late().select(shown()).sink(out));
    assert_eq!(found, ["1|4", "1|5", "2|7"], "at 9 s user 2 is 8 s later");
    let found = made(|rows, out| rows.key_by("user").deduplicate(millis(7_999)).drop_late().select(shown()).sink(out));
    assert_eq!(found, ["1|4", "1|5", "2|7", "2|8"], "of two rows at 9 s the one with the lesser amount");
    for parallelism in 1..=3 {
        let job = Job::new("sorted").parallelism(parallelism);
        let out = MemorySink::new();
        clicks(&job, &ROWS).key_by("user").in_order().drop_late().filter(|click| click.user == 1).sink(out.clone());
        run(job).unwrap();
        let amounts: Vec<String> =
            out.batches().iter().flat_map(|batch| rows(&[batch.project(&[1]).unwrap()])).collect();
        // What leaves in one batch comes out sorted as text; each batch is of one stretch of time.
        let mut sorted = amounts.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["3", "4", "5", "500", "600"]);
    }
}

fn rise() -> Pattern {
    Pattern::begin("low", col("amount").lt(lit(10)))
        .one_or_more()
        .next("high", col("amount").gt(col_of("low", "amount") * lit(50)))
        .within(secs(20))
}

#[test]
fn patterns_follow_event_time() {
    let measures =
        || [first("low", "amount").alias("low"), last("high", "amount").alias("high"), count_of("low").alias("n")];
    let found = made(|rows, out| {
        let found = rows.key_by("user").pattern(&rise(), measures()).drop_late();
        found.select(["user", "low", "high", "n"].map(col)).sink(out);
    });
    assert_eq!(found, ["1|4|500|2", "1|5|600|1", "2|7|900|2"]);
    let found = made(|rows, out| {
        let found = rows.key_by("user").pattern(&rise().skip(Skip::ToNext), measures()).drop_late();
        found.select(["user", "low", "high", "n"].map(col)).sink(out);
    });
    assert_eq!(found, ["1|3|500|1", "1|4|500|2", "1|5|600|1", "2|7|900|2", "2|8|900|1"]);
}

#[test]
fn windows_of_so_many_rows() {
    let shown = || ["user", "count", "total"].map(col);
    let totals = || [count(), sum(col("amount")).alias("total")];
    let found = made(|rows, out| {
        rows.key_by("user").window(Count::of(2)).aggregate(totals()).drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|2|505", "1|2|7", "2|2|15"]);
    let found = made(|rows, out| {
        rows.key_by("user").window(Count::of(3).every(1)).aggregate(totals()).drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|3|1105", "1|3|507", "1|3|508", "2|3|915"]);
}

#[test]
fn sessions_of_one_gap_and_of_one_per_row() {
    let totals = || [count(), sum(col("amount")).alias("total")];
    let shown = || ["user", "count", "total"].map(col);
    let found = made(|rows, out| {
        rows.key_by("user").window(Session::gap(secs(8))).aggregate(totals()).drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|2|605", "1|3|507", "2|1|7", "2|2|908"], "8 s later is another session");
    let found = made(|rows, out| {
        let gap = Session::gap_of::<Click>(|click| if click.amount == 500 { secs(28) } else { millis(8_001) });
        rows.key_by("user").window(gap).aggregate(totals()).drop_late().select(shown()).sink(out);
    });
    assert_eq!(found, ["1|5|1112", "2|3|915"]);
}

/// Says what is made of the rows, with the late ones.
type Build = fn(Stream<Click>) -> (Stream<Untyped>, Stream<Click>);

fn shown<T: 'static>(results: (Stream<T>, Stream<Click>)) -> (Stream<Untyped>, Stream<Click>) {
    (results.0.select([col("user")]), results.1)
}

#[tokio::test(start_paused = true)]
async fn late_rows_leave_as_they_came_and_what_has_passed_is_forgotten() {
    let builds: [(&str, Build); 9] = [
        ("in order per user", |rows| shown(rows.key_by("user").in_order().with_late())),
        ("in order per user", |rows| shown(rows.key_by("user").process(Quiet).with_late())),
        ("in order per user", |rows| shown(rows.key_by("user").deduplicate(secs(1)).with_late())),
        ("in order per user", |rows| shown(rows.key_by("user").pattern(&rise(), [count_of("low")]).with_late())),
        ("in order per user", |rows| shown(rows.key_by("user").window(Count::of(2)).aggregate([count()]).with_late())),
        ("window session", |rows| {
            shown(rows.key_by("user").window(Session::gap(secs(5))).aggregate([count()]).with_late())
        }),
        ("window hopping", |rows| {
            shown(rows.key_by("user").window(Hopping::of(secs(10), secs(5))).aggregate([count()]).with_late())
        }),
        ("window cumulating", |rows| {
            shown(rows.key_by("user").window(Cumulating::of(secs(10), secs(5))).aggregate([count()]).with_late())
        }),
        ("top 1 by amount", |rows| {
            shown(rows.key_by("user").window(Hopping::of(secs(10), secs(5))).top(1, "amount").with_late())
        }),
    ];
    for (case, (name, build)) in builds.into_iter().enumerate() {
        for parallelism in 1..=3 {
            let job = Job::new("late").parallelism(parallelism);
            let [out, late_out] = [(); 2].map(|()| MemorySink::new());
            let hand = Hand::of_clicks();
            let (results, late) = build(hand.timed(&job));
            results.sink(out.clone());
            late.sink(late_out.clone());
            let running = job.start().await.unwrap();
            let handle = running.handle();
            let many: Vec<Row> = (1_000..6_000).map(|user| (user, 5, 3)).collect();
            hand.push(&many).await;
            let all = || handle.metrics().operators.iter().map(|operator| operator.state_bytes).sum::<u64>();
            let (full, here) = (all(), state_bytes(&handle, name));
            assert!(full > 0);
            hand.push(&[(1, 600, 100), (2, 5, 100)]).await;
            hand.push(&[(1, 5, 101), (2, 5, 200)]).await;
            // A window of so many rows keeps those that it has until it is full, and a table of groups some room for more.
            if case != 4 {
                let few = if name.starts_with("window ") { full * 3 / 4 } else { full / 4 };
                assert!(all() < few, "{name}, case {case}: {full} bytes, then {}\n{}", all(), handle.metrics());
            }
            assert!(state_bytes(&handle, name) < here, "{name}, case {case}");
            hand.push(&[(1, 5, 4), (1, 6, 201), (1, 7, 99)]).await;
            hand.end();
            let report = ended(running).await;
            let late = ["1|5|1970-01-01T00:00:04Z", "1|7|1970-01-01T00:01:39Z"];
            assert_eq!(rows(&late_out.batches()), late, "{name}, case {case}, parallelism {parallelism}");
            assert_eq!(late_at(&report, name), 2, "{name}, case {case}");
            assert!(!written(&out).is_empty() || case == 3, "{name}, case {case}");
        }
    }
}

/// Keeps a user for ten seconds.
#[derive(Clone)]
struct Quiet;

impl Process for Quiet {
    type Row = Click;
    type State = i64;
    type Output = Told;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        key.set_timer(key.time() + secs(10));
        *key.state_mut() = click.user;
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let user = *key.state();
        key.emit(Told { user, what: "quiet".into() });
        key.clear();
    }
}

/// Behind a sort by the same key nothing is exchanged a second time, and neither behind what keeps its rows.
#[tokio::test]
async fn a_sort_and_what_follows_it_share_a_task() {
    let job = Job::new("plan").parallelism(3);
    let first = clicks(&job, &ROWS).key_by("user").deduplicate(secs(8)).drop_late();
    let (told, side) = first.key_by("user").process_with_side(Amounts);
    told.drop_late().sink(MemorySink::new());
    side.sink(MemorySink::new());
    let printed = job.to_string();
    for part in ["#2 in order per user", "#3 first within 8s per user", "#4 in order per user", "#5 process per user"] {
        assert!(printed.contains(part), "{part} in\n{printed}");
    }
    let plan = job.explain().await.unwrap();
    let chain =
        "3 tasks: #2 in order per user → #3 first within 8s per user → #4 in order per user → #5 process per user";
    assert!(plan.contains(chain), "{plan}");
    assert_eq!(plan.matches("══ by key group ══►").count(), 1, "{plan}");

    // By another key there has to be one.
    let job = Job::new("plan").parallelism(3);
    let sorted = clicks(&job, &ROWS).key_by("user").in_order().drop_late();
    sorted.key_by("amount").process(Quiet).drop_late().sink(MemorySink::new());
    let plan = job.explain().await.unwrap();
    assert_eq!(plan.matches("══ by key group ══►").count(), 2, "{plan}");
}
