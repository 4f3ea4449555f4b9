//! What comes back from librdkafka about what was given to it: deliveries, errors, and who waits for them.
//!
//! ```text
//!   send ──► in flight:  ├ sent before flush 1 ┤├ before flush 2 ┤├ now ┤
//!                                 │ 0 left: flush 1 returns
//!   delivery reports ─────────────┘ one less, one more delivered to its partition, or the first failure
//! ```
//!
//! A flush waits for what was sent before it, not for what others send meanwhile. It counts the reports itself: librdkafka's own
//! flush returns when nothing is in its queues, and the reports of the last records may still be on their way.

use std::{
    collections::VecDeque,
    error::Error,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Headers},
    producer::ProducerContext,
    types::RDKafkaErrorCode as Code,
};
use serde::Deserialize;
use tokio::sync::Notify;

use super::super::{
    cluster::Delivered,
    connection::{HEADER_BYTES, RECORD_BYTES},
    context::{Brokers, Context},
};

/// How long a wait for room lasts at most before it is tried again.
const ROOM_PATIENCE: Duration = Duration::from_millis(50);

/// What became of a record that could not be written.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) code: Code,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) bytes: usize,
    /// What it takes of a batch, with its headers, at most.
    pub(super) in_batch: usize,
    /// What else librdkafka says of it, once it has been asked.
    pub(super) reason: Option<String>,
}

impl Undelivered {
    /// Whether it was only taken out of the queue, or not even put there, because something has made the whole transaction fail.
    pub(super) fn is_unexplained(&self) -> bool {
        matches!(self.code, Code::PurgeQueue | Code::PurgeInflight | Code::State) && self.reason.is_none()
    }

    /// Where it was to be written. librdkafka gives a record no partition while it does not know the topic's, or not any more.
    pub(super) fn place(&self) -> String {
        match self.partition {
            ..0 => format!("topic {}", self.topic),
            partition => format!("topic {}, partition {partition}", self.topic),
        }
    }

    /// None of the records, because nobody is left to send them to.
    fn brokerless() -> Self {
        Self { code: Code::AllBrokersDown, topic: String::new(), partition: -1, bytes: 0, in_batch: 0, reason: None }
    }

    pub(super) fn is_brokerless(&self) -> bool {
        self.code == Code::AllBrokersDown
    }
}

/// The few of librdkafka's figures that are looked at.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: Option<Brokers>,
}

/// The reports of one producer.
#[derive(Default)]
pub(super) struct Reports {
    pub(super) context: Context,
    state: Mutex<State>,
    progress: Notify,
}

#[derive(Default)]
struct State {
    /// Records in flight, by the flush that they came before.
    in_flight: VecDeque<usize>,
    /// The number of the first of them.
    first: usize,
    total: usize,
    failure: Option<Undelivered>,
    /// In the order in which partitions were first written to.
    delivered: Vec<(String, i32, u64)>,
    /// The one of the last report: most come in rows.
    last: usize,
    /// Somebody waits until no more than this many are in flight.
    wake_at: Option<usize>,
}

