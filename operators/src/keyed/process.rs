//! What a user writes, and the plan that makes operators of it.

use std::{borrow::Cow, sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field};
use typed_arrow::schema::FromRecordBatch;

use super::{Keyed, ProcessOperator, Side, State, store::KeyPlan};
use crate::{
    Operator, Partitioning, Plan, Port, Result, StreamSchema, Timestamp,
    state::StateForm,
    typed::{Record, Rows, output_of, short_name},
};

/// A timer that fires, and the instant that it was set for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Of event time: the watermark has come there.
    Event(Timestamp),
    /// Of processing time.
    Processing(Timestamp),
}

/// A function over the rows of a stream by key, with state and timers per key.
///
/// Every task has a clone of it, and a key is always in one task. What it must remember of a key belongs into the
/// [`State`], or, where that is large, into a [`MapState`](super::MapState) or [`ListState`](super::ListState); its own fields
/// are handles to those, configuration, or caches: they are not saved.
///
/// Bidders who bid three times within a minute:
///
/// ```
/// use std::time::Duration;
/// use arrow::array::{AsArray, RecordBatch};
/// use serde::{Deserialize, Serialize};
/// use typed_arrow::{prelude::*, schema::{BuildRows, SchemaMeta}};
/// use windrow_operators::keyed::{Keyed, NoSide, Process, ProcessPlan, State, Timer};
/// use windrow_operators::{Operator, Outbox, Plan, Port, StreamSchema, Timestamp};
///
/// #[derive(Record)]
/// struct Bid { bidder: i64, price: i64, at: Timestamp }
/// #[derive(Record)]
/// struct Alert { bidder: i64, total: i64 }
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Running { bids: u32, total: i64 }
/// impl State for Running {}
///
/// #[derive(Clone)]
/// struct Eager { within: Duration }
///
/// impl Process for Eager {
///     type Row = Bid;
///     type State = Running;
///     type Output = Alert;
///     type Side = NoSide;
///
///     fn row(&mut self, bid: BidView<'_>, key: &mut Keyed<'_, Self>) {
///         if key.state().bids == 0 {
///             key.set_timer(key.time() + self.within);
///         }
///         let running = key.state_mut();
///         running.bids += 1;
///         running.total += bid.price;
///         if running.bids == 3 {
///             let total = running.total;
///             key.emit(Alert { bidder: bid.bidder, total });
///             key.clear();
///         }
///     }
///
///     fn timer(&mut self, _timer: Timer, key: &mut Keyed<'_, Self>) {
///         key.clear();
///     }
/// }
///
/// let bids = StreamSchema::with_time(Bid::schema(), "at").unwrap();
/// let eager = Eager { within: Duration::from_secs(60) };
/// let plan = ProcessPlan::new(&bids, &["bidder"], eager, None).unwrap();
///
/// let mut operator = plan.whole().unwrap();
/// let mut rows = Bid::new_builders(4);
/// let at = Timestamp::from_micros;
/// rows.append_rows([7, 8, 7, 7].map(|bidder| Bid { bidder, price: 100, at: at(bidder) }));
/// let mut out = Outbox::new();
/// operator.process(Port::MAIN, rows.finish().into_record_batch(), &mut out).unwrap();
/// let alerts: Vec<RecordBatch> = out.drain().map(|(_, batch)| batch).collect();
/// assert_eq!(alerts[0].num_rows(), 1);
/// assert_eq!(alerts[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 7);
/// ```
pub trait Process: Clone + Send + Sync + 'static {
    /// The rows that come.
    type Row: Record;
    /// What is kept per key.
    type State: State;
    /// What it emits: a `#[derive(Record)]` struct. Event time goes on as a hidden column.
    type Output: Record;
    /// What it emits on its side output; [`NoSide`](super::NoSide) when there is none.
    type Side: Side;

    /// A row has come. Its argument is written `BidView<'_>` where [`Process::Row`] is `Bid`.
    fn row(&mut self, row: <Self::Row as FromRecordBatch>::View<'_>, key: &mut Keyed<'_, Self>);

    /// A timer fires that the key had set. Those of a key fire in the order of their instants, and at one watermark those of
    /// all keys do.
    fn timer(&mut self, _timer: Timer, _key: &mut Keyed<'_, Self>) {}

    /// What it is called in messages and in checkpoints: the name of the type. State that was saved under another name is not
    /// accepted, so a type that is renamed says here what it was called.
    fn name() -> Cow<'static, str> {
        short_name::<Self>().into()
    }
}

/// Makes operators of a [`Process`].
pub struct ProcessPlan<P: Process>(pub(super) Arc<Shared<P>>, Order);

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Arrival,
    EventTime,
}

