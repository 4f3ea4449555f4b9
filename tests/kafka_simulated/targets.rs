//! Where the jobs of the scenarios write: the seam at which a sink is put to the test.
//!
//! A target makes sinks for a process of the simulated cluster, and reads what they made visible without them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{
        ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter, async_trait,
        kafka::cluster::{Cluster, Outgoing, Producer},
    },
    prelude::*,
};

use super::simulated::{BATCH, Simulated, log::Record};

/// A kind of sinks.
pub trait Target {
    /// What all sinks of an incarnation of a job have in common.
    type Connection;
    type Sink: Sink;

    fn connect(&self, process: &Simulated) -> Self::Connection;
    fn sink(connection: &Self::Connection, topic: &'static str) -> Self::Sink;
    /// The rows that are visible, values separated by `|`, sorted.
    fn rows(&self, cluster: &Simulated, topic: &str) -> Vec<String>;
    /// The same, of what became visible since it was asked last; it is forgotten then.
    fn take(&self, cluster: &Simulated, topic: &str) -> Vec<String>;
}

/// Memory, which keeps the promises of sinks without Kafka: it shows whether the harness is right.
#[derive(Clone, Default)]
pub struct InMemory(Arc<Mutex<BTreeMap<String, MemorySink>>>);

impl InMemory {
    fn of(&self, topic: &str) -> MemorySink {
        let mut sinks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sinks.entry(topic.to_owned()).or_default().clone()
    }
}

impl Target for InMemory {
    type Connection = Self;
    type Sink = MemorySink;

    fn connect(&self, _: &Simulated) -> Self {
        self.clone()
    }

    fn sink(connection: &Self, topic: &'static str) -> MemorySink {
        connection.of(topic)
    }

    fn rows(&self, _: &Simulated, topic: &str) -> Vec<String> {
        tests::rows(&self.of(topic).batches())
    }

    fn take(&self, _: &Simulated, topic: &str) -> Vec<String> {
        tests::rows(&self.of(topic).take())
    }
}

/// Topics, written to at once: rows come again after a crash, and the harness must find that.
#[derive(Clone, Copy)]
pub struct AtLeastOnce;

impl Target for AtLeastOnce {
    type Connection = Simulated;
    type Sink = Plain;

    fn connect(&self, process: &Simulated) -> Simulated {
        process.clone()
    }

    fn sink(connection: &Simulated, topic: &'static str) -> Plain {
        Plain(connection.clone(), topic)
    }

    fn rows(&self, cluster: &Simulated, topic: &str) -> Vec<String> {
        text(cluster.committed(topic).into_iter().flatten())
    }

    fn take(&self, cluster: &Simulated, topic: &str) -> Vec<String> {
        text(cluster.take_committed(topic))
    }
}

/// Records of rows: JSON objects whose values are told apart by the order of their names. What is no such object is a row that
/// nobody expects.
fn text(records: impl IntoIterator<Item = Arc<Record>>) -> Vec<String> {
    let rows = records.into_iter().map(|record| row(record.value.as_deref().unwrap_or_default()));
    let mut rows: Vec<String> = rows.collect();
    rows.sort_unstable();
    rows
}

fn row(value: &[u8]) -> String {
    let object: Result<BTreeMap<String, serde_json::Value>, _> = serde_json::from_slice(value);
    let text = |object: BTreeMap<String, serde_json::Value>| {
        object.values().map(ToString::to_string).collect::<Vec<_>>().join("|")
    };
    object.map_or_else(|error| format!("{error}: {}", String::from_utf8_lossy(value)), text)
}

#[derive(Clone)]
pub struct Plain(Simulated, &'static str);

#[async_trait]
impl Sink for Plain {
    fn name(&self) -> String {
        format!("plain {}", self.1)
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(PlainWriter { topic: self.1, producer: self.0.plain(BATCH).await? }))
    }
}

struct PlainWriter {
    topic: &'static str,
    producer: Arc<dyn Producer>,
}

#[async_trait]
impl SinkWriter for PlainWriter {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        for row in tests::rows(&[batch]) {
            let values = row.split('|').zip('a'..).map(|(value, name)| format!("\"{name}\":{value}"));
            let json = format!("{{{}}}", values.collect::<Vec<_>>().join(","));
            let value = Some(json.as_bytes());
            let record =
                Outgoing { topic: self.topic, partition: None, key: value, value, headers: &[], timestamp: None };
            while !self.producer.send(&record)? {
                self.producer.room().await;
            }
        }
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        self.producer.flush().await.map(|()| Vec::new())
    }
}
