//! Sources that make up their rows: for tests, demonstrations and measurements.
//!
//! ```text
//!   Sequence, NexmarkSource          what a row is: a pure function of its number
//!            │ Series
//!            ▼
//!   reader: GeneratorReader          which rows belong to a split, which come next
//!            │
//!            ▼
//!   pace: Pace                       when they are due, if a rate was asked for
//! ```
//!
//! Because a row depends on its number alone, a generator has no state to save: a position is the count of rows that
//! the split has produced, and a restart from there yields exactly the rest. The rows of a series are dealt to its
//! splits in turn, so that the set of rows does not depend on the number of splits and the event time of all splits
//! advances together.

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};

pub mod nexmark;
pub mod sequence;

mod pace;
mod reader;

#[cfg(test)]
mod testing;

/// The number of events of an endless generator: enough for nine years at a thousand million a second, and small
/// enough that the arithmetic on event numbers cannot overflow.
const ENDLESS: u64 = 1 << 58;

/// The offset from UTC that the type of event-time columns carries.
const UTC: &str = "+00:00";

/// The type of every event-time column.
fn event_time() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC)))
}
