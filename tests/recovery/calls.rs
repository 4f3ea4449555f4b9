//! Jobs with calls in flight that crash, stop, are saved and rescaled: each row has its result once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tests::on_two_threads;
use tokio::sync::Semaphore;
use windrow::{
    Restarts,
    arrow::{
        array::{AsArray, RecordBatch},
        datatypes::{DataType, Field, Int64Type, Schema, SchemaRef},
    },
    connectors::{ConnectorError, Lookup, async_trait},
    prelude::*,
    state,
};

use super::{
    hand::{Hand, click, read, save_and_stop, until},
    lives::{End, Life, Lived, Trial, When, balanced, place, start},
    rescale::window,
    scenario::{Click, ClickView, Ending, Fork, Scenario, Step, WindowSpec},
};

/// Answers each row once there is a permit for it; counts the calls.
#[derive(Clone)]
struct Service {
    permits: Arc<Semaphore>,
    calls: Arc<AtomicUsize>,
}

impl Service {
    fn new(permits: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), calls: Arc::default() }
    }

    async fn answer(self, click: Click) -> Result<Click, String> {
        self.calls.fetch_add(1, SeqCst);
        self.permits.acquire().await.map_err(|error| error.to_string())?.forget();
        Ok(click)
    }

    fn job(&self, hand: &Hand, ordered: bool) -> Job {
        let service = self.clone();
        hand.job(|rows, out| {
            let calls = rows.map_async(move |row| {
                let click = Click { user: row.user, shop: row.shop, amount: row.amount, at: row.at };
                service.clone().answer(click)
            });
            let calls = if ordered { calls.ordered() } else { calls };
            calls.fail_on_failure().select([col("amount")]).sink(out);
        })
    }
}

#[test]
fn a_checkpoint_does_not_wait_for_calls_and_a_crash_loses_none() {
    for ordered in [true, false] {
        on_two_threads(async {
            let hand = Hand::new();
            hand.push(&[click(1, 1, 1), click(1, 2, 2), click(1, 3, 3)]);
            let two = Service::new(2);
            let running = read(|| two.job(&hand, ordered), 3).await.unwrap();
            let handle = running.handle();
            until(&handle, |job| in_flight(job) == 1 && two.calls.load(SeqCst) == 3).await;
            handle.savepoint("one-in-flight").await.unwrap();
            assert_eq!(hand.rows().len(), 2, "what had left is visible");
            let saved = state::open_savepoint(format!("{}/by-hand", hand.store()), "one-in-flight").await.unwrap();
            let table = saved.table("async_1").unwrap();
            assert_eq!((table.rows().num_rows(), table.meaning()), (1, "rows that wait for an async map to Click"));
            // Answered after the savepoint, and never visible: the crash takes it back.
            two.permits.add_permits(1);
            until(&handle, |job| in_flight(job) == 0).await;
            drop(running);
            let all = Service::new(100);
            hand.push(&[click(1, 4, 4)]);
            hand.input.end_all();
            let report = read(|| all.job(&hand, ordered), 1).await.unwrap().wait().await.unwrap();
            balanced(&report).unwrap();
            assert_eq!(hand.rows(), ["1", "2", "3", "4"]);
            assert_eq!(all.calls.load(SeqCst), 2, "only what had no result is called again");
        });
    }
}

#[test]
fn a_job_that_is_stopped_keeps_its_rows_in_flight() {
    for parallelism in [1, 3] {
        on_two_threads(async {
            let hand = Hand::new();
            hand.push(&[click(1, 1, 1), click(1, 2, 2), click(1, 3, 3)]);
            let none = Service::new(0);
            let running = read(|| none.job(&hand, true), 3).await.unwrap();
            until(&running.handle(), |_| none.calls.load(SeqCst) == 3).await;
            let report = save_and_stop(running, "stopped").await;
            assert!(report.stopped);
            balanced(&report).unwrap();
            assert_eq!(report.metrics.named("async").map(|o| o.in_flight).sum::<u64>(), 3);
            assert_eq!(hand.rows(), Vec::<String>::new());
            // Stopped again, with rows that were in flight before.
            let one = Service::new(1);
            let running = read(|| one.job(&hand, true), 0).await.unwrap();
            until(&running.handle(), |_| one.permits.available_permits() == 0).await;
            running.handle().stop();
            running.wait().await.unwrap();
            let all = Service::new(100);
            hand.push(&[click(1, 4, 4)]);
            hand.input.end_all();
            let job = || all.job(&hand, true).parallelism(parallelism);
            balanced(&read(job, 1).await.unwrap().wait().await.unwrap()).unwrap();
            assert_eq!(hand.rows(), ["1", "2", "3", "4"]);
        });
    }
}

