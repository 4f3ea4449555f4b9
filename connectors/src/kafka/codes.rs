//! What librdkafka's error codes mean to readers and writers alike. What each of them *does* about a code is its own: a reader looks
//! whether its position or its topic is gone (`source/fault`), a writer says which right or setting is missing
//! (`librdkafka/refused`).

use rdkafka::types::RDKafkaErrorCode as Code;

/// Whether it may go away when the same is asked again, without anybody doing anything: nobody answers, a leader or coordinator moves.
pub(super) fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::MessageTimedOut
            | Code::TimedOutQueue
            | Code::Resolve
            | Code::SSL
            | Code::Retry
            | Code::WaitingForCoordinator
            | Code::WaitCache
            | Code::InProgress
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::RequestTimedOut
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::CoordinatorLoadInProgress
            | Code::CoordinatorNotAvailable
            | Code::NotCoordinator
            | Code::NotController
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable
    )
}

/// Whether the cluster does not take the login.
pub(super) fn is_login(code: Code) -> bool {
    matches!(code, Code::Authentication | Code::SaslAuthenticationFailed | Code::UnsupportedSASLMechanism)
}
