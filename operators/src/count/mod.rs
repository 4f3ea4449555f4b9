//! Windows of so many rows.
//!
//! ```text
//!   rows of a key, in order of event time      0  1  2  3  4  5  6  7 …
//!   size 4, slide 2                            ├─ window 0 ┤
//!                                                    ├─ window 1 ┤
//!                                                          ├─ window 2 ┤
//! ```
//!
//! The rows of each key are numbered as they come, from 0. Window `k` has the rows from `k · slide` on, `size` of them; it
//! gives its result when the last of them comes. What that means in detail:
//!
//! | what | is |
//! |---|---|
//! | `window_start`, `window_end` | the event times of its first and of its last row, both inclusive: not the end + 1 of other windows |
//! | event time of the result | that of its last row |
//! | `slide` = `size` | tumbling: each row is in one window |
//! | `slide` < `size` | sliding: each row is in several windows. There is no window that begins before the first row |
//! | `slide` > `size` | the rows between two windows are in none; they are processed |
//! | a window that is not full | gives nothing, not even at the end of the input (as in Flink) |
//!
//! Which rows are in a window depends on their order, so a [`SortPlan`](crate::sort::SortPlan) by the same key stands in
//! front, in the same task. Rows earlier than the watermark are late; behind a sort there are none.
//!
//! A window that is not full waits for as long as it takes, so what is held for a key goes only when a window ends where
//! no other one has begun. How much is held does not depend on `size`: it is the states of the aggregates, once for each
//! window that a row is in.
//!
//! * [`plan`]: what is computed, and the disk format. [`operator`]: from a batch to results and states, by columns.
//!   `state`: what is held for each key, and its columns in a segment.

pub mod operator;
pub mod plan;
mod spec;
mod state;

pub use operator::CountAggregate;
pub use plan::CountPlan;
pub use spec::Count;
