//! That the tests' Kafka is what they take it for: it keeps what it has, hides what was aborted, asks for passwords, and
//! the proxy, the verifiers and the registry do what they say.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

mod proxy;
mod registry;
mod secure;

use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tests::broker::{
    Broker, Message, Options, Result, Started,
    verify::{Record, Verifier},
};

const PATIENCE: Duration = Duration::from_secs(20);

fn values(records: &[Record]) -> Vec<String> {
    records.iter().map(Record::text).collect()
}

fn texts(count: usize) -> impl Iterator<Item = Message> {
    (0..count).map(|number| Message::of(number.to_string()))
}

#[test]
fn records_come_back_as_they_went_in_by_every_verifier() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("bytes", 2)?;
    let binary: Vec<u8> = (0..=255).collect();
    let message =
        Message::of(binary.clone()).key("a\nb, c=d").header("why", "a, b=c\n").header("empty", "").time(12_345);
    let others =
        [Message::null().key("k").partition(1), Message::of("").partition(1), Message::of("last").partition(1)];
    broker.produce(&topic, [message.partition(0).null_header("null")].into_iter().chain(others))?;
    let verifiers = Verifier::installed();
    assert!(!verifiers.is_empty());
    for verifier in verifiers {
        let found = verifier.read(broker.address(), &topic)?;
        let [first, null, empty, last] = found.as_slice() else { panic!("{verifier:?}: {found:?}") };
        assert_eq!((first.partition, first.offset, first.time), (0, 0, 12_345), "{verifier:?}");
        assert_eq!(first.value.as_ref(), Some(&binary), "{verifier:?}");
        assert_eq!(first.key.as_deref(), Some(b"a\nb, c=d".as_slice()), "{verifier:?}");
        let headers = [("why", Some("a, b=c\n")), ("empty", Some("")), ("null", None)];
        let headers = headers.map(|(name, value)| (name.to_string(), value.map(String::from)));
        assert_eq!(first.headers, headers, "{verifier:?}");
        assert_eq!((null.key.as_deref(), &null.value), (Some(b"k".as_slice()), &None), "{verifier:?}");
        assert_eq!((&empty.key, empty.value.as_deref()), (&None, Some(b"".as_slice())), "{verifier:?}");
        assert_eq!((last.offset, last.text().as_str()), (2, "last"), "{verifier:?}");
    }
    Ok(())
}

#[test]
fn what_was_aborted_and_what_is_still_open_is_invisible() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("aborted", 1)?;
    broker.transaction(&topic, [Message::of("a"), Message::of("b")], true)?;
    broker.transaction(&topic, [Message::of("never")], false)?;
    for verifier in Verifier::installed() {
        // The topic ends with control records, which have offsets and are no records.
        assert_eq!(values(&verifier.read(broker.address(), &topic)?), ["a", "b"], "{verifier:?}");
    }
    let begin = Instant::now();
    assert!(broker.last_stable_offset_stuck(&topic, PATIENCE)? < PATIENCE);

    let id = format!("{topic}-open");
    let mut config = broker.config();
    let producer: BaseProducer = config.set("transactional.id", id).set("transaction.timeout.ms", "60000").create()?;
    producer.init_transactions(PATIENCE)?;
    producer.begin_transaction()?;
    producer.send(BaseRecord::<(), str>::to(&topic).payload("open")).map_err(|(error, _)| error)?;
    producer.flush(PATIENCE)?;
    broker.produce(&topic, [Message::of("behind it")])?;
    assert_eq!(values(&broker.committed(&topic)?), ["a", "b"]);
    let patience = Duration::from_millis(300);
    assert_eq!(broker.last_stable_offset_stuck(&topic, patience)?, patience, "nobody has ended it");
    producer.commit_transaction(PATIENCE)?;
    assert!(broker.last_stable_offset_stuck(&topic, PATIENCE)? < PATIENCE);
    assert_eq!(values(&broker.committed(&topic)?), ["a", "b", "open", "behind it"]);
    assert!(begin.elapsed() < PATIENCE, "kcat knows where a topic ends: {:?}", begin.elapsed());
    Ok(())
}

