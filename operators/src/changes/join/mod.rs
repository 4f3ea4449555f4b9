//! The join of two tables that change, without a window.
//!
//! ```text
//!   left changes  ──► rows by key, and by join key ─┐
//!                                                   ├─► pairs that come and go ──► folded per output key ──► changes
//!   right changes ──► rows by key, and by join key ─┘
//! ```
//!
//! Here: what is joined, and the form of the state. `pairs`: which pairs come and go with a change. `partners`: which rows meet a
//! condition. `operator`: the state machine around them.

mod operator;
mod pairs;
mod partners;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt8Array, new_null_array},
    datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, UInt8Type},
};
use datafusion_expr::Expr;

use super::{lifetime::check_ttl, store};
use crate::{
    Operator, OperatorError, Port, Result, StreamSchema,
    join::{
        JoinType, LEFT, RIGHT,
        pairing::{NAMES, PairCondition, Pairing, Source},
    },
    plan::{KeyedOutput, Partitioning, Plan},
    state::{KEY_GROUP, StateForm, segments::own_bytes},
};

/// The column of the state that says of which side a row is.
const SIDE: &str = "side";

/// Joins two streams of changes: the join of the two tables as they are now, kept up to date.
///
/// The result is a stream of changes by the key of the left side and then that of the right one, where a join column that both
/// sides call alike is there once. It has the columns of the left side, then those of the right one; the columns of a side
/// that has no partner are null. A semi or anti join has the key and the columns of the left side only. Rows whose join columns
/// are null have no partner, and two rows that do not meet the condition are none. When a batch of changes comes, what it
/// does to each row of the result leaves as one change, unless the rows of the batch have so many partners that it is gone through
/// in parts. A row with very many partners gives as many changes, in steps: see [`Outbox::again`](crate::Outbox::again).
///
/// With a condition all rows of one value of the join columns are looked at when one of them changes. How many partners each has
/// is not in the state but found again after a restore.
///
/// With a time to live a row goes away when its last change is more than that behind the watermark, with deletes of what it was
/// in; a change that is itself so far behind is late; at the end of the input all rows go. **Without a time to live the rows of
/// both tables are kept for ever.**
///
/// When the join columns are part of the keys of both sides, tasks share the work by them. Otherwise a row may move from one
/// value of the join columns to another by an update. One task would delete what it was in and another insert what it is in now,
/// and where these two changes are of one key of the result (as of a left row that has no partner, before and after) nothing says
/// which of them comes first. Besides, who routes an update has only the new row, and does not know which task had the old one.
/// So then there is one task.
///
/// The state has the columns `__key_group`, `side` (0 left, 1 right), the keys of both sides, `__gone`, `__time`, and the other
/// columns of both sides; those of the other side are null.
///
/// ```
/// use std::sync::Arc;
/// use arrow::array::{ArrayRef, Int64Array, RecordBatch, UInt8Array};
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_operators::join::JoinType;
/// use windrow_operators::{Operator, Outbox, Plan, Port, StreamSchema, changes::ChangeJoinPlan};
///
/// let table = |columns: [&str; 2]| {
///     let fields = columns.map(|name| Field::new(name, DataType::Int64, false));
///     StreamSchema::changes_without_time(&Schema::new(fields.to_vec()), &[columns[0]]).unwrap()
/// };
/// let change = |table: &StreamSchema, key: i64, value: i64, op: u8| {
///     let number = |n| Arc::new(Int64Array::from(vec![n])) as ArrayRef;
///     let columns = vec![number(key), number(value), Arc::new(UInt8Array::from(vec![op])) as _];
///     RecordBatch::try_new(table.columns().clone(), columns).unwrap()
/// };
/// let (stock, price) = (table(["item", "stock"]), table(["item", "price"]));
/// let plan = ChangeJoinPlan::new(&stock, &price, &[("item", "item")], JoinType::Left, None, None).unwrap();
/// assert_eq!(plan.output().to_string(), "changes by item: item Int64, stock Int64, price Int64");
///
/// let mut join = plan.whole().unwrap();
/// let mut out = Outbox::new();
/// join.process(Port::MAIN, change(&stock, 7, 3, 0), &mut out).unwrap();
/// join.process(Port::RIGHT, change(&price, 7, 99, 0), &mut out).unwrap();
/// let rows: Vec<_> = out.drain().map(|(_, rows)| rows).collect();
/// assert!(rows[0].column(2).is_null(0), "no price yet: an insert");
/// assert!(rows[1].column(2).is_valid(0), "then an update");
/// ```
#[derive(Clone, Debug)]
pub struct ChangeJoinPlan(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    sides: [Side; 2],
    /// Whether pairs are in the result.
    pairs: bool,
    /// Whether rows of a side are in the result on their own: those that have a partner (`true`), or that have none.
    alone: [Option<bool>; 2],
    condition: Option<PairCondition>,
    ttl: Option<Duration>,
    sources: Vec<Source>,
    keyed: Option<KeyedOutput>,
    output: StreamSchema,
    form: StateForm,
}

