//! The state of sessions: what a save writes, what comes back, and that it falls to its floor.

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use datafusion_expr::{col, lit};
use datafusion_functions_aggregate::expr_fn::{avg, count, first_value, sum, var_pop};
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    session::{Session, SessionAggregate, SessionPlan},
    state::{KEY_GROUP, SegmentId, StateReader, StateWriter},
};

use crate::{
    aggregate::{KEYS, aggregates, every_aggregate},
    bids::{bids, us},
    restored::{Saved, batch, names, process, results},
};

fn counts(gap: u64) -> SessionPlan {
    let aggregates = [count(lit(1)).alias("bids"), sum(col("price")).alias("sum")];
    SessionPlan::new(&bids(), &["auction"], Session::gap(us(gap)), &aggregates).unwrap()
}

/// The disk format, in the words of the user.
#[test]
fn the_form_of_the_state() {
    let session = Session::gap(us(30)).allowed_lateness(us(5));
    let form =
        SessionPlan::new(&bids(), &["who"], session, &[avg(col("price")).alias("avg"), count(lit(1)).alias("n")]);
    let form = form.unwrap().state_form();
    assert_eq!(form.meaning, "session gap 30µs; avg(price), count(1)");
    assert_eq!(names(&form), [KEY_GROUP, "window_start", "window_end", "who", "avg[count]", "avg[sum]", "n"]);
    let meaning = |session| SessionPlan::new(&bids(), &[], session, &[]).unwrap().state_form().meaning;
    assert_eq!(meaning(Session::gap_expr(col("price") + lit(7))), "session gap price + 7");
    assert_eq!(meaning(Session::gap_of::<crate::bids::Bid>(|_| us(3))), "session gap by a closure");
}

#[test]
fn a_segment_has_a_row_for_each_fragment() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, [(1, 7, 150), (2, 8, 150), (1, 9, 152), (1, 9, 3)]);
    assert_eq!(saved.save(&mut operator), 3);
    let rows = saved.store[&SegmentId(0)].clone();
    assert_eq!(rows.schema_ref(), &plan.state_form().columns);
    let times =
        |rows: &RecordBatch, column| rows.column(column).as_primitive::<TimestampMicrosecondType>().values().to_vec();
    assert_eq!((times(&rows, 1), times(&rows, 2)), (vec![150, 150, 3], vec![162, 160, 13]));
    assert_eq!(rows.column(3).as_primitive::<Int64Type>().values(), &[1, 2, 1]);
    assert_eq!(rows.column(4).as_primitive::<Int64Type>().values(), &[2, 1, 1]);
}

/// A large state of which little changes: a save writes about what has changed, there are few segments, also after a load.
#[test]
fn a_save_writes_what_has_changed() {
    let plan = counts(1_000_000);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    let keys = 20_000;
    process(&mut operator, (0..keys).map(|i| (i, i, i % 100)));
    assert_eq!(saved.save(&mut operator), keys as usize);
    assert_eq!(saved.save(&mut operator), 0, "nothing has changed");
    assert_eq!(saved.state.segments, [(SegmentId(0), None)], "but it is still needed");
    let mut total = 0;
    for save in 0..100_i64 {
        if save == 50 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
        }
        process(&mut operator, (0..10).map(|i| ((save * 7_919 + i * 4_999) % keys, 1, 100 + i)));
        total += saved.save(&mut operator);
        assert!(saved.state.segments.len() <= 12, "{} segments", saved.state.segments.len());
    }
    assert!((1_000..9_000).contains(&total), "{total} rows for 1000 changes");
    assert_eq!(results(&mut operator, Timestamp::MAX).len(), keys as usize);
}