impl Reports {
    pub(super) fn new(context: Context) -> Self {
        Self { context, ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a record that is about to be sent, and says what it is to be reported under.
    pub(super) fn sending(&self) -> Result<usize, Undelivered> {
        let mut state = self.state();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.total += 1;
        match state.in_flight.back_mut() {
            Some(last) => *last += 1,
            None => state.in_flight.push_back(1),
        }
        Ok(state.first + state.in_flight.len() - 1)
    }

    /// It was not sent after all.
    pub(super) fn not_sent(&self, flush: usize) {
        if self.state().ended(flush) {
            self.progress.notify_waiters();
        }
    }

    /// Waits until everything that was sent before is reported.
    pub(super) async fn flush(&self) -> Result<(), Undelivered> {
        let mine = self.state().begin_flush();
        loop {
            let progress = self.progress.notified();
            {
                let state = self.state();
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.total == 0 || state.first > mine {
                    return Ok(());
                }
            }
            progress.await;
        }
    }

    /// Waits until a quarter of what is in flight has been reported, and not for long.
    pub(super) async fn room(&self) {
        let progress = self.progress.notified();
        {
            let mut state = self.state();
            let enough = state.total - state.total / 4;
            state.wake_at = Some(state.wake_at.map_or(enough, |other| other.max(enough)));
        }
        // In time or not: the caller tries again.
        let _ = tokio::time::timeout(ROOM_PATIENCE, progress).await;
    }

    /// A record could not be sent, and none that comes after it.
    pub(super) fn fail(&self, failure: Undelivered) {
        self.state().failure.get_or_insert(failure);
        self.progress.notify_waiters();
    }

    pub(super) fn failure(&self) -> Option<Undelivered> {
        self.state().failure.clone()
    }

    /// Says why the transaction has failed.
    pub(super) fn explain(&self, code: Code, reason: String) {
        if let Some(failure) = &mut self.state().failure {
            (failure.code, failure.reason) = (code, Some(reason));
        }
    }

    pub(super) fn delivered(&self) -> Delivered {
        let mut delivered = Delivered::new();
        for (topic, partition, records) in &self.state().delivered {
            *delivered.entry(topic.clone()).or_default().entry(*partition).or_default() += records;
        }
        delivered
    }

    /// Counts from zero, for a new transaction.
    pub(super) fn forget_delivered(&self) {
        let mut state = self.state();
        state.delivered.clear();
        state.last = 0;
    }
}

impl State {
    /// What was sent so far is before the flush of this number.
    fn begin_flush(&mut self) -> usize {
        match self.in_flight.back() {
            // Nothing since the former flush: it is the same.
            Some(0) | None => (self.first + self.in_flight.len()).saturating_sub(2),
            Some(_) => {
                self.in_flight.push_back(0);
                self.first + self.in_flight.len() - 2
            }
        }
    }

    /// One record less is in flight. True if somebody may be waiting for that.
    fn ended(&mut self, flush: usize) -> bool {
        self.total = self.total.saturating_sub(1);
        let index = flush.wrapping_sub(self.first);
        if let Some(left) = self.in_flight.get_mut(index) {
            *left = left.saturating_sub(1);
        }
        let mut wake = self.total == 0;
        while self.in_flight.len() > 1 && self.in_flight.front() == Some(&0) {
            self.in_flight.pop_front();
            self.first += 1;
            wake = true;
        }
        if self.wake_at.is_some_and(|enough| self.total <= enough) {
            self.wake_at = None;
            wake = true;
        }
        wake
    }

    fn count(&mut self, topic: &str, partition: i32) {
        let is_it = |entry: &(String, i32, u64)| entry.1 == partition && entry.0 == topic;
        if !self.delivered.get(self.last).is_some_and(is_it) {
            self.last = match self.delivered.iter().position(is_it) {
                Some(known) => known,
                None => {
                    self.delivered.push((topic.to_owned(), partition, 0));
                    self.delivered.len() - 1
                }
            };
        }
        if let Some((_, _, records)) = self.delivered.get_mut(self.last) {
            *records += 1;
        }
    }
}

fn undelivered(record: &impl Message, code: Code) -> Undelivered {
    let bytes = record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
    let headers = record.headers().into_iter().flat_map(|headers| headers.iter());
    let headers: usize = headers.map(|header| header_bytes(header.key, header.value)).sum();
    let (topic, partition) = (record.topic().to_owned(), record.partition());
    Undelivered { code, topic, partition, bytes, in_batch: bytes + headers + RECORD_BYTES, reason: None }
}

/// What a header takes of a batch, at most.
pub(super) fn header_bytes(name: &str, value: Option<&[u8]>) -> usize {
    name.len() + value.map_or(0, <[u8]>::len) + HEADER_BYTES
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, report: &DeliveryResult<'_>, flush: usize) {
        let mut state = self.state();
        let mut wake = false;
        match report {
            Ok(message) => state.count(message.topic(), message.partition()),
            // The record that is to blame may be told of after one that was not even taken because of it.
            Err((error, message)) if state.failure.as_ref().is_none_or(Undelivered::is_unexplained) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
                state.failure = Some(undelivered(message, code));
                wake = true;
            }
            Err(_) => {}
        }
        wake |= state.ended(flush);
        drop(state);
        if wake {
            self.progress.notify_waiters();
        }
    }
}

