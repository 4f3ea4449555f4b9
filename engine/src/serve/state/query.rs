//! One query over one checkpoint, within bounds, on a thread of its own.
//!
//! ```text
//!   place ──────────► turn (one at a time) ──► thread ──► manifest: not too many bytes? ──► tables ──► plan: only reads? ──► rows
//!     └ a checkpoint ──┘                                                  DataFusion, in so much memory ┘ makes nothing long?  │
//!       if it is to be of now                                {"epoch", "columns", "rows", "truncated"} ◄── not too many ◄─────┘
//! ```
//!
//! Who wants a checkpoint to be taken waits for it before the turn: a job that hangs completes none, and it is then that others look at
//! the newest there is.
//!
//! DataFusion keeps account of what joins, sorts and aggregates hold, and so that is bounded. It does not of what an expression, a window
//! or an aggregate allocates besides. What makes long texts of short ones is refused, and so are the windows and aggregates that hold
//! most. That is against accidents: who wants to can still exhaust the process with a query, so each needs the token.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use arrow::json::{WriterBuilder, writer::JsonArray};
use datafusion::{
    common::{
        TableReference,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    datasource::MemTable,
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        runtime_env::RuntimeEnvBuilder,
    },
    logical_expr::{Expr, LogicalPlan, Operator},
    prelude::{SQLOptions, SessionConfig, SessionContext},
};
use futures::StreamExt;
use hyper::StatusCode;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};
use windrow_connectors::Epoch;

use crate::{
    JobHandle,
    serve::{
        answer::{Answered, Refusal, bytes_of},
        routes::undone,
    },
    state::{Outline, State, Wanted, open_if},
    thread,
};

/// So many rows are written before it is looked how many bytes there are.
const STEP: usize = 100;
/// How much longer is waited for one that does not look at the time.
const GRACE: Duration = Duration::from_secs(1);
/// A plan of the longest text is deep. Only what is used of it takes memory.
const STACK: usize = 64 << 20;
/// Functions that make something long of something short, as far as a user's build of DataFusion has them.
const GROWING: &[&str] = &[
    "repeat",
    "lpad",
    "rpad",
    "concat",
    "concat_ws",
    "replace",
    "regexp_replace",
    "overlay",
    "translate",
    "array_repeat",
    "array_resize",
    "array_concat",
    "array_append",
    "array_prepend",
    "array_to_string",
    "make_array",
    "range",
    "generate_series",
    "encode",
];

/// What may be computed over a window: what holds a number or two for it, or only where a row stands in it.
const WINDOWED: &[&str] =
    &["count", "sum", "min", "max", "avg", "row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile"];
/// How many queries may wait for the one that is answered.
const WAITING: usize = 4;
/// How many of those that are there may wait for a checkpoint, so that there are places for who needs none.
const FRESH: usize = 2;

/// What a query may take.
#[derive(Clone, Debug)]
struct Bounds {
    /// How long it may wait for a checkpoint that is taken for it, and for its turn, and may take.
    time: Duration,
    /// How many bytes of segments are read for it.
    state_bytes: u64,
    /// How many bytes DataFusion may hold for it.
    memory: usize,
    /// How many rows its answer has at most.
    rows: usize,
    /// About how many bytes of rows.
    answer_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        let time = Duration::from_secs(30);
        Self { time, state_bytes: 256 << 20, memory: 256 << 20, rows: 10_000, answer_bytes: 16 << 20 }
    }
}

/// Which checkpoint is asked.
pub(super) enum Of {
    Newest,
    Epoch(Epoch),
    /// One that this job takes for the query, or a newer one: what happened before it was asked is in it.
    Now(JobHandle),
}

/// What is asked of which checkpoint.
pub(super) struct Query {
    /// Where the checkpoints of the job are.
    pub(super) store: String,
    pub(super) of: Of,
    /// As the user has written it.
    pub(super) operator: String,
    /// What it is called in checkpoints.
    pub(super) id: Option<String>,
    pub(super) sql: String,
}

/// Who lets one query in after the other.
pub(super) struct Queries {
    /// For the one that is answered, and for those that wait.
    places: Arc<Semaphore>,
    /// For those that wait for a checkpoint.
    fresh: Semaphore,
    turn: Arc<Semaphore>,
    bounds: Bounds,
}

impl Queries {
    pub(super) fn new() -> Self {
        Self::within(Bounds::default())
    }

