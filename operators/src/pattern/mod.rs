//! Complex events: rows of a key that follow one another in a pattern.
//!
//! ```text
//!   Pattern::begin("small", price < 10).followed_by("large", price > 100).not_followed_by("paid", …).within(1 min)
//!
//!   rows of a key      small   other   small   large   other …                        1 min after small
//!   partial matches      ├───────────────────────┼──────────────── nothing paid ──────────┤ match
//!                                        ├───────┼──────── nothing paid ──────────────────── …
//! ```
//!
//! The rows of each key are looked at in order of event time (a [`SortPlan`](crate::sort::SortPlan) by the same key stands
//! in front, in the same task). Every row that fits the first step may begin a match. From there on one row after the
//! other is *taken* or passed over; a row is taken by the first of these steps that it fits and may be taken by:
//!
//! | | step | its row may be taken |
//! |---|---|---|
//! | 1 | the step that took the last row, if it is a loop that is not full | next to the last row if the step is strict, later otherwise |
//! | 2 | when that step has as many rows as it needs: the next step; if it is optional, also the one after it, and so on | next to the last row if the step was added by `next`, later if by `followed_by`; and if nothing that must be absent has come in between |
//!
//! | what | means |
//! |---|---|
//! | `next` | strict: the row of the key right after the last row of the match |
//! | `followed_by` | relaxed: rows in between that do not fit are passed over. The first row that fits is taken; what would be if it were passed over is **not** explored |
//! | a loop: `times`, `times_between`, `one_or_more` | several rows of one step, as far from each other as the step is from the one before: strict for `next` and for the first step, relaxed for `followed_by`. Greedy, and nothing is given back: a row that fits the loop goes into it, even if the next step is then left without one |
//! | `optional` | the step may be without a row; `times_between(0, n)` is `times_between(1, n).optional()` |
//! | `not_next` | the row right after the last row of the match does not fit |
//! | `not_followed_by` | no row fits, from the one after the last row of the match to the one that the next step takes, inclusive. At the end of a pattern: until the time is over |
//! | a condition on an earlier step, `col_of("small", "price")` in a job (to DataFusion `col("small.price")`) | the value in the *last* row that the step took so far, null when it has none; in a loop's own condition that is the row before |
//! | null | does not fit |
//! | `within` | the time from the first row of a match to its last is *less* than this. Needed: without it a partial match of a key that falls silent would be kept for ever |
//!
//! Of each first row there is at most one match. It is complete when no further row could be taken: at once after the last
//! step, but if that is a loop that is not full, or optional steps could follow, when a row breaks it off or the time is
//! over. If the time is over before the pattern is, there is no match.
//!
//! | after a match | |
//! |---|---|
//! | [`Skip::PastLast`] (unless told) | the next match begins after its last row. The match that begins first counts, even if another that begins later ends earlier: that one waits until it is decided |
//! | [`Skip::ToNext`] | every row may begin a match, those of this match too. (As each row begins at most one match, this is also what other engines call no skip) |
//!
//! | column | is |
//! |---|---|
//! | `match_start`, `match_end` | the event times of the first and of the last row |
//! | event time of the match | `match_end`; if the pattern ends with `not_followed_by`, the time at which it is over: the first row's and `within` |
//! | the key, and the measures | in the order they are given; of an optional step they may be null |
//!
//! A match may be decided later than its event time. The watermark behind the operator waits for that, by less than
//! `within`. A key costs as many partial matches as rows that begin one within that time.
//!
//! * [`spec`]: how a pattern is written. [`plan`]: what is computed, and the disk format. `condition`: which rows fit.
//!   `partial`: one partial match, row by row. `matching`: those of a key, and what skips. [`operator`]: batches, state.
//!   `stored`: rows of which partial matches are made again.
//!
//! The end of the input decides what has begun: a job that is started again with more input does not complete a match that
//! began before.

mod condition;
mod keys;
mod matching;
pub mod operator;
mod partial;
pub mod plan;
pub mod spec;
mod stored;

pub use operator::PatternMatch;
pub use plan::PatternPlan;
pub use spec::{Condition, Measure, Pattern, Skip, count_of, first, last};

/// The column of a match that says when its first row was.
pub const MATCH_START: &str = "match_start";
/// The column of a match that says when its last row was.
pub const MATCH_END: &str = "match_end";
