//! Kafka: topics as sources, and as sinks that commit exactly once.
//!
//! | file | why it exists |
//! |---|---|
//! | [`connection`] | one cluster, and how to get in |
//! | [`security`], `settings`, `context` | encryption and logins; what the user may not set; what librdkafka says to any client |
//! | `codes` | what its error codes mean to readers and writers alike |
//! | [`source`] | topics as a source |
//! | [`sink`] | topics as sinks: rows into records, at least once or exactly once |
//! | [`transaction`] | the exactly-once sinks of a connection commit as one |
//! | [`re_drive`] | dead letters go back to where they came from |
//! | `limits` | the largest records that topics take, asked once at each start of a job |
//! | `letters` | what the headers of dead letters say to sinks and sources alike |
//! | [`cluster`] | what the sinks ask of a cluster, so that tests can put one in its place that loses requests and replies |
//! | `librdkafka` | the cluster that there really is |

pub mod cluster;
mod codes;
pub mod connection;
mod context;
#[cfg(test)]
mod in_memory;
mod letters;
mod librdkafka;
mod limits;
pub mod re_drive;
pub mod security;
mod settings;
pub mod sink;
pub mod source;
pub mod transaction;

/// When to ask again for a topic that should be there, in milliseconds from one question to the next: what was just made is not
/// known to all brokers at once, and a broker that was just started knows nothing for a while.
const LATE: [u64; 4] = [500, 500, 1_000, 2_000];

pub use connection::Kafka;
pub use re_drive::{KeptLetter, ReDrive, ReDriven};
pub use security::{Sasl, Tls, Token};
pub use sink::{KafkaOutput, KafkaSink};
pub use source::{Isolation, KafkaInput, KafkaSource, Start};
