//! Certificates and passwords: who gets in and who does not.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientContext,
    config::ClientConfig,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use tests::broker::{
    Broker, Result,
    secure::{Listener, NOBODY, PASSWORD, Secure, USER},
};

use super::PATIENCE;

/// Remembers what librdkafka says of a connection.
#[derive(Default)]
struct Says(std::sync::Mutex<String>);

impl ClientContext for Says {
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.lock().unwrap().push_str(&format!("{error}: {reason}\n"));
    }
}

impl ConsumerContext for Says {}

/// None when a client with these settings gets in; else what it says.
fn knock(secure: &Secure, listener: Listener, settings: &[(&str, &str)]) -> Result<Option<String>> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", secure.address(listener)?).set("log_level", "0");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let client: BaseConsumer<Says> = config.create_with_context(Says::default())?;
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if client.fetch_metadata(None, Duration::from_millis(200)).is_ok() {
            return Ok(None);
        }
        // Errors come to those who poll.
        let _ = client.poll(Duration::ZERO);
        let said = client.context().0.lock().unwrap().clone();
        if !said.is_empty() {
            assert!(!said.contains(PASSWORD), "{said}");
            return Ok(Some(said));
        }
    }
    Err("neither in nor out".into())
}

#[test]
fn only_those_who_may_get_in() -> Result<()> {
    let Some(secure) = Broker::secure() else { return Ok(()) };
    let paths = [secure.authority(), secure.stranger(), secure.client_certificate(), secure.client_key()];
    let [authority, stranger, certificate, key] = paths.map(|path| path.display().to_string());
    let tls = [("security.protocol", "ssl"), ("ssl.ca.location", authority.as_str())];
    let gets_in = |listener, settings: &[(&str, &str)]| knock(&secure, listener, settings);
    assert_eq!(gets_in(Listener::Tls, &tls)?, None);
    let refused = |listener, settings: &[(&str, &str)], why: &str| -> Result<()> {
        let said = knock(&secure, listener, settings)?.unwrap_or_else(|| panic!("{listener:?} lets {settings:?} in"));
        assert!(said.contains(why), "{listener:?}: {said}");
        Ok(())
    };
    refused(Listener::Tls, &[tls[0], ("ssl.ca.location", &stranger)], "certificate verify failed")?;
    refused(Listener::Expired, &tls, "certificate verify failed")?;
    refused(Listener::Elsewhere, &tls, "certificate verify failed")?;
    refused(Listener::MutualTls, &tls, "certificate")?;
    let mine = [("ssl.certificate.location", certificate.as_str()), ("ssl.key.location", key.as_str())];
    assert_eq!(gets_in(Listener::MutualTls, &[tls, mine].concat())?, None);
    let locked = secure.locked_client_key().display().to_string();
    let locked = [tls[0], tls[1], mine[0], ("ssl.key.location", &locked), ("ssl.key.password", PASSWORD)];
    assert_eq!(gets_in(Listener::MutualTls, &locked)?, None);
    for (listener, protocol) in [(Listener::SaslTls, "sasl_ssl"), (Listener::Sasl, "sasl_plaintext")] {
        let sasl = [("security.protocol", protocol), tls[1], ("sasl.username", USER)];
        for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
            let sasl = [sasl.as_slice(), &[("sasl.mechanism", mechanism)]].concat();
            assert_eq!(gets_in(listener, &[&sasl[..], &[("sasl.password", PASSWORD)]].concat())?, None, "{mechanism}");
            refused(listener, &[&sasl[..], &[("sasl.password", "wrong")]].concat(), "uthentication failed")?;
        }
        let token = [("sasl.mechanism", "OAUTHBEARER"), ("enable.sasl.oauthbearer.unsecure.jwt", "true")];
        let token = [&sasl[..2], &token, &[("sasl.oauthbearer.config", "principal=alice")]].concat();
        assert_eq!(gets_in(listener, &token)?, None, "OAUTHBEARER");
    }
    nobody_may_write(&secure)
}

fn nobody_may_write(secure: &Secure) -> Result<()> {
    let topic = secure.broker().new_topic("private", 1)?;
    let write = |user: &str| -> Result<Option<RDKafkaErrorCode>> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", secure.address(Listener::Sasl)?).set("security.protocol", "sasl_plaintext");
        config.set("sasl.mechanism", "PLAIN").set("sasl.username", user).set("sasl.password", PASSWORD);
        let client: BaseConsumer = config.set("log_level", "0").create()?;
        let found = client.fetch_metadata(Some(&topic), PATIENCE)?;
        Ok(found.topics()[0].error().map(RDKafkaErrorCode::from))
    };
    assert_eq!(write(USER)?, None);
    assert_eq!(write(NOBODY)?, Some(RDKafkaErrorCode::TopicAuthorizationFailed));
    Ok(())
}