/// What gave its result leaves the state: segments without a living fragment are not named, and in others it is passed over.
#[test]
fn complete_sessions_leave_the_state() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..1_000).map(|i| (i, 1, if i < 600 { 50 } else { 5 })));
    saved.save(&mut operator);
    assert_eq!(results(&mut operator, Timestamp::from_micros(20)).len(), 400);
    assert_eq!(saved.save(&mut operator), 0, "most are alive: the segment is kept");
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    assert_eq!(results(&mut restored, Timestamp::from_micros(59)).len(), 0, "what is dead does not come back");
    process(&mut operator, (0..10).map(|i| (i, 1, 55)));
    saved.save(&mut operator);
    assert_eq!(results(&mut operator, Timestamp::from_micros(60)).len(), 590);
    assert_eq!(saved.save(&mut operator), 10, "one segment of what is left");
    assert_eq!(saved.state.segments.len(), 1);
    assert_eq!(results(&mut operator, Timestamp::from_micros(70)).len(), 10);
    saved.save(&mut operator);
    assert_eq!(saved.state.segments, []);
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    let mut out = Outbox::new();
    restored.process(Port::MAIN, batch([(1, 1, 69)]), &mut out).unwrap();
    assert_eq!(out.take_counts(), (0, 1), "it remembers how far time had come");
}

/// A fragment may end long before `fired` and be alive: its session goes on.
#[test]
fn an_old_fragment_of_an_open_session_comes_back() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..100).map(|i| (i, 1, 0)));
    saved.save(&mut operator);
    for round in 1..40 {
        process(&mut operator, [(7, 1, round * 9)]);
        assert_eq!(results(&mut operator, Timestamp::from_micros(round * 9)).len(), if round == 2 { 99 } else { 0 });
        saved.save(&mut operator);
        if round % 3 == 0 {
            operator = plan.whole().unwrap();
            saved.load(&mut operator);
        }
    }
    let whole = results(&mut operator, Timestamp::MAX);
    assert_eq!(whole.len(), 1);
    assert!(whole[0].starts_with("1970-01-01T00:00:00Z 1970-01-01T00:00:00.000361Z 7 40 "), "{whole:?}");
}

/// Two rows without an overlap, one between them in a fragment of its own, another outside: one session after a load.
#[test]
fn fragments_find_together_again() {
    let plan = counts(10);
    let (mut operator, mut plain) = (plan.whole().unwrap(), plan.whole().unwrap());
    let mut saved = Saved::new();
    for at in [0, 20, 45, 9, 29, 12, 36, -5] {
        process(&mut operator, [(1, at, at)]);
        process(&mut plain, [(1, at, at)]);
        saved.save(&mut operator);
        operator = plan.whole().unwrap();
        saved.load(&mut operator);
    }
    let expected = results(&mut plain, Timestamp::MAX);
    assert_eq!(expected.len(), 1);
    assert_eq!(results(&mut operator, Timestamp::MAX), expected);
}

/// The parts of two tasks are written again, once. One was ahead: its sessions do not open again, and those of the other
/// still give their result, also when the job is saved once more before the next watermark.
#[test]
fn former_tasks_stood_at_different_times() {
    let plan = counts(50);
    let mut parts = Vec::new();
    for (auction, time, fired) in [(1, 100, 1), (2, 50, 0)] {
        let mut operator = plan.whole().unwrap();
        let mut saved = Saved::new();
        process(&mut operator, [(auction, 1, 5), (auction, 1, 105)]);
        saved.save(&mut operator);
        assert_eq!(results(&mut operator, Timestamp::from_micros(time)).len(), fired);
        saved.save(&mut operator);
        parts.push(saved.part());
    }
    let mut first = plan.whole().unwrap();
    first.load(&StateReader { key_groups: 0..256, parts }).unwrap();
    let mut saved = Saved::new();
    assert_eq!(saved.save(&mut first), 3);
    assert_eq!(saved.save(&mut first), 0);
    let mut second = plan.whole().unwrap();
    saved.load(&mut second);
    for operator in [&mut first, &mut second] {
        let mut out = Outbox::new();
        operator.process(Port::MAIN, batch([(1, 1, 6)]), &mut out).unwrap();
        assert_eq!(out.take_counts(), (0, 1), "auction 1 has had its result");
        assert_eq!(results(operator, Timestamp::from_micros(60)).len(), 1, "auction 2 has it now");
        assert_eq!(results(operator, Timestamp::MAX).len(), 2);
    }
}