#[test]
fn verifiers_see_what_was_committed_of_many_transactions_at_once() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("many", 3)?;
    let producer = |number: usize| -> Result<BaseProducer> {
        let producer: BaseProducer = broker.config().set("transactional.id", format!("{topic}-{number}")).create()?;
        producer.init_transactions(PATIENCE)?;
        Ok(producer)
    };
    let producers: Vec<BaseProducer> = (0..4).map(producer).collect::<Result<_>>()?;
    let mut random = fastrand::Rng::with_seed(5);
    // What each has sent in its open transaction.
    let mut open: [Option<Vec<String>>; 4] = Default::default();
    let mut expected = Vec::new();
    for step in 0..250 {
        let which = random.usize(..producers.len());
        let (producer, open) = (&producers[which], &mut open[which]);
        // Some transactions are empty.
        match (open.take(), random.u8(0..8)) {
            (None, _) => {
                producer.begin_transaction()?;
                *open = Some(Vec::new());
            }
            (Some(sent), 0) => {
                producer.commit_transaction(PATIENCE)?;
                expected.extend(sent);
            }
            (Some(_), 1) => {
                producer.flush(PATIENCE)?;
                producer.abort_transaction(PATIENCE)?;
            }
            (Some(mut sent), _) => {
                let value = step.to_string();
                let record = BaseRecord::<(), str>::to(&topic).payload(&value).partition(random.i32(0..3));
                producer.send(record).map_err(|(error, _)| error)?;
                sent.push(value);
                *open = Some(sent);
            }
        }
    }
    for (producer, _) in producers.iter().zip(&open).filter(|(_, open)| open.is_some()) {
        producer.flush(PATIENCE)?;
        producer.abort_transaction(PATIENCE)?;
    }
    assert!(broker.last_stable_offset_stuck(&topic, PATIENCE)? < PATIENCE);
    expected.sort_unstable();
    assert!(expected.len() > 30, "{}", expected.len());
    for verifier in Verifier::installed() {
        let mut found = values(&verifier.read(broker.address(), &topic)?);
        found.sort_unstable();
        assert_eq!(found, expected, "{verifier:?}");
    }
    Ok(())
}

#[test]
fn topics_grow_lose_their_head_and_go() -> Result<()> {
    let Some(broker) = Broker::shared() else { return Ok(()) };
    let topic = broker.new_topic("topics", 1)?;
    broker.produce(&topic, texts(10).map(|message| message.partition(0)))?;
    broker.delete_records(&topic, 0, 7)?;
    assert_eq!(values(&broker.committed(&topic)?), ["7", "8", "9"]);
    broker.create_partitions(&topic, 3)?;
    broker.produce(&topic, [Message::of("new").partition(2)])?;
    let last = broker.committed(&topic)?.pop().expect("a record");
    assert_eq!((last.partition, last.offset, last.text().as_str()), (2, 0, "new"));
    let again = broker.create_topic(&topic, 1, &[]).expect_err("it is there");
    assert!(again.to_string().contains(&topic), "{again}");
    broker.delete_topic(&topic)?;
    let nothing = broker.produce(&topic, [Message::of("lost")]).expect_err("no topic");
    assert!(nothing.to_string().contains("nknown topic"), "{nothing}");
    Ok(())
}

#[test]
fn a_killed_broker_keeps_its_data_and_a_paused_one_its_connections() -> Result<()> {
    let Some(broker) = Broker::own(Options::default().set("message.max.bytes", 21_000_000)) else { return Ok(()) };
    let topic = broker.new_topic("kept", 3)?;
    broker.produce(&topic, texts(1000))?;
    broker.produce(&topic, [Message::of(vec![b'x'; 20_000_000]).partition(0)])?;
    broker.kill()?;
    assert!(broker.kill().is_err() && broker.pause().is_err(), "there is nothing left to kill");
    assert!(TcpStream::connect(broker.address()).is_err());
    broker.restart()?;
    assert_eq!(broker.committed(&topic)?.len(), 1001);

    broker.pause()?;
    let client: BaseConsumer = broker.config().create()?;
    let short = Duration::from_millis(500);
    assert!(client.fetch_metadata(Some(&topic), short).is_err(), "it answers, though it is paused");
    broker.resume()?;
    broker.transaction(&topic, [Message::of("after")], true)?;
    assert_eq!(broker.committed(&topic)?.len(), 1002);
    let place = data_of(&broker)?;
    assert!(place.exists());
    drop(broker);
    assert!(!place.exists(), "{} is left over", place.display());
    Ok(())
}

