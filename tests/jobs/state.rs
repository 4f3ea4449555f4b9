//! What `state::open` shows of every operator with state: what a plain computation says it still holds.
//!
//! ```text
//!   rows by hand ─► all operators, each with an id ─► savepoint, more rows, stop, other parallelism, … ─► state::open
//!        └─────────► a loop over all rows ──────────────────────────────────────────────────────────────────┴─ equal?
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tests::{on_two_threads, rows};
use windrow::{JobHandle, prelude::*, state::State as Saved};

use crate::clicks::{Click, ClickView, Hand, Payment, Row};

/// Counts the rows of a user and remembers how often each amount came; an amount that five divides clears it.
#[derive(Clone)]
struct Tally;

#[derive(Default, Serialize, Deserialize)]
struct Seen {
    count: u64,
    amounts: BTreeMap<i64, u64>,
}
impl State for Seen {}

#[derive(Record)]
pub(crate) struct Nothing {
    user: i64,
}

impl Process for Tally {
    type Row = Click;
    type State = Seen;
    type Output = Nothing;
    type Side = NoSide;

    fn row(&mut self, click: ClickView<'_>, key: &mut Keyed<'_, Self>) {
        if click.amount % 5 == 0 {
            return key.clear();
        }
        let seen = key.state_mut();
        seen.count += 1;
        *seen.amounts.entry(click.amount).or_default() += 1;
    }
}

/// Remembers all rules, and the last amount of a user.
#[derive(Clone)]
struct Ruled;

impl BroadcastProcess for Ruled {
    type Row = Click;
    type Rule = Payment;
    type Rules = Vec<i64>;
    type State = i64;
    type Output = Nothing;
    type Side = NoSide;

    fn rule(&mut self, rule: crate::clicks::PaymentView<'_>, rules: &mut Vec<i64>) {
        rules.push(rule.paid);
    }

    fn row(&mut self, click: ClickView<'_>, _: &Vec<i64>, key: &mut KeyedBy<'_, Self>) {
        *key.state_mut() = click.amount;
    }
}

fn job(clicks: &Hand, payments: &Hand, store: &str, parallelism: usize) -> Job {
    let job = Job::new("all").checkpoint(store, hours(1)).parallelism(parallelism);
    let (left, right) = (clicks.timed::<Click>(&job), payments.timed::<Payment>(&job));
    let by_user = || left.clone().key_by("user");
    let windows: [(&str, windrow::WindowKind); 6] = [
        ("tumbling", Tumbling::of(secs(10)).into()),
        ("hopping", Hopping::of(secs(10), secs(5)).into()),
        ("cumulating", Cumulating::of(secs(20), secs(5)).into()),
        ("calendar", Calendar::days("UTC").into()),
        ("session", Session::gap(secs(3)).into()),
        ("count", Count::of(4).into()),
    ];
    for (id, window) in windows {
        let counts = by_user().window(window).aggregate([count().alias("n"), sum(col("amount")).alias("total")]);
        counts.drop_late().id(id).discard();
    }
    left.clone().window(Tumbling::of(secs(10))).aggregate([count().alias("n")]).drop_late().id("unkeyed").discard();
    left.clone().window(Tumbling::of(secs(10))).top(2, "amount").drop_late().id("top").discard();
    left.clone().window(Count::of(4)).aggregate([count().alias("n")]).drop_late().id("unkeyed-count").discard();
    by_user().in_order().drop_late().id("sort").discard();
    by_user().deduplicate(secs(8)).drop_late().id("dedup").discard();
    by_user().on_arrival().process(Tally).id("process").discard();
    by_user().with_rules(right.clone()).process(Ruled).id("rules").discard();
    let ones = Pattern::begin("one", col("amount").eq(lit(1))).next("two", col("amount").eq(lit(2))).within(secs(10));
    by_user().pattern(&ones, [first("one", "amount")]).drop_late().id("pattern").discard();
    by_user().ttl(secs(10)).aggregate([count().alias("n")]).drop_late().id("totals").discard();
    left.clone().key_by(Vec::<String>::new()).aggregate([count().alias("n")]).id("all-totals").discard();
    by_user().latest_unless(col("amount").lt(lit(3))).drop_late().id("unless").discard();
    let join = |kind| by_user().join(right.clone().key_by("other")).kind(kind);
    join(JoinType::Inner).window(Tumbling::of(secs(10))).drop_late().id("window-join").discard();
    join(JoinType::Inner).within(secs(2), secs(2)).drop_late().id("near").discard();
    join(JoinType::Full).within(secs(2), secs(2)).drop_late().id("near-full").discard();
    join(JoinType::Left).as_of().drop_late().id("as-of").discard();
    let newest = by_user().latest().id("latest");
    let paid = right.key_by("other").latest().id("paid");
    newest.key_by("user").join(paid.key_by("other")).tables().id("tables").discard();
    job
}

