//! What the brokers do with a request.
//!
//! ```text
//!   Init, Add, End ──► coordinator ──► control records, each in its own time ──► partitions
//!   Produce ──► partition (asks the coordinator once a transaction whether it may)
//!   Partitions, Create, HighWatermark, Fetch ──► what is there
//! ```

use std::{collections::BTreeMap, sync::Arc};

use super::{
    coordinator::{Coordinator, Next},
    faults::Kind,
    log::{Identity, Log, NotAppended, Record},
};

/// A partition of a topic.
pub type Partition = (Arc<str>, i32);

#[derive(Clone, Debug)]
pub enum Request {
    /// A producer takes a transactional id over, or (with `known`) wants a new epoch.
    Init {
        id: String,
        timeout: u64,
        known: Option<Identity>,
    },
    Add {
        id: String,
        who: Identity,
        partitions: Vec<Partition>,
    },
    /// With the id of the transaction, if it is one.
    Produce {
        id: Option<String>,
        who: Identity,
        partition: Partition,
        first: u64,
        records: Vec<Arc<Record>>,
    },
    End {
        id: String,
        who: Identity,
        commit: bool,
    },
    Partitions {
        topic: String,
    },
    Create {
        topic: String,
    },
    HighWatermark {
        topic: String,
    },
    /// What a `read_committed` reader gets: to the last stable offset, without what is aborted.
    Fetch {
        topic: String,
    },
}

#[derive(Clone, Debug)]
pub enum Reply {
    Done,
    Identity(Identity),
    Partitions(usize),
    HighWatermark(usize),
    /// The last record below the last stable offset that is committed.
    Fetched {
        last_stable_offset: usize,
        last: Option<Arc<Record>>,
    },
    Error(Code),
    /// There was none.
    TimedOut,
}

/// What brokers say when they do not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    NotCoordinator,
    NotLeader,
    ConcurrentTransactions,
    Fenced,
    InvalidState,
    OutOfOrder,
    RecordRefused,
    UnknownTopic,
}

impl Code {
    /// Whether the same request may do later.
    pub fn passes(self) -> bool {
        matches!(self, Self::NotCoordinator | Self::NotLeader | Self::ConcurrentTransactions)
    }
}

impl Request {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Init { .. } => Kind::Init,
            Self::Add { .. } => Kind::Add,
            Self::Produce { .. } => Kind::Produce,
            Self::End { .. } => Kind::End,
            Self::Partitions { .. } | Self::Create { .. } | Self::HighWatermark { .. } | Self::Fetch { .. } => {
                Kind::Look
            }
        }
    }
}

#[derive(Debug, Default)]
pub struct Broker {
    pub topics: BTreeMap<String, Vec<Log>>,
    pub coordinator: Coordinator,
    producers: u64,
}

impl Broker {
    /// A number that no producer has.
    pub fn fresh(&mut self) -> u64 {
        self.producers += 1;
        self.producers
    }

    pub fn log(&mut self, partition: &Partition) -> Option<&mut Log> {
        let at = usize::try_from(partition.1).ok()?;
        self.topics.get_mut(&*partition.0)?.get_mut(at)
    }

    /// Does what is asked for. For requests that are about a transaction the id, and what is to be done about it.
    pub fn handle(&mut self, now: u64, request: &Request) -> (Reply, Next) {
        let transactions = matches!(request.kind(), Kind::Init | Kind::Add | Kind::End);
        if transactions && now < self.coordinator.away_until {
            return (Reply::Error(Code::NotCoordinator), Next::Nothing);
        }
        let done =
            |(result, next): (Result<(), Code>, Next)| (result.map_or_else(Reply::Error, |()| Reply::Done), next);
        match request {
            Request::Init { id, timeout, known } => {
                let fresh = self.fresh();
                let (result, next) = self.coordinator.init(id, *timeout, *known, || fresh);
                (result.map_or_else(Reply::Error, Reply::Identity), next)
            }
            Request::Add { id, who, partitions } => done(self.coordinator.add(id, *who, partitions)),
            Request::End { id, who, commit } => done(self.coordinator.end(id, *who, *commit)),
            Request::Produce { id, who, partition, first, records } => {
                (self.produce(id.as_deref(), *who, partition, *first, records), Next::Nothing)
            }
            Request::Partitions { topic } => (self.of(topic, |logs| Reply::Partitions(logs.len())), Next::Nothing),
            Request::Create { topic } => {
                self.topics.entry(topic.clone()).or_insert_with(|| vec![Log::default()]);
                (Reply::Done, Next::Nothing)
            }
            Request::HighWatermark { topic } => {
                (self.of(topic, |logs| Reply::HighWatermark(logs[0].high_watermark())), Next::Nothing)
            }
            Request::Fetch { topic } => {
                let fetched = |log: &Log| Reply::Fetched {
                    last_stable_offset: log.last_stable_offset(),
                    last: log.last_committed(),
                };
                (self.of(topic, |logs| fetched(&logs[0])), Next::Nothing)
            }
        }
    }

    fn of(&self, topic: &str, look: impl FnOnce(&[Log]) -> Reply) -> Reply {
        self.topics.get(topic).map_or(Reply::Error(Code::UnknownTopic), |logs| look(logs))
    }

    fn produce(
        &mut self,
        id: Option<&str>,
        who: Identity,
        partition: &Partition,
        first: u64,
        records: &[Arc<Record>],
    ) -> Reply {
        let Some(log) = self.log(partition) else { return Reply::Error(Code::UnknownTopic) };
        let open = log.is_open(who);
        if let (Some(id), false) = (id, open)
            && let Err(code) = self.coordinator.may_write(id, who, partition)
        {
            return Reply::Error(code);
        }
        match self.log(partition).map(|log| log.append(who, id.is_some(), first, records)) {
            Some(Ok(())) => Reply::Done,
            Some(Err(NotAppended::Fenced)) => Reply::Error(Code::Fenced),
            Some(Err(NotAppended::OutOfOrder)) => Reply::Error(Code::OutOfOrder),
            None => Reply::Error(Code::UnknownTopic),
        }
    }
}
