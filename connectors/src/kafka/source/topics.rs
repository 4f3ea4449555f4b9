//! The feed that is Kafka: one client for each topic.
//!
//! Nearly every source reads one topic. Where there are several, each has a client of its own, because the end of a partition is
//! told with its number only; and it saves looking the topic's name up for every record.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{Receiver, TryRecvError, channel},
    },
    time::Duration,
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{Consumer, base_consumer::BaseConsumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    message::BorrowedMessage,
};

use super::{
    client::{Client, Ear},
    fault,
    feed::{Event, Fault, Feed, Partition},
    plan::{Isolation, Plan},
    reader::Ends,
};
use crate::{ConnectorError, Result};

/// So many records come from one topic before the others are looked at.
const STREAK: usize = 1_000;

/// With several topics, how long to wait at once.
const NAP: Duration = Duration::from_millis(10);

pub(super) struct Topics {
    plan: Plan,
    /// Which ends to keep up to date, and of about how many partitions; none if it only asks.
    watched: Option<(Ends, i32)>,
    /// By topic; made when it is needed.
    clients: Vec<Option<Client>>,
    /// Whose turn it is, and how many events it has had in a row.
    turn: Cell<usize>,
    streak: Cell<usize>,
    bell: Arc<Bell>,
    /// The answer to come of [`Feed::find_ends`].
    finding: Option<Receiver<Vec<(Partition, u64)>>>,
}

/// Rung when a client's queue is not empty any more.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    ring: Condvar,
}

impl Topics {
    pub(super) fn new(plan: Plan, watched: Option<(Ends, i32)>) -> Self {
        let clients = plan.topics.iter().map(|_| None).collect();
        Self { plan, watched, clients, turn: Cell::new(0), streak: Cell::new(0), bell: Arc::default(), finding: None }
    }

    /// The client of a topic, and the topic's name.
    fn client(&mut self, topic: usize) -> Result<(&mut Client, &str)> {
        let (Some(client), Some(name)) = (self.clients.get_mut(topic), self.plan.topics.get(topic)) else {
            return Err(ConnectorError::Config(format!("{} has no topic number {topic}", self.plan.name())));
        };
        let client = match client {
            Some(client) => client,
            none => none.insert(Client::reading(&self.plan, topic, self.watched.clone())?),
        };
        Ok((client, name))
    }

