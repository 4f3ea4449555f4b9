//! The state of the job: which tables there are, and SQL over them, as of one checkpoint.
//!
//! ```text
//!   GET  /state/window_1?sql=… ──────────────────────────────► newest checkpoint ─┐ tables ──► DataFusion ──► rows
//!   POST /state/window_1 {"sql": …, "fresh": true} ───────────► a new checkpoint ─┘            (feature sql)
//! ```
//!
//! The job goes on meanwhile; what is asked is a checkpoint, which does not change, and whose number the answer has.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use url::form_urlencoded;
#[cfg(feature = "sql")]
use windrow_connectors::Epoch;

use super::{
    answer::{Answered, Refusal, ok},
    routes::undone,
};
use crate::{
    JobHandle,
    state::{Outline, outline},
    status::JobStatus,
};

#[cfg(feature = "sql")]
mod query;

#[cfg(feature = "sql")]
use self::query::{Of, Queries, Query};

/// How long the store may take to say which tables there are.
const LOOK: Duration = Duration::from_secs(10);
/// How many bytes the text of a query may have. What is planned recursively is bounded by it.
#[cfg(feature = "sql")]
const SQL_BYTES: usize = 4 << 10;

/// What somebody wants to know of the state. It is understood also where it cannot be answered.
#[cfg_attr(not(feature = "sql"), allow(dead_code, reason = "nobody answers"))]
pub(super) struct Asked {
    sql: String,
    /// The newest checkpoint unless told.
    epoch: Option<u64>,
    /// Of a checkpoint that is taken for this.
    fresh: bool,
}

/// The body of a `POST`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedInBody {
    sql: String,
    #[serde(default)]
    fresh: bool,
}

impl Asked {
    pub(super) fn of_body(AskedInBody { sql, fresh }: AskedInBody) -> Self {
        Self { sql, epoch: None, fresh }
    }

    pub(super) fn of_query(query: &str) -> Result<Self, Refusal> {
        let (mut sql, mut epoch) = (None, None);
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let twice = match name.as_ref() {
                "sql" => sql.replace(value.into_owned()).is_some(),
                "epoch" => {
                    let number = value.parse().map_err(|_| Refusal::bad(format!("epoch {value:?} is not a number")))?;
                    epoch.replace(number).is_some()
                }
                other => return Err(Refusal::bad(format!("{other:?} is not known here: there are sql and epoch"))),
            };
            if twice {
                return Err(Refusal::bad(format!("{name} is there more than once")));
            }
        }
        let how = "say what is asked in SQL, such as /state/window_1?sql=select%20*%20from%20state";
        let sql = sql.ok_or_else(|| Refusal::bad(how))?;
        Ok(Self { sql, epoch, fresh: false })
    }
}

/// Who answers questions about the state.
pub(super) struct States {
    #[cfg(feature = "sql")]
    queries: Queries,
}

impl States {
    pub(super) fn new() -> Self {
        Self {
            #[cfg(feature = "sql")]
            queries: Queries::new(),
        }
    }

    /// The tables of the newest checkpoint, with what they mean.
    pub(super) async fn tables(&self, status: &JobStatus) -> Answered {
        let looked = timeout(LOOK, outline(store(status)?)).await.map_err(|_| {
            let words = format!("the store of the checkpoints did not answer within {} s: try again", LOOK.as_secs());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, words)
        })?;
        let Outline { epoch, tables, .. } = looked.map_err(undone)?;
        let operator = |id: &str| status.find(id).and_then(|at| status.operators.get(at)).map(|own| own.name.as_str());
        let table = |(name, meaning): &(String, String)| json!({ "name": name, "meaning": meaning, "operator": operator(name) });
        Ok(ok(&json!({ "epoch": epoch.0, "tables": tables.iter().map(table).collect::<Vec<_>>() })))
    }

    /// Not without DataFusion's SQL.
    #[cfg(not(feature = "sql"))]
    pub(super) async fn ask(&self, _: &JobHandle, _: &str, _: Asked) -> Answered {
        let words = "this program was built without SQL: switch on the feature `sql` of the crate `windrow`";
        Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, words))
    }

    /// What a query gives over the state of the job; in it the state of `operator` is also called `state`.
    #[cfg(feature = "sql")]
    pub(super) async fn ask(&self, job: &JobHandle, operator: &str, asked: Asked) -> Answered {
        let Asked { sql, epoch, fresh } = asked;
        if sql.len() > SQL_BYTES {
            return Err(Refusal::bad(format!("a query may have {SQL_BYTES} bytes, and this has {}", sql.len())));
        }
        let status = job.status();
        let store = store(&status)?;
        let id = status.find(operator).and_then(|at| status.operators.get(at)).map(|own| own.id.clone());
        let Some(id) = id else {
            let names: Vec<&str> = status.operators.iter().map(|own| own.name.as_str()).collect();
            let words = format!("there is no operator {operator:?} in this job. There are: {}", names.join(", "));
            return Err(Refusal::new(StatusCode::NOT_FOUND, words));
        };
        let of = match (fresh, epoch) {
            (true, _) => Of::Now(job.clone()),
            (false, Some(epoch)) => Of::Epoch(Epoch(epoch)),
            (false, None) => Of::Newest,
        };
        self.queries.run(Query { store: store.into(), of, operator: operator.into(), id, sql }).await
    }
}

/// Where the checkpoints of the job are.
fn store(status: &JobStatus) -> Result<&str, Refusal> {
    let without =
        "the job has no checkpoints, and so no state that could be shown: say .checkpoint(url, every) before it runs";
    status.checkpoints.store.as_deref().ok_or_else(|| Refusal::new(StatusCode::CONFLICT, without))
}
