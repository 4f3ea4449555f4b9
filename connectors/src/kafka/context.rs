//! What librdkafka says beside its answers: why it cannot reach a broker, and that it needs a token.
//!
//! ```text
//!   librdkafka ──error, log line──► Context ──last()──► "timed out: ... Connection refused" in the error that we return
//!              ◄──────token──────── Sasl::oauth
//! ```
//!
//! Every client has one, those of sources, of sinks, and those that only ask something.

use std::{
    collections::BTreeMap,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, UNIX_EPOCH},
};

use rdkafka::{
    ClientContext,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
};
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::{codes::is_login, security::Sasl};

/// For how long what was heard is the reason of what goes wrong. A client that gets no answer tries again at least every ten seconds
/// (`reconnect.backoff.max.ms`), and says the same again after thirty.
const HEARD_LATELY: Duration = Duration::from_secs(60);

/// What librdkafka says when there is no token, with the reason behind it.
const NO_TOKEN: &str = "Failed to acquire SASL OAUTHBEARER token";

/// The ear of one client. Nothing it hears is written anywhere: the last complaint becomes part of the error that is returned.
#[derive(Debug, Default)]
pub(super) struct Context {
    sasl: Option<Sasl>,
    last: Mutex<Option<Complaint>>,
    /// One more than the offset at which the partition ends whose end was told last; 0 if that is not known.
    end: AtomicU64,
}

/// What librdkafka complained of.
#[derive(Clone, Debug)]
pub(super) struct Complaint {
    code: Code,
    /// In its words: `127.0.0.1:9/bootstrap: Connect to ipv4#127.0.0.1:9 failed: Connection refused`.
    pub(super) reason: String,
    /// One side said no to who the other is: another try will not help.
    pub(super) refused: bool,
    at: Instant,
}

impl Context {
    /// For a client that logs in like this.
    pub(super) fn new(sasl: Option<&Sasl>) -> Self {
        Self { sasl: sasl.cloned(), ..Self::default() }
    }

