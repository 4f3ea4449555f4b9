//! One cluster, and how to get in: what every source and every sink of it begins with.
//!
//! ```text
//!   Kafka::brokers("…") ──┬──► .topic("orders")    ──► a source
//!                         └──► .to_topic("alerts") ──► a sink; all that are exactly-once commit as one
//! ```

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

use super::{
    context::Context,
    security::{self, Sasl, Tls},
    settings,
    transaction::Transactions,
};
use crate::{ConnectorError, Result};

/// What a broker adds to a record that is alone in its batch.
pub(super) const BATCH_BYTES: usize = 61;

/// What librdkafka counts for a record, and for each of its headers, beside the bytes: at most.
pub(super) const RECORD_BYTES: usize = 36;
pub(super) const HEADER_BYTES: usize = 10;

/// The largest record that brokers and topics take, unless they are told otherwise, which librdkafka's own default is below.
pub(super) const MAX_MESSAGE_BYTES: usize = 1_048_588 - BATCH_BYTES;

/// What librdkafka puts into a batch at most, unless it is told otherwise.
const BATCH_SIZE: usize = 1_000_000;

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
    /// What its exactly-once sinks have in common.
    pub(super) transactions: Arc<Transactions>,
}

/// What a client of the cluster is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Config {
    pub(super) brokers: String,
    /// What the user sets beyond what the connector does: librdkafka's names and values. Never a secret.
    pub(super) settings: BTreeMap<String, String>,
    pub(super) tls: Option<Tls>,
    pub(super) sasl: Option<Sasl>,
    /// What is wrong with what was set, for the first client to say.
    pub(super) refused: Vec<String>,
    pub(super) transaction_timeout: Option<Duration>,
    pub(super) transactional_prefix: Option<String>,
    pub(super) marker_topic: Option<String>,
}

impl Kafka {
    /// The cluster that these brokers belong to: `host:port`, several of them separated by commas. Nothing is connected yet.
    pub fn brokers(brokers: impl Into<String>) -> Self {
        Self { config: Config { brokers: brokers.into(), ..Config::default() }, transactions: Arc::default() }
    }

    /// Encrypts, and checks who answers. Without it whoever sees the network reads and changes what is sent.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.config.tls = Some(tls);
        self.changed()
    }

    /// Logs in.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.config.sasl = Some(sasl);
        self.changed()
    }

    /// A setting of librdkafka for all clients of the connection, by [its name there], such as `socket.keepalive.enable` or
    /// `queued.max.messages.kbytes`.
    ///
    /// Not those on which the connector's promises rest, nor those that hold secrets: the first client that is made says so,
    /// and names the call to use instead.
    ///
    /// [its name there]: https://github.com/confluentinc/librdkafka/blob/v2.12.1/CONFIGURATION.md
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let name = name.into();
        match settings::refused(&name) {
            Some(why) => self.config.refused.push(why),
            None => {
                self.config.settings.insert(name, value.into());
            }
        }
        self.changed()
    }

    /// What is allowed and unwise: a login without encryption.
    pub fn warnings(&self) -> Vec<String> {
        self.config.warnings()
    }

    /// What to call it in messages.
    pub fn name(&self) -> String {
        self.config.name()
    }
}

impl Config {
    pub(super) fn warnings(&self) -> Vec<String> {
        let open = self.sasl.is_some() && self.tls.is_none();
        let warning = format!(
            "{}: the login is not encrypted, so whoever sees the network can read or reuse it: add .tls(Tls::system())",
            self.name()
        );
        open.then_some(warning).into_iter().collect()
    }

    pub(super) fn name(&self) -> String {
        format!("kafka {}", self.brokers)
    }

    /// How long a transaction may stay open. The default is the most that brokers allow unless they are told otherwise
    /// (`transaction.max.timeout.ms`).
    pub(super) fn transaction_timeout(&self) -> Duration {
        self.transaction_timeout.unwrap_or(Duration::from_secs(15 * 60))
    }

    /// The largest record that a producer takes.
    pub(super) fn max_message_bytes(&self) -> usize {
        let set = self.settings.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
        set.unwrap_or(MAX_MESSAGE_BYTES)
    }