    fn within(bounds: Bounds) -> Self {
        let (places, turn) = (Arc::new(Semaphore::new(1 + WAITING)), Arc::new(Semaphore::new(1)));
        Self { places, fresh: Semaphore::new(FRESH), turn, bounds }
    }

    pub(super) async fn run(&self, query: Query) -> Answered {
        let time = self.bounds.time;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let words = format!("there is one query at a time, and {WAITING} wait for their turn already: try again");
            return Err(unavailable(words));
        };
        if let Of::Now(job) = &query.of {
            self.checkpoint(job).await?;
        }
        let turn = timeout(time, self.turn.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            let words = format!("there is one query at a time, and others have taken the last {time:?}: try again");
            return Err(unavailable(words));
        };
        let bounds = self.bounds.clone();
        let running = thread::run("windrow-state", Some(STACK), async move {
            // Until this one is over, also when nobody waits for it any more.
            let _held = (turn, place);
            timeout(time, query.answer(&bounds)).await
        });
        let running = running.map_err(|error| unavailable(format!("no thread can be had for the query: {error}")))?;
        match timeout(time + GRACE, running).await {
            Ok(Ok(Ok(answer))) => answer,
            Ok(Ok(Err(_))) | Err(_) => {
                let words =
                    format!("the query was given up after {time:?}: ask for fewer rows, or for less to be computed");
                Err(unavailable(words))
            }
            Ok(Err(_)) => {
                let words = "DataFusion panicked in this query; the job goes on. Ask for it in another way";
                Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, words))
            }
        }
    }

    /// Has a checkpoint taken, and waits for it.
    async fn checkpoint(&self, job: &JobHandle) -> Result<(), Refusal> {
        let time = self.bounds.time;
        let Ok(_waits) = self.fresh.try_acquire() else {
            let words = format!(
                "{FRESH} queries wait for a checkpoint that is taken for them already: try again, or ask for the newest, without \"fresh\""
            );
            return Err(unavailable(words));
        };
        let late = |_| {
            unavailable(format!(
                "the checkpoint that was asked for is not complete after {time:?}; the status of the job says whom it waits for: ask for \
                 the newest, without \"fresh\""
            ))
        };
        timeout(time, job.checkpoint()).await.map_err(late)?.map_err(undone).map(drop)
    }
}

/// It cannot be answered now.
fn unavailable(words: String) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words)
}

impl Query {
    async fn answer(self, bounds: &Bounds) -> Answered {
        let state = self.load(bounds).await?;
        let context = self.context(&state, bounds)?;
        let failed = |error: DataFusionError| refused(&error, &state);
        let plan = context.state().create_logical_plan(&self.sql).await.map_err(failed)?;
        let only_reads = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        only_reads.verify_plan(&plan).map_err(failed)?;
        is_modest(&plan).map_err(failed)?;
        let frame = context.execute_logical_plan(plan).await.map_err(failed)?;
        let columns: Vec<String> = frame.schema().fields().iter().map(|field| field.name().clone()).collect();
        if let Some(name) =
            columns.iter().enumerate().find_map(|(at, name)| columns[..at].contains(name).then_some(name))
        {
            return Err(Refusal::bad(format!(
                "two columns are called {name:?}: give one of them another name, with AS"
            )));
        }
        let rows = frame.execute_stream().await.map_err(failed)?;
        let (rows, truncated) = written(rows, bounds).await.map_err(failed)?;
        let mut answer = format!("{{\"epoch\":{},\"columns\":{},\"rows\":", state.epoch(), json!(columns)).into_bytes();
        answer.extend(rows);
        answer.extend(format!(",\"truncated\":{truncated}}}").bytes());
        Ok(bytes_of(StatusCode::OK, "application/json", answer.into()))
    }

    /// The tables, if they are not too large.
    async fn load(&self, bounds: &Bounds) -> Result<State, Refusal> {
        let wanted = match self.of {
            Of::Epoch(epoch) => Wanted::Epoch(epoch),
            // The one that was taken now, unless there is a newer one already.
            Of::Newest | Of::Now(_) => Wanted::Newest,
        };
        open_if(&self.store, &wanted, |outline| self.check(outline, bounds)).await.map_err(undone)?
    }

