//! Kafka: topics as sources, and as sinks that commit exactly once.
//!
//! | file | why it exists |
//! |---|---|
//! | [`cluster`] | what the sinks ask of a cluster, so that tests can put one in its place that loses requests and replies |

pub mod cluster;