#[derive(Debug)]
struct Side {
    input: StreamSchema,
    /// The visible columns: those of the key of its changes, the others, the join columns, and those that choose the task.
    key: Vec<usize>,
    others: Vec<usize>,
    on: Vec<usize>,
    partition: Vec<usize>,
    /// Those of its store.
    columns: SchemaRef,
}

impl ChangeJoinPlan {
    /// Rows of `left` and `right` that agree in the columns `on` and meet `condition`, in which a column that is on both sides is
    /// written `left.price` or `right.price`. Fails when a side is not a stream of changes, a column does not exist or has another
    /// type than its partner, both sides have a column of one name that is not a join column of both (unless only the left one's
    /// are in the result), the condition is none, or there is a time to live and a side without event time.
    ///
    /// A full join fails besides when two rows without a partner, one of each side, could have the same key in the result. So a
    /// column of one of the keys must not be nullable; and if there is a condition it must not be a join column that both sides
    /// call alike.
    pub fn new(
        left: &StreamSchema,
        right: &StreamSchema,
        on: &[(&str, &str)],
        join_type: JoinType,
        condition: Option<&Expr>,
        ttl: Option<Duration>,
    ) -> Result<Self> {
        [left, right].iter().try_for_each(|side| side.expect_changes("a join of changes").map(drop))?;
        if on.is_empty() {
            return Err(OperatorError::Plan("a join of changes needs at least one pair of join columns".into()));
        }
        let pairing = Pairing::new([left, right], on, join_type, condition, Vec::new())?;
        let is_of_key = |(stream, on): (&StreamSchema, &Vec<usize>)| {
            on.iter().all(|column| stream.change_key().is_some_and(|key| key.contains(column)))
        };
        let fixed = [left, right].into_iter().zip(&pairing.on).all(is_of_key);
        let [left_on, right_on] = pairing.on.clone();
        let sides = [Side::new(left, left_on, fixed)?, Side::new(right, right_on, fixed)?];
        sides.iter().try_for_each(|side| check_ttl(ttl, &side.input))?;
        if join_type == JoinType::Full {
            check_told_apart(&sides, &pairing)?;
        }
        let output = output(&sides, join_type, &pairing)?;
        let mut meaning = format!("{} join on ", format!("{join_type}").to_lowercase());
        for (at, (l, r)) in on.iter().enumerate() {
            let _ = write!(meaning, "{}{l} = {r}", if at == 0 { "" } else { ", " });
        }
        if let Some(condition) = condition {
            let _ = write!(meaning, ", where {condition}");
        }
        let form = form(&sides, meaning);
        let alone = [LEFT, RIGHT].map(|side| join_type.decides(side).then(|| join_type.wants_partner()));
        let Pairing { condition, sources, keyed, .. } = pairing;
        Ok(Self(Arc::new(Shared {
            sides,
            pairs: join_type.gives_pairs(),
            alone,
            condition,
            ttl,
            sources,
            // Otherwise all rows are with one task.
            keyed: keyed.filter(|_| fixed),
            output,
            form,
        })))
    }