    /// Does something with the partitions of each topic.
    fn each_topic(
        &mut self,
        of: &[(Partition, u64)],
        what: &str,
        act: impl Fn(&BaseConsumer<Ear>, &TopicPartitionList) -> KafkaResult<()>,
    ) -> Result<()> {
        for topic in 0..self.plan.topics.len() {
            let system = self.plan.topic(topic);
            let failed = |error: KafkaError| ConnectorError::Remote {
                system: system.clone(),
                reason: format!("librdkafka cannot {what} partitions: {error}"),
                passes: true,
            };
            let mut list = TopicPartitionList::new();
            for (at, offset) in of.iter().filter(|(at, _)| at.topic == topic) {
                let name = &self.plan.topics[topic];
                let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
                list.add_partition_offset(name, at.number, offset).map_err(failed)?;
            }
            if list.count() > 0 {
                act(self.client(topic)?.0.consumer(), &list).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Asks for an offset of each partition; `None` where the answer is none.
    fn offsets(&mut self, of: &[Partition], given: Offset, what: &str, ask: impl Ask) -> Result<Vec<Option<u64>>> {
        let mut offsets = vec![None; of.len()];
        for topic in 0..self.plan.topics.len() {
            let of: BTreeMap<i32, usize> =
                of.iter().enumerate().filter(|(_, at)| at.topic == topic).map(|(i, at)| (at.number, i)).collect();
            let (found, asked) = self.offsets_of(topic, of.keys().copied(), given, what, &ask);
            asked?;
            for (number, offset) in found {
                if let Some(place) = of.get(&number).and_then(|&place| offsets.get_mut(place)) {
                    *place = offset;
                }
            }
        }
        Ok(offsets)
    }

    /// Of partitions of one topic: what was answered, and why it is not everything. Only what is missing is asked for again.
    fn offsets_of(
        &mut self,
        topic: usize,
        numbers: impl Iterator<Item = i32>,
        given: Offset,
        what: &str,
        ask: &impl Ask,
    ) -> (BTreeMap<i32, Option<u64>>, Result<()>) {
        let found = RefCell::new(BTreeMap::new());
        let missing = RefCell::new(numbers.collect::<BTreeSet<i32>>());
        if missing.borrow().is_empty() {
            return (BTreeMap::new(), Ok(()));
        }
        let asked = self.client(topic).and_then(|(client, name)| {
            client.ask(&format!("{what} of the topic {name}"), |consumer, wait| {
                let mut list = TopicPartitionList::new();
                for number in missing.borrow().iter() {
                    list.add_partition_offset(name, *number, given)?;
                }
                let answer = ask(consumer, list, wait)?;
                let mut failed = Ok(());
                for element in answer.elements() {
                    if let Err(error) = element.error() {
                        failed = Err(error);
                    } else if missing.borrow_mut().remove(&element.partition()) {
                        let offset = match element.offset() {
                            Offset::Offset(offset) => u64::try_from(offset).ok(),
                            _ => None,
                        };
                        found.borrow_mut().insert(element.partition(), offset);
                    }
                }
                failed
            })
        });
        (found.into_inner(), asked)
    }

    fn event<'a>(
        &'a self,
        topic: usize,
        client: &Client,
        polled: KafkaResult<BorrowedMessage<'a>>,
    ) -> Event<BorrowedMessage<'a>> {
        match polled {
            Ok(record) => Event::Record { at: Partition { topic, number: record.partition() }, record },
            Err(KafkaError::PartitionEOF(number)) => {
                Event::End { at: Partition { topic, number }, offset: client.consumer().context().end() }
            }
            Err(error) => {
                let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
                let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
                let reason = client.consumer().context().why(code);
                let fault = match fault::meaning(code, false) {
                    _ if fatal => Fault::Other,
                    Fault::Position if fault::is_truncation(&reason) => Fault::Truncated,
                    fault => fault,
                };
                Event::Failed { topic, fault, reason }
            }
        }
    }

    /// Where these end, as far as there are answers: who does not answer is no reason for the others. Blocks.
    pub(super) fn ends(&mut self, of: &[Partition]) -> Vec<(Partition, u64)> {
        let Ok(leaders) = self.leaders(of) else { return Vec::new() };
        let mut led = BTreeMap::<(usize, i32), Vec<i32>>::new();
        for (at, leader) in of.iter().zip(leaders) {
            if let Some(leader) = leader {
                led.entry((at.topic, leader)).or_default().push(at.number);
            }
        }
        let mut ends = Vec::new();
        for ((topic, _), numbers) in led {
            let (found, _) = self.offsets_of(topic, numbers.into_iter(), Offset::End, "for the ends", &times);
            ends.extend(found.into_iter().filter_map(|(number, end)| Some((Partition { topic, number }, end?))));
        }
        ends
    }

    /// One round over all topics, beginning with the one that had the last event.
    fn round(&self) -> Option<Event<BorrowedMessage<'_>>> {
        let count = self.clients.len();
        let begin = self.turn.get() + usize::from(self.streak.get() >= STREAK);
        for topic in (begin..begin + count).map(|turn| turn % count) {
            let Some(client) = self.clients.get(topic).and_then(Option::as_ref) else { continue };
            if let Some(polled) = client.consumer().poll(Duration::ZERO) {
                let again = topic == self.turn.get() && self.streak.get() < STREAK;
                self.streak.set(if again { self.streak.get() + 1 } else { 0 });
                self.turn.set(topic);
                return Some(self.event(topic, client, polled));
            }
        }
        None
    }
}

impl Feed for Topics {
    type Record<'a> = BorrowedMessage<'a>;