async fn read(job: &JobHandle, clicks: usize, payments: usize) {
    let out = |job: &JobHandle| job.metrics().named("source").map(|source| source.rows_out).collect::<Vec<_>>();
    let wanted = [clicks as u64, payments as u64];
    while out(job).iter().sum::<u64>() < wanted.iter().sum() {
        tokio::task::yield_now().await;
    }
}

const SECOND: i64 = 1_000_000;
/// How many rows come at once.
const PUSHED: usize = 12;

/// All rows so far, with how far event time has come for one of the streams and for both.
struct All<'a> {
    clicks: &'a [Row],
    payments: &'a [Row],
    watermark: i64,
    both: i64,
}

/// The columns of a table as text, sorted.
fn shown(state: &Saved, table: &str, columns: &[&str]) -> Vec<String> {
    let rows_of = state.table(table).unwrap_or_else(|| panic!("{table} in {state}")).rows();
    let columns: Vec<usize> = columns.iter().map(|name| rows_of.schema().index_of(name).unwrap()).collect();
    rows(&[rows_of.project(&columns).unwrap()])
}

fn time(seconds: i64) -> String {
    Timestamp::from_micros(seconds * SECOND).to_string()
}

fn sorted(rows: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().collect();
    rows.sort_unstable();
    rows
}

/// Count and sum per slice of five or ten seconds and user.
fn slices(all: &All<'_>, size: i64, is_open: impl Fn(i64) -> bool) -> Vec<String> {
    let mut groups: BTreeMap<(i64, i64), (i64, i64)> = BTreeMap::new();
    for (user, amount, at) in all.clicks {
        let (n, total) = groups.entry((at.div_euclid(size) * size, *user)).or_default();
        (*n, *total) = (*n + 1, *total + amount);
    }
    let open = groups.into_iter().filter(|((start, _), _)| is_open(*start));
    sorted(open.map(|((start, user), (n, total))| format!("{}|{user}|{n}|{total}", time(start))))
}

