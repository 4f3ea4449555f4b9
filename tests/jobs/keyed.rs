//! Process functions in whole jobs: state, timers of both kinds, side outputs, at every parallelism.

use std::collections::BTreeMap;

use tests::{on_two_threads, rows, run};
use windrow::{
    arrow::array::{ArrayRef, Int64Array, RecordBatch},
    connectors::memory::MemoryInput,
    prelude::*,
};

#[derive(Record, Clone, Debug)]
pub(crate) struct Click {
    user: i64,
    amount: i64,
    at: Timestamp,
}

fn batch(rows: &[(i64, i64, i64)]) -> RecordBatch {
    let column = |values: Vec<i64>| -> ArrayRef { std::sync::Arc::new(Int64Array::from(values)) };
    RecordBatch::try_from_iter([
        ("user", column(rows.iter().map(|row| row.0).collect())),
        ("amount", column(rows.iter().map(|row| row.1).collect())),
        ("at", Timestamp::column(rows.iter().map(|row| row.2).collect())),
    ])
    .unwrap()
}

#[derive(Record, Clone, Debug)]
pub(crate) struct Total {
    user: i64,
    total: i64,
}

/// Sums the amounts of a user, and gives the sum when the user has been silent for a while; negative amounts go aside.
#[derive(Clone)]
struct Bill {
    silence: std::time::Duration,
}

impl Process for Bill {
    type Row = Click;
    type State = (i64, Option<Timestamp>);
    type Output = Total;
    type Side = Total;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        if click.amount < 0 {
            return key.emit_side(Total { user: click.user, total: click.amount });
        }
        let until = key.time() + self.silence;
        let (sum, latest) = key.state_mut();
        *sum += click.amount;
        *latest = Some(latest.map_or(until, |latest| latest.max(until)));
        key.set_timer(until);
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        let (total, latest) = *key.state();
        if latest.is_some_and(|latest| timer == Timer::Event(latest)) {
            key.emit(Total { user: key.key(), total });
            key.clear();
        }
    }
}

#[test]
fn sums_of_quiet_users_are_those_of_a_sorted_list() {
    let mut random = fastrand::Rng::with_seed(5);
    let clicks: Vec<_> = (0..4_000).map(|i| (random.i64(0..60), random.i64(-3..20), i * 10)).collect();
    let mut expected: Vec<String> = Vec::new();
    let mut open: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (user, amount, at) in clicks.iter().filter(|click| click.1 >= 0) {
        let (sum, latest) = open.entry(*user).or_insert((0, *at));
        if *at - *latest >= 1_000 {
            expected.push(format!("{user}|{sum}"));
            *sum = 0;
        }
        (*sum, *latest) = (*sum + amount, *at);
    }
    expected.extend(open.iter().map(|(user, (sum, _))| format!("{user}|{sum}")));
    expected.sort_unstable();
    for parallelism in 1..=3 {
        let splits = clicks.chunks(37).map(batch).collect();
        let job = Job::new("bills").parallelism(parallelism);
        let (bills, refunds) = (MemorySink::new(), MemorySink::new());
        let (totals, side) = job
            .source(MemorySource::new(batch(&[]).schema(), vec![splits]))
            .event_time("at", Watermarks::in_order())
            .typed::<Click>()
            .key_by("user")
            .process_with_side(Bill { silence: std::time::Duration::from_micros(1_000) });
        totals.drop_late().sink(bills.clone());
        side.sink(refunds.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&bills.batches()), expected, "parallelism {parallelism}");
        assert_eq!(refunds.rows(), clicks.iter().filter(|click| click.1 < 0).count());
        assert!(report.metrics.operators.iter().all(|operator| operator.balances()), "{}", report.metrics);
    }
}

/// Emits what it has counted a second of processing time after the first row of a user.
#[derive(Clone)]
struct Soon;

