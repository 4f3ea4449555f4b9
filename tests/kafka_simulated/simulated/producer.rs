//! A producer as the sinks see it: each call is made of requests that may be lost, and returns only when it knows.

use std::sync::Arc;

use windrow::{
    connectors::async_trait,
    connectors::{
        ConnectorError,
        kafka::cluster::{Outgoing, Producer},
    },
};

use super::{
    broker::{Code, Partition, Reply, Request},
    client::{Client, Health, size},
    log::{Identity, Record},
    world::{Process, Shared, World},
};

type Result<T> = std::result::Result<T, ConnectorError>;

/// When it is dropped its thread ends; what it had sent is on its way all the same.
pub struct SimulatedProducer {
    shared: Arc<Shared>,
    process: Process,
    number: u64,
    id: Option<String>,
}

impl SimulatedProducer {
    pub fn new(shared: Arc<Shared>, process: Process, id: Option<String>) -> Self {
        let number = shared.look(|world| {
            let number = world.number();
            let mut client = Client::new(number, process, id.clone());
            if id.is_none() {
                client.becomes(Identity { id: world.broker.fresh(), epoch: 0 });
            }
            world.clients.insert(number, client);
            number
        });
        Self { shared, process, number, id }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Client, &mut World) -> T) -> Result<T> {
        let done = self.shared.look(|world| world.with_client(self.number, act));
        done.ok_or_else(|| self.error("the producer is gone", false))
    }

    async fn until(&self, is: impl Fn(&Client, &World) -> bool) {
        let number = self.number;
        let is = |world: &mut World| {
            let is = world.clients.get(&number).is_none_or(|client| is(client, world));
            is.then_some(())
        };
        self.shared.until(self.process, is).await;
    }

    fn error(&self, reason: impl Into<String>, passes: bool) -> ConnectorError {
        let system = match &self.id {
            Some(id) => format!("simulated kafka, transactional id {id}"),
            None => "simulated kafka".into(),
        };
        ConnectorError::Remote { system, reason: reason.into(), passes }
    }

    /// Its transactional id and who it is.
    fn owner(&self) -> Result<(String, Identity)> {
        let who = self.with(|client, _| client.who)?;
        match (&self.id, who) {
            (Some(id), Some(who)) => Ok((id.clone(), who)),
            _ => Err(self.error("it has no transactional id yet", false)),
        }
    }

    /// Ends the transaction one way or the other.
    async fn end(&self, commit: bool) -> Result<()> {
        let (id, who) = self.owner()?;
        let empty = self.with(|client, _| client.added.is_empty())?;
        // The coordinator knows nothing of a transaction without partitions, and is not asked.
        let reply = match empty {
            true => Reply::Done,
            false => self.shared.ask_until_known(self.process, Request::End { id, who, commit }).await,
        };
        match reply {
            Reply::Done => self.with(|client, _| {
                client.begun = None;
                client.added.clear();
            }),
            Reply::Error(Code::Fenced | Code::InvalidState) => {
                self.with(|client, world| client.fenced(world))?;
                self.healthy()
            }
            other => Err(self.error(format!("no answer whether the transaction ended: {other:?}"), true)),
        }
    }

    /// Takes over, or over again.
    async fn init(&self, known: Option<Identity>) -> Result<()> {
        let Some(id) = self.id.clone() else { return Err(self.error("it is not transactional", false)) };
        // An answer to what was sent before must not be taken for one to what is sent from now on.
        self.with(|client, _| client.purge())?;
        self.until(|client, _| !client.is_asking()).await;
        let timeout = self.shared.look(|world| world.settings.transaction_timeout);
        match self.shared.ask_until_known(self.process, Request::Init { id, timeout, known }).await {
            Reply::Identity(who) => self.with(|client, _| {
                client.becomes(who);
                client.begun = None;
            }),
            Reply::Error(Code::Fenced) => {
                self.with(|client, world| client.fenced(world))?;
                self.healthy()
            }
            other => Err(self.error(format!("cannot take over: {other:?}"), true)),
        }
    }

    fn healthy(&self) -> Result<()> {
        match self.with(|client, _| client.health.clone())? {
            Health::Well => Ok(()),
            Health::Spoiled(why) => Err(self.error(format!("the transaction can only be aborted: {why}"), true)),
            Health::Fatal(why) => Err(self.error(why, true)),
        }
    }

    fn in_transaction(&self) -> Result<()> {
        let there = self.with(|client, _| client.begun.is_some())?;
        if there { Ok(()) } else { Err(self.error("no transaction has begun", false)) }
    }
}