fn windows_are_right(state: &Saved, all: &All<'_>) {
    let w = all.watermark;
    let columns = ["window_start", "user", "n", "total"];
    assert_eq!(shown(state, "tumbling", &columns), slices(all, 10, |start| start + 10 > w), "tumbling");
    assert_eq!(shown(state, "hopping", &columns), slices(all, 5, |start| start + 10 > w), "hopping");
    let of_period = |start: i64| start.div_euclid(20) * 20 + 20 > w;
    assert_eq!(shown(state, "cumulating", &columns), slices(all, 5, of_period), "cumulating");
    assert_eq!(shown(state, "calendar", &columns), slices(all, 86_400, |_| true), "calendar");
    let open: Vec<&Row> = all.clicks.iter().filter(|row| row.2.div_euclid(10) * 10 + 10 > w).collect();
    let count = (!open.is_empty()).then(|| open.len().to_string());
    assert_eq!(shown(state, "unkeyed", &["n"]), Vec::from_iter(count), "unkeyed");
    let mut amounts: Vec<i64> = open.iter().map(|row| row.1).collect();
    amounts.sort_unstable_by_key(|amount| -amount);
    assert_eq!(shown(state, "top", &["amount"]), sorted(amounts.iter().take(2).map(i64::to_string)), "top");

    // Sessions are in parts, which are added up.
    let mut open: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for &(user, _, at) in all.clicks {
        let (n, last) = open.entry(user).or_insert((0, at));
        *n = if at < *last + 3 { *n + 1 } else { 1 };
        *last = at;
    }
    let open = open.into_iter().filter(|(_, (_, last))| last + 3 > w).map(|(user, (n, _))| (user, n));
    let mut found: BTreeMap<i64, i64> = BTreeMap::new();
    for row in shown(state, "session", &["user", "n"]) {
        let (user, n) = row.split_once('|').unwrap();
        *found.entry(user.parse().unwrap()).or_default() += n.parse::<i64>().unwrap();
    }
    assert_eq!(found, open.collect(), "session");
}

fn order_is_right(state: &Saved, all: &All<'_>) {
    let w = all.watermark;
    let waiting = || all.clicks.iter().filter(|row| row.2 >= w);
    let waiting = sorted(waiting().map(|(user, amount, at)| format!("{user}|{amount}|{}", time(*at))));
    assert_eq!(shown(state, "sort", &["user", "amount", "at"]), waiting, "sort");

    let passed = || all.clicks.iter().filter(|row| row.2 < w);
    let mut counts: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    passed().for_each(|(user, _, at)| counts.entry(*user).or_default().push(*at));
    let started = |rows: &[i64]| rows.chunks(4).last().filter(|last| last.len() < 4).map(|last| (last.len(), last[0]));
    let of_user = |(user, rows): (&i64, &Vec<i64>)| started(rows).map(|(n, at)| format!("{user}|[{n}]|[{}]", time(at)));
    let open = sorted(counts.iter().filter_map(of_user));
    assert_eq!(shown(state, "count", &["user", "n", "window_start"]), open, "count");
    let at: Vec<i64> = passed().map(|row| row.2).collect();
    let open = started(&at).map(|(n, at)| format!("[{n}]|[{}]", time(at)));
    assert_eq!(shown(state, "unkeyed-count", &["n", "window_start"]), Vec::from_iter(open), "unkeyed-count");

    let mut firsts: BTreeMap<i64, i64> = BTreeMap::new();
    for &(user, _, at) in passed() {
        let first = firsts.entry(user).or_insert(at);
        *first = if at > *first + 8 { at } else { *first };
    }
    let kept = firsts.into_iter().filter(|(_, first)| first + 8 >= w);
    assert_eq!(
        shown(state, "dedup", &["user", "time"]),
        sorted(kept.map(|(u, at)| format!("{u}|{}", time(at)))),
        "dedup"
    );
}

fn functions_are_right(state: &Saved, all: &All<'_>) {
    let mut seen: BTreeMap<i64, Seen> = BTreeMap::new();
    let mut last: BTreeMap<i64, i64> = BTreeMap::new();
    for (user, amount, _) in all.clicks {
        last.insert(*user, *amount);
        if amount % 5 == 0 {
            seen.remove(user);
            continue;
        }
        let seen = seen.entry(*user).or_default();
        seen.count += 1;
        *seen.amounts.entry(*amount).or_default() += 1;
    }
    // The keys of JSON are in the order of text.
    let json = |seen: &Seen| {
        let amounts: BTreeMap<String, u64> = seen.amounts.iter().map(|(k, v)| (k.to_string(), *v)).collect();
        serde_json::json!({ "amounts": amounts, "count": seen.count })
    };
    let expected = sorted(seen.iter().map(|(user, seen)| format!("{user}|{}", json(seen))));
    assert_eq!(shown(state, "process", &["user", "state"]), expected, "process");

    let paid: Vec<i64> = all.payments.iter().map(|row| row.1).collect();
    let mut expected: Vec<String> = last.iter().map(|(user, amount)| format!("{user}|{amount}|null")).collect();
    expected.push(format!("null|null|{}", serde_json::json!(paid)));
    assert_eq!(shown(state, "rules", &["user", "state", "rules"]), sorted(expected), "rules");
}