impl Process for Soon {
    type Row = Click;
    type State = (i64, i64);
    type Output = Total;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        let due = key.now() + secs(1);
        let (user, count) = key.state_mut();
        (*user, *count) = (click.user, *count + 1);
        if *count == 1 {
            key.set_processing_timer(due);
        }
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        let (user, total) = *key.state();
        key.emit(Total { user, total });
        key.clear();
    }
}

/// Keeps the last amounts of a user, and how often each amount has come; tells both when an amount comes for the third time.
#[derive(Clone)]
struct Thirds {
    times: MapState<i64, u32>,
    last: ListState<i64>,
}

#[derive(Record, Clone, Debug)]
pub(crate) struct Third {
    user: i64,
    last: String,
    times: String,
}

fn shown<T: std::fmt::Debug>(all: impl Iterator<Item = T>) -> String {
    format!("{:?}", all.collect::<Vec<_>>())
}

impl Process for Thirds {
    type Row = Click;
    type State = ();
    type Output = Third;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        let mut last = key.list(&self.last);
        last.push(click.amount);
        if last.len() > 4 {
            last.pop_front();
        }
        let last = shown(last.iter());
        let mut times = key.map(&self.times);
        let so_often = times.get(&click.amount).unwrap_or(0) + 1;
        times.insert(&click.amount, so_often);
        if so_often == 3 {
            let all = shown(times.iter());
            times.remove(&click.amount);
            key.emit(Third { user: key.key(), last, times: all });
        }
    }
}

#[test]
fn maps_and_lists_per_key_are_those_of_a_loop() {
    let mut random = fastrand::Rng::with_seed(8);
    let clicks: Vec<_> = (0..4_000).map(|i| (random.i64(0..40), random.i64(-9..9), i * 10)).collect();
    let mut expected = Vec::new();
    let mut users: BTreeMap<i64, (BTreeMap<i64, u32>, Vec<i64>)> = BTreeMap::new();
    for (user, amount, _) in &clicks {
        let (times, last) = users.entry(*user).or_default();
        last.push(*amount);
        *times.entry(*amount).or_default() += 1;
        if times[amount] == 3 {
            let last = shown(last.iter().skip(last.len().saturating_sub(4)));
            expected.push(format!("{user}|{last}|{}", shown(times.iter())));
            times.remove(amount);
        }
    }
    expected.sort_unstable();
    for parallelism in 1..=3 {
        let splits = clicks.chunks(37).map(batch).collect();
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_string_lossy();
        let job = Job::new("thirds").parallelism(parallelism).checkpoint(&*store, millis(5));
        let out = MemorySink::new();
        job.source(MemorySource::new(batch(&[]).schema(), vec![splits]))
            .event_time("at", Watermarks::in_order())
            .typed::<Click>()
            .key_by("user")
            .process(Thirds { times: MapState::new("times"), last: ListState::new("last") })
            .drop_late()
            .sink(out.clone());
        run(job).unwrap();
        assert_eq!(rows(&out.batches()), expected, "parallelism {parallelism}");
    }
}

/// Nothing comes after the rows: the clock alone wakes the task. The clock is tokio's, and leaps when all wait.
#[tokio::test(start_paused = true)]
async fn a_timer_of_processing_time_fires_while_nothing_comes() {
    for parallelism in [1, 2] {
        let (hand, source) = MemorySource::by_hand(batch(&[]).schema(), 1);
        let job = Job::new("soon").parallelism(parallelism);
        let out = MemorySink::new();
        job.source(source).typed::<Click>().key_by("user").on_arrival().process(Soon).sink(out.clone());
        let running = job.start().await.unwrap();
        let handle = running.handle();
        hand.push(0, batch(&[(1, 0, 0), (2, 0, 0), (1, 0, 0)]));
        let written = async {
            while out.written().iter().map(RecordBatch::num_rows).sum::<usize>() < 2 {
                tokio::time::sleep(millis(100)).await;
            }
        };
        tokio::time::timeout(secs(60), written).await.expect("the timers fire");
        end(&hand);
        running.wait().await.unwrap();
        drop(handle);
        assert_eq!(rows(&out.batches()), ["1|2", "2|1"]);
    }
}

