//! Kafka: topics as sources, and as sinks that commit exactly once.
//!
//! | file | why it exists |
//! |---|---|
//! | [`connection`] | one cluster, and how to get in |
//! | [`cluster`] | what the sinks ask of a cluster, so that tests can put one in its place that loses requests and replies |

pub mod cluster;
pub mod connection;

pub use connection::Kafka;