fn tables_are_right(state: &Saved, all: &All<'_>) {
    // Of rows of one time the last by its columns.
    let newest = |rows: &[Row]| {
        let mut rows = rows.to_vec();
        rows.sort_by_key(|row| (row.2, row.1));
        rows.into_iter().map(|row| (row.0, row)).collect::<BTreeMap<i64, Row>>()
    };
    let (clicks, payments) = (newest(all.clicks), newest(all.payments));
    let text = |rows: &BTreeMap<i64, Row>| sorted(rows.values().map(|(key, value, _)| format!("{key}|{value}")));
    assert_eq!(shown(state, "latest", &["user", "amount"]), text(&clicks), "latest");
    let mut kept = clicks.clone();
    kept.retain(|_, row| row.1 >= 3);
    assert_eq!(shown(state, "unless", &["user", "amount"]), text(&kept), "unless");
    let both = clicks.values().map(|(user, amount, _)| format!("0|{user}|{amount}|null|null"));
    let both = both.chain(payments.values().map(|(other, paid, _)| format!("1|null|null|{other}|{paid}")));
    let columns = ["side", "left.user", "left.amount", "right.other", "right.paid"];
    assert_eq!(shown(state, "tables", &columns), sorted(both), "tables");

    let mut totals: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for pushed in all.clicks.chunks(PUSHED) {
        for &(user, _, at) in pushed {
            let (n, last) = totals.entry(user).or_insert((0, at));
            (*n, *last) = (*n + 1, at);
        }
        // The watermark comes after the rows of a batch.
        totals.retain(|_, (_, last)| *last + 10 >= pushed[pushed.len() - 1].2);
    }
    let kept = totals.iter().map(|(user, (n, _))| format!("{user}|{n}"));
    assert_eq!(shown(state, "totals", &["user", "n"]), sorted(kept), "totals");
    assert_eq!(shown(state, "all-totals", &["n"]), [all.clicks.len().to_string()], "all-totals");
}

fn joins_are_right(state: &Saved, all: &All<'_>) {
    let w = all.both;
    let columns = ["left.user", "left.amount", "right.other", "right.paid"];
    let expected = |left: &dyn Fn(&Row) -> bool, right: &dyn Fn(&Row) -> bool| {
        let left = all.clicks.iter().filter(|row| left(row)).map(|row| format!("{}|{}|null|null", row.0, row.1));
        let right = all.payments.iter().filter(|row| right(row)).map(|row| format!("null|null|{}|{}", row.0, row.1));
        sorted(left.chain(right))
    };
    let open = |row: &Row| row.2.div_euclid(10) * 10 + 10 > w;
    assert_eq!(shown(state, "window-join", &columns), expected(&open, &open), "window-join");
    let near = |row: &Row| row.2 + 2 >= w;
    assert_eq!(shown(state, "near", &columns), expected(&near, &near), "near");
    let looked_for = |row: &Row| row.2 + 4 >= w;
    assert_eq!(shown(state, "near-full", &columns), expected(&looked_for, &looked_for), "near-full");
    let mut passed: Vec<&Row> = all.payments.iter().filter(|row| row.2 < w).collect();
    passed.sort_by_key(|row| (row.2, row.1)); // of versions of one time the last by its columns
    let newest: BTreeMap<i64, &Row> = passed.into_iter().map(|row| (row.0, row)).collect();
    let version = |row: &Row| row.2 >= w || newest.get(&row.0) == Some(&row);
    assert_eq!(shown(state, "as-of", &columns), expected(&|row| row.2 >= w, &version), "as-of");
}