    /// The largest batch that a producer makes for topics that take records of `largest` bytes: what the user has set, or librdkafka's
    /// default, unless the topics take less. A larger one would be refused, and end the job.
    pub(super) fn batch_bytes(&self, largest: Option<usize>) -> usize {
        let set = self.settings.get("batch.size").and_then(|bytes| bytes.trim().parse().ok());
        set.unwrap_or(BATCH_SIZE).min(largest.unwrap_or(usize::MAX)).max(1)
    }

    /// The settings of any client: addresses, security, and what the user has set. Reads the secrets, so not on a worker of the
    /// runtime; what it returns holds them and must not be shown.
    pub(super) fn client(&self) -> Result<ClientConfig> {
        if let Some(why) = self.refused.first() {
            return Err(ConnectorError::Config(format!("{}: {why}", self.name())));
        }
        let mut client = ClientConfig::new();
        // librdkafka knows its brokers after the first answer, and connects to one of these half of this later: 50 ms else, for each of
        // a dozen clients that a start makes one after the other. From attempt to attempt it grows, as it does without this.
        if !self.settings.keys().any(|name| name.starts_with("reconnect.backoff")) {
            client.set("reconnect.backoff.ms", "20");
        }
        for (name, value) in &self.settings {
            client.set(name, value);
        }
        client.set("bootstrap.servers", &self.brokers);
        if !self.settings.contains_key("client.id") {
            client.set("client.id", "windrow");
        }
        security::apply(self.tls.as_ref(), self.sasl.as_ref(), &mut client)?;
        // Its context takes from the lines why connections break, and lets the others go.
        client.set_log_level(RDKafkaLogLevel::Info);
        Ok(client)
    }

    /// The ear of a client.
    pub(super) fn context(&self) -> Context {
        Context::new(self.sasl.as_ref())
    }

    /// A client that could not be made: a setting that does not exist or does not fit. Without its value, which may be a secret.
    pub(super) fn not_made(&self, error: KafkaError) -> ConnectorError {
        let name = self.name();
        ConnectorError::Config(match error {
            KafkaError::ClientConfig(_, why, setting, _) if self.settings.contains_key(&setting) => {
                format!("{name}: the setting {setting}: {why}")
            }
            KafkaError::ClientConfig(_, _, setting, _) => format!("{name}: the setting {setting} does not fit"),
            KafkaError::ClientCreation(why) if why.starts_with("ssl.") => {
                format!("{name}: {why}: look at the files and the passphrase of .tls(...)")
            }
            KafkaError::ClientCreation(why) => format!("{name}: {why}"),
            other => format!("{name}: {other}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::BaseConsumer;

    use super::*;
    use crate::secret::Secret;

    const CANARY: &str = "canary-93ab";

    #[test]
    fn secrets_are_shown_nowhere() {
        let secret = || Secret::new(CANARY);
        let kafka = Kafka::brokers("localhost:1")
            .tls(Tls::ca_file("/no/such/ca.pem").key_passphrase(secret()))
            .sasl(Sasl::plain("me", secret()))
            .set("sasl.password", CANARY)
            .set("ssl.key.pem", CANARY);
        let refused = kafka.config.client().unwrap_err();
        assert!(refused.to_string().contains("the setting sasl.password holds a secret"), "{refused}");
        let no_ca = Config { refused: Vec::new(), ..kafka.config.clone() }.client().unwrap_err();
        assert!(no_ca.to_string().contains("/no/such/ca.pem"), "{no_ca}");
        let shown = [format!("{kafka:?}"), format!("{refused:?}"), format!("{no_ca:?}"), kafka.warnings().concat()];
        for shown in shown {
            assert!(!shown.contains(CANARY), "{shown}");
        }
        let client = Kafka::brokers("localhost:1").sasl(Sasl::scram_sha_256("me", secret())).config.client().unwrap();
        assert_eq!(client.get("sasl.password"), Some(CANARY));
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        assert!(!format!("{client:?}").contains(CANARY));
    }

    #[test]
    fn a_setting_that_does_not_exist_is_named() {
        for (name, value) in [("no.such.setting", "1"), ("socket.timeout.ms", "soon")] {
            let config = Kafka::brokers("localhost:1").set(name, value).config;
            let error = config.client().unwrap().create::<BaseConsumer>().map(|_| ()).unwrap_err();
            let error = config.not_made(error).to_string();
            assert!(error.starts_with("kafka localhost:1") && error.contains(name), "{error}");
        }
    }
}
