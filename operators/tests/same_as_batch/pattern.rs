//! Patterns behind a sort, against the table of the module's documentation: row after row by looking at all rows of the
//! key, from each first row.

use std::{collections::BTreeMap, time::Duration};

use datafusion_expr::{Expr, col, lit};
use proptest::prelude::*;
use windrow_operators::{
    Operator, Outbox, Port, Timestamp,
    pattern::{Condition, Measure, Pattern, PatternPlan, Skip, count_of, first, last},
    sort::SortPlan,
    testing::{Check, Pipeline, Row, Value},
};

use crate::{
    aggregate::{KEYS, key_of},
    bids::{Bid, bids, cases, fail, some_bids, us},
    count::Saved,
    sort::{Fault, Faulty, advance, batch, caught, in_order, is_late, sorted},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Join {
    Next,
    FollowedBy,
    NotNext,
    NotFollowedBy,
}

#[derive(Clone, Copy, Debug)]
enum Fits {
    AtLeast(i64),
    Below(i64),
    /// The same by a closure.
    Dear(i64),
    /// More than the last row of the step of this number, counted over all steps.
    MoreThan(usize),
}

#[derive(Clone, Copy, Debug)]
struct Step {
    join: Join,
    fits: Fits,
    least: usize,
    most: usize,
    optional: bool,
}

impl Step {
    fn takes_rows(&self) -> bool {
        matches!(self.join, Join::Next | Join::FollowedBy)
    }

    fn is_strict(&self) -> bool {
        self.join == Join::Next
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Spec {
    /// The first is strict.
    steps: Vec<Step>,
    within: u64,
    to_next: bool,
}

fn name(step: usize) -> String {
    format!("s{step}")
}

impl Spec {
    /// Whether it is a pattern at all.
    fn is_allowed(&self) -> bool {
        let needed = |step: &&Step| step.takes_rows() && !step.optional;
        let last_needed = self.steps.iter().rposition(|step| needed(&step)).unwrap();
        let behind = &self.steps[last_needed..];
        let absent = behind.iter().position(|step| !step.takes_rows());
        let ends = absent.is_none_or(|at| behind[at..].iter().all(|step| !step.takes_rows()));
        let refers = |(at, step): (usize, &Step)| match step.fits {
            Fits::MoreThan(other) => other <= at && self.steps[other].takes_rows(),
            _ => true,
        };
        ends && self.steps.last().unwrap().join != Join::NotNext && self.steps.iter().enumerate().all(refers)
    }

    fn pattern(&self) -> Pattern {
        let mut pattern: Option<Pattern> = None;
        for (at, step) in self.steps.iter().enumerate() {
            let condition: Condition = match step.fits {
                Fits::AtLeast(price) => col("price").gt_eq(lit(price)).into(),
                Fits::Below(price) => col("price").lt(lit(price)).into(),
                Fits::Dear(least) => Condition::by::<Bid, _>(move |bid| bid.price.is_some_and(|price| price >= least)),
                Fits::MoreThan(other) => col("price").gt(col(format!("{}.price", name(other)))).into(),
            };
            let added = match (pattern, step.join) {
                (None, _) => Pattern::begin(name(at), condition),
                (Some(pattern), Join::Next) => pattern.next(name(at), condition),
                (Some(pattern), Join::FollowedBy) => pattern.followed_by(name(at), condition),
                (Some(pattern), Join::NotNext) => pattern.not_next(name(at), condition),
                (Some(pattern), Join::NotFollowedBy) => pattern.not_followed_by(name(at), condition),
            };
            let added = match (step.takes_rows(), step.least, step.most) {
                (false, ..) | (_, 1, 1) => added,
                (_, 1, usize::MAX) => added.one_or_more(),
                (_, least, most) if least == most => added.times(least as u64),
                (_, least, most) => added.times_between(least as u64, most as u64),
            };
            pattern = Some(if step.takes_rows() && step.optional { added.optional() } else { added });
        }
        let skip = if self.to_next { Skip::ToNext } else { Skip::PastLast };
        pattern.unwrap().within(us(self.within)).skip(skip)
    }

    /// Of each step that takes rows: how many, the first price, the last price.
    fn measures(&self) -> Vec<Measure> {
        let taking = (0..self.steps.len()).filter(|&at| self.steps[at].takes_rows());
        taking.flat_map(|at| [count_of(&name(at)), first(&name(at), "price"), last(&name(at), "price")]).collect()
    }
}

/// A match in the making: which step took which row.
struct Search<'a> {
    spec: &'a Spec,
    rows: &'a [Bid],
    taken: Vec<(usize, usize)>,
}

impl Search<'_> {
    fn fits(&self, step: usize, row: usize) -> bool {
        let Some(price) = self.rows[row].price else { return false };
        match self.spec.steps[step].fits {
            Fits::AtLeast(least) | Fits::Dear(least) => price >= least,
            Fits::Below(bound) => price < bound,
            Fits::MoreThan(other) => {
                let last = self.taken.iter().rfind(|(step, _)| *step == other);
                last.and_then(|(_, row)| self.rows[*row].price).is_some_and(|before| price > before)
            }
        }
    }

    fn in_time(&self, row: usize) -> bool {
        let at = |row: usize| i128::from(self.rows[row].at.micros());
        row < self.rows.len() && at(row) - at(self.taken[0].1) < i128::from(self.spec.within)
    }

    /// Whether nothing that must be absent between two steps comes in the rows up to `until`.
    fn is_absent(&self, steps: std::ops::Range<usize>, until: usize) -> bool {
        let last = self.taken.last().unwrap().1;
        steps.filter(|&step| !self.spec.steps[step].takes_rows()).all(|step| {
            let only_next = self.spec.steps[step].join == Join::NotNext;
            (last + 1..=until).filter(|&row| !only_next || row == last + 1).all(|row| !self.fits(step, row))
        })
    }

    /// The step that takes `row`.
    fn taker(&self, row: usize) -> Option<usize> {
        let (step, last) = *self.taken.last().unwrap();
        let count = self.taken.iter().filter(|(of, _)| *of == step).count();
        let reaches = |step: usize| !self.spec.steps[step].is_strict() || row == last + 1;
        if count < self.spec.steps[step].most && reaches(step) && self.fits(step, row) {
            return Some(step);
        }
        if count < self.spec.steps[step].least {
            return None;
        }
        for next in step + 1..self.spec.steps.len() {
            if !self.spec.steps[next].takes_rows() {
                continue;
            }
            if self.is_absent(step + 1..next, row) && reaches(next) && self.fits(next, row) {
                return Some(next);
            }
            if !self.spec.steps[next].optional {
                return None;
            }
        }
        None
    }

    /// Takes row after row, and says whether it is a match in the end.
    fn run(&mut self) -> bool {
        let (step, last) = *self.taken.last().unwrap();
        let end = (last + 1..=self.rows.len()).find(|&row| !self.in_time(row)).unwrap();
        if let Some((row, taker)) = (last + 1..end).find_map(|row| Some((row, self.taker(row)?))) {
            self.taken.push((taker, row));
            return self.run();
        }
        let count = self.taken.iter().filter(|(of, _)| *of == step).count();
        let rest = step + 1..self.spec.steps.len();
        let enough = count >= self.spec.steps[step].least;
        let optional = self.spec.steps[rest.clone()].iter().all(|step| !step.takes_rows() || step.optional);
        enough && optional && self.is_absent(rest, end - 1)
    }
}

fn oracle(rows: &[Bid], key: &[&str], spec: &Spec) -> Vec<Row> {
    let mut lists: BTreeMap<Vec<Value>, Vec<Bid>> = BTreeMap::new();
    for bid in rows {
        lists.entry(key_of(bid, key)).or_default().push(bid.clone());
    }
    let mut results = Vec::new();
    for (key, mut rows) in lists {
        rows.sort_by_key(in_order);
        let mut start = 0;
        while start < rows.len() {
            let mut search = Search { spec, rows: &rows, taken: Vec::new() };
            start += 1;
            if !search.fits(0, start - 1) {
                continue;
            }
            search.taken.push((0, start - 1));
            if search.run() {
                results.push(result(&search, &key));
                if !spec.to_next {
                    start = search.taken.last().unwrap().1 + 1;
                }
            }
        }
    }
    results
}

fn result(search: &Search<'_>, key: &[Value]) -> Row {
    let at = |taken: Option<&(usize, usize)>| Value::from(search.rows[taken.unwrap().1].at);
    let mut row = vec![at(search.taken.first()), at(search.taken.last())];
    row.extend(key.iter().cloned());
    for step in (0..search.spec.steps.len()).filter(|&step| search.spec.steps[step].takes_rows()) {
        let rows: Vec<&Bid> =
            search.taken.iter().filter(|(of, _)| *of == step).map(|(_, row)| &search.rows[*row]).collect();
        let price = |bid: Option<&&Bid>| Value::from(bid.and_then(|bid| bid.price));
        row.extend([rows.len().into(), price(rows.first()), price(rows.last())]);
    }
    row.into()
}

fn pipeline<'a>(sort: &'a SortPlan, plan: &'a PatternPlan, key: &[&str]) -> Pipeline<'a> {
    sorted(sort, key).stage(plan.output(), || plan.whole())
}

fn some_fits() -> impl Strategy<Value = Fits> {
    let price = prop::sample::select(vec![-20, 0, 20, 40, 60]);
    prop_oneof![
        3 => price.clone().prop_map(Fits::AtLeast),
        3 => price.clone().prop_map(Fits::Below),
        1 => price.prop_map(Fits::Dear),
        2 => (0usize..5).prop_map(Fits::MoreThan),
    ]
}

fn some_step() -> impl Strategy<Value = Step> {
    let join = prop::sample::select(vec![
        Join::Next,
        Join::Next,
        Join::FollowedBy,
        Join::FollowedBy,
        Join::NotNext,
        Join::NotFollowedBy,
    ]);
    let times = prop::sample::select(vec![(1, 1), (1, 1), (1, 1), (2, 2), (1, 3), (2, 3), (1, usize::MAX)]);
    (join, some_fits(), times, prop::bool::weighted(0.25)).prop_map(|(join, fits, (least, most), optional)| Step {
        join,
        fits,
        least,
        most,
        optional,
    })
}

pub(crate) fn some_spec() -> impl Strategy<Value = Spec> {
    let steps = (some_step(), prop::collection::vec(some_step(), 0..4));
    let within = prop_oneof![Just(1u64), 2u64..15, 10u64..80, Just(u64::MAX)];
    let spec = (steps, within, any::<bool>()).prop_map(|((first, others), within, to_next)| {
        let fits = match first.fits {
            Fits::MoreThan(_) => Fits::AtLeast(0),
            fits => fits,
        };
        let mut steps = vec![Step { join: Join::Next, optional: false, fits, ..first }];
        steps.extend(others);
        Spec { steps, within, to_next }
    });
    spec.prop_filter("not a pattern", Spec::is_allowed)
}

pub(crate) fn check(
    rows: &[Bid],
    key: &[&str],
    spec: &Spec,
    bound: u64,
    seed: u64,
    beyond: bool,
) -> Result<(), String> {
    let sort = SortPlan::new(&bids(), key).unwrap();
    let plan = PatternPlan::new(&bids(), key, &spec.pattern(), &spec.measures()).unwrap();
    let check = Check::new(pipeline(&sort, &plan, key)).out_of_order(us(bound)).seed(seed);
    if beyond {
        check.fall_idle().run_beyond_bound(rows, is_late, |rows| oracle(rows, key, spec)).map(drop)
    } else {
        check.run(rows, |rows| oracle(rows, key, spec))
    }
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn every_pattern_over_every_key(
        rows in some_bids(-60i64..60), key in prop::sample::select(KEYS.to_vec()), spec in some_spec(),
        bound in prop_oneof![Just(0u64), 0u64..25], seed: u64,
    ) {
        check(&rows, key, &spec, bound, seed, false).map_err(fail)?;
    }

    #[test]
    fn late_rows_are_in_no_match(rows in some_bids(-60i64..60), spec in some_spec(), seed: u64) {
        check(&rows, &["who"], &spec, 5, seed, true).map_err(fail)?;
    }

    #[test]
    fn at_all_times(
        rows in some_bids(prop_oneof![Just(i64::MIN), Just(i64::MAX), any::<i64>(), -5i64..5, i64::MAX - 20..=i64::MAX]),
        spec in some_spec(), seed: u64,
    ) {
        check(&rows, &["auction"], &spec, 1 << 62, seed, false).map_err(fail)?;
    }
}

fn bid(auction: i64, price: i64, at: i64) -> Bid {
    Bid { auction, who: None, price: Some(price), at: Timestamp::from_micros(at) }
}

fn above(price: i64) -> Expr {
    col("price").gt(lit(price))
}

fn plan(pattern: &Pattern) -> PatternPlan {
    PatternPlan::new(&bids(), &["auction"], pattern, &[]).unwrap()
}

/// (start, end, event time) of what is emitted.
fn matches(out: &mut Outbox) -> Vec<(i64, i64, i64)> {
    use arrow::array::AsArray;
    let mut found = Vec::new();
    for (port, rows) in out.drain() {
        assert_eq!(port, Port::MAIN);
        let column = |at: usize| rows.column(at).as_primitive::<arrow::datatypes::TimestampMicrosecondType>().clone();
        let (start, end, time) = (column(0), column(1), column(3));
        found.extend((0..rows.num_rows()).map(|row| (start.value(row), end.value(row), time.value(row))));
    }
    found
}

/// What is absent until the end is known when the watermark has passed it; that is the event time of the match.
#[test]
fn an_absence_ends_with_the_time() {
    use windrow_operators::Advance::Promise;
    let at = Timestamp::from_micros;
    let pattern = Pattern::begin("order", above(10)).not_followed_by("pay", above(100)).within(us(50));
    let mut operator = plan(&pattern).whole().unwrap();
    let mut out = Outbox::new();
    operator.process(Port::MAIN, batch(&[bid(1, 11, 0), bid(2, 11, 5), bid(3, 11, 7)]), &mut out).unwrap();
    assert_eq!(operator.advance(at(49), &mut out).unwrap(), Promise(at(49)));
    // What comes when the time is over does not count.
    operator.process(Port::MAIN, batch(&[bid(1, 101, 50), bid(2, 101, 54)]), &mut out).unwrap();
    assert_eq!(matches(&mut out), [(0, 0, 50)], "its time is over for its key");
    assert_eq!(operator.advance(at(57), &mut out).unwrap(), Promise(at(57)));
    assert_eq!(matches(&mut out), [(7, 7, 57)]);
    operator.advance(Timestamp::MAX, &mut out).unwrap();
    assert_eq!(matches(&mut out), [(50, 50, 100), (54, 54, 104)], "the payments are orders themselves");
}

/// A loop at the end may go on: the watermark behind the operator waits for it.
#[test]
fn the_promise_waits_for_a_match_that_may_grow() {
    use windrow_operators::Advance::Promise;
    let at = Timestamp::from_micros;
    let pattern = Pattern::begin("first", above(10)).followed_by("more", above(20)).one_or_more().within(us(50));
    let mut operator = plan(&pattern).whole().unwrap();
    let mut out = Outbox::new();
    operator.process(Port::MAIN, batch(&[bid(1, 11, 0), bid(1, 21, 5)]), &mut out).unwrap();
    assert_eq!(operator.advance(at(30), &mut out).unwrap(), Promise(at(5)));
    operator.process(Port::MAIN, batch(&[bid(1, 21, 33), bid(1, 1, 34)]), &mut out).unwrap();
    assert_eq!(operator.advance(at(49), &mut out).unwrap(), Promise(at(33)));
    assert_eq!(matches(&mut out), []);
    assert_eq!(operator.advance(at(50), &mut out).unwrap(), Promise(at(50)));
    assert_eq!(matches(&mut out), [(0, 33, 33)]);
}

/// The match that begins first counts, even if another is complete before.
#[test]
fn a_match_waits_for_one_that_began_before() {
    let rows = [bid(1, 50, 0), bid(1, 20, 1), bid(1, 30, 2), bid(1, 60, 9)];
    let pattern = Pattern::begin("low", above(0)).followed_by("high", col("price").gt(col("low.price")));
    let both = |skip| {
        let mut operator = plan(&pattern.clone().within(us(10)).skip(skip)).whole().unwrap();
        let mut out = Outbox::new();
        let mut found = Vec::new();
        for row in &rows {
            operator.process(Port::MAIN, batch(std::slice::from_ref(row)), &mut out).unwrap();
            found.push(matches(&mut out));
        }
        found
    };
    assert_eq!(both(Skip::PastLast), [vec![], vec![], vec![], vec![(0, 9, 9)]]);
    assert_eq!(both(Skip::ToNext), [vec![], vec![], vec![(1, 2, 2)], vec![(0, 9, 9), (2, 9, 9)]]);
}

/// One watermark decides far more matches than one call emits.
#[test]
fn many_matches_leave_in_steps() {
    let pattern = Pattern::begin("order", above(10)).not_followed_by("pay", above(10_000)).within(us(50));
    let mut operator = plan(&pattern).whole().unwrap();
    let rows: Vec<Bid> = (0..20_000).map(|i| bid(i % 7_000, 11, i / 1_000)).collect();
    operator.process(Port::MAIN, batch(&rows), &mut Outbox::new()).unwrap();
    let steps = advance(&mut operator, 1_000);
    assert_eq!(steps.iter().map(|rows| rows.num_rows()).sum::<usize>(), 20_000);
    assert_eq!(operator.size(), 0);
}

/// A day of a row of each key every five seconds, with matches now and then: what is held is what the last minutes began.
#[test]
fn a_day_is_not_held() {
    let second = 1_000_000;
    let pattern = Pattern::begin("low", above(80))
        .followed_by("high", col("price").gt(col("low.price")))
        .times(2)
        .not_followed_by("back", col("price").lt(lit(5)))
        .followed_by("end", above(95))
        .within(Duration::from_secs(300));
    let (mut most, mut found) = (0, 0);
    let mut operator = plan(&pattern).whole().unwrap();
    for minute in 0..24 * 60_i64 {
        let row = |i: i64| bid(i % 5, (minute * 31 + i * 7_919) % 101, (minute * 60 + i) * second);
        let rows: Vec<Bid> = (0..60).map(row).collect();
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch(&rows), &mut out).unwrap();
        found += matches(&mut out).len();
        advance(&mut operator, (minute * 60 + 50) * second);
        most = most.max(operator.size());
    }
    assert!(found > 1_000, "{found} matches");
    assert!(most < 2_000_000, "{most} bytes for five minutes");
    advance(&mut operator, (24 * 3600 + 300) * second);
    assert_eq!(operator.size(), 0, "nothing began in the last five minutes");
}