/// `count` rows of numbers from 1, `each` in a batch.
fn push(hand: &Hand, count: i64, each: usize) {
    let rows: Vec<Click> = (1..=count).map(|n| click(1, n, n % 10)).collect();
    rows.chunks(each).for_each(|rows| hand.push(rows));
}

/// A job of `operators` async operators one after the other, each with room for two calls, behind channels of a message, and
/// a window behind them.
fn narrow(hand: &Hand, service: &Service, operators: usize, ordered: bool) -> Job {
    let job = hand.job(|rows, out| {
        let rows = (0..operators).fold(rows, |rows, _| {
            let service = service.clone();
            let calls = rows.map_async(move |row| {
                let click = Click { user: row.user, shop: row.shop, amount: row.amount, at: row.at };
                service.clone().answer(click)
            });
            let calls = if ordered { calls.ordered() } else { calls };
            calls.capacity(2).fail_on_failure()
        });
        let sums = rows.clone().window(Tumbling::of(secs(1_000))).aggregate([sum(col("amount")).alias("amount")]);
        sums.drop_late().select([col("amount")]).sink(out.clone());
        rows.select([col("amount")]).sink(out);
    });
    job.channel_bytes(1)
}

fn in_flight(job: &windrow::JobHandle) -> u64 {
    job.metrics().named("async").map(|o| o.in_flight).sum()
}

/// The rows from 1 to `count`, and their sum.
fn all_and_sum(count: i64) -> Vec<String> {
    let mut rows: Vec<String> = (1..=count).chain([count * (count + 1) / 2]).map(|n| n.to_string()).collect();
    rows.sort_unstable();
    rows
}

/// Ends the input, answers all, and looks at the output.
async fn all_once(hand: &Hand, count: i64, operators: usize, ordered: bool) {
    hand.input.end_all();
    let all = Service::new(1_000_000);
    let report = read(|| narrow(hand, &all, operators, ordered), 0).await.unwrap().wait().await.unwrap();
    balanced(&report).unwrap();
    assert_eq!(hand.rows(), all_and_sum(count), "{operators} operators, ordered: {ordered}");
}

/// How the job is left that has rows before calls that do not come to an end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Left {
    Dropped,
    Stopped,
}

#[test]
fn barriers_and_stops_do_not_wait_for_rows_that_wait_for_calls() {
    for (operators, ordered, left, ended) in [
        (1, true, Left::Dropped, false),
        (1, false, Left::Stopped, false),
        (2, true, Left::Stopped, false),
        (2, false, Left::Dropped, true),
        (1, true, Left::Stopped, true),
        (2, false, Left::Stopped, true),
    ] {
        let case = format!("{operators} operators, ordered: {ordered}, {left:?}, ended: {ended}");
        on_two_threads(async {
            let hand = Hand::new();
            push(&hand, 60, 1);
            if ended {
                hand.input.end_all();
            }
            // A few come through both.
            let few = Service::new(5);
            let running = read(|| narrow(&hand, &few, operators, ordered), 4).await.unwrap();
            let handle = running.handle();
            until(&handle, |_| few.calls.load(SeqCst) >= 5 + 2).await;
            for name in ["first", "second", "third"] {
                handle.savepoint(name).await.unwrap();
                let saved = state::open_savepoint(format!("{}/by-hand", hand.store()), name).await.unwrap();
                let rows = |id: String| saved.table(&id).map_or(0, |table| table.rows().num_rows());
                let rows: usize = (1..=operators).map(|at| rows(format!("async_{at}"))).sum();
                // Seven were called and five answered; how many more have been read depends on who came first. Behind the barrier
                // an operator reads until it has room for no call and a row that waits, and not the other fifty.
                assert!((2..20).contains(&rows), "{case}: {rows} rows");
                let (read, most) = (in_flight(&handle), rows + 3 * operators);
                assert!(read <= most as u64, "{case}: {read} rows are in flight behind a barrier that saved {rows}");
            }
            match left {
                Left::Dropped => drop(running),
                Left::Stopped => {
                    let report = save_and_stop(running, "stopped").await;
                    assert!(report.stopped, "{case}");
                    balanced(&report).unwrap();
                    assert!(hand.rows().len() < 6, "{case}: the window is not complete");
                }
            }
            // Rows of several operators are called so often still.
            all_once(&hand, 60, operators, ordered).await;
        });
    }
}

