//! The largest records that topics take: no batch must be larger, nor a dead letter, whatever its record was.
//!
//! | what the cluster says | what becomes of the topic |
//! |---|---|
//! | its limit | it bounds batches and letters |
//! | the user may not ask (DESCRIBE_CONFIGS), or there is no such topic | it is left out: asking again would not help |
//! | nothing | an error that passes: the next start asks again |

use std::{collections::BTreeMap, time::Duration};

use rdkafka::{
    admin::{AdminClient, AdminOptions, OwnedResourceSpecifier, ResourceSpecifier},
    types::RDKafkaErrorCode as Code,
};

use super::{
    super::{LATE, codes::is_passing, connection::BATCH_BYTES, context::Context},
    Librdkafka,
    refused::{passes, refused},
};
use crate::Result;

/// How long an answer may take, and all tries together.
const PATIENCE: Duration = Duration::from_secs(5);
const IN_ALL: Duration = Duration::from_secs(15);

/// What one request was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// The `max.message.bytes` of topics.
    told: BTreeMap<String, usize>,
    /// Why others may be known later.
    late: Vec<Code>,
}

impl Answer {
    fn none(code: Code) -> Self {
        let mut answer = Self::default();
        answer.not_told(code);
        answer
    }

    fn not_told(&mut self, code: Code) {
        self.late.extend(Some(code).filter(|code| passes(*code)));
    }

    /// Why there is nothing to go by, if the next start may know more.
    fn is_missing(&self) -> Option<Code> {
        self.late.iter().copied().find(|code| is_passing(*code))
    }
}

/// See [`Cluster::largest_records`](super::Cluster::largest_records).
pub(super) async fn largest_records(cluster: &Librdkafka, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
    asked_within(IN_ALL, cluster, topics).await
}

async fn asked_within(in_all: Duration, cluster: &Librdkafka, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
    if topics.is_empty() || !cluster.has_admin() {
        return Ok(BTreeMap::new());
    }
    let admin = cluster.admin().await?;
    let answer = persistently(in_all, || describe(&admin, topics)).await;
    drop(tokio::task::spawn_blocking(move || drop(admin)));
    let Some(code) = answer.is_missing() else {
        let largest = |(topic, bytes): (String, usize)| (topic, bytes.saturating_sub(BATCH_BYTES));
        return Ok(answer.told.into_iter().map(largest).collect());
    };
    Err(refused(&cluster.config.name(), &format!("ask how large records of {} may be", named(topics)), code, ""))
}

fn named(topics: &[&str]) -> String {
    match topics {
        [one] => format!("topic {one}"),
        several => format!("the topics {}", several.join(", ")),
    }
}

/// Asks again, for a while, as long as that may help.
async fn persistently<A: Future<Output = Answer>>(in_all: Duration, mut ask: impl FnMut() -> A) -> Answer {
    let asking = async {
        for pause in LATE {
            let answer = ask().await;
            if answer.late.is_empty() {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        ask().await
    };
    tokio::time::timeout(in_all, asking).await.unwrap_or_else(|_| Answer::none(Code::OperationTimedOut))
}

/// The topics' `max.message.bytes`, which is the broker's where a topic has none of its own.
async fn describe(admin: &AdminClient<Context>, topics: &[&str]) -> Answer {
    let options = AdminOptions::new().request_timeout(Some(PATIENCE));
    let asked: Vec<_> = topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
    let described = match admin.describe_configs(&asked, &options).await {
        Ok(described) => described,
        Err(error) => return Answer::none(error.rdkafka_error_code().unwrap_or(Code::Fail)),
    };
    let mut answer = Answer::default();
    for described in described {
        // Of a topic that the user may not ask for, or that is not there, rdkafka has no code, but no settings either.
        match described {
            Ok(described) => {
                let found = described.get("max.message.bytes").and_then(|entry| entry.value.as_ref());
                let bytes = found.and_then(|bytes| bytes.parse().ok());
                if let (OwnedResourceSpecifier::Topic(topic), Some(bytes)) = (described.specifier, bytes) {
                    answer.told.insert(topic, bytes);
                }
            }
            Err(code) => answer.not_told(code),
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future};

    use super::*;
    use crate::ConnectorError;

    fn told(bytes: usize) -> Answer {
        Answer { told: [("t".to_owned(), bytes)].into(), late: Vec::new() }
    }

    /// The answer, and how often it was asked for.
    async fn asked(answer: impl Fn(u32) -> Answer) -> (Answer, u32) {
        let times = Cell::new(0);
        let ask = || {
            times.set(times.get() + 1);
            future::ready(answer(times.get()))
        };
        (persistently(IN_ALL, ask).await, times.get())
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_asked_for_again_and_not_for_ever() {
        assert_eq!(asked(|_| told(7)).await, (told(7), 1));
        assert_eq!(asked(|_| Answer::none(Code::TopicAuthorizationFailed)).await, (Answer::default(), 1));
        let late = |times| if times < 4 { Answer::none(Code::BrokerTransportFailure) } else { told(7) };
        assert_eq!(asked(late).await, (told(7), 4));
        assert_eq!(asked(|_| Answer::none(Code::OperationTimedOut)).await.1, 5);
        let begun = tokio::time::Instant::now();
        assert_eq!(persistently(IN_ALL, future::pending).await, Answer::none(Code::OperationTimedOut));
        assert_eq!(begun.elapsed(), IN_ALL);
    }

    /// A topic that is not there is for others to tell, and one that nobody may ask for stays as it is.
    #[test]
    fn only_what_the_next_start_may_know_is_missing() {
        for code in [Code::TopicAuthorizationFailed, Code::UnknownTopicOrPartition, Code::UnsupportedFeature] {
            assert_eq!(Answer::none(code).is_missing(), None);
        }
        let late = vec![Code::UnknownTopicOrPartition, Code::OperationTimedOut];
        assert_eq!(Answer { late, ..told(7) }.is_missing(), Some(Code::OperationTimedOut));
    }

    /// Nobody is there: it must not be taken for a topic that takes what topics take by default.
    #[tokio::test(flavor = "multi_thread")]
    async fn without_an_answer_it_is_an_error_that_passes() {
        let config = super::super::Config { brokers: "127.0.0.1:1".into(), ..Default::default() };
        let error = asked_within(Duration::from_secs(1), &Librdkafka::new(config), &["a", "b"]).await.unwrap_err();
        assert!(matches!(error, ConnectorError::Remote { passes: true, .. }), "{error}");
        let expected = "kafka 127.0.0.1:1: cannot ask how large records of the topics a, b may be: ";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