/// Many keys that wait, of which a few get rows: a save writes those rows, also after a restart.
#[test]
fn a_save_writes_what_has_changed() {
    let pattern = Pattern::begin("low", above(0)).followed_by("high", above(100)).within(us(100_000));
    let plan = plan(&pattern);
    let (mut operator, mut saved) = (plan.whole().unwrap(), Saved::default());
    let rows: Vec<Bid> = (0..20_000).map(|i| bid(i, 1, 0)).collect();
    operator.process(Port::MAIN, batch(&rows), &mut Outbox::new()).unwrap();
    assert_eq!(saved.save(&mut operator), 20_000);
    assert_eq!((saved.save(&mut operator), saved.state.segments.len()), (0, 1));
    let (mut sealed, mut found) = (0, 0);
    for save in 1..=100 {
        // Rows that are passed over, and matches.
        let rows: Vec<Bid> =
            (0..20).map(|i| bid(i * 977 % 20_000 + save, if i % 2 == 0 { 7 } else { 101 }, save)).collect();
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch(&rows), &mut out).unwrap();
        found += matches(&mut out).len();
        advance(&mut operator, save);
        sealed += saved.save(&mut operator);
        assert!(saved.state.segments.len() <= 13, "{} segments", saved.state.segments.len());
        if save % 30 == 10 {
            operator = saved.load(plan.whole().unwrap());
        }
    }
    assert!(found > 900, "{found} matches");
    assert!(sealed < 100 * 20 * 10, "{sealed} rows were written for 2000");
    advance(&mut operator, 200_000);
    assert_eq!((saved.save(&mut operator), saved.state.segments.len(), operator.size()), (0, 0, 0));
}