/// Users 0 to 5, each amount once at most in a row of ten, times that never go back and sometimes stand still.
fn drawn(random: &mut fastrand::Rng, from: i64) -> Vec<Row> {
    let mut at = from;
    let row = |i: i64| {
        at += [0, 0, 1, 1, 2, 7][random.usize(0..6)];
        (random.i64(0..6), 20 * random.i64(0..3) + i % 20, at)
    };
    (0..PUSHED as i64).map(row).collect()
}

#[test]
fn what_is_shown_of_each_operator_is_what_it_holds() {
    for seed in 0..4 {
        on_two_threads(async {
            let random = &mut fastrand::Rng::with_seed(seed);
            let directory = tempfile::tempdir().unwrap();
            let store = directory.path().to_str().unwrap();
            let (clicks, payments) = (Hand::of_clicks(), Hand::of_payments());
            let (mut left, mut right): (Vec<Row>, Vec<Row>) = (Vec::new(), Vec::new());
            for parallelism in [1 + seed as usize % 3, 1 + random.usize(0..4)] {
                let (mut read_left, mut read_right) = (0, 0);
                let running = job(&clicks, &payments, store, parallelism).start().await.unwrap();
                let handle = running.handle();
                for save in 0..4 {
                    let last = |rows: &[Row]| rows.last().map_or(0, |row| row.2);
                    // At one instant twice the same row could stand: times of a key must not be equal between the pushes.
                    let more = [&left, &right].map(|rows| drawn(random, last(rows) + 1));
                    clicks.give(&more[0]);
                    payments.give(&more[1]);
                    (read_left, read_right) = (read_left + more[0].len(), read_right + more[1].len());
                    left.extend(&more[0]);
                    right.extend(&more[1]);
                    read(&handle, read_left, read_right).await;
                    handle.savepoint(format!("{parallelism}-{save}-{}", left.len())).await.unwrap();
                }
                handle.stop();
                running.wait().await.unwrap();
                let state = windrow::state::open(format!("{store}/all")).await.unwrap();
                let watermark = left.last().unwrap().2;
                let both = watermark.min(right.last().unwrap().2);
                let all = All { clicks: &left, payments: &right, watermark, both };
                windows_are_right(&state, &all);
                order_is_right(&state, &all);
                functions_are_right(&state, &all);
                tables_are_right(&state, &all);
                joins_are_right(&state, &all);
            }
        });
    }
}

#[test]
fn a_pattern_shows_the_rows_of_what_has_begun() {
    on_two_threads(async {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().to_str().unwrap();
        let (clicks, payments) = (Hand::of_clicks(), Hand::of_payments());
        let running = job(&clicks, &payments, store, 1).start().await.unwrap();
        let handle = running.handle();
        // 1 is complete, 2 has begun, 3 is broken, 4 has begun too long ago, 5 has only just come.
        let pushes: [&[Row]; 3] = [
            &[(4, 1, 1), (1, 1, 20), (2, 1, 20), (3, 1, 20)],
            &[(1, 2, 22), (3, 7, 22), (2, 9, 22), (2, 1, 23)],
            &[(5, 1, 25), (5, 1, 26)],
        ];
        let mut given = 0;
        for rows in pushes {
            clicks.give(rows);
            given += rows.len();
            read(&handle, given, 0).await;
            handle.savepoint(format!("at-{given}")).await.unwrap();
        }
        handle.stop();
        running.wait().await.unwrap();
        let state = windrow::state::open(format!("{store}/all")).await.unwrap();
        let expected = sorted([(2, 23), (5, 25)].map(|(user, at)| format!("{user}|1|{}", time(at))));
        assert_eq!(shown(&state, "pattern", &["user", "amount", "at"]), expected, "{state}");
    });
}
