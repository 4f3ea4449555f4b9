//! From what the user wrote to what runs.
//!
//! ```text
//!   Job, Stream ──► Graph: operators and streams ──► PhysicalPlan: chains, tasks, edges ──► runtime
//! ```
//!
//! * [`graph`]: the operators in the order they were written, with the schema of each stream. It prints itself.
//! * [`physical`]: which operators run in one task as function calls, how many tasks there are, and where rows cross an
//!   exchange.

pub(crate) mod graph;
pub(crate) mod physical;