impl ClientContext for Reports {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.context.log(level, facility, line);
    }

    /// A producer without brokers would hold its records until these are too old.
    fn stats_raw(&self, json: &[u8]) {
        if serde_json::from_slice::<Statistics>(json).is_ok_and(|it| it.brokers.is_some_and(|brokers| !brokers.any())) {
            self.fail(Undelivered::brokerless());
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        self.context.generate_oauth_token(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flush_waits_for_what_was_sent_before_it_only() {
        let reports = Reports::default();
        let before = reports.sending().unwrap();
        let mine = reports.state().begin_flush();
        let after = reports.sending().unwrap();
        assert_ne!(before, after);
        assert!(reports.state().first <= mine);
        assert!(reports.state().ended(before));
        assert!(reports.state().first > mine, "what came after is still in flight, and not waited for");
        assert!(reports.state().ended(after));
        reports.flush().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_brokers_that_are_forgotten() {
        let reports = Reports::default();
        reports.sending().unwrap();
        let known = br#"{"name": "p", "brokers": {"a:9092/1": {"source": "learned"}}, "topics": {}}"#;
        for known in [&known[..], br#"{"name": "p"}"#, b"?"] {
            reports.stats_raw(known);
            assert!(reports.failure().is_none());
        }
        let flush = async { reports.flush().await.unwrap_err() };
        let forget = async {
            tokio::task::yield_now().await;
            reports.stats_raw(br#"{"name": "p", "brokers": {}, "topics": {}}"#);
        };
        let (failure, ()) = tokio::join!(flush, forget);
        assert!(failure.is_brokerless() && reports.sending().is_err());
    }

    #[tokio::test]
    async fn flushes_without_records_between_them_do_not_grow() {
        let reports = Reports::default();
        let one = reports.sending().unwrap();
        for _ in 0..10 {
            assert_eq!(reports.state().begin_flush(), one);
        }
        assert_eq!(reports.state().in_flight.len(), 2);
        reports.not_sent(one);
        assert_eq!(reports.state().total, 0);
        reports.flush().await.unwrap();
    }

    #[test]
    fn the_place_of_a_record_without_a_partition_is_its_topic() {
        let place = |partition| Undelivered { topic: "t".into(), partition, ..Undelivered::brokerless() }.place();
        assert_eq!((place(-1), place(0)), ("topic t".into(), "topic t, partition 0".into()));
    }

    #[test]
    fn deliveries_are_counted_by_partition() {
        let reports = Reports::default();
        for (topic, partition) in [("a", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 0)] {
            reports.state().count(topic, partition);
        }
        assert_eq!(format!("{:?}", reports.delivered()), r#"{"a": {0: 3, 1: 1}, "b": {0: 1}}"#);
        reports.forget_delivered();
        assert!(reports.delivered().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn room_is_waited_for_without_spinning() {
        let reports = Reports::default();
        let flush: Vec<_> = (0..4).map(|_| reports.sending().unwrap()).collect();
        let begun = tokio::time::Instant::now();
        tokio::join!(reports.room(), async {
            tokio::time::sleep(Duration::from_millis(7)).await;
            reports.not_sent(flush[0]);
        });
        assert_eq!(begun.elapsed(), Duration::from_millis(7));
        reports.room().await;
        assert_eq!(begun.elapsed(), Duration::from_millis(57));
    }
}