    /// The schema of the changes.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }
}

impl Plan for ChangeJoinPlan {
    fn noun(&self) -> &'static str {
        "join"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        self.0.sides.iter().map(|side| Partitioning::Key(side.partition.clone())).collect()
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let late = [Port::LATE, Port::LATE_RIGHT].into_iter().zip(&self.0.sides);
        let late = late.filter(|_| self.0.ttl.is_some()).map(|(port, side)| (port, side.input.clone()));
        [(Port::MAIN, self.0.output.clone())].into_iter().chain(late).collect()
    }

    fn state_form(&self) -> StateForm {
        self.0.form.clone()
    }

    fn keyed_output(&self) -> Option<KeyedOutput> {
        self.0.keyed.clone()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(operator::ChangeJoin::new(self.0.clone())?))
    }
}

impl Side {
    fn new(input: &StreamSchema, on: Vec<usize>, fixed: bool) -> Result<Self> {
        let key = input.expect_changes("a join of changes")?.to_vec();
        let visible = input.visible();
        let others: Vec<usize> = (0..visible.fields().len()).filter(|column| !key.contains(column)).collect();
        let fields =
            |columns: &[usize]| columns.iter().map(|&i| visible.fields()[i].clone()).collect::<Vec<FieldRef>>();
        Ok(Self {
            columns: store::columns(&fields(&key), &fields(&others))?,
            partition: if fixed { on.clone() } else { Vec::new() },
            input: input.clone(),
            key,
            others,
            on,
        })
    }

    /// Where a visible column is in rows of the store.
    fn place(&self, column: usize) -> usize {
        match self.key.iter().position(|key| *key == column) {
            Some(at) => 1 + at,
            None => 3 + self.key.len() + self.others.iter().position(|other| *other == column).unwrap_or_default(),
        }
    }

    /// The join columns of rows of the store.
    fn join_key(&self, rows: &RecordBatch) -> Vec<ArrayRef> {
        self.on.iter().map(|&column| rows.column(self.place(column)).clone()).collect()
    }
}

/// Refuses a full join in which rows without a partner of both sides could have one key.
fn check_told_apart(sides: &[Side; 2], pairing: &Pairing) -> Result<()> {
    let [left, right] = sides.each_ref().map(|side| side.input.visible());
    let pairs = pairing.on[LEFT].iter().zip(&pairing.on[RIGHT]);
    let alike: Vec<&String> = pairs
        .map(|(&l, &r)| (left.field(l).name(), right.field(r).name()))
        .filter(|(l, r)| l == r)
        .map(|(l, _)| l)
        .collect();
    let keys = [(&sides[LEFT], &left), (&sides[RIGHT], &right)];
    let fields = || keys.iter().flat_map(|(side, visible)| side.key.iter().map(|&column| visible.field(column)));
    if !fields().any(|field| !field.is_nullable()) {
        return Err(OperatorError::Plan(
            "a full join of tables needs a column of a key that is never null: otherwise a row of each side with nulls as \
             its key would be one row of the result. Fill the nulls before .key_by(…), .map(…) to a record in which that \
             field is no Option, or join from one side, with JoinType::Left"
                .into(),
        ));
    }
    let tells = |field: &&Field| !field.is_nullable() && !alike.contains(&field.name());
    if pairing.condition.is_none() || fields().any(|field| tells(&field)) {
        return Ok(());
    }
    let name = alike.first().map_or("", |name| name.as_str());
    Err(OperatorError::Plan(format!(
        "a full join of tables with a condition: where the condition is not met there is a row of each side, and both would \
         have the key {name:?}: give it another name on one side first, .select([…, col({name:?}).alias(\"right_{name}\")])"
    )))
}