pub(super) struct Shared<P: Process> {
    pub(super) process: P,
    pub(super) ttl: Option<Duration>,
    pub(super) rows: Rows<P::Row>,
    pub(super) input_time: Option<usize>,
    pub(super) output: StreamSchema,
    pub(super) side: Option<StreamSchema>,
    pub(super) key: KeyPlan,
    /// Columns of its segments that are another's.
    pub(super) others: Vec<Field>,
}

impl<P: Process> Clone for ProcessPlan<P> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1)
    }
}

impl<P: Process> ProcessPlan<P> {
    /// Gives rows of `input` to `process` by the columns `key`; without any, all rows have one key and go to one task.
    ///
    /// With `ttl`, a time to live, a key is forgotten with its timers when the watermark is more than `ttl` past its last
    /// row. A timer that is set for later than that does not fire. A row that comes before the watermark has got there finds
    /// the key, however long after the last row its own time is.
    ///
    /// Fails when a column does not exist or cannot be a key, when a field of [`Process::Row`] is not among the columns, or
    /// when there is a `ttl` but no event time.
    pub fn new(input: &StreamSchema, key: &[&str], process: P, ttl: Option<Duration>) -> Result<Self> {
        Self::with_others(input, key, process, ttl, Vec::new())
    }

    /// The same with more columns in the segments, and rows there that have no key.
    pub(super) fn with_others(
        input: &StreamSchema,
        key: &[&str],
        process: P,
        ttl: Option<Duration>,
        others: Vec<Field>,
    ) -> Result<Self> {
        let name = P::name();
        if ttl.is_some() {
            input.event_time(&format!("the time to live of process {name}"))?;
        }
        let instants = || DataType::List(Arc::new(Field::new_list_field(Timestamp::data_type(), true)));
        let mut held = vec![
            Field::new("handle", DataType::Utf8, true),
            Field::new("entry", DataType::LargeBinary, true),
            Field::new("version", DataType::UInt32, true),
            Field::new("state", DataType::LargeBinary, true),
            Field::new("time", Timestamp::data_type(), true),
            Field::new("timers", instants(), true),
            Field::new("processing_timers", instants(), true),
        ];
        held.extend(others.iter().cloned());
        let place = |name| held.iter().position(|field: &Field| field.name() == name);
        let (version, state, rules) = (place("version"), place("state"), place("rules"));
        let packed: Vec<usize> = state.into_iter().chain(rules).collect();
        let plan = KeyPlan::new(input, key, held, &name)?.read_as(version.unwrap_or(0), &packed, rules);
        Ok(Self(
            Arc::new(Shared {
                process,
                ttl,
                rows: Rows::new(input)?,
                input_time: input.time(),
                output: output_of::<P::Output>(input)?,
                side: P::Side::schema(input)?,
                key: if others.is_empty() { plan } else { plan.with_rows_without_key() },
                others,
            }),
            Order::Arrival,
        ))
    }

    /// Rows come in order of event time, because they have been sorted. Before each row the timers fire that are due at its
    /// time, and keys are forgotten whose time to live has passed: so what the function sees, and what it answers, does not
    /// depend on how rows arrive, on batches or on watermarks. (Except of a timer that is set for the past: it fires with the
    /// next row of its key or the next watermark, whichever comes first.) However many timers are due before a row, they
    /// fire in steps; of a chain that sets one timer after the other without end, those up to the time of the row.
    #[must_use]
    pub fn in_order(self) -> Self {
        Self(self.0, Order::EventTime)
    }

    /// The schema of what it emits.
    pub fn output(&self) -> &StreamSchema {
        &self.0.output
    }

    /// The schema of its side output, if it has one.
    pub fn side(&self) -> Option<&StreamSchema> {
        self.0.side.as_ref()
    }

    /// The operator.
    pub fn whole(&self) -> Result<ProcessOperator<P>> {
        ProcessOperator::new(self.0.clone(), self.1)
    }
}

impl<P: Process> Plan for ProcessPlan<P> {
    fn noun(&self) -> &'static str {
        "process"
    }

    fn inputs(&self) -> Vec<Partitioning> {
        vec![Partitioning::Key(self.0.key.columns().to_vec())]
    }

    fn outputs(&self) -> Vec<(Port, StreamSchema)> {
        let side = self.0.side.iter().map(|schema| (Port::side(0), schema.clone()));
        std::iter::once((Port::MAIN, self.0.output.clone())).chain(side).collect()
    }

    fn state_form(&self) -> StateForm {
        let form = self.0.key.form();
        // An entry of a map or list is a row beside that of its key.
        StateForm { identity: form.identity + 2, ..form.clone() }
    }

    fn whole(&self) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Self::whole(self)?))
    }
}
