//! Every query beside an oracle: naive Rust over the events as the crate has them, which shares no code with Windrow.
//!
//! ```text
//!   Events ─┬─► columns ──► Site ──► query at parallelism 1, 2, 4 ──► rows as text, sorted ─┐
//!           └─► structs ──► oracle ─────────────────────────────────► rows as text, sorted ─┴─ the same, and some
//! ```
//!
//! `cargo test -p benches --test nexmark`. In order and shuffled, in few batches and in many, over midnight and over the hour at which
//! the day ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod oracle;
mod oracle_auctions;
mod oracle_windows;
mod text;

use std::{collections::BTreeMap, fs, sync::OnceLock};

use benches::nexmark::{
    Checksum, Distinct, Events, Settings, Site, Sum,
    events::MIDNIGHT,
    measure,
    queries::{ALL, Answer, AnySink, Query, named},
};
use windrow::prelude::*;

use self::oracle::Tables;

const SECOND: u64 = 1000;

/// A configuration of each kind: the events, and the parallelism.
struct Setting {
    site: Site,
    tables: Tables,
    parallelism: usize,
}

impl Setting {
    fn new(parallelism: usize, events: Events) -> Self {
        let events = Events { splits: parallelism, ..events };
        Self { tables: Tables::new(&events), site: Site::ready(events).unwrap(), parallelism }
    }
}

/// 40 to 80 seconds of event time.
fn settings() -> &'static [Setting] {
    static SETTINGS: OnceLock<Vec<Setting>> = OnceLock::new();
    SETTINGS.get_or_init(|| {
        let common = Events { count: 40_000, rate: 1000, ..Events::default() };
        let midnight = Events { start: MIDNIGHT - 20 * SECOND, ..common };
        let seven = MIDNIGHT + 19 * 3600 * SECOND - 30 * SECOND;
        // 80 seconds are too many for the sessions of q11 to be one, and an hour ends in them.
        let slow = Events { seed: 7, rate: 500, start: seven, ..common };
        vec![
            Setting::new(1, midnight.clone()),
            Setting::new(2, Events { batch: 1300, seed: 2, ..midnight.clone() }),
            Setting::new(4, Events { batch: 800, seed: 4, ..slow.clone() }),
            Setting::new(1, Events { shuffled: 500, batch: 1100, seed: 3, count: 30_000, ..midnight.clone() }),
            Setting::new(2, Events { shuffled: 1000, batch: 700, seed: 1, ..midnight }),
            Setting::new(4, Events { shuffled: 300, batch: 1900, ..slow }),
        ]
    })
}

/// The rows of the answer as text, sorted.
fn answer(query: Query, site: &Site, parallelism: usize) -> Vec<String> {
    let job = Job::new(query.name).parallelism(parallelism);
    let (rows, table) = (MemorySink::new(), MemoryTable::new());
    match query.answer {
        Answer::Rows => (query.build)(site, &job, AnySink::new(rows.clone())),
        Answer::Table => (query.build)(site, &job, AnySink::new(table.clone())),
    }
    let report = tokio::runtime::Runtime::new().unwrap().block_on(job.run()).unwrap();
    for operator in &report.metrics.operators {
        assert!(operator.balances(), "{}: {operator:?}", query.name);
        assert_eq!((operator.late, operator.rejected), (0, 0), "{}: {operator:?}", query.name);
    }
    text::rows(&if query.answer == Answer::Rows { rows.batches() } else { table.batches() })
}

fn check(name: &str, oracle: fn(&Tables) -> Vec<String>) {
    let query = named(name).unwrap();
    for Setting { site, tables, parallelism } in settings() {
        let mut expected = oracle(tables);
        expected.sort_unstable();
        let rows = answer(query, site, *parallelism);
        assert!(!rows.is_empty(), "{name} has no rows at parallelism {parallelism}");
        let differ = rows.iter().zip(&expected).find(|(row, expected)| row != expected);
        assert_eq!(differ, None, "{name} at parallelism {parallelism}");
        assert_eq!(rows.len(), expected.len(), "{name} at parallelism {parallelism}");
    }
}

macro_rules! checks {
    ($($name:ident $oracle:path;)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name), $oracle);
        })*

        #[test]
        fn no_query_is_left_out() {
            assert_eq!([$(stringify!($name)),*], ALL.map(|query| query.name));
        }
    };
}