/// The schema of the result.
fn output(sides: &[Side; 2], join_type: JoinType, pairing: &Pairing) -> Result<StreamSchema> {
    let of_result = if join_type.gives_pairs() { &sides[..] } else { &sides[..=LEFT] };
    let visible = of_result.iter().map(|side| side.input.visible()).collect::<Vec<_>>();
    let mut key: Vec<&str> = Vec::new();
    for (side, visible) in of_result.iter().zip(&visible) {
        let names = side.key.iter().map(|&column| visible.field(column).name().as_str());
        names.for_each(|name| {
            if !key.contains(&name) {
                key.push(name)
            }
        });
    }
    let columns = Schema::new(pairing.fields.clone());
    match sides.iter().all(|side| side.input.time().is_some()) {
        true => StreamSchema::changes(&columns, &key),
        false => StreamSchema::changes_without_time(&columns, &key),
    }
}

/// The columns of the state: those of the stores of both sides, next to each other.
fn form(sides: &[Side; 2], meaning: String) -> StateForm {
    let mut fields = vec![Field::new(KEY_GROUP, DataType::UInt8, false), Field::new(SIDE, DataType::UInt8, false)];
    let named = |(side, field): (usize, &FieldRef)| {
        field.as_ref().clone().with_name(format!("{}.{}", NAMES[side], field.name())).with_nullable(true)
    };
    let keys = sides
        .iter()
        .enumerate()
        .flat_map(|(i, side)| side.columns.fields()[1..1 + side.key.len()].iter().map(move |field| (i, field)));
    let own = sides
        .iter()
        .enumerate()
        .flat_map(|(i, side)| side.columns.fields()[3 + side.key.len()..].iter().map(move |field| (i, field)));
    fields.extend(keys.map(named));
    let keys = sides[LEFT].key.len();
    fields.extend(sides[LEFT].columns.fields()[1 + keys..3 + keys].iter().map(|field| field.as_ref().clone()));
    fields.extend(own.map(named));
    let identity = 1 + sides.iter().map(|side| side.key.len()).sum::<usize>();
    StateForm { identity, columns: Arc::new(Schema::new(fields)), meaning, reading: store::reading(identity) }
}

impl Shared {
    /// Where in a segment the columns of the store of a side are.
    fn places(&self, side: usize) -> Vec<usize> {
        let [left, right] = &self.sides;
        let keys = left.key.len() + right.key.len();
        let (key, own) = match side {
            LEFT => (2, 4 + keys),
            _ => (2 + left.key.len(), 4 + keys + left.others.len()),
        };
        let own_side = &self.sides[side];
        let mut places = vec![0];
        places.extend(key..key + own_side.key.len());
        places.extend([2 + keys, 3 + keys]);
        places.extend(own..own + own_side.others.len());
        places
    }

    /// Rows of the store of a side as a segment.
    fn segment(&self, side: usize, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.form.columns.fields();
        let mut columns: Vec<Option<ArrayRef>> = vec![None; fields.len()];
        columns[1] = Some(Arc::new(UInt8Array::from(vec![side as u8; rows.num_rows()])));
        for (place, column) in self.places(side).into_iter().zip(rows.columns()) {
            columns[place] = Some(own_bytes(column.clone()));
        }
        let null = |field: &FieldRef| new_null_array(field.data_type(), rows.num_rows());
        let columns = columns.into_iter().zip(fields).map(|(column, field)| column.unwrap_or_else(|| null(field)));
        Ok(RecordBatch::try_new(self.form.columns.clone(), columns.collect())?)
    }

    /// The rows of a segment, if they are of this side: all rows of a segment are of one.
    fn of_segment(&self, side: usize, segment: &RecordBatch) -> Result<Option<RecordBatch>> {
        let segment = self.form.widen(segment)?;
        if segment.column(1).as_primitive::<UInt8Type>().values().first() != Some(&(side as u8)) {
            return Ok(None);
        }
        let columns = self.places(side).into_iter().map(|place| segment.column(place).clone()).collect();
        Ok(Some(RecordBatch::try_new(self.sides[side].columns.clone(), columns)?))
    }
}

/// Which rows of join columns have a null, and so no partner.
fn nulls(columns: &[ArrayRef], row: usize) -> bool {
    columns.iter().any(|column| column.is_null(row))
}
