//! A Kafka cluster and its clients in virtual time.
//!
//! ```text
//!   KafkaSink ──► Cluster, Producer (cluster.rs, producer.rs)
//!                    │ queue                 requests, each with a fate (faults.rs)
//!                    ▼                        ▼
//!                 client.rs ──────────► world.rs ──► broker.rs ──► coordinator.rs   who owns a transactional id
//!                 the thread of         events              └────► log.rs           partitions
//!                 a producer            by time                      ▲
//!                                                                 read.rs  readers, for those who check
//! ```
//!
//! It is faithful where exactly-once is decided: epochs and fencing, what `init_transactions` waits for, which request may be
//! repeated, when control records come and how far readers get. It knows nothing of bytes on a wire, replication and groups.
//! What it must do stands in `rules.rs`, one test a rule.

pub mod broker;
pub mod client;
pub mod cluster;
pub mod coordinator;
pub mod faults;
pub mod log;
pub mod producer;
pub mod read;
pub mod world;

pub use self::{
    cluster::{BATCH, Simulated},
    faults::{Fate, Kind},
    world::Settings,
};