#[test]
fn a_broker_that_cannot_start_says_why() -> Result<()> {
    for (setting, value, why) in
        [("num.io.threads", "none", "Invalid value none"), ("authorizer.class.name", "no.such.Thing", "no.such.Thing")]
    {
        match Options::default().set(setting, value).start() {
            Ok(Started::Here(_)) => panic!("it starts with {setting}={value}"),
            Ok(Started::Skipped(reason)) => println!("skipped: {reason}"),
            Err(error) => assert!(error.to_string().contains(why), "{error}"),
        }
    }
    Ok(())
}

/// The directory of a broker, as it tells everybody.
fn data_of(broker: &Broker) -> Result<std::path::PathBuf> {
    let port = broker.address().rsplit(':').next().unwrap_or_default();
    let mut places = std::fs::read_dir(std::env::temp_dir())?.flatten().map(|entry| entry.path());
    let is_its = |path: &std::path::PathBuf| {
        let settings = std::fs::read_to_string(path.join("server.properties")).unwrap_or_default();
        settings.contains(&format!("PLAINTEXT://127.0.0.1:{port}"))
    };
    places.find(is_its).ok_or_else(|| "no such directory".into())
}

#[test]
fn a_test_that_is_killed_leaves_no_broker_behind() -> Result<()> {
    const INNER: &str = "WINDROW_TEST_INNER";
    if std::env::var_os(INNER).is_some() {
        let Some(broker) = Broker::own(Options::default()) else { return Ok(()) };
        std::fs::write(std::env::var(INNER)?, format!("{}\n{}", broker.address(), data_of(&broker)?.display()))?;
        std::thread::sleep(Duration::from_secs(120));
        panic!("nobody has killed this test");
    }
    let told = tempfile::NamedTempFile::new()?;
    let mut inner = Command::new(std::env::current_exe()?);
    inner.args(["--exact", "a_test_that_is_killed_leaves_no_broker_behind"]).env(INNER, told.path());
    let mut inner = inner.spawn()?;
    let told = loop {
        let text = std::fs::read_to_string(told.path())?;
        if text.contains('\n') {
            break text;
        }
        if inner.try_wait()?.is_some() {
            return Ok(()); // Skipped there.
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    let (address, place) = told.split_once('\n').expect("two lines");
    assert!(TcpStream::connect(address).is_ok());
    inner.kill()?;
    inner.wait()?;
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_ok() || std::path::Path::new(place).exists() {
        assert!(Instant::now() < until, "the broker at {address} lives on, or its directory {place}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Runs one test of this file in a process of its own, without Java, and returns whether it passes and what it says.
fn without_java(no_skip: bool) -> Result<(bool, String)> {
    let mut inner = Command::new(std::env::current_exe()?);
    inner.args(["--exact", "topics_grow_lose_their_head_and_go"]).env("PATH", "/nowhere").env_remove("WINDROW_KAFKA");
    inner.env("WINDROW_NO_SKIP", if no_skip { "1" } else { "" });
    let output = inner.output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[test]
fn without_a_broker_tests_say_that_they_are_skipped() -> Result<()> {
    let skipped = "skipped: no Kafka broker (set WINDROW_KAFKA=host:port, or install a Java 17 runtime and Maven: \
                   apt-get install openjdk-17-jre-headless maven)";
    let (passes, said) = without_java(false)?;
    assert!(passes && said.contains(skipped), "{said}");
    let (passes, said) = without_java(true)?;
    assert!(!passes && said.contains(skipped), "{said}");
    Ok(())
}
