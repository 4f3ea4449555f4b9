//! librdkafka's settings that are not the user's to set: those that the connector's promises rest on, and those that hold secrets.

/// Names, and what to do instead.
const OWNED: &[(&[&str], &str)] = &[
    (&["bootstrap.servers", "metadata.broker.list"], "name the brokers in Kafka::brokers"),
    (
        &["security.protocol", "sasl.mechanism", "sasl.mechanisms", "sasl.username"],
        "say .tls(...) and .sasl(...) on the connection",
    ),
    (
        &["ssl.ca.location", "ssl.certificate.location", "ssl.key.location"],
        "say .tls(Tls::ca_file(...).client_certificate(...)) on the connection",
    ),
    (
        &["enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm"],
        "who answers is always checked: give the authority that signed the brokers' certificates with Tls::ca_file, and use the \
         host names that the certificates are for",
    ),
    (
        &[
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.remote.assignor",
            "partition.assignment.strategy",
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
        ],
        "the engine owns partitions and offsets; say .group(name) on the source, and the offsets of final checkpoints are \
         committed there",
    ),
    (
        &["auto.offset.reset"],
        "say .from(Start::...) on the source; a position that is gone ends the job instead of a jump",
    ),
    (&["isolation.level"], "say .isolation(...) on the source"),
    (
        &["transactional.id", "transaction.timeout.ms", "enable.idempotence", "enable.gapless.guarantee"],
        "say .exactly_once() on the sink",
    ),
    (
        &["enable.partition.eof", "check.crcs", "statistics.interval.ms", "log.queue"],
        "the connector needs it as it sets it",
    ),
    (&["debug"], "librdkafka's debug lines hold settings and secrets, so they are not written anywhere"),
];

/// Why the user may not set `name`; `None` if they may. The value is not looked at, and must not be kept then.
pub(super) fn refused(name: &str) -> Option<String> {
    let name = name.trim().to_ascii_lowercase();
    if holds_secret(&name) {
        return Some(format!(
            "the setting {name} holds a secret: use .sasl(...) or .tls(...) with a Secret, which is never shown"
        ));
    }
    let (_, instead) = OWNED.iter().find(|(names, _)| names.contains(&name.as_str()))?;
    Some(format!("the setting {name} is not for Kafka::set: {instead}"))
}

/// Anything that might, rather than a list that a new librdkafka makes incomplete.
fn holds_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "key.pem", "keystore", "sasl.oauthbearer"]
        .iter()
        .any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::refused;

    #[test]
    fn what_holds_secrets_or_promises_is_refused() {
        for name in [
            "sasl.password",
            "SSL.key.password",
            "ssl.key.pem",
            "ssl.keystore.location",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(refused(name).unwrap().contains("holds a secret"), "{name}");
        }
        for name in ["enable.auto.commit", "auto.offset.reset", "debug", "ssl.endpoint.identification.algorithm"] {
            assert!(refused(name).unwrap().contains(name), "{name}");
        }
        for name in ["fetch.min.bytes", "socket.keepalive.enable", "client.id", "compression.type"] {
            assert_eq!(refused(name), None);
        }
    }
}
