//! Keyed processes that emit very much, or fire very many timers: in steps.

use arrow::array::RecordBatch;
use windrow_operators::{
    Operator, Outbox, Port,
    keyed::{Keyed, NoSide, Process, ProcessPlan, Timer},
    state::{SegmentId, StateWriter},
};

use crate::process_state::{
    FOR_EVER, IMPATIENT, Obedient, Order, OrderView, SAY, Said, advance, at, batch, obedient, orders, process, said,
};

/// A row that explodes does not explode a batch.
#[test]
fn one_row_emits_many_records() {
    let many = windrow_operators::keyed::fold::<Order, (), Said, _>(|_, order, out| {
        (0..order.value).for_each(|what| out.emit(Said { what, at: order.at }));
    });
    let mut operator = ProcessPlan::new(&orders(), &["key"], many, None).unwrap().whole().unwrap();
    let (rows, mut out) = (batch([(1, 20_000, 0), (2, 3, 0), (3, 4, 0)]), Outbox::new());
    operator.process(Port::MAIN, rows.clone(), &mut out).unwrap();
    let sizes: Vec<_> = out.drain().map(|(_, batch)| batch.num_rows()).collect();
    assert_eq!((sizes, out.take_again(), out.take_counts()), (vec![8_192, 8_192, 3_616], true, (3, 0)));
    operator.process(Port::MAIN, rows.slice(0, 0), &mut out).unwrap();
    let sizes: Vec<_> = out.drain().map(|(_, batch)| batch.num_rows()).collect();
    assert_eq!((sizes, out.take_again(), out.take_counts()), (vec![7], false, (0, 0)));
}

/// The calls that a batch asks for; of each how many records it emitted.
fn steps(operator: &mut impl Operator, rows: &RecordBatch, out: &mut Outbox) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut rows = rows.clone();
    loop {
        operator.process(Port::MAIN, rows.clone(), out).unwrap();
        steps.push(out.drain().map(|(_, batch)| batch.num_rows()).sum());
        rows = rows.slice(0, 0);
        if !out.take_again() {
            return steps;
        }
    }
}

/// Little each, very much in total.
#[test]
fn rows_that_emit_much_leave_in_steps() {
    let many = windrow_operators::keyed::fold::<Order, (), Said, _>(|_, order, out| {
        (0..order.value).for_each(|what| out.emit(Said { what, at: order.at }));
    });
    let mut operator = ProcessPlan::new(&orders(), &["key"], many, None).unwrap().whole().unwrap();
    let (rows, mut out) = (batch((0..8_000).map(|key| (key, 100, 0))), Outbox::new());
    let steps = steps(&mut operator, &rows, &mut out);
    assert_eq!(steps.iter().sum::<usize>(), 800_000);
    assert!(steps.iter().all(|step| *step < 8_192 + 100) && steps.len() == 98, "{steps:?}");
    assert_eq!(out.take_counts(), (8_000, 0));
}

/// A chain of two million timers that are due before the next row of their key.
#[test]
fn timers_before_a_row_fire_in_steps() {
    let plan = ProcessPlan::new(&orders(), &["key"], Obedient, None).unwrap().in_order();
    let mut operator = plan.whole().unwrap();
    process(&mut operator, [(1, FOR_EVER, 0)]);
    let mut out = Outbox::new();
    let steps = steps(&mut operator, &batch([(2, SAY, 5), (1, SAY, 1_999_999), (1, SAY, 1_999_999)]), &mut out);
    assert_eq!(steps.iter().sum::<usize>(), 2_000_003);
    assert!(steps.iter().all(|step| *step <= 8_192) && steps.len() == 245, "{} steps", steps.len());
    assert_eq!(out.take_counts(), (3, 0));
    assert_eq!(advance(&mut operator, at(1_999_999)), [], "all have fired");
}