    /// What was complained of lately.
    pub(super) fn last(&self) -> Option<Complaint> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        last.filter(Complaint::is_fresh)
    }

    /// What was complained of lately, if another try will not help.
    pub(super) fn refused(&self) -> Option<Complaint> {
        self.last().filter(|complaint| complaint.refused)
    }

    /// Where the partition ends whose end was just polled: librdkafka says so in words, just before the event.
    pub(super) fn end(&self) -> Option<u64> {
        self.end.load(Relaxed).checked_sub(1)
    }

    /// Forgets it: what it was about works again.
    pub(super) fn forget(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn keep(&self, code: Code, reason: &str) {
        // What follows counts milliseconds and repetitions, for librdkafka's log.
        let reason = reason.split_once(" (after ").map_or(reason, |(reason, _)| reason);
        let refused = is_refusal(code, reason);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // What a position is refused for is told for that event alone.
        let is_position = code == Code::AutoOffsetReset;
        if refused || is_position || !last.as_ref().is_some_and(|last| last.refused && last.is_fresh()) {
            *last = Some(Complaint { code, reason: reason.to_string(), refused, at: Instant::now() });
        }
    }

    /// A token, in the form that librdkafka takes.
    fn token(&self) -> Result<OAuthToken, Box<dyn Error>> {
        let provider =
            self.sasl.as_ref().and_then(Sasl::provider).ok_or("no tokens are configured: use Sasl::oauth")?;
        // A panic would end the thread that serves the client, and with it whoever waits for a delivery.
        let token = catch_unwind(AssertUnwindSafe(provider));
        let token = token.map_err(|_| "the provider of tokens panicked")?.map_err(|error| error as Box<dyn Error>)?;
        let expires = token.expires.duration_since(UNIX_EPOCH).map_err(|_| "the token expired before 1970")?;
        Ok(OAuthToken {
            token: token.value.reveal()?.expose_secret().to_string(),
            principal_name: token.principal,
            lifetime_ms: i64::try_from(expires.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

/// The brokers that a client knows, by name, in its statistics.
///
/// librdkafka forgets those that the cluster does not name any more. When it has named none, as a broker does that has slept and is not
/// let in again yet, nobody is left to be asked, and that stays so for as long as there is this client.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Brokers(BTreeMap<String, Broker>);

#[derive(Debug, Deserialize)]
struct Broker {
    #[serde(default)]
    source: String,
}

impl Brokers {
    /// Whether there is one, beside those that only stand for where partitions without a leader go, or for a coordinator.
    pub(super) fn any(&self) -> bool {
        self.0.values().any(|broker| !matches!(broker.source.as_str(), "internal" | "logical"))
    }
}

impl Complaint {
    /// What to do about it.
    pub(super) fn advice(&self) -> &'static str {
        let says = |part| self.reason.contains(part);
        match self.code {
            _ if says(NO_TOKEN) => "Look at what Sasl::oauth was given: it has no token",
            _ if says("certificate verify failed") => {
                "The broker's certificate has expired, or is for another host than the one that was called, or no authority in \
                 .tls(...) has signed it: `openssl s_client -connect` with the same address shows it"
            }
            _ if says("certificate") => {
                "The broker wants a certificate of this client, or another one: look at .client_certificate(...) in .tls(...)"
            }
            Code::UnsupportedSASLMechanism => "Look at .sasl(...): the broker has other ways to log in",
            Code::Authentication | Code::SaslAuthenticationFailed => "Look at the user and the secret in .sasl(...)",
            _ => {
                "Look at the addresses, the network and the brokers, and whether the port wants .tls(...) or .sasl(...)"
            }
        }
    }

    fn is_fresh(&self) -> bool {
        self.at.elapsed() < HEARD_LATELY
    }
}

/// Whether the cluster does not let the client in, or the client does not trust the cluster. A connection that breaks while it is
/// being encrypted is neither: brokers that start or stop do that.
fn is_refusal(code: Code, reason: &str) -> bool {
    match code {
        // Whoever gives tokens may only be away for a moment; it is asked again.
        Code::Authentication => !reason.contains(NO_TOKEN),
        code if is_login(code) => true,
        // Ours, which the broker does not take, or its own, which we do not.
        _ => reason.contains("certificate"),
    }
}

/// `Fetch from broker 1 reached end of partition at offset 5 (HighwaterMark 5)`
fn end_in(reason: &str) -> Option<u64> {
    let (_, offset) = reason.split_once("at offset ")?;
    offset.split(' ').next()?.parse().ok()
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// Complaints come as errors too, except that a broker has closed the connection: that is how one answers that expects to be spoken
    /// to in another way. All other lines are let go.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        use RDKafkaLogLevel::{Info, Notice, Warning};
        if facility == "FAIL" && matches!(level, Warning | Notice | Info) {
            let line = line.split_once("]: ").filter(|_| line.starts_with("[thrd:")).map_or(line, |(_, line)| line);
            self.keep(Code::BrokerTransportFailure, line);
        }
    }

    fn stats_raw(&self, _json: &[u8]) {}

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code().unwrap_or(Code::Fail) {
            // That all brokers are down follows from what was said before, and says less.
            Code::AllBrokersDown => {}
            Code::PartitionEOF => self.end.store(end_in(reason).map_or(0, |end| end.saturating_add(1)), Relaxed),
            code => self.keep(code, reason),
        }
    }

    fn generate_oauth_token(&self, _config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        // librdkafka asks again every ten seconds, but complains only when the error is another one.
        self.token().inspect_err(|error| self.keep(Code::Authentication, &format!("{NO_TOKEN}: {error}")))
    }
}

impl ConsumerContext for Context {}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{kafka::Token, secret::Secret};

    #[test]
    fn brokers_are_those_that_can_be_asked() {
        let any = |json| serde_json::from_str::<Brokers>(json).unwrap().any();
        assert!(!any("{}"));
        assert!(!any(r#"{"GroupCoordinator": {"source": "logical"}, ":0/internal": {"source": "internal"}}"#));
        assert!(any(r#"{"a:9092/bootstrap": {"name": "a:9092/bootstrap", "source": "configured"}}"#));
        assert!(any(r#"{"GroupCoordinator": {"source": "logical"}, "a:9092/1": {"source": "learned", "rtt": {}}}"#));
        assert!(any(r#"{"a:9092/1": {}}"#), "it is not known");
    }

    #[test]
    fn a_refusal_is_not_hidden_by_later_complaints() {
        let context = Context::new(None);
        let error = |code, reason| context.error(KafkaError::Global(code), reason);
        error(Code::BrokerTransportFailure, "Connection refused (after 2ms in state CONNECT)");
        assert_eq!(context.last().unwrap().reason, "Connection refused");
        assert!(context.refused().is_none());
        error(Code::Authentication, "SASL authentication error: Invalid username or password");
        error(Code::BrokerTransportFailure, "Disconnected");
        error(Code::AllBrokersDown, "1/1 brokers are down");
        let last = context.refused().unwrap();
        assert!(last.advice().ends_with("in .sasl(...)") && last.reason.contains("Invalid username"), "{last:?}");
        context.forget();
        assert!(context.last().is_none());
    }

    #[test]
    fn why_a_position_is_refused_is_not_hidden_by_another_complaint() {
        let context = Context::new(None);
        let error = |code, reason| context.error(KafkaError::Global(code), reason);
        error(Code::Authentication, "SASL authentication error: Invalid username or password");
        error(Code::AutoOffsetReset, "Partition log truncation detected at offset 42");
        assert!(context.last().unwrap().reason.starts_with("Partition log truncation"));
    }

    #[test]
    fn a_closed_connection_is_heard_of_and_no_other_line() {
        let context = Context::new(None);
        for (level, facility) in [(RDKafkaLogLevel::Info, "CONFWARN"), (RDKafkaLogLevel::Debug, "FAIL")] {
            context.log(level, facility, "sasl.password=canary-51ad");
        }
        assert!(context.last().is_none());
        let line = "[thrd:k:9092/bootstrap]: k:9092/bootstrap: Disconnected: requesting ApiVersion: might be a SSL listener (after 1ms)";
        context.log(RDKafkaLogLevel::Info, "FAIL", line);
        let last = context.last().unwrap();
        assert_eq!(last.reason, "k:9092/bootstrap: Disconnected: requesting ApiVersion: might be a SSL listener");
        assert!(!last.refused && last.advice().contains("the port wants .tls(...)"));
    }

    #[test]
    fn only_what_will_not_pass_is_a_refusal() {
        for (code, reason, expected) in [
            (
                Code::SSL,
                "SSL handshake failed: certificate verify failed: unable to get local issuer certificate",
                true,
            ),
            (Code::SSL, "SSL handshake failed: Disconnected", false),
            (Code::SaslAuthenticationFailed, "", true),
            (Code::UnsupportedSASLMechanism, "", true),
            (Code::Authentication, "Failed to acquire SASL OAUTHBEARER token: away", false),
            (Code::BrokerTransportFailure, "Connection refused", false),
        ] {
            assert_eq!(is_refusal(code, reason), expected, "{reason}");
        }
    }

    #[test]
    fn the_end_of_a_partition_is_in_the_words() {
        let context = Context::new(None);
        assert_eq!(context.end(), None);
        let words = "Fetch from broker 1 reached end of partition at offset 512 (HighwaterMark 512)";
        context.error(KafkaError::Global(Code::PartitionEOF), words);
        assert_eq!(context.end(), Some(512));
        context.error(KafkaError::Global(Code::PartitionEOF), "no more");
        assert_eq!(context.end(), None);
        assert!(context.last().is_none(), "it is no complaint");
    }

    #[test]
    fn a_token_comes_from_its_provider_or_an_error_does() {
        let token = |context: &Context| context.generate_oauth_token(None).map_err(|error| error.to_string());
        assert!(token(&Context::new(None)).err().unwrap().contains("use Sasl::oauth"));
        let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        let good =
            Sasl::oauth(move || Ok(Token { value: Secret::new("canary-51ad"), principal: "alice".into(), expires }));
        let good = Context::new(Some(&good));
        let given = token(&good).unwrap();
        assert_eq!((given.token.as_str(), given.principal_name.as_str()), ("canary-51ad", "alice"));
        assert_eq!(given.lifetime_ms, 7_000);
        assert!(!format!("{good:?}").contains("canary"));
        let away = Sasl::oauth(|| Err("away".into()));
        let away = Context::new(Some(&away));
        assert_eq!(token(&away).err().unwrap(), "away");
        let complaint = away.last().unwrap();
        assert!(!complaint.refused && complaint.reason.ends_with("token: away"), "{complaint:?}");
        assert!(complaint.advice().contains("Sasl::oauth"));
        let panics = Sasl::oauth(|| panic!("no"));
        assert_eq!(token(&Context::new(Some(&panics))).err().unwrap(), "the provider of tokens panicked");
    }
}
