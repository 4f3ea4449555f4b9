//! What the tests of joins share: two kinds of rows, how to generate them, and joins by the definition: two nested loops.

use std::fmt;

use datafusion_expr::{Expr, col, lit};
use proptest::prelude::*;
use typed_arrow::{prelude::*, schema::SchemaMeta};
use windrow_operators::{
    Operator, Partitioning, Plan, Result, StreamSchema, Timestamp,
    join::JoinType,
    testing::{Pipeline, Row, Value},
};

#[derive(Clone, PartialEq, Record)]
pub(crate) struct Left {
    pub(crate) number: Option<i64>,
    pub(crate) tag: Option<String>,
    pub(crate) price: Option<i64>,
    pub(crate) at: Timestamp,
}

#[derive(Clone, PartialEq, Record)]
pub(crate) struct Right {
    pub(crate) label: Option<String>,
    pub(crate) number: Option<i64>,
    pub(crate) price: Option<i64>,
    pub(crate) since: Timestamp,
}

/// In one line, because proptest prints many.
impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L {:?} {:?} {:?} at {}", self.number, self.tag, self.price, self.at.micros())
    }
}

impl fmt::Debug for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "R {:?} {:?} {:?} at {}", self.number, self.label, self.price, self.since.micros())
    }
}

pub(crate) fn left_stream() -> StreamSchema {
    StreamSchema::with_time(Left::schema(), "at").unwrap()
}

/// The price of the right side has another name, or it would be on both sides of a result.
pub(crate) fn right_stream() -> StreamSchema {
    StreamSchema::with_time(RightNamed::schema(), "since").unwrap()
}

/// [`Right`] as it is read.
#[derive(Clone, Record)]
pub(crate) struct RightNamed {
    label: Option<String>,
    number: Option<i64>,
    least: Option<i64>,
    since: Timestamp,
}

impl RightNamed {
    pub(crate) fn of(rows: &[Right]) -> Vec<Self> {
        let of = |row: Right| Self { label: row.label, number: row.number, least: row.price, since: row.since };
        rows.iter().cloned().map(of).collect()
    }

    pub(crate) fn plain(rows: &[Self]) -> Vec<Right> {
        let of = |row: Self| Right { label: row.label, number: row.number, price: row.least, since: row.since };
        rows.iter().cloned().map(of).collect()
    }

    pub(crate) fn since(&self) -> Timestamp {
        self.since
    }
}

/// Which columns are the key. Joins that give pairs have the number in it, because that is a column of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Number,
    NumberAndText,
    Text,
    Nothing,
}

impl On {
    pub(crate) fn columns(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Number => &[("number", "number")],
            Self::NumberAndText => &[("tag", "label"), ("number", "number")],
            Self::Text => &[("tag", "label")],
            Self::Nothing => &[],
        }
    }

    fn equal(self, left: &Left, right: &Right) -> bool {
        let number = left.number.is_some() && left.number == right.number;
        let text = left.tag.is_some() && left.tag == right.label;
        match self {
            Self::Number => number,
            Self::NumberAndText => number && text,
            Self::Text => text,
            Self::Nothing => true,
        }
    }
}

/// A join without its kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) join_type: JoinType,
    pub(crate) on: On,
    pub(crate) condition: bool,
}

impl Case {
    /// A column of one side, one of both that is qualified, and a null that is not true.
    pub(crate) fn condition(self) -> Option<Expr> {
        let condition = col("price").gt(col("least")).and(col("left.number").not_eq(lit(2)));
        self.condition.then_some(condition)
    }

    fn meets(self, left: &Left, right: &Right) -> bool {
        let dearer = left.price.zip(right.price).is_some_and(|(price, least)| price > least);
        let condition = !self.condition || (dearer && left.number.is_some_and(|number| number != 2));
        self.on.equal(left, right) && condition
    }

