//! A process with rules: rows by key, and a second input of rules that every task gets.
//!
//! ```text
//!   rows by key ──MAIN──────────► row(row, &rules, key) ──► MAIN, side output
//!                                           ▲
//!   rules to every task ──RIGHT──► rule(rule, &mut rules)
//! ```
//!
//! Rows and rules are not ordered among each other: a row sees the rules that have come to its task before it. Where that
//! matters a process keeps the row in its state, sets a timer, and judges it when the watermark, which is that of both
//! inputs, has passed it.
//!
//! # The disk format
//!
//! That of a process, with one more column: `rules`, a dictionary of MessagePack. The rules are one segment, which is written
//! again when they have changed: a row for each key group of the task, without a key, with the `version` of the rules and
//! the rules. So a task that is restored finds them among the rows of any of its key groups. In the dictionary they are
//! written once.

use std::{borrow::Cow, ops::Range, sync::Arc, time::Duration};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, DictionaryArray, LargeBinaryArray, RecordBatch, UInt8Array, UInt16Array, UInt32Array,
        new_null_array,
    },
    datatypes::{DataType, Field, UInt16Type, UInt32Type},
};
use typed_arrow::schema::FromRecordBatch;

use super::{Keyed, Process, ProcessOperator, ProcessPlan, Side, State, Timer, state};
use crate::{
    Advance, Operator, OperatorError, Outbox, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    key::KEY_GROUPS,
    state::{SegmentId, StateForm, StateReader, StateWriter},
    typed::{Record, Rows, short_name},
};

/// A function over the rows of a stream by key and over rules that every task gets, with state and timers per key.
///
/// Every task has a copy of the rules and must make the same of them: [`BroadcastProcess::rule`] looks at nothing else, and
/// what it makes of two rules should not depend on which of them came first, unless they come from one source task.
///
/// Bids above the limit of the day:
///
/// ```
/// use arrow::array::RecordBatch;
/// use typed_arrow::{prelude::*, schema::{BuildRows, SchemaMeta}};
/// use windrow_operators::keyed::{BroadcastPlan, BroadcastProcess, KeyedBy, NoSide};
/// use windrow_operators::{Operator, Outbox, Port, StreamSchema, Timestamp};
///
/// #[derive(Record)]
/// struct Bid { auction: i64, price: i64, at: Timestamp }
/// #[derive(Record)]
/// struct Limit { price: i64 }
/// #[derive(Record)]
/// struct Alert { auction: i64, above: u64 }
///
/// #[derive(Clone)]
/// struct Above;
///
/// impl BroadcastProcess for Above {
///     type Row = Bid;
///     type Rule = Limit;
///     type Rules = Option<i64>;
///     type State = u64;
///     type Output = Alert;
///     type Side = NoSide;
///
///     fn rule(&mut self, limit: LimitView<'_>, rules: &mut Option<i64>) {
///         *rules = Some(limit.price);
///     }
///
///     fn row(&mut self, bid: BidView<'_>, rules: &Option<i64>, key: &mut KeyedBy<'_, Self>) {
///         if rules.is_some_and(|limit| bid.price > limit) {
///             *key.state_mut() += 1;
///             let above = *key.state();
///             key.emit(Alert { auction: bid.auction, above });
///         }
///     }
/// }
///
/// let bids = StreamSchema::with_time(Bid::schema(), "at").unwrap();
/// let limits = StreamSchema::without_time(Limit::schema());
/// let plan = BroadcastPlan::new(&bids, &["auction"], &limits, Above, None).unwrap();
///
/// let (mut operator, mut out) = (plan.whole().unwrap(), Outbox::new());
/// let mut rules = Limit::new_builders(1);
/// rules.append_row(Limit { price: 100 });
/// operator.process(Port::RIGHT, rules.finish().into_record_batch(), &mut out).unwrap();
/// let mut rows = Bid::new_builders(2);
/// rows.append_rows([50, 500].map(|price| Bid { auction: 7, price, at: Timestamp::from_micros(0) }));
/// operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut out).unwrap();
/// assert_eq!(out.drain().map(|(_, batch)| batch.num_rows()).sum::<usize>(), 1);
/// ```
pub trait BroadcastProcess: Clone + Send + Sync + 'static {
    /// The rows that come by key.
    type Row: Record;
    /// The rows of the second input.
    type Rule: Record;
    /// What is made of the rules: once per task.
    type Rules: State + Sync;
    /// What is kept per key.
    type State: State;
    /// What it emits: a `#[derive(Record)]` struct. Event time goes on as a hidden column.
    type Output: Record;
    /// What it emits on its side output; [`NoSide`](super::NoSide) when there is none.
    type Side: Side;

    /// A rule has come.
    fn rule(&mut self, rule: <Self::Rule as FromRecordBatch>::View<'_>, rules: &mut Self::Rules);

    /// A row has come.
    fn row(&mut self, row: <Self::Row as FromRecordBatch>::View<'_>, rules: &Self::Rules, key: &mut KeyedBy<'_, Self>);

    /// A timer fires that the key had set.
    fn timer(&mut self, _timer: Timer, _rules: &Self::Rules, _key: &mut KeyedBy<'_, Self>) {}

    /// What it is called in messages and in checkpoints: see [`Process::name`].
    fn name() -> Cow<'static, str> {
        short_name::<Self>().into()
    }
}