#[test]
fn planted_faults_are_found() {
    let spec = |to_next| {
        let step = |join, fits, most| Step { join, fits, least: 1, most, optional: false };
        let steps = vec![step(Join::Next, Fits::Below(50), 1), step(Join::FollowedBy, Fits::MoreThan(0), usize::MAX)];
        Spec { steps, within: 30, to_next }
    };
    let rows: Vec<Bid> = (0..90).map(|i| bid(i % 3, i * 53 % 97, i * 37 % 83)).collect();
    let key: &[&str] = &["auction"];
    let sort = SortPlan::new(&bids(), key).unwrap();
    let run = |fault, spec: &Spec, seed| {
        let plan = PatternPlan::new(&bids(), key, &spec.pattern(), &spec.measures()).unwrap();
        let pipeline = sorted(&sort, key).stage(plan.output(), || Faulty::new(plan.whole()?, fault));
        Check::new(pipeline).out_of_order(us(10)).seed(seed).run(&rows, |rows| oracle(rows, key, spec))
    };
    for spec in [spec(true), spec(false)] {
        assert!(!caught(|seed| run(Fault::None, &spec, seed)));
        for fault in [
            Fault::PromisesTheWatermark,
            Fault::ForgetsOneSegment,
            Fault::ForgetsTheNumbers,
            Fault::KeepsTheLastRowOfABatch,
        ] {
            assert!(caught(|seed| run(fault, &spec, seed)), "{fault:?} {spec:?}");
        }
        let unsorted = |seed| {
            let plan = PatternPlan::new(&bids(), key, &spec.pattern(), &spec.measures()).unwrap();
            let pipeline = Pipeline::new(&bids()).exchange([0]).stage(plan.output(), || plan.whole());
            Check::new(pipeline).out_of_order(us(10)).seed(seed).run(&rows, |rows| oracle(rows, key, &spec))
        };
        assert!(caught(unsorted), "without a sort");
    }
}

