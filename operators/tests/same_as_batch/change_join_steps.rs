//! A join of changes of which a few have very many partners: in steps.

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::UInt8Type,
};
use windrow_operators::{
    Advance, Operator, Outbox, Plan, Port, Timestamp,
    join::JoinType,
    state::{SegmentId, StateWriter},
};

use crate::change_join::{Case, Joined, SHAPES, change, left, right};

/// The changes that each call emitted which a batch asked for, by what they do.
fn calls(join: &mut dyn Operator, port: Port, batch: &RecordBatch, out: &mut Outbox) -> Vec<[usize; 3]> {
    let (mut calls, mut rows) = (Vec::new(), batch.clone());
    loop {
        join.process(port, rows, out).unwrap();
        calls.push(by_op(out));
        if !out.take_again() {
            return calls;
        }
        let given = join.process(port, batch.clone(), out).unwrap_err().to_string();
        let saved = join.save(&mut StateWriter::new(&mut SegmentId(0))).unwrap_err().to_string();
        assert!(given.contains("half-way") && saved.contains("half-way"), "{given} {saved}");
        rows = batch.slice(0, 0);
    }
}

fn by_op(out: &mut Outbox) -> [usize; 3] {
    let mut all = [0; 3];
    for (_, rows) in out.drain() {
        let op = rows.schema().index_of(windrow_operators::schema::HIDDEN_OP).unwrap();
        rows.column(op).as_primitive::<UInt8Type>().values().iter().for_each(|op| all[usize::from(*op)] += 1);
    }
    all
}

fn sum(calls: &[[usize; 3]]) -> [usize; 3] {
    assert!(calls.iter().all(|call| call.iter().sum::<usize>() <= 8_192), "{calls:?}");
    calls.iter().fold([0; 3], |sum, call| [0, 1, 2].map(|op| sum[op] + call[op]))
}

/// One row comes, changes, and goes in time, and has very many partners.
#[test]
fn very_many_partners_of_one_row_leave_in_steps() {
    const MANY: usize = 50_000;
    for (shape, came, gone) in [(SHAPES[1], [MANY, 0, MANY], [0, 0, MANY]), (SHAPES[3], [0, MANY, 0], [0, MANY, 0])] {
        let joined = Joined::new(&Case { shape, join_type: JoinType::Left, condition: false }, Some(100));
        let (l, r) = (joined.upserts[0].output(), joined.upserts[1].output());
        let (mut join, mut out) = (joined.join.whole().unwrap(), Outbox::new());
        let lefts = change(l, left((0..MANY as i64).map(|a| (1, a, 50)).collect()), 0);
        assert_eq!(sum(&calls(join.as_mut(), Port::MAIN, &lefts, &mut out)), [MANY, 0, 0]);
        let one = change(r, right(vec![(1, 7, 5)]), 1);
        let first = calls(join.as_mut(), Port::RIGHT, &one, &mut out);
        assert_eq!((sum(&first), first.len() >= 7), (came, true));
        assert_eq!(sum(&calls(join.as_mut(), Port::RIGHT, &one, &mut out)), [0, MANY, 0]);
        let mut ended = Vec::new();
        let mut step = Advance::Again;
        while step == Advance::Again {
            step = join.advance(Timestamp::from_micros(110), &mut out).unwrap();
            ended.push(by_op(&mut out));
        }
        // Where the key of the pair is another, the left row is without a partner again.
        let gone = if shape.key.len() == 3 { [MANY, 0, gone[2]] } else { gone };
        assert_eq!((sum(&ended), ended.len() >= 7), (gone, true));
    }
}

/// A batch of rows each of which has many.
#[test]
fn a_batch_of_rows_with_many_partners_leaves_in_steps() {
    for join_type in [JoinType::Inner, JoinType::Full] {
        let joined = Joined::new(&Case { shape: SHAPES[1], join_type, condition: false }, None);
        let (l, r) = (joined.upserts[0].output(), joined.upserts[1].output());
        let (mut join, mut out) = (joined.join.whole().unwrap(), Outbox::new());
        let rights = change(r, right((0..200).map(|c| (1, c, 5)).collect()), 0);
        calls(join.as_mut(), Port::RIGHT, &rights, &mut out);
        let lefts = change(l, left((0..500).map(|a| (1, a, 5)).collect()), 1);
        let calls = calls(join.as_mut(), Port::MAIN, &lefts, &mut out);
        let alone = if join_type == JoinType::Full { 200 } else { 0 };
        assert_eq!((sum(&calls), calls.len() > 12), ([100_000, 0, alone], true));
    }
}

/// All right rows of many keys go at once: of each key the last one changes all left rows.
#[test]
fn the_last_partners_of_a_semi_join_go_in_steps() {
    let joined = Joined::new(&Case { shape: SHAPES[1], join_type: JoinType::LeftSemi, condition: false }, None);
    let (l, r) = (joined.upserts[0].output(), joined.upserts[1].output());
    let (mut join, mut out) = (joined.join.whole().unwrap(), Outbox::new());
    out.set_step(100);
    calls(join.as_mut(), Port::MAIN, &change(l, left((0..1_000).map(|a| (a % 10, a, 5)).collect()), 0), &mut out);
    let rights = || right((0..40).map(|c| (c % 10, c, 5)).collect());
    let come = calls(join.as_mut(), Port::RIGHT, &change(r, rights(), 0), &mut out);
    assert_eq!((sum(&come), come.len() >= 5), ([1_000, 0, 0], true), "{} calls", come.len());
    let go = calls(join.as_mut(), Port::RIGHT, &change(r, rights(), 2), &mut out);
    assert_eq!((sum(&go), go.len() >= 5), ([0, 0, 1_000], true), "{} calls", go.len());
}