    /// The join by the definition, of rows for which `near` holds: which result rows, each with what it was made of.
    pub(crate) fn join<'r>(
        self,
        left: &'r [Left],
        right: &'r [Right],
        near: impl Fn(&Left, &Right) -> bool,
    ) -> Vec<(Option<&'r Left>, Option<&'r Right>)> {
        let mut results = Vec::new();
        let partners = |l: &Left, r: &Right| self.meets(l, r) && near(l, r);
        for l in left {
            let of_left: Vec<&Right> = right.iter().filter(|r| partners(l, r)).collect();
            match self.join_type {
                JoinType::LeftSemi => results.extend((!of_left.is_empty()).then_some((Some(l), None))),
                JoinType::LeftAnti => results.extend(of_left.is_empty().then_some((Some(l), None))),
                JoinType::Left | JoinType::Full if of_left.is_empty() => results.push((Some(l), None)),
                _ => results.extend(of_left.into_iter().map(|r| (Some(l), Some(r)))),
            }
        }
        if matches!(self.join_type, JoinType::Right | JoinType::Full) {
            let alone = right.iter().filter(|r| !left.iter().any(|l| partners(l, r)));
            results.extend(alone.map(|r| (None, Some(r))));
        }
        results
    }

    /// The columns of a result.
    pub(crate) fn values(self, left: Option<&Left>, right: Option<&Right>) -> Vec<Value> {
        let number = left.map_or_else(|| right.and_then(|r| r.number), |l| l.number);
        let mut values: Vec<Value> = vec![
            number.into(),
            left.and_then(|l| l.tag.clone()).into(),
            left.and_then(|l| l.price).into(),
            left.map(|l| l.at).into(),
        ];
        if !matches!(self.join_type, JoinType::LeftSemi | JoinType::LeftAnti) {
            values.push(right.and_then(|r| r.label.clone()).into());
            values.push(right.and_then(|r| r.price).into());
            values.push(right.map(|r| r.since).into());
        }
        values
    }

    pub(crate) fn row(self, (left, right): (Option<&Left>, Option<&Right>)) -> Row {
        self.values(left, right).into()
    }
}

pub(crate) const TYPES: [JoinType; 6] =
    [JoinType::Inner, JoinType::Left, JoinType::Right, JoinType::Full, JoinType::LeftSemi, JoinType::LeftAnti];

pub(crate) fn some_case() -> impl Strategy<Value = Case> {
    let on = prop::sample::select(vec![On::Number, On::Number, On::NumberAndText, On::Text, On::Nothing]);
    (prop::sample::select(TYPES.to_vec()), on, any::<bool>()).prop_map(|(join_type, on, condition)| {
        let gives_pairs = !matches!(join_type, JoinType::LeftSemi | JoinType::LeftAnti);
        let on = if gives_pairs && matches!(on, On::Text | On::Nothing) { On::Number } else { on };
        Case { join_type, on, condition }
    })
}

/// Few distinct values, so that keys collide, and nulls.
fn number() -> impl Strategy<Value = Option<i64>> + Clone {
    prop::option::weighted(0.85, 0i64..4)
}

fn text() -> impl Strategy<Value = Option<String>> + Clone {
    prop::option::weighted(0.85, prop::sample::select(vec!["", "a", "日本"]).prop_map(String::from))
}

fn price() -> impl Strategy<Value = Option<i64>> + Clone {
    prop::option::weighted(0.9, 0i64..6)
}

pub(crate) fn some_left(times: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Left>> {
    let row = (number(), text(), price(), times).prop_map(|(number, tag, price, at)| Left {
        number,
        tag,
        price,
        at: Timestamp::from_micros(at),
    });
    prop::collection::vec(row, 0..40)
}

pub(crate) fn some_right(times: impl Strategy<Value = i64>) -> impl Strategy<Value = Vec<Right>> {
    let row = (number(), text(), price(), times).prop_map(|(number, label, price, since)| Right {
        label,
        number,
        price,
        since: Timestamp::from_micros(since),
    });
    prop::collection::vec(row, 0..40)
}

/// Near both ends of time, and in the middle.
pub(crate) fn extreme_times() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![
        i64::MIN..=i64::MIN + 12,
        (i64::MAX - 12)..=i64::MAX,
        -12i64..12,
        Just(i64::MIN),
        Just(i64::MAX),
        any::<i64>(),
    ]
}

/// The pipeline of a join, from how its plan says that rows come to it.
pub(crate) fn pipeline<'a, O: Operator + 'static>(plan: &dyn Plan, make: impl Fn() -> Result<O> + 'a) -> Pipeline<'a> {
    let [Partitioning::Key(left), right] = &plan.inputs()[..] else { panic!("a join has two inputs") };
    let (_, output) = plan.outputs().swap_remove(0);
    Pipeline::two(&left_stream(), &right_stream())
        .exchange_two(left.clone(), right.clone())
        .stage(&output, make)
        .keyed(plan.keyed_output())
}