fn end(hand: &MemoryInput) {
    hand.end_all();
}

/// Sessions, hopping and calendar windows against the same rows grouped by hand.
#[test]
fn every_kind_of_window_in_a_job() {
    let clicks: Vec<_> = (0..3_000).map(|i: i64| (i % 7, 1, (i * 7_919 % 3_000) * 1_000)).collect();
    let count_in = |window: fn(i64) -> Vec<(i64, i64)>| {
        let mut counts: BTreeMap<(i64, i64, i64), i64> = BTreeMap::new();
        for (user, _, at) in &clicks {
            for (start, end) in window(*at) {
                *counts.entry((start, end, *user)).or_default() += 1;
            }
        }
        counts.values().copied().collect::<Vec<_>>()
    };
    let hopping = count_in(|at| {
        let last = at.div_euclid(100_000) * 100_000;
        (0..5).map(|back| (last - back * 100_000, last - back * 100_000 + 500_000)).collect()
    });
    let cumulating = count_in(|at| {
        let start = at.div_euclid(1_000_000) * 1_000_000;
        let ends = (1..=4).map(|step| start + step * 250_000);
        ends.filter(|end| at < *end).map(|end| (start, end)).collect()
    });
    let days = count_in(|_| vec![(0, 0)]);
    let cases: [(&str, Window, Vec<i64>); 3] = [
        ("hopping", Hopping::of(millis(500), millis(100)), hopping),
        ("cumulating", Cumulating::of(secs(1), millis(250)), cumulating),
        ("days", Calendar::days("Europe/Berlin"), days),
    ];
    for (name, window, mut expected) in cases {
        for parallelism in 1..=2 {
            let job = Job::new("windows").parallelism(parallelism);
            let out = MemorySink::new();
            job.source(MemorySource::new(
                batch(&[]).schema(),
                clicks.chunks(1_500).map(|half| half.chunks(50).map(batch).collect()).collect(),
            ))
            .event_time("at", Watermarks::out_of_order(secs(3)))
            .key_by("user")
            .window(window.clone())
            .aggregate([count()])
            .drop_late()
            .select([col("count")])
            .sink(out.clone());
            run(job).unwrap();
            let mut found: Vec<i64> = rows(&out.batches()).iter().map(|row| row.parse().unwrap()).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{name}, parallelism {parallelism}");
        }
    }
    let job = Job::new("sessions").parallelism(2);
    let out = MemorySink::new();
    job.source(MemorySource::new(batch(&[]).schema(), vec![vec![batch(&[(1, 1, 0), (1, 1, 900), (1, 1, 3_000)])]]))
        .event_time("at", Watermarks::in_order())
        .key_by("user")
        .window(Session::gap(millis(1)))
        .aggregate([count()])
        .drop_late()
        .select([col("count")])
        .sink(out.clone());
    on_two_threads(job.run()).unwrap();
    assert_eq!(rows(&out.batches()), ["1", "2"]);
}

/// Sets a timer of processing time that is due at once, again and again.
#[derive(Clone)]
struct Restless;

impl Process for Restless {
    type Row = Click;
    type State = i64;
    type Output = Total;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        *key.state_mut() += 1;
        if *key.state() == 100 {
            key.emit(Total { user: click.user, total: 100 });
        }
        key.set_processing_timer(key.now());
    }

    fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
        key.state_mut();
        key.set_processing_timer(key.now());
    }
}

#[test]
fn timers_that_are_always_due_do_not_keep_the_rows_waiting() {
    for parallelism in [1, 2] {
        let splits = (0..100).map(|i| batch(&[(1, 1, i), (2, 1, i)])).collect();
        let job = Job::new("restless").parallelism(parallelism);
        let out = MemorySink::new();
        job.source(MemorySource::new(batch(&[]).schema(), vec![splits]))
            .typed::<Click>()
            .key_by("user")
            .on_arrival()
            .process(Restless)
            .sink(out.clone());
        run(job).unwrap();
        assert_eq!(rows(&out.batches()), ["1|100", "2|100"]);
    }
}
