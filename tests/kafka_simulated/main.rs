//! Jobs that write to a simulated Kafka cluster, which loses requests and replies, moves its coordinator, lets transactions
//! expire and lets zombies write: rows 3, 4, 14 and 15 of the fault matrix, in virtual time.
//!
//! * [`simulated`]: the cluster. [`rules`]: what it must do, one test a rule. [`storms`]: that it keeps the rules among
//!   many clients and many faults, and that a seed always gives the same.
//! * [`scenario`]: the grammar that jobs are drawn from, what is done to them, and their answers. [`targets`]: where they write.
//!   [`lives`]: one scenario from its first start to the comparison. [`exactly_once`]: many of them. [`day`]: one for a day;
//!   [`shifts`]: its input.
//!   [`mode_k`]: the exactly-once sink of topics. [`jobs`]: what users do to whole jobs with it. [`mutants`]: the harness bites.

#![allow(missing_docs, unreachable_pub, reason = "tests")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod day;
mod exactly_once;
mod jobs;
mod lives;
mod mode_k;
mod mutants;
mod rules;
mod scenario;
mod shifts;
mod simulated;
mod storms;
mod targets;