#[test]
fn checkpoints_and_slow_calls_do_not_gather_rows_without_end() {
    on_two_threads(async {
        let hand = Hand::new();
        push(&hand, 20_000, 10);
        let none = Service::new(0);
        let job = || narrow(&hand, &none, 1, true).channel_bytes(2_000);
        let running = read(job, 10).await.unwrap();
        let handle = running.handle();
        let mut held = Vec::new();
        for number in 0..30 {
            handle.savepoint(format!("number-{number}")).await.unwrap();
            held.push(in_flight(&handle));
        }
        assert!(held[0] > 10, "{held:?}");
        assert_eq!(held[9], held[29], "{held:?}");
        // The brake is off again when the rows have gone.
        none.permits.add_permits(1_000_000);
        hand.input.end_all();
        balanced(&running.wait().await.unwrap()).unwrap();
        assert_eq!(hand.rows(), all_and_sum(20_000));
    });
}

/// Why `after` is not given the rows that `before` left in flight, although what nobody takes may be dropped.
fn refused(before: impl Fn(Stream<Click>, MemorySink), after: impl Fn(Stream<Click>, MemorySink)) -> Option<String> {
    on_two_threads(async {
        let hand = Hand::new();
        hand.push(&[click(1, 1, 1)]);
        let running = read(|| hand.job(&before), 1).await.unwrap();
        until(&running.handle(), |job| {
            in_flight(job) + job.metrics().named("lookup").map(|o| o.in_flight).sum::<u64>() > 0
        })
        .await;
        save_and_stop(running, "before").await;
        hand.input.end_all();
        start(|| hand.job(&after).drop_state()).await.err().map(|error| error.to_string())
    })
}

#[test]
fn rows_that_wait_for_one_operator_are_not_given_to_another() {
    let copy = |row: ClickView<'_>| Click { user: row.user, shop: row.shop, amount: row.amount, at: row.at };
    let map = |service: Service| {
        move |rows: Stream<Click>, out: MemorySink| {
            let service = service.clone();
            rows.map_async(move |row| service.clone().answer(copy(row))).fail_on_failure().sink(out);
        }
    };
    let flat_map = |rows: Stream<Click>, out: MemorySink| {
        rows.flat_map_async(move |row| std::future::ready(Ok::<_, String>([copy(row)]))).fail_on_failure().sink(out);
    };
    let other = |rows: Stream<Click>, out: MemorySink| {
        let number = |row: ClickView<'_>| std::future::ready(Ok::<_, String>(Number { value: row.amount }));
        rows.map_async(number).fail_on_failure().sink(out);
    };
    let lookup = |on: [(&'static str, &'static str); 2]| {
        move |rows: Stream<Click>, out: MemorySink| {
            rows.lookup(Service::new(0), on, LookupKind::Inner).fail_on_failure().sink(out);
        }
    };
    let (same, swapped) = (lookup([("user", "user"), ("shop", "shop")]), lookup([("shop", "user"), ("user", "shop")]));
    let none = || map(Service::new(0));
    let was = "the state that was saved is of `rows that wait for an async map to Click`, but now it is ";
    for (now, said) in [
        (refused(none(), flat_map), "`rows that wait for an async flat map to Click`"),
        (refused(none(), other), "`rows that wait for an async map to Number`"),
        (
            refused(none(), same),
            "`rows that wait for a lookup in service on left.user = right.user and left.shop = right.shop`",
        ),
    ] {
        let now = now.unwrap();
        assert!(now.contains(&format!("(async_1): {was}{said}")), "{now}");
    }
    assert_eq!(refused(none(), none()), None);
    assert_eq!(refused(same, same), None);
    assert!(refused(same, swapped).is_some());
    // With a name of its own it is not given the rows of the other.
    let named = |rows: Stream<Click>, out: MemorySink| {
        let calls = rows.map_async(move |row| std::future::ready(Ok::<_, String>(copy(row))));
        calls.fail_on_failure().id("another").sink(out);
    };
    assert_eq!(refused(none(), named), None);
}

