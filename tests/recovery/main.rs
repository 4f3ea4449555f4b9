//! Jobs that are killed, fail, are stopped, changed and started again: the answer is that of one undisturbed run.

#![allow(missing_docs, unreachable_pub, reason = "derive(Record) makes public types")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod aged;
mod backpressure;
mod calls;
mod crashes;
mod deadline;
mod ends;
mod extremes;
mod growing;
mod hand;
mod kinds;
mod kinds_oracle;
mod last_words;
mod lives;
mod mutants;
mod oracle;
mod put_off;
mod quiet;
mod rescale;
mod restarts;
mod reviewed;
mod savepoints;
mod scenario;
mod storage;
mod told;
mod upgrades;
mod witness;
mod witness_jobs;
mod witness_refusals;
mod zombies;