checks! {
    q0 oracle::q0;
    q1 oracle::q1;
    q2 oracle::q2;
    q3 oracle_auctions::q3;
    q4 oracle_auctions::q4;
    q5 oracle_windows::q5;
    q6 oracle_auctions::q6;
    q7 oracle_windows::q7;
    q8 oracle_windows::q8;
    q9 oracle_auctions::q9;
    q10 oracle::q10;
    q11 oracle_windows::q11;
    q12 oracle_windows::q12;
    q13 oracle::q13;
    q14 oracle::q14;
    q15 oracle_windows::q15;
    q16 oracle_windows::q16;
    q17 oracle_windows::q17;
    q18 oracle::q18;
    q19 oracle_windows::q19;
    q20 oracle_auctions::q20;
    q21 oracle::q21;
    q22 oracle::q22;
    kt oracle_windows::kt;
}

#[test]
fn the_log_of_q10_has_all_bids_where_they_belong() {
    let events = Events { count: 5_000, rate: 50, start: MIDNIGHT - 50 * SECOND, ..Events::default() };
    let (site, tables) = (Site::ready(events.clone()).unwrap(), Tables::new(&events));
    answer(named("q10").unwrap(), &site, 2);
    let mut lines = Vec::new();
    for day in fs::read_dir(site.log()).unwrap().map(Result::unwrap) {
        for minute in fs::read_dir(day.path()).unwrap().map(Result::unwrap) {
            let place = format!("{}/{}", day.file_name().to_str().unwrap(), minute.file_name().to_str().unwrap());
            for file in fs::read_dir(minute.path()).unwrap().map(Result::unwrap) {
                let text = fs::read_to_string(file.path()).unwrap();
                // After the header.
                lines.extend(text.lines().skip(1).map(|line| format!("{place} {line}")));
            }
        }
    }
    lines.sort_unstable();
    let mut expected = oracle::log(&tables);
    expected.sort_unstable();
    assert!(lines.iter().any(|line| line.starts_with("dt=2015-07-14/hm=2359 ")));
    assert!(lines.iter().any(|line| line.starts_with("dt=2015-07-15/hm=0 ")));
    assert_eq!(lines, expected);
}

#[test]
fn events_that_are_made_as_they_are_asked_for_are_the_same() {
    let events = Events { count: 20_000, rate: 1000, shuffled: 100, batch: 900, splits: 3, ..Events::default() };
    let [ready, inline] = [Site::ready(events.clone()).unwrap(), Site::inline(events).unwrap()];
    for name in ["q0", "q5", "q8", "q9"] {
        let [of_ready, of_inline] = [&ready, &inline].map(|site| answer(named(name).unwrap(), site, 2));
        assert!(!of_ready.is_empty());
        assert_eq!(of_ready, of_inline, "{name}");
    }
}

#[test]
fn a_checksum_is_that_of_the_rows_whatever_the_parallelism() {
    let events = Events { count: 10_000, rate: 500, splits: 2, ..Events::default() };
    let site = Site::ready(events).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tasks = |parallelism| Settings { parallelism, memory_budget: None };
    for query in ALL {
        let [one, four] = [1, 4].map(|n| runtime.block_on(measure::answer(&query, &site, tasks(n))).unwrap());
        assert_eq!(one, four, "{}", query.name);
        assert_eq!(one.rows as usize, answer(query, &site, 1).len(), "{}", query.name);
        let measured = runtime.block_on(measure::measure(&query, &site, tasks(2), 1, one)).unwrap();
        assert_eq!((measured.rows, measured.checksum), (one.rows, one.hashes));
        assert!(measured.rate > 0.0 && measured.seconds > 0.0, "{measured:?}");
    }
    assert_eq!(Checksum::new().total(), Sum::default());
}

/// As in the suite, a bid ten seconds after the last one goes on with its session. In the settings above there is hardly any.
#[test]
fn sessions_that_touch_are_one() {
    // An event each half second.
    let events = Events { count: 4_000, rate: 2, splits: 2, batch: 300, ..Events::default() };
    let (site, tables) = (Site::ready(events.clone()).unwrap(), Tables::new(&events));
    let mut times: BTreeMap<usize, Vec<u64>> = BTreeMap::new();
    tables.bids.iter().for_each(|bid| times.entry(bid.bidder).or_default().push(bid.date_time));
    let touch = |times: &Vec<u64>| times.is_sorted() && times.windows(2).any(|pair| pair[1] - pair[0] == 10 * SECOND);
    assert!(times.values().any(touch));
    let mut expected = oracle_windows::q11(&tables);
    expected.sort_unstable();
    assert_eq!(answer(named("q11").unwrap(), &site, 2), expected);
}

