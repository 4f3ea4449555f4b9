//! Kafka: topics as sources, and as sinks that commit exactly once.
//!
//! | file | why it exists |
//! |---|---|
//! | [`connection`] | one cluster, and how to get in |
//! | [`security`], `settings`, `context` | encryption and logins; what the user may not set; what librdkafka complains of |
//! | [`source`] | topics as a source |
//! | [`cluster`] | what the sinks ask of a cluster, so that tests can put one in its place that loses requests and replies |

pub mod cluster;
pub mod connection;
mod context;
pub mod security;
mod settings;
pub mod source;

pub use connection::Kafka;
pub use security::{Sasl, Tls, Token};
pub use source::{Isolation, KafkaInput, KafkaSource, Start};
