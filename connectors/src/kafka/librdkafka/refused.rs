//! What librdkafka says when something fails, in words that say what to do.

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode as Code};

use super::super::{codes::is_login, context::Complaint};
use crate::ConnectorError;

/// The error for `code`. `system` says which cluster and what of it; `action` is what could not be done: `write to topic orders`.
/// `detail` is what librdkafka said beside the code, and may be empty.
pub(super) fn refused(system: &str, action: &str, code: Code, detail: &str) -> ConnectorError {
    let (advice, passes) = advice(code);
    let said = match detail {
        "" => code.to_string(),
        detail => format!("{code} ({detail})"),
    };
    let advice = if advice.is_empty() { String::new() } else { format!(". {advice}") };
    ConnectorError::Remote { system: system.into(), reason: format!("cannot {action}: {said}{advice}"), passes }
}

/// The error for whatever rdkafka returns. Without a code it did not like the configuration.
pub(super) fn refused_by(system: &str, action: &str, error: &KafkaError) -> ConnectorError {
    match (error, error.rdkafka_error_code()) {
        (KafkaError::Transaction(error), _) => refused(system, action, error.code(), &error.string()),
        (_, Some(code)) => refused(system, action, code, ""),
        (error, None) => ConnectorError::Config(format!("{system}: cannot {action}: {error}")),
    }
}

/// The error for a record that is too large by itself, whatever else is in its batch: it is so at the next start too.
pub(super) fn too_large(system: &str, action: &str) -> ConnectorError {
    let code = Code::MessageSizeTooLarge;
    let reason = format!(
        "cannot {action}: {code}. The record is larger than allowed: raise max.message.bytes of the topic (message.max.bytes of the \
         broker), and message.max.bytes of this client"
    );
    ConnectorError::Remote { system: system.into(), reason, passes: false }
}

/// The error for a cluster that gives no answer, of which the client has heard why.
pub(super) fn unanswered(system: &str, action: &str, complaint: &Complaint) -> ConnectorError {
    let reason = format!("cannot {action}: {}. {}", complaint.reason, complaint.advice());
    ConnectorError::Remote { system: system.into(), reason, passes: !complaint.refused }
}

/// Whether another producer with the same id has taken over, or the cluster has thrown the transaction away.
pub(super) fn is_fenced(code: Code) -> bool {
    use Code::{Fenced, InvalidProducerEpoch, InvalidProducerIdMapping, ProducerFenced, UnknownProducerId};
    matches!(code, Fenced | ProducerFenced | InvalidProducerEpoch | InvalidProducerIdMapping | UnknownProducerId)
}

/// Whether it may go away by itself.
pub(super) fn passes(code: Code) -> bool {
    advice(code).1
}

/// What to do, and whether it may go away by itself.
fn advice(code: Code) -> (&'static str, bool) {
    match code {
        Code::TopicAuthorizationFailed => (
            "The user of this job needs the right to WRITE and DESCRIBE on its topics, and READ too on the topic of the markers",
            false,
        ),
        Code::TransactionalIdAuthorizationFailed => (
            "The user of this job needs the rights WRITE and DESCRIBE on its transactional ids, windrow.{job}.* unless \
              Kafka::transactional_prefix says otherwise",
            false,
        ),
        Code::ClusterAuthorizationFailed => (
            "The user of this job needs the right to create topics, or to IDEMPOTENT_WRITE on brokers before 2.8",
            false,
        ),
        Code::GroupAuthorizationFailed => ("The user of this job needs the right to READ its consumer group", false),
        Code::InvalidTransactionTimeout => (
            "Brokers allow at most their transaction.max.timeout.ms: raise it, or lower Kafka::transaction_timeout",
            false,
        ),
        Code::ProducerFenced | Code::Fenced => {
            ("It was fenced: another start of the job has taken over its transactional ids", true)
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic => {
            ("Is the topic there? It is not created by writing to it", true)
        }
        Code::UnknownPartition => ("The topic does not have that partition", false),
        Code::MessageSizeTooLarge => (
            "A batch is larger than its topic takes, which each start asks for: it takes less since then (max.message.bytes), or the \
              user of this job needs the right to DESCRIBE_CONFIGS on it, or a smaller batch.size",
            true,
        ),
        Code::InvalidRecord => (
            "A record does not suit the topic: a compacted topic needs a key for each; and times must be near enough to now, \
              where the topic says so",
            false,
        ),
        Code::InvalidTimestamp => {
            ("The time of a record is not one that the topic allows (message.timestamp.*)", false)
        }
        Code::UnsupportedFeature | Code::UnsupportedVersion => ("The brokers do not know how to do that", false),
        Code::PolicyViolation => ("A rule of the cluster forbids it", false),
        code if is_login(code) => ("Look at the user and the secret in .sasl(...)", false),
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::OperationTimedOut
        | Code::MessageTimedOut
        | Code::RequestTimedOut => ("Is the broker up, and does this address lead to it?", true),
        _ => ("", true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_where_why_and_what_to_do() {
        let refused = refused("kafka k:9092", "create topic m", Code::TopicAuthorizationFailed, "by policy");
        assert_eq!(
            refused.to_string(),
            "kafka k:9092: cannot create topic m: TopicAuthorizationFailed (Broker: Topic authorization failed) (by policy). The \
             user of this job needs the right to WRITE and DESCRIBE on its topics, and READ too on the topic of the markers"
        );
        assert!(matches!(refused, ConnectorError::Remote { passes: false, .. }));
    }

    #[test]
    fn only_what_may_go_away_by_itself_passes() {
        for (code, expected) in [
            (Code::BrokerTransportFailure, true),
            (Code::MessageTimedOut, true),
            (Code::NotEnoughReplicas, true),
            (Code::ProducerFenced, true),
            (Code::MessageSizeTooLarge, true),
            (Code::SaslAuthenticationFailed, false),
            (Code::TransactionalIdAuthorizationFailed, false),
            (Code::InvalidTransactionTimeout, false),
        ] {
            let refused = refused("kafka", "write", code, "");
            assert!(matches!(refused, ConnectorError::Remote { passes, .. } if passes == expected), "{refused}");
        }
        let error = KafkaError::ClientCreation("no such setting".into());
        assert!(matches!(refused_by("kafka", "make a producer", &error), ConnectorError::Config(_)));
    }
}