/// One key, as a [`BroadcastProcess`] sees it.
pub type KeyedBy<'a, B> = Keyed<'a, ByRules<B>>;

/// A [`BroadcastProcess`] and the rules that its task has.
pub struct ByRules<B: BroadcastProcess> {
    process: B,
    rules: B::Rules,
}

/// For a new task, which has no rules yet.
impl<B: BroadcastProcess> Clone for ByRules<B> {
    fn clone(&self) -> Self {
        Self { process: self.process.clone(), rules: B::Rules::default() }
    }
}

impl<B: BroadcastProcess> Process for ByRules<B> {
    type Row = B::Row;
    type State = B::State;
    type Output = B::Output;
    type Side = B::Side;

    fn row(&mut self, row: <B::Row as FromRecordBatch>::View<'_>, key: &mut Keyed<'_, Self>) {
        self.process.row(row, &self.rules, key);
    }

    fn timer(&mut self, timer: Timer, key: &mut Keyed<'_, Self>) {
        self.process.timer(timer, &self.rules, key);
    }

    fn name() -> Cow<'static, str> {
        B::name()
    }
}

/// Makes operators of a [`BroadcastProcess`].
pub struct BroadcastPlan<B: BroadcastProcess> {
    keyed: ProcessPlan<ByRules<B>>,
    rules: Rows<B::Rule>,
}

impl<B: BroadcastProcess> Clone for BroadcastPlan<B> {
    fn clone(&self) -> Self {
        Self { keyed: self.keyed.clone(), rules: self.rules.clone() }
    }
}

impl<B: BroadcastProcess> BroadcastPlan<B> {
    /// Gives rows of `input` to `process` by the columns `key`, and rows of `rules` to every task. `ttl` is as in
    /// [`ProcessPlan::new`], which also says what fails.
    pub fn new(
        input: &StreamSchema,
        key: &[&str],
        rules: &StreamSchema,
        process: B,
        ttl: Option<Duration>,
    ) -> Result<Self> {
        let process = ByRules { process, rules: B::Rules::default() };
        let others = vec![Field::new("rules", rules_type(), true)];
        Ok(Self { keyed: ProcessPlan::with_others(input, key, process, ttl, others)?, rules: Rows::new(rules)? })
    }

    /// The schema of what it emits.
    pub fn output(&self) -> &StreamSchema {
        self.keyed.output()
    }

    /// The schema of its side output, if it has one.
    pub fn side(&self) -> Option<&StreamSchema> {
        self.keyed.side()
    }

    /// The operator.
    pub fn whole(&self) -> Result<Broadcast<B>> {
        Ok(Broadcast {
            keyed: self.keyed.whole()?,
            plan: self.clone(),
            key_groups: 0..KEY_GROUPS,
            saved: None,
            changed: false,
            rules_bytes: 0,
        })
    }
}

impl<B: BroadcastProcess> Plan for BroadcastPlan<B> {
    fn noun(&self) -> &'static str {
        "broadcast"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        let mut inputs = self.keyed.inputs();
        inputs.push(Partitioning::Broadcast);
        inputs
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        self.keyed.outputs()
    }

    fn state_form(&self) -> StateForm {
        self.keyed.state_form()
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}

/// A process with rules at work. Made by [`BroadcastPlan`].
pub struct Broadcast<B: BroadcastProcess> {
    keyed: ProcessOperator<ByRules<B>>,
    plan: BroadcastPlan<B>,
    /// Those of this task; of one that was never loaded, all.
    key_groups: Range<usize>,
    /// The segment that has the rules as they were saved last.
    saved: Option<SegmentId>,
    /// Whether rules have come since.
    changed: bool,
    /// How many bytes the rules had when they were saved or loaded.
    rules_bytes: usize,
}

fn rules_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::LargeBinary))
}

