//! Joins of two streams by key: in a window, in an interval of event time, or as of a time.
//!
//! ```text
//!   MAIN  = left  ──► rows of both sides wait in TimedRows, ──► pairs of equal key ──► condition ──► result rows
//!   RIGHT = right ──► in order of time, indexed by key hash └─► rows without a partner, when none can come any more
//!        └─ behind the watermark (or in a closed window) ──► LATE, LATE_RIGHT
//! ```
//!
//! | join | a left row meets | it leaves |
//! |---|---|---|
//! | [`window`] | the right rows of its window, or of each of its windows | when the window closes |
//! | [`interval`] | the right rows near it in time | with the later of the two rows |
//! | [`temporal`] | the newest version of its key at its time | when the watermark has passed it |
//!
//! Keys are compared as SQL does: a null equals nothing, so a row with a null key has no partner (an outer join still
//! gives it). All zeros are one key, and so are all NaNs, as everywhere in the engine.
//!
//! Whether a row has met a partner is not kept: it is looked up once more when no other partner can come. So the state is
//! rows and nothing else, and there is nothing to be derived again after a restore.
//!
//! * [`spec`]: the types of joins, and intervals. `pairing`: join columns, condition, the columns of a result; joins of tables have
//!   them in common. `shape`: result rows, the disk format.
//! * `index`: which rows have a key. `probe`: the rows of a batch and their partners, in bounded steps.
//! * `closing`: the result of a window, in bounded steps. `versions`: the newest row of each key.

mod closing;
mod index;
pub mod interval;
pub(crate) mod pairing;
mod probe;
mod shape;
pub mod spec;
pub mod temporal;
mod versions;
pub mod window;

pub use interval::{IntervalJoin, IntervalJoinPlan};
pub use pairing::PairCondition;
pub use spec::{Interval, JoinType};
pub use temporal::{TemporalJoin, TemporalJoinPlan};
pub use window::{WindowJoin, WindowJoinPlan};

use arrow::array::RecordBatch;

use crate::{Outbox, Port, Result, late::set_late_aside};

/// The left side, as an index.
pub(crate) const LEFT: usize = 0;
/// The right side, as an index.
pub(crate) const RIGHT: usize = 1;

/// The side whose rows come by this port.
fn side_of(port: Port) -> usize {
    if port == Port::RIGHT { RIGHT } else { LEFT }
}

/// Answers for the rows of a side: those that are late leave, the others are given back.
fn on_time(
    side: usize,
    batch: RecordBatch,
    time: usize,
    is_late: impl Fn(i64) -> bool,
    out: &mut Outbox,
) -> Result<RecordBatch> {
    let port = if side == LEFT { Port::LATE } else { Port::LATE_RIGHT };
    let rows = set_late_aside(batch, time, is_late, port, out)?;
    out.processed(rows.num_rows());
    Ok(rows)
}