/// As in the suite: bids are filtered out of a stream of all kinds.
#[test]
fn bids_among_other_events_give_the_same_answer() {
    let events = Events { count: 20_000, rate: 1000, batch: 900, splits: 2, ..Events::default() };
    let [apart, mixed] = [Site::ready(events.clone()).unwrap(), Site::mixed(events).unwrap()];
    for name in ["q0", "q1", "q2", "q3", "q5", "q9"] {
        let [of_apart, of_mixed] = [&apart, &mixed].map(|site| answer(named(name).unwrap(), site, 2));
        assert!(!of_apart.is_empty());
        assert_eq!(of_apart, of_mixed, "{name}");
    }
}

/// 40 s of event time in 0.4 s: the times of all results are taken, but for the first tenth and those that the end of the input brings.
#[test]
fn results_have_latencies() {
    let site = Site::ready(Events { count: 40_000, rate: 1000, splits: 2, ..Events::default() }).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (name, results) in [("q0", 33_120..33_121), ("q5", 17..60), ("q7", 3..30), ("q8", 1..800), ("kt", 1_000..9_000)]
    {
        let settings = Settings { parallelism: 2, memory_budget: None };
        let query = named(name).unwrap();
        let latency = measure::latency(&query, &site, settings, 100_000.0);
        let latency = runtime.block_on(latency).unwrap().unwrap();
        assert!(results.contains(&latency.results), "{name}: {latency:?}");
        assert!(latency.p50 > 0.0 && latency.p50 <= latency.p99 && latency.p99 <= latency.p999, "{name}: {latency:?}");
        assert_eq!(latency.rate, 100_000.0);
    }
    let settings = Settings { parallelism: 1, memory_budget: None };
    let none = runtime.block_on(measure::latency(&named("q2").unwrap(), &site, settings, 1e6)).unwrap();
    assert_eq!(none, None, "its results do not say which event they are about");
}

/// The demand is 50 million auctions and 256 MiB: see `benches/README.md`.
#[test]
fn more_auctions_than_memory_give_the_known_answer() {
    let bids = Distinct::new(150_000);
    let expected = Sum::of(&bids.q5().unwrap()).unwrap();
    assert_eq!(expected.rows, 9);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (q5, site) = (named("q5").unwrap(), Site::distinct(bids).unwrap());
    for (parallelism, memory_budget) in [(1, None), (1, Some(3 << 20)), (2, Some(3 << 20))] {
        let settings = Settings { parallelism, memory_budget };
        let site = site.splits(parallelism);
        let run = measure::measure_known(&q5, &site, settings, 1, expected);
        let measured = runtime.block_on(run).unwrap();
        assert_eq!(measured.spilled_bytes > 1 << 20, memory_budget.is_some(), "{measured:?}");
    }
    let settings = Settings { parallelism: 1, memory_budget: None };
    let wrong = runtime.block_on(measure::measure_known(&q5, &site, settings, 1, Sum::default()));
    assert!(wrong.unwrap_err().to_string().contains("the answer is"));
}

/// What the figures of other engines were measured on: the first tenth of it. The figures of the whole are in the next test.
#[test]
fn the_stream_is_the_one_that_others_were_measured_on() {
    let events = Events { count: 1_000_000, ..Events::default() };
    assert_eq!(oracle_windows::kt_totals(&events), [59_993, 920_000, 6_677_208_808_305, 2_183_044_532_964]);
}

/// Takes a minute or two without optimisation: `cargo test -p benches --test nexmark -- --ignored`.
#[test]
#[ignore = "makes ten million events"]
fn the_whole_stream_is_the_one_that_others_were_measured_on() {
    let totals = oracle_windows::kt_totals(&Events::default());
    assert_eq!(totals, [600_508, 9_200_000, 66_566_988_935_253, 21_806_477_034_176]);
}