#[test]
fn mistakes_are_refused() {
    let message = |pattern: &Pattern, measures: &[Measure]| {
        PatternPlan::new(&bids(), &["auction"], pattern, measures).unwrap_err().to_string()
    };
    let refused = |pattern: Pattern, words: &str| {
        let message = message(&pattern, &[]);
        assert!(message.contains(words), "{words:?} is not in: {message}");
    };
    let begin = || Pattern::begin("a", above(1)).within(us(10));
    refused(Pattern::begin("a", above(1)), "without .within(…) the partial matches");
    refused(begin().within(us(0)), "at least one");
    refused(begin().within(Duration::from_nanos(1_500)), "whole microseconds");
    refused(begin().optional(), "cannot be optional");
    refused(begin().times(0), "takes from 0 to 0 rows");
    refused(begin().times_between(3, 2), "takes from 3 to 2 rows");
    refused(begin().next("a", above(1)), "two steps of a pattern are called \"a\"");
    refused(begin().next("b.c", above(1)), "cannot be called \"b.c\"");
    refused(begin().not_next("b", above(1)), "cannot end with not_next");
    refused(begin().not_followed_by("b", above(1)).one_or_more(), "cannot be repeated");
    refused(begin().not_followed_by("b", above(1)).optional(), "cannot be optional");
    refused(begin().not_followed_by("b", above(1)).next("c", above(1)).optional(), "nothing ends the absence of \"b\"");
    refused(begin().next("b", col("prise").gt(lit(1))), "did you mean \"price\"?");
    refused(begin().next("b", col("price")), "not a condition");
    refused(begin().next("b", col("a.prise").gt(lit(1))), "did you mean \"price\"?");
    refused(begin().next("b", col("x.price").gt(lit(1))), "there is no step \"x\" (steps: a, b)");
    refused(begin().next("b", col("c.price").gt(lit(1))).next("c", above(1)), "step \"c\" comes later");
    let absent = begin().not_next("b", above(1)).next("c", col("b.price").gt(lit(1)));
    refused(absent.clone(), "is of rows that are absent");
    let told = |measure: Measure| message(&begin().not_followed_by("b", above(1)), &[measure]);
    assert!(told(first("x", "price")).contains("there is no step \"x\" (steps: a, b)"));
    assert!(told(count_of("b")).contains("nothing to tell"));
    assert!(told(last("a", "prise")).contains("did you mean \"price\"?"));
    assert!(told(count_of("a").alias("auction")).contains("two columns"));
    let timeless = windrow_operators::StreamSchema::without_time(bids().columns().clone());
    let error = PatternPlan::new(&timeless, &[], &begin(), &[]).unwrap_err().to_string();
    assert!(error.contains("a pattern needs event time"), "{error}");
    let form = |price| windrow_operators::Plan::state_form(&plan(&Pattern::begin("a", above(price)).within(us(1))));
    assert!(form(1).accepts(&form(2)).is_err(), "another condition makes other partial matches of the rows");
}
