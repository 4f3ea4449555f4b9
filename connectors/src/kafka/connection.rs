//! One cluster, and how to get in: what every source and every sink of it begins with.
//!
//! ```text
//!   Kafka::brokers("…") ──┬──► .topic("orders")    ──► a source
//!                         └──► .to_topic("alerts") ──► a sink; all that are exactly-once commit as one
//! ```

use std::collections::BTreeMap;

use rdkafka::ClientConfig;

use crate::Result;

/// A Kafka cluster. A clone is the same connection: every exactly-once sink made from it, or from a clone of it, commits in the
/// same transaction.
///
/// ```
/// use windrow_connectors::kafka::Kafka;
///
/// let kafka = Kafka::brokers("localhost:9092,localhost:9093");
/// assert_eq!(kafka.name(), "kafka localhost:9092,localhost:9093");
/// ```
#[derive(Clone, Debug)]
pub struct Kafka {
    pub(super) config: Config,
}

/// What a client of the cluster is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) brokers: String,
    /// What the user sets beyond what the connector does: librdkafka's names and values.
    pub(super) settings: BTreeMap<String, String>,
}

impl Kafka {
    /// The cluster that these brokers belong to: `host:port`, several of them separated by commas. Nothing is connected yet.
    pub fn brokers(brokers: impl Into<String>) -> Self {
        Self { config: Config { brokers: brokers.into(), ..Config::default() } }
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        self.config.name()
    }
}

impl Config {
    pub(super) fn name(&self) -> String {
        format!("kafka {}", self.brokers)
    }

    /// The settings of any client: addresses, security, and what the user has set.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        for (name, value) in &self.settings {
            client.set(name, value);
        }
        Ok(client)
    }
}
