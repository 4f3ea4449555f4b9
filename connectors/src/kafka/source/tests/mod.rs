//! Sources over a cluster in memory; those over a real one are in the crate `tests`.

use std::{sync::Arc, time::Duration};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use self::fake::{FakeFeed, World};
use super::{
    KafkaInput,
    feed::Partition,
    plan::Plan,
    reader::{Ends, KafkaReader},
    start::Assigned,
};
use crate::{ConnectorError, Fetch, Position, Rejected, Result, Rows, SourceReader, SplitId, Untyped, kafka::Kafka};

mod appearing;
mod bounded;
mod edges;
mod fake;
mod faults;
mod leaderless;
mod letters;
mod reading;
mod standing;
mod starting;

fn numbers() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("v", DataType::Int64, true)]))
}

fn input() -> KafkaInput {
    Kafka::brokers("fake:1").topic("a")
}

fn at(topic: usize, number: i32) -> Partition {
    Partition { topic, number }
}

fn split(name: &str) -> SplitId {
    SplitId::new(name)
}

fn plan(source: &super::KafkaSource<Untyped>) -> Plan {
    source.plan().unwrap().clone()
}

/// A reader of these partitions of the fake world.
async fn open(plan: &Plan, feed: FakeFeed, assigned: &[(Partition, Option<u64>)]) -> Result<KafkaReader> {
    open_until(plan, feed, assigned, &[]).await
}

/// A reader of these partitions that ends where it was fixed before.
async fn open_until(
    plan: &Plan,
    feed: FakeFeed,
    assigned: &[(Partition, Option<u64>)],
    ends: &[(Partition, u64)],
) -> Result<KafkaReader> {
    let end = |at: Partition| ends.iter().find(|(other, _)| *other == at).map(|(_, end)| Position(*end));
    let of = |&(at, position): &(Partition, Option<u64>)| Assigned {
        at,
        position: position.map(Position),
        end: end(at),
        appeared: false,
    };
    let assigned = assigned.iter().map(of).collect();
    KafkaReader::start(plan.clone(), assigned, Ends::default(), first_of(feed)).await
}

/// This one to read with, and others to ask with.
fn first_of(feed: FakeFeed) -> impl Fn(Option<Ends>) -> Result<FakeFeed> + Send + Sync + 'static {
    let (another, feed) = (feed.another(), std::sync::Mutex::new(Some(feed)));
    move |_| Ok(feed.lock().unwrap().take().unwrap_or_else(&another))
}

/// After this nothing more comes, also on a machine that is busy.
const SILENCE: Duration = Duration::from_secs(1);

/// What must come, comes within this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the next fetch brings, if anything.
async fn next(reader: &mut KafkaReader) -> Option<Result<Fetch>> {
    tokio::time::timeout(SILENCE, reader.fetch()).await.ok()
}

async fn rows(reader: &mut KafkaReader) -> Rows {
    match tokio::time::timeout(PATIENCE, reader.fetch()).await {
        Ok(Ok(Fetch::Rows(rows))) => rows,
        other => panic!("{other:?} instead of rows"),
    }
}

/// Everything up to the end, an error, or silence.
async fn drain(reader: &mut KafkaReader) -> (Vec<Rows>, Result<(), ConnectorError>) {
    let mut all = Vec::new();
    loop {
        match next(reader).await {
            Some(Ok(Fetch::Rows(rows))) => all.push(rows),
            Some(Ok(Fetch::SplitEnd(_))) => {}
            Some(Ok(Fetch::End)) | None => return (all, Ok(())),
            Some(Err(error)) => return (all, Err(error)),
        }
    }
}

/// The numbers in the first column.
fn values(rows: &Rows) -> Vec<i64> {
    use arrow::{array::AsArray, datatypes::Int64Type};
    rows.batch.column(0).as_primitive::<Int64Type>().values().to_vec()
}

/// What each row was: its offset, its payload, if it had one, and its key.
fn origins(rows: &Rows) -> Vec<(u64, Option<String>, Option<String>)> {
    let origins = rows.origins.as_ref().unwrap();
    assert_eq!(origins.len(), rows.batch.num_rows());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let was = |row| {
        let was = origins.reject(row, String::new()).unwrap();
        assert_eq!(was.line, None);
        (was.position.unwrap().0, was.bytes.map(text), was.key.map(text))
    };
    (0..origins.len()).map(was).collect()
}

fn reasons(rejected: &[Rejected]) -> Vec<(u64, &str)> {
    rejected.iter().map(|rejected| (rejected.position.unwrap().0, rejected.reason.as_str())).collect()
}