/// Every kind of accumulator gives its states up and takes them back, over many tables and loads.
#[test]
fn every_aggregate_survives_many_saves() {
    let own = [("first", first_value(col("auction"), vec![])), ("var", var_pop(col("price")))];
    for (name, aggregate) in every_aggregate().into_iter().chain(own) {
        for key in KEYS {
            let aggregates = [aggregate.clone().alias("x"), count(lit(1)).alias("bids")];
            let plan = SessionPlan::new(&bids(), key, Session::gap(us(8)), &aggregates).unwrap();
            let (mut plain, mut operator): (SessionAggregate, _) = (plan.whole().unwrap(), plan.whole().unwrap());
            let mut saved = Saved::new();
            for round in 0..12 {
                let rows = || (0..40).map(move |i| (1 + i % 2, round * 31 + i, (i * 13 + round) % 300));
                process(&mut plain, rows());
                process(&mut operator, rows());
                saved.save(&mut operator);
                if round % 3 == 2 {
                    operator = plan.whole().unwrap();
                    saved.load(&mut operator);
                }
            }
            let (expected, restored) = (results(&mut plain, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
            assert_eq!(canonical(name, restored), canonical(name, expected), "{name} per {key:?}");
        }
    }
}

/// Lists in order and numbers to nine places.
fn canonical(name: &str, rows: Vec<String>) -> Vec<String> {
    let of = |row: String| match name {
        "list" => {
            let mut words: Vec<&str> =
                row.split(|c: char| " ,[]".contains(c)).filter(|word| !word.is_empty()).collect();
            words.sort_unstable();
            words.join(" ")
        }
        "var" => row.split(' ').map(|word| word.parse::<f64>().map_or(word.into(), |x| format!("{x:.9} "))).collect(),
        _ => row,
    };
    rows.into_iter().map(of).collect()
}

/// Nothing may be half-way out when an operator is saved.
#[test]
fn an_operator_is_saved_between_two_calls() {
    let mut operator = counts(10).whole().unwrap();
    process(&mut operator, (0..20_000).map(|i| (i, 1, 5)));
    assert_eq!(operator.advance(Timestamp::MAX, &mut Outbox::new()).unwrap(), Advance::Again);
    let mut next = SegmentId(0);
    let error = operator.save(&mut StateWriter::new(&mut next)).unwrap_err().to_string();
    assert!(error.contains("half-way"), "{error}");
}

/// One session over thousands of watermarks, between others that come and go and saves: its fragments are few.
#[test]
fn a_long_session_has_few_fragments() {
    let plan = SessionPlan::new(&bids(), &["auction"], Session::gap(us(10)), &aggregates()).unwrap();
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    let mut sizes = Vec::new();
    for round in 0..3_000 {
        process(&mut operator, [(0, 1, 5 * round), (1 + round, 1, 5 * round)]);
        results(&mut operator, Timestamp::from_micros(5 * round));
        if round % 10 == 0 {
            saved.save(&mut operator);
            let rows: usize = saved.part().segments.iter().map(|(_, rows)| rows.num_rows()).sum();
            assert!(rows < 40 && saved.state.segments.len() < 8, "{rows} rows in {:?}", saved.state.segments);
        }
        sizes.push(operator.size());
    }
    // The distinct prices of the long session stay few, so nothing grows.
    assert!(sizes[2_999] < 2 * sizes[300] + 10_000, "{} after {}", sizes[2_999], sizes[300]);
    assert_eq!(results(&mut operator, Timestamp::MAX).len(), 3, "the long one and the last two");
}

/// Sessions that join without a watermark: fragments are merged before they outnumber the sessions by far.
#[test]
fn sessions_that_join_do_not_pile_up() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let mut most = 0;
    for round in 0..60 {
        // Islands first, then what joins them, from late to early.
        let rows = |from: i64| (0..1_000).rev().map(move |i| (1, 1, 20_000 * (60 - round) + 18 * i + from));
        process(&mut operator, rows(0));
        process(&mut operator, rows(9));
        most = most.max(operator.size());
    }
    assert!(most < 1_500_000, "{most} bytes");
    let joined = results(&mut operator, Timestamp::MAX);
    assert_eq!(joined.len(), 60);
    assert!(joined.iter().all(|row| row.contains(" 1 2000 ")), "{joined:?}");
}

/// 24 hours of ever new keys, a watermark each minute: the state is what is open, and nothing when all is complete.
#[test]
fn a_day_of_new_keys() {
    const MINUTE: i64 = 60_000_000;
    let plan =
        SessionPlan::new(&bids(), &["auction", "who"], Session::gap(us(5 * MINUTE as u64)), &aggregates()).unwrap();
    let mut operator = plan.whole().unwrap();
    let floor = operator.size();
    let (mut after_an_hour, mut most, mut sessions) = (0, 0, 0);
    for minute in 0..24 * 60 {
        process(&mut operator, (0..200).map(|i| (200 * minute + i, i, minute * MINUTE + i)));
        let mut out = Outbox::new();
        while operator.advance(Timestamp::from_micros(minute * MINUTE), &mut out).unwrap() == Advance::Again {}
        sessions += out.drain().map(|(_, rows)| rows.num_rows()).sum::<usize>();
        if minute == 60 {
            after_an_hour = most;
        }
        most = most.max(operator.size());
    }
    assert!(most < 2 * after_an_hour, "{most} bytes, {after_an_hour} after an hour");
    sessions += results(&mut operator, Timestamp::from_micros(25 * 60 * MINUTE)).len();
    assert_eq!(sessions, 24 * 60 * 200);
    assert!(operator.size() < floor + 300_000, "{} bytes are left of {most}, {floor} at first", operator.size());
}

/// Keys that are gone, in a burst: memory is given back.
#[test]
fn a_burst_is_forgotten() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let floor = operator.size();
    process(&mut operator, (0..100_000).map(|i| (i, 1, i % 50)));
    process(&mut operator, [(1, 1, 1_000)]);
    let most = operator.size();
    assert_eq!(results(&mut operator, Timestamp::from_micros(100)).len(), 100_000);
    assert!(most > 8_000_000 && operator.size() < floor + 200_000, "{} of {most}", operator.size());
    assert_eq!(results(&mut operator, Timestamp::MAX).len(), 1);
}

/// A job whose key has become wider goes on from what was saved.
#[test]
fn an_older_segment_of_narrower_types_is_loaded() {
    let plan = counts(10);
    let mut operator = plan.whole().unwrap();
    let mut saved = Saved::new();
    process(&mut operator, (0..50).map(|i| (i - 25, i, i)));
    saved.save(&mut operator);
    let rows = saved.store[&SegmentId(0)].clone();
    let narrow = rows.schema_ref().fields().iter().zip(rows.columns()).enumerate().map(|(i, (field, column))| {
        let data_type = if i == 3 { arrow::datatypes::DataType::Int32 } else { field.data_type().clone() };
        (field.name().clone(), arrow::compute::cast(column, &data_type).unwrap())
    });
    saved.store.insert(SegmentId(0), RecordBatch::try_from_iter(narrow).unwrap());
    let mut restored = plan.whole().unwrap();
    saved.load(&mut restored);
    process(&mut restored, [(-25, 1, 7)]);
    process(&mut operator, [(-25, 1, 7)]);
    assert_eq!(results(&mut restored, Timestamp::MAX), results(&mut operator, Timestamp::MAX));
}