#[test]
fn a_call_that_fails_the_job_now_and_then_does_not_change_the_answer() {
    let (directory, out, failures) = (place(), MemorySink::new(), Arc::new(AtomicUsize::new(0)));
    let job = Job::new("fails").parallelism(2).channel_bytes(20_000);
    let count = failures.clone();
    job.source(Sequence::new(20_000).splits(3))
        .event_time("at", Watermarks::in_order())
        .typed::<Number>()
        .map_async(move |n| {
            let (value, count) = (n.value, count.clone());
            async move {
                for _ in 0..fastrand::u32(0..5) {
                    tokio::task::yield_now().await;
                }
                match [70, 9_000, 15_111, 19_999].contains(&value) && count.fetch_add(1, SeqCst) < 6 {
                    true => Err("not this time"),
                    false => Ok(Number { value }),
                }
            }
        })
        .fail_on_failure()
        .sink(out.clone());
    let restarts = Restarts::at_most(20).waiting(millis(1)..=millis(5));
    let report = tests::run(job.checkpoint(directory.path().to_str().unwrap(), millis(1)).restarts(restarts)).unwrap();
    balanced(&report).unwrap();
    assert!(failures.load(SeqCst) > 6, "it failed six times and went through then");
    let mut rows: Vec<i64> = tests::rows(&out.batches()).iter().map(|row| row.parse().unwrap()).collect();
    rows.sort_unstable();
    assert_eq!(rows, (0..20_000).collect::<Vec<_>>());
}

#[derive(Record)]
struct Number {
    value: i64,
}