impl Drop for SimulatedProducer {
    fn drop(&mut self) {
        self.shared.look(|world| world.clients.remove(&self.number));
    }
}

#[async_trait]
impl Producer for SimulatedProducer {
    async fn init_transactions(&self) -> Result<()> {
        self.init(None).await
    }

    async fn begin(&self) -> Result<()> {
        self.healthy()?;
        self.owner()?;
        if self.in_transaction().is_ok() {
            return Err(self.error("a transaction has begun already", false));
        }
        self.with(|client, world| client.begun = Some(world.now))
    }

    fn send(&self, record: &Outgoing<'_>) -> Result<bool> {
        self.healthy()?;
        if self.id.is_some() {
            self.in_transaction()?;
        }
        let copy = Record {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers.iter().map(|(n, v)| ((*n).to_owned(), v.map(<[u8]>::to_vec))).collect(),
            timestamp: record.timestamp,
        };
        let taken = self.with(|client, world| {
            client.wanted = size(&copy);
            if world.asleep.contains(&client.process) || !client.has_room(client.wanted, world) {
                return Ok(false);
            }
            let partition = partition(record, world)?;
            client.take(partition, copy, world);
            Ok(true)
        })?;
        taken.map_err(|reason: String| self.error(reason, false))
    }

    async fn room(&self) {
        self.until(|client, world| client.health != Health::Well || client.has_room(client.wanted, world)).await;
    }

    async fn flush(&self) -> Result<()> {
        let taken = self.with(|client, _| client.taken())?;
        self.until(|client, _| client.is_through(taken) || client.health != Health::Well).await;
        let (lost, health) = self.with(|client, _| (client.lost.clone(), client.health.clone()))?;
        match lost {
            Some(_) if matches!(health, Health::Fatal(_)) => self.healthy(),
            Some(why) => Err(self.error(format!("not everything was written: {why}"), true)),
            None => Ok(()),
        }
    }

    async fn commit(&self) -> Result<()> {
        self.in_transaction()?;
        self.flush().await?;
        self.healthy()?;
        self.end(true).await
    }

    async fn abort(&self) -> Result<()> {
        self.in_transaction()?;
        self.with(|client, _| client.purge())?;
        // What is on its way would come behind the end.
        self.until(|client, _| !client.is_asking()).await;
        let health = self.with(|client, _| client.health.clone())?;
        if let Health::Fatal(why) = health {
            return Err(self.error(why, true));
        }
        let sure = self.with(|client, _| client.unsure.is_none() && client.health == Health::Well)?;
        self.end(false).await?;
        if sure {
            return self.with(|client, _| client.lost = None);
        }
        // It is not known which sequence number is the next.
        let (_, who) = self.owner()?;
        self.init(Some(who)).await
    }
}

fn partition(record: &Outgoing<'_>, world: &mut World) -> std::result::Result<Partition, String> {
    let Some(logs) = world.broker.topics.get(record.topic) else {
        return Err(format!("there is no topic {}", record.topic));
    };
    let count = logs.len() as u64;
    let at = match (record.partition, record.key) {
        (Some(partition), _) => u64::try_from(partition).map_err(|_| "no such partition".to_owned())?,
        (None, Some(key)) => key.iter().fold(17_u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(*byte)) % count,
        (None, None) => world.number() % count,
    };
    if at >= count {
        return Err(format!("topic {} has no partition {at}", record.topic));
    }
    let at = i32::try_from(at).map_err(|_| "no such partition".to_owned())?;
    Ok((Arc::from(record.topic), at))
}
