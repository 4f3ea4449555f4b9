//! What librdkafka says beside its answers: why it cannot reach a broker, and that it needs a token.
//!
//! ```text
//!   librdkafka ──error, log line──► Context ──why()──► "timed out: ... Connection refused" in the error that we return
//!              ◄──────token──────── Sasl::oauth
//! ```

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use rdkafka::{
    ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use secrecy::ExposeSecret;

use super::security::Sasl;

/// The ear of one client. Nothing it hears is written anywhere: the last complaint becomes part of the error that is returned.
#[derive(Debug, Default)]
pub(super) struct Context {
    sasl: Option<Sasl>,
    last: Mutex<Option<Complaint>>,
}

/// What librdkafka complained of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// In its words: `127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused`.
    pub(super) reason: String,
    /// The broker said no to who we are: another try will not help.
    pub(super) refused: bool,
}

impl Context {
    /// For a client that logs in like this.
    pub(super) fn new(sasl: Option<&Sasl>) -> Self {
        Self { sasl: sasl.cloned(), last: Mutex::default() }
    }

    /// The last complaint, if there was one.
    pub(super) fn last(&self) -> Option<Complaint> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Forgets it: what it was about works again.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn keep(&self, reason: &str, refused: bool) {
        // What follows counts milliseconds and repetitions, for librdkafka's log.
        let reason = reason.split_once(" (after ").map_or(reason, |(reason, _)| reason);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down follows from what was said before, and says less.
        if refused || last.as_ref().is_none_or(|last| !last.refused) {
            *last = Some(Complaint { reason: reason.to_string(), refused });
        }
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// The same complaints come as errors, so the lines are let go.
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _line: &str) {}

    fn stats_raw(&self, _json: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::PartitionEOF | Code::AllBrokersDown) => {}
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => self.keep(reason, true),
            // Ours, which the broker does not take, or its own, which we do not.
            _ => self.keep(reason, reason.contains("certificate")),
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let provider =
            self.sasl.as_ref().and_then(Sasl::provider).ok_or("no tokens are configured: use Sasl::oauth")?;
        let token = provider().map_err(|error| error.to_string().replace('\0', " "))?;
        let expires = token.expires.duration_since(UNIX_EPOCH).map_err(|_| "the token expired before 1970")?;
        Ok(OAuthToken {
            token: token.value.reveal()?.expose_secret().to_string(),
            principal_name: token.principal,
            lifetime_ms: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_hidden_by_later_complaints() {
        let context = Context::new(None);
        let error = |code, reason| context.error(KafkaError::Global(code), reason);
        error(Code::BrokerTransportFailure, "Connection refused");
        assert_eq!(context.last().unwrap().reason, "Connection refused");
        error(Code::Authentication, "SASL authentication error: Invalid username or password");
        error(Code::BrokerTransportFailure, "Disconnected");
        error(Code::AllBrokersDown, "1/1 brokers are down");
        let last = context.last().unwrap();
        assert!(last.refused && last.reason.contains("Invalid username"), "{last:?}");
        context.forget();
        assert_eq!(context.last(), None);
    }
}