/// A table of the user and shop of each row, which answers once there is a permit.
#[async_trait]
impl Lookup for Service {
    fn name(&self) -> String {
        "service".into()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        let columns = ["user", "shop", "bonus"].map(|name| Field::new(name, DataType::Int64, false));
        Ok(Arc::new(Schema::new(columns.to_vec())))
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch, ConnectorError> {
        self.calls.fetch_add(1, SeqCst);
        self.permits.acquire().await.map_err(|error| ConnectorError::Config(error.to_string()))?.forget();
        let bonus = keys.column(0).as_primitive::<Int64Type>().unary::<_, Int64Type>(|user| user * 1_000);
        let columns = vec![keys.column(0).clone(), keys.column(1).clone(), Arc::new(bonus)];
        Ok(RecordBatch::try_new(self.schema()?, columns)?)
    }
}

#[test]
fn batches_that_are_being_looked_up_are_looked_up_again() {
    on_two_threads(async {
        let hand = Hand::new();
        let job = |service: &Service| {
            let service = service.clone();
            hand.job(|rows, out| {
                let bonus = rows.lookup(service, ["user", "shop"], LookupKind::Inner).ordered();
                bonus.fail_on_failure().select([col("amount"), col("bonus")]).sink(out);
            })
        };
        hand.push(&[click(1, 1, 1), click(2, 2, 2)]);
        hand.push(&[click(2, 3, 3)]);
        let one = Service::new(1);
        let running = read(|| job(&one), 3).await.unwrap();
        until(&running.handle(), |job| {
            one.calls.load(SeqCst) == 2 && job.metrics().named("lookup").all(|lookup| lookup.in_flight < 3)
        })
        .await;
        let report = save_and_stop(running, "stopped").await;
        balanced(&report).unwrap();
        let before = hand.rows();
        assert!(!before.is_empty() && before.len() < 3, "{before:?}");
        hand.input.end_all();
        let all = Service::new(100);
        balanced(&read(|| job(&all), 0).await.unwrap().wait().await.unwrap()).unwrap();
        assert_eq!(hand.rows(), ["1|1000", "2|2000", "3|2000"]);
        assert_eq!(all.calls.load(SeqCst), 1);
    });
}

/// Scenarios whose rows go through calls.
fn scenarios(ordered: bool) -> Vec<(&'static str, Scenario)> {
    let call = Step::Call { ordered };
    let spec = |window: WindowSpec| Ending::Window(window);
    let late = WindowSpec { late: true, more: false, ..window(&["user"], 700) };
    let with = |steps: Vec<Step>, fork, scenario: Scenario| Scenario { steps, fork, ..scenario };
    vec![
        ("rows", with(vec![call], Fork::None, Scenario::with(21, Ending::Rows))),
        ("windows", with(vec![call], Fork::None, Scenario::with(22, spec(window(&["user"], 900))))),
        ("windows of one", with(vec![call, Step::Halve], Fork::None, Scenario::with(23, spec(window(&[], 2_000))))),
        (
            "twice",
            with(vec![call, Step::KeepShops(1), call], Fork::None, Scenario::with(24, spec(window(&["shop"], 500)))),
        ),
        ("a fork", with(vec![Step::Halve, call], Fork::Diamond, Scenario::with(25, spec(window(&["user"], 3_000))))),
        ("late rows", with(vec![call], Fork::None, Scenario::with(7, spec(late)).plain().one_split(2_000))),
    ]
}

fn live(name: &str, scenario: &Scenario, lives: &[Life], last: usize) -> Lived {
    let directory = place();
    let trial = Trial::new(scenario, directory.path().to_str().unwrap());
    tests::on_two_threads(trial.live(lives, last)).unwrap_or_else(|wrong| panic!("{name}: {wrong}"))
}

#[test]
fn jobs_with_calls_give_each_row_once_through_any_lives() {
    let mut lived = Lived::default();
    for (ordered, seed) in [true, false].into_iter().flat_map(|ordered| (0..4).map(move |seed| (ordered, seed))) {
        for at in 0..scenarios(ordered).len() {
            let (name, scenario) = scenarios(ordered).swap_remove(at);
            let mut lives = super::crashes::draw(seed);
            if name == "late rows" {
                // Which rows are late depends on nothing but their order then.
                lives.iter_mut().for_each(|life| life.parallelism = 1);
            }
            let last = if name == "late rows" { 1 } else { scenario.parallelism };
            lived += live(name, &scenario, &lives, last);
        }
    }
    println!("{lived:?}");
    assert!(lived.crashes > 25 && lived.stops > 1, "{lived:?}");
}

#[test]
fn calls_in_flight_go_on_with_any_number_of_tasks() {
    let mut savepoints = 0;
    for (p, q) in [(1, 1), (1, 3), (2, 4), (3, 1), (4, 2), (3, 3), (8, 3)] {
        for at in 0..scenarios(false).len() - 1 {
            for crashes in [false, true] {
                // A fresh one: its silent sources are silent again.
                let (name, scenario) = scenarios((p + at) % 2 == 0).swap_remove(at);
                let when = When::Read(scenario.records() as u64 / 2);
                let end = match crashes {
                    false => End::Savepoint(when, "half".into()),
                    true => End::SavepointThenCrash(when, "half".into()),
                };
                savepoints += live(name, &scenario, &[Life { parallelism: p, end }], q).savepoints;
            }
        }
    }
    assert!(savepoints > 30, "only {savepoints} savepoints");
}
