//! What a re-drive commits, and when it does not begin: with the cluster that librdkafka simulates.

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, CommitMode},
    message::{Header, OwnedHeaders},
    mocking::MockCluster,
    producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer},
};

use super::*;
use crate::kafka::Kafka;

type Cluster = MockCluster<'static, DefaultProducerContext>;

/// Two partitions of letters, and a topic for them.
fn cluster() -> (Cluster, ReDrive) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("dead", 2, 1).unwrap();
    cluster.create_topic("payments", 1, 1).unwrap();
    let redrive = Kafka::brokers(cluster.bootstrap_servers()).re_drive("dead");
    (cluster, redrive)
}

/// Writes a letter to this partition of the letters, of a record that came from there, if it says so.
fn letter(cluster: &Cluster, partition: i32, origin: Option<(&str, &str)>) {
    let mut client = ClientConfig::new();
    let producer: BaseProducer = client.set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    let mut headers = OwnedHeaders::new().insert(Header { key: "windrow.error", value: Some("no") });
    if let Some((topic, partition)) = origin {
        headers = headers.insert(Header { key: "windrow.topic", value: Some(topic) });
        headers = headers.insert(Header { key: "windrow.partition", value: Some(partition) });
    }
    let record = BaseRecord::<(), str>::to("dead").partition(partition).payload("x").headers(headers);
    producer.send(record).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
}

/// A member of the group of the re-drive.
fn member(cluster: &Cluster) -> BaseConsumer {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", cluster.bootstrap_servers()).set("group.id", "windrow.re-drive.dead");
    client.create().unwrap()
}

/// Where the group is in both partitions.
fn committed(cluster: &Cluster) -> [Offset; 2] {
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range("dead", 0, 1);
    let found = member(cluster).committed_offsets(asked, Duration::from_secs(10)).unwrap();
    [0, 1].map(|partition| found.find_partition("dead", partition).unwrap().offset())
}

/// The simulation forgets offsets that are committed in transactions: what is committed is what this run holds.
#[test]
fn every_commit_holds_where_the_group_is_in_all_partitions() {
    let (cluster, redrive) = cluster();
    letter(&cluster, 0, Some(("payments", "0")));
    letter(&cluster, 1, Some(("payments", "0")));
    let mut first = TopicPartitionList::new();
    first.add_partition_offset("dead", 0, Offset::Offset(1)).unwrap();
    member(&cluster).commit(&first, CommitMode::Sync).unwrap();

    let question = Question::new(redrive.config.clone(), "dead".into(), Arc::default());
    let reader = question.reader(&[("group.id", "windrow.re-drive.dead"), ("enable.partition.eof", "true")]).unwrap();
    let begin = begin(&redrive, &question, &reader).unwrap();
    assert_eq!((&begin.next, &begin.ends), (&BTreeMap::from([(0, 1), (1, 0)]), &BTreeMap::from([(1, 1)])));
    reader.assign(&begin.from).unwrap();
    let mut run = Run::new(&redrive, &reader, &begin, Targets::new());
    run.read(begin.ends.clone()).unwrap();
    run.commit().unwrap();
    assert_eq!(run.next, BTreeMap::from([(0, 1), (1, 1)]), "the one without new letters too");
    assert_eq!((run.done.letters(), run.done.from_beginning.as_slice()), (1, &[1][..]), "the other one was forgotten");
    assert!(
        run.done.to_string().contains("From the beginning of partition 1: the group has sent none"),
        "{}",
        run.done
    );
}

#[test]
fn nothing_is_sent_while_a_letter_would_be_passed_over_for_want_of_a_topic() {
    let (cluster, redrive) = cluster();
    letter(&cluster, 0, Some(("payments", "0")));
    letter(&cluster, 0, None);
    letter(&cluster, 1, None);
    let counted = redrive.count().unwrap();
    assert_eq!((counted.letters(), counted.kept_count), (1, 2));
    for redrive in [redrive.clone(), redrive.clone().at_most(1)] {
        let refused = redrive.send().unwrap_err().to_string();
        assert!(
            refused.contains("2 letters in dead do not say which topic") && refused.contains("--to TOPIC"),
            "{refused}"
        );
    }
    assert_eq!(committed(&cluster), [Offset::Invalid; 2], "the group is where it was");
    assert_eq!(redrive.to("payments").send().unwrap().letters(), 3, "what was advised loses nothing");
}

#[test]
fn a_letter_whose_target_is_gone_is_kept_and_holds_no_other_up() {
    let (cluster, redrive) = cluster();
    for origin in [("gone", "0"), ("payments", "7"), ("no topic\u{0}", "0"), ("payments", "0")] {
        letter(&cluster, 0, Some(origin));
    }
    for done in [redrive.count().unwrap(), redrive.send().unwrap()] {
        assert_eq!((done.letters(), done.kept_count), (1, 3));
        let why: Vec<_> = done.kept.iter().map(|letter| letter.why.as_str()).collect();
        let expected = ["there is no topic gone", "topic payments has no partition 7", "is no name of a topic"];
        assert!(why.iter().zip(expected).all(|(why, expected)| why.contains(expected)), "{why:?}");
    }
    let missing = redrive.to("gone").send().unwrap_err().to_string();
    assert!(missing.contains("there is no topic gone"), "{missing}");
}

#[test]
fn a_group_that_is_behind_the_end_is_told_what_to_do() {
    let (cluster, redrive) = cluster();
    letter(&cluster, 0, Some(("payments", "0")));
    let mut far = TopicPartitionList::new();
    far.add_partition_offset("dead", 0, Offset::Offset(50)).unwrap();
    member(&cluster).commit(&far, CommitMode::Sync).unwrap();
    for refused in [redrive.count().unwrap_err(), redrive.send().unwrap_err()] {
        let said = refused.to_string();
        assert!(said.contains("has come to offset 50, and it ends at 1") && said.contains("--group NAME"), "{said}");
    }
}