impl<B: BroadcastProcess> Broadcast<B> {
    fn add_rules(&mut self, batch: &RecordBatch) -> Result<()> {
        let columns = self.plan.rules.columns(batch)?;
        let ByRules { process, rules } = &mut self.keyed.process;
        for view in self.plan.rules.views(&columns)? {
            process.rule(view?, rules);
            self.changed = true;
        }
        Ok(())
    }

    /// The rules, once for each key group.
    fn segment(&mut self) -> Result<RecordBatch> {
        let schema = self.plan.state_form().columns;
        let rows = self.key_groups.len();
        let bytes = state::write(&self.keyed.process.rules)?;
        self.rules_bytes = bytes.len();
        let rules = LargeBinaryArray::from_vec(vec![&bytes]);
        let rules = DictionaryArray::try_new(UInt16Array::from(vec![0; rows]), Arc::new(rules))?;
        let nulls = |field: &Arc<Field>| new_null_array(field.data_type(), rows);
        let mut columns: Vec<ArrayRef> = schema.fields().iter().map(nulls).collect();
        columns[0] = Arc::new(UInt8Array::from_iter_values(self.key_groups.clone().map(|group| group as u8)));
        let version = 3 + self.plan.keyed.0.key.columns().len();
        columns[version] = Arc::new(UInt32Array::from(vec![B::Rules::VERSION; rows]));
        if let Some(last) = columns.last_mut() {
            *last = Arc::new(rules);
        }
        Ok(RecordBatch::try_new(schema, columns)?)
    }

    /// Reads the rules from a segment.
    fn read(&mut self, segment: &RecordBatch) -> Result<()> {
        let missing = || OperatorError::Internal("a segment of rules without rules".into());
        let held = self.plan.keyed.0.key.held(segment);
        let rules = rules_of(segment).ok_or_else(missing)?;
        let bytes = rules.values().as_binary_opt::<i64>().ok_or_else(missing)?;
        let bytes = bytes.value(rules.key(0).ok_or_else(missing)?);
        let version = held[2].as_primitive::<UInt32Type>().value(0);
        self.rules_bytes = bytes.len();
        self.keyed.process.rules = state::read(version, bytes).map_err(|error| {
            let (meaning, now) = (self.plan.state_form().meaning, B::Rules::VERSION);
            OperatorError::Plan(format!(
                "broadcast process {meaning}: the rules, of version {version} (now {now}), cannot be read: {error}"
            ))
        })?;
        Ok(())
    }
}

/// The rules in a segment, if it is one of rules.
fn rules_of(segment: &RecordBatch) -> Option<&DictionaryArray<UInt16Type>> {
    let rules = segment.columns().last()?.as_dictionary_opt::<UInt16Type>()?;
    (!rules.is_empty() && rules.is_valid(0)).then_some(rules)
}

impl<B: BroadcastProcess> Operator for Broadcast<B> {
    fn process(&mut self, port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        if port != Port::RIGHT {
            return self.keyed.process(port, batch, out);
        }
        self.keyed.check_idle("was given rules")?;
        self.add_rules(&batch)?;
        out.processed(batch.num_rows());
        Ok(())
    }

    fn advance(&mut self, time: Timestamp, out: &mut Outbox) -> Result<Advance> {
        self.keyed.advance(time, out)
    }

    fn tick(&mut self, out: &mut Outbox) -> Result<()> {
        self.keyed.tick(out)
    }

    fn save(&mut self, state: &mut StateWriter<'_>) -> Result<()> {
        self.keyed.save(state)?;
        if std::mem::take(&mut self.changed) {
            self.saved = Some(state.seal(self.segment()?));
        } else if let Some(saved) = self.saved {
            state.keep(saved);
        }
        Ok(())
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.key_groups = state.key_groups.clone();
        let mut keyed = state.clone();
        let mut rules = Vec::new();
        for part in &mut keyed.parts {
            // The newest is the last, and there is one.
            rules.extend(part.segments.iter().rev().find(|(_, segment)| rules_of(segment).is_some()).cloned());
            // They stay, without rows: a former task that had only rules is one of several too.
            for (_, segment) in part.segments.iter_mut().filter(|(_, segment)| rules_of(segment).is_some()) {
                *segment = segment.slice(0, 0);
            }
        }
        if let Some((id, segment)) = rules.first() {
            let segment = self.plan.keyed.0.key.form().widen(segment)?;
            self.read(&segment)?;
            // All tasks had the same rules at the barrier. A segment that has only some of the key groups is written again.
            let is_whole = segment.num_rows() == self.key_groups.len();
            (self.saved, self.changed) = if is_whole { (Some(*id), false) } else { (None, true) };
        }
        self.keyed.load(&keyed)
    }

    fn size(&self) -> usize {
        self.keyed.size() + self.rules_bytes
    }
}