/// Timers that say nothing are work too.
#[test]
fn timers_that_emit_nothing_fire_in_steps() {
    #[derive(Clone)]
    struct Silent;
    impl Process for Silent {
        type Row = Order;
        type State = i64;
        type Output = Said;
        type Side = NoSide;
        fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
            (0..order.value).for_each(|time| key.set_timer(at(time)));
        }
        fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
            *key.state_mut() += 1;
        }
    }
    let plan = ProcessPlan::new(&orders(), &["key"], Silent, None).unwrap().in_order();
    let (mut operator, mut out) = (plan.whole().unwrap(), Outbox::new());
    out.set_step(10);
    assert_eq!(steps(&mut operator, &batch([(1, 95, 0)]), &mut out), [0]);
    assert_eq!(steps(&mut operator, &batch([(1, 0, 100)]), &mut out).len(), 10);
}

/// Nothing else may be asked of it meanwhile.
#[test]
fn a_process_that_is_half_way_through_takes_and_saves_nothing() {
    let mut operator = obedient(None);
    let (rows, mut out) = (batch((0..3).map(|key| (key, SAY, 0))), Outbox::new());
    out.set_step(1);
    operator.process(Port::MAIN, rows.clone(), &mut out).unwrap();
    assert_eq!((said(&mut out).len(), out.take_again()), (1, true));
    let given = operator.process(Port::MAIN, rows.clone(), &mut out).unwrap_err().to_string();
    let saved = operator.save(&mut StateWriter::new(&mut SegmentId(0))).unwrap_err().to_string();
    assert!(given.contains("half-way") && saved.contains("half-way"), "{given} {saved}");
    assert_eq!(steps(&mut operator, &rows.slice(0, 0), &mut out), [1, 1]);
}

/// One tick at a time; a timer that is set again for the past waits until the others have had their turn.
#[test]
fn processing_timers_fire_in_steps() {
    let mut operator = obedient(None);
    process(&mut operator, (0..20_000).map(|key| (key, IMPATIENT, 0)));
    let mut out = Outbox::new();
    let mut fired = Vec::new();
    for _ in 0..4 {
        operator.tick(&mut out).unwrap();
        fired.push(said(&mut out).len());
        assert!(out.take_wake().is_some_and(|wake| wake <= out.now()));
    }
    assert_eq!(fired, [8_192, 8_192, 3_616, 8_192]);
}

/// Timers that set themselves again for a later time do not keep the others waiting, however slow the ticks are.
#[test]
fn a_round_of_processing_timers_ends_while_time_goes_on() {
    #[derive(Clone)]
    struct Restless;
    impl Process for Restless {
        type Row = Order;
        type State = i64;
        type Output = Said;
        type Side = NoSide;
        fn row(&mut self, order: OrderView<'_>, key: &mut Keyed<'_, Self>) {
            *key.state_mut() = order.value;
            let now = key.now();
            key.set_processing_timer(now);
        }
        fn timer(&mut self, _: Timer, key: &mut Keyed<'_, Self>) {
            let (again, now) = (*key.state(), key.now());
            key.emit(Said { what: again, at: now });
            if again > 0 {
                key.set_processing_timer(now + std::time::Duration::from_micros(1));
            }
        }
    }
    let (mut operator, mut out) =
        (ProcessPlan::new(&orders(), &["key"], Restless, None).unwrap().whole().unwrap(), Outbox::new());
    out.set_step(4);
    steps(&mut operator, &batch((0..8).map(|key| (key, 1, 0))), &mut out);
    let mut patient = false;
    for now in 1..9 {
        out.set_now(at(10 * now));
        operator.tick(&mut out).unwrap();
        patient |= said(&mut out).iter().any(|said| said.0 == 0);
        if now == 1 {
            // In the midst of a round, for now: it is held back until the round is over.
            steps(&mut operator, &batch([(9, 0, 0)]), &mut out);
        }
    }
    assert!(patient, "it has had its turn");
}