    fn poll(&self, wait: Duration) -> Option<Event<BorrowedMessage<'_>>> {
        if let [Some(client)] = self.clients.as_slice() {
            let polled = client.consumer().poll(wait)?;
            return Some(self.event(0, client, polled));
        }
        *self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = false;
        let event = self.round();
        if event.is_some() || wait.is_zero() {
            return event;
        }
        let rung = self.bell.rung.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.ring.wait_timeout_while(rung, wait.min(NAP), |rung| !*rung));
        self.round()
    }

    fn partitions(&mut self, topic: usize, expected: i32) -> Result<Option<i32>> {
        let (client, name) = self.client(topic)?;
        client.partitions(name, expected)
    }

    fn leaders(&mut self, of: &[Partition]) -> Result<Vec<Option<i32>>> {
        let mut leaders = BTreeMap::new();
        for topic in of.iter().map(|at| at.topic).collect::<BTreeSet<_>>() {
            let (client, name) = self.client(topic)?;
            leaders.insert(topic, client.leaders(name)?);
        }
        Ok(of.iter().map(|at| leaders.get(&at.topic)?.get(&at.number).copied()).collect())
    }

    /// Two questions to each broker, however many partitions it leads. The ends are asked for last, so none is before the beginning.
    fn bounds(&mut self, of: &[Partition]) -> Result<Vec<(u64, u64)>> {
        let firsts = self.offsets(of, Offset::Beginning, "for the first offsets", times)?;
        let ends = self.offsets(of, Offset::End, "for the ends", times)?;
        let bounds = of.iter().zip(firsts.into_iter().zip(ends)).map(|(at, bounds)| match bounds {
            (Some(first), Some(end)) => Ok((first, end)),
            _ => Err(ConnectorError::Remote {
                system: self.plan.topic(at.topic),
                reason: format!(
                    "it was asked where {} begins and ends, and did not say so",
                    at.split(&self.plan.topics)
                ),
                passes: true,
            }),
        });
        bounds.collect()
    }

    fn open_end(&mut self, at: Partition) -> Result<u64> {
        let plan = Plan { isolation: Isolation::ReadUncommitted, ..self.plan.clone() };
        let bounds = Self::new(plan, None).bounds(&[at])?;
        Ok(bounds.first().map_or(0, |(_, end)| *end))
    }

    fn since(&mut self, millis: i64, of: &[Partition]) -> Result<Vec<Option<u64>>> {
        self.offsets(of, Offset::Offset(millis), "for the offsets at a time", times)
    }

    fn find_ends(&mut self, of: &[Partition]) {
        if self.finding.is_some() {
            return;
        }
        let (mut other, of) = (Self::new(self.plan.clone(), None), of.to_vec());
        let (found, finding) = channel();
        let find = move || {
            let _ = found.send(other.ends(&of));
        };
        if std::thread::Builder::new().name("windrow-kafka".into()).spawn(find).is_ok() {
            self.finding = Some(finding);
        }
    }

    fn found_ends(&mut self) -> Vec<(Partition, u64)> {
        let found = match self.finding.as_ref().map(Receiver::try_recv) {
            None | Some(Err(TryRecvError::Empty)) => return Vec::new(),
            Some(found) => found,
        };
        self.finding = None;
        found.unwrap_or_default()
    }

    fn fetched(&self, at: Partition) -> Option<u64> {
        self.clients.get(at.topic)?.as_ref()?.consumer().context().fetched(at.number)
    }

    fn knows_brokers(&self, topic: usize) -> bool {
        let client = self.clients.get(topic).and_then(Option::as_ref);
        client.is_none_or(|client| client.consumer().context().knows_brokers())
    }

    /// Secrets are read again. One that is being replaced just now is there for the next start.
    fn renew(&mut self, topic: usize) -> Result<()> {
        let system = self.plan.topic(topic);
        let renewed = Client::reading(&self.plan, topic, self.watched.clone());
        let renewed = renewed.map_err(|error| ConnectorError::Remote {
            system,
            reason: format!("there is no new client in the place of one that gets nothing: {error}"),
            passes: true,
        })?;
        if let Some(former) = self.clients.get_mut(topic).and_then(|client| client.replace(renewed)) {
            former.consumer().context().retire();
            // Closing waits for its threads. Without a thread for that it waits here.
            let _ = std::thread::Builder::new().name("windrow-kafka".into()).spawn(move || drop(former));
        }
        Ok(())
    }

    fn committed(&mut self, of: &[Partition]) -> Result<Vec<Option<u64>>> {
        self.offsets(of, Offset::Invalid, "for the group's offsets", |consumer, list, wait| {
            consumer.committed_offsets(list, wait)
        })
    }

    fn assign(&mut self, from: &[(Partition, u64)]) -> Result<()> {
        let several = self.plan.topics.len() > 1;
        for (at, _) in from {
            let bell = self.bell.clone();
            let (client, _) = self.client(at.topic)?;
            if several && !client.assigned {
                client.ring(bell);
            }
            client.assigned = true;
        }
        self.each_topic(from, "assign", |consumer, list| consumer.incremental_assign(list))
    }

    fn unassign(&mut self, at: Partition) -> Result<()> {
        self.each_topic(&[(at, 0)], "unassign", |consumer, list| consumer.incremental_unassign(list))
    }

    fn pause(&mut self, of: &[Partition]) -> Result<()> {
        let of: Vec<_> = of.iter().map(|at| (*at, 0)).collect();
        self.each_topic(&of, "pause", |consumer, list| consumer.pause(list))
    }

    fn resume(&mut self, of: &[Partition]) -> Result<()> {
        let of: Vec<_> = of.iter().map(|at| (*at, 0)).collect();
        self.each_topic(&of, "resume", |consumer, list| consumer.resume(list))
    }
}

/// A question of librdkafka for the offsets of partitions.
trait Ask: Fn(&BaseConsumer<Ear>, TopicPartitionList, Duration) -> KafkaResult<TopicPartitionList> {}

impl<F: Fn(&BaseConsumer<Ear>, TopicPartitionList, Duration) -> KafkaResult<TopicPartitionList>> Ask for F {}

/// The offsets at times, of which the first and the end are two.
fn times(consumer: &BaseConsumer<Ear>, list: TopicPartitionList, wait: Duration) -> KafkaResult<TopicPartitionList> {
    consumer.offsets_for_times(list, wait)
}

impl Client {
    fn ring(&mut self, bell: Arc<Bell>) {
        self.when_not_empty(move || {
            *bell.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
            bell.ring.notify_one();
        });
    }
}