    fn check(&self, outline: &Outline, bounds: &Bounds) -> Result<(), Refusal> {
        let Outline { epoch, tables, bytes } = outline;
        if !tables.iter().any(|(name, _)| Some(name) == self.id.as_ref()) {
            let names: Vec<&str> = tables.iter().map(|(name, _)| name.as_str()).collect();
            let words = format!(
                "{} has no state in checkpoint {epoch}. There are tables of: {}",
                self.operator,
                names.join(", ")
            );
            return Err(Refusal::new(StatusCode::NOT_FOUND, words));
        }
        let most = bounds.state_bytes;
        if *bytes > most {
            let words = format!(
                "the state of the job is {bytes} bytes in checkpoint {epoch}, and at most {most} are read beside the job: look at \
                 it in another process, with windrow::state::open({:?})",
                self.store
            );
            return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, words));
        }
        Ok(())
    }

    fn context(&self, state: &State, bounds: &Bounds) -> Result<SessionContext, Refusal> {
        let failed = |error: DataFusionError| refused(&error, state);
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let runtime = RuntimeEnvBuilder::new().with_memory_limit(bounds.memory, 1.0).with_disk_manager_builder(disk);
        let runtime = runtime.build_arc().map_err(failed)?;
        // The thread has one core, and so has the query.
        let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
        let register = |name: &str, table: &str| match state.table(table) {
            Some(table) => {
                // What was called so before: a table with the name that is to be the operator's.
                context.deregister_table(TableReference::bare(name))?;
                let rows = MemTable::try_new(table.rows().schema(), vec![vec![table.rows().clone()]])?;
                context.register_table(TableReference::bare(name), Arc::new(rows)).map(drop)
            }
            None => Ok::<_, DataFusionError>(()),
        };
        for (name, _) in state.tables() {
            register(name, name).map_err(failed)?;
        }
        register("state", self.id.as_deref().unwrap_or_default()).map_err(failed)?;
        Ok(context)
    }
}

/// What DataFusion says, and which tables there are.
fn refused(error: &DataFusionError, state: &State) -> Refusal {
    let said = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            let words = format!("the query needs more memory than it may have: ask for fewer rows or columns. {said}");
            Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, words)
        }
        _ => {
            let names: Vec<String> = state.tables().map(|(name, _)| format!("\"{name}\"")).collect();
            Refusal::bad(format!("{said}. There are the tables state, {}", names.join(", ")))
        }
    }
}

/// Whether nothing in a plan makes something long of something short, or holds more than DataFusion keeps account of by its nature.
fn is_modest(plan: &LogicalPlan) -> Result<(), DataFusionError> {
    let (text, memory) = ("it can make a text as long as memory", "nothing bounds the memory that it takes");
    let mut greedy = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let found = match part {
                    Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => Some(("||".to_string(), text)),
                    Expr::ScalarFunction(call) if GROWING.contains(&call.name()) => {
                        Some((call.name().to_string(), text))
                    }
                    Expr::WindowFunction(call) if !WINDOWED.contains(&call.fun.name()) => {
                        Some((format!("{} over a window", call.fun.name()), memory))
                    }
                    Expr::AggregateFunction(call)
                        if call.func.name().starts_with("approx_percentile") && call.params.args.len() > 2 =>
                    {
                        Some((format!("{} with a third argument", call.func.name()), memory))
                    }
                    _ => None,
                };
                greedy.extend(found);
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    match greedy.into_iter().next() {
        Some((function, why)) => Err(DataFusionError::Plan(format!(
            "{function} is not there, because {why}: do that where the answer is read"
        ))),
        None => Ok(()),
    }
}

/// The first rows as a JSON array, and whether there are more.
async fn written(mut rows: SendableRecordBatchStream, bounds: &Bounds) -> Result<(Vec<u8>, bool), DataFusionError> {
    let mut writer = WriterBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(Vec::new());
    let (mut left, mut truncated) = (bounds.rows, false);
    'all: while let Some(batch) = rows.next().await {
        let batch = batch?;
        let mut at = 0;
        while at < batch.num_rows() {
            truncated = left == 0 || writer.get_ref().len() > bounds.answer_bytes;
            if truncated {
                break 'all;
            }
            let some = STEP.min(left).min(batch.num_rows() - at);
            writer.write(&batch.slice(at, some))?;
            (at, left) = (at + some, left - some);
        }
    }
    writer.finish()?;
    Ok((writer.into_inner(), truncated))
}
