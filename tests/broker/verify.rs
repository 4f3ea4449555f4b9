//! What others see of a topic: a `read_committed` consumer that shares no code with the engine.
//!
//! It is `kcat`, or, where that is not installed, the console consumer of Kafka itself, in Java.
//!
//! ```text
//! Broker::committed(topic) ──> kcat -f 'lengths, bytes' (and -J for headers) ─┬─> Vec<Record>
//!                          └─> java … ConsoleConsumer, with delimiters        ┘   by partition and offset
//! ```

use std::{
    collections::HashMap,
    path::Path,
    sync::Once,
    time::{Duration, Instant},
};

use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{
    Broker, Result,
    jars::{self, Jars},
};

const LOOK: Duration = Duration::from_millis(5);

/// A record as the verifier read it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
    /// The timestamp, in milliseconds since 1970.
    pub time: i64,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value.
    pub value: Option<Vec<u8>>,
    /// The headers in order. Bytes that are not UTF-8 are replaced. The console consumer cannot tell a header without a
    /// value from one that says `null`.
    pub headers: Vec<(String, Option<String>)>,
}

impl Record {
    /// The value as text; empty without one.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).and_then(|(_, value)| value.as_deref())
    }
}

/// A consumer that is not the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verifier {
    /// `kcat`, of the system.
    Kcat,
    /// Kafka's own console consumer.
    Console,
}

impl Verifier {
    /// Those that are installed, the quicker one first.
    pub fn installed() -> Vec<Self> {
        let java = jars::is_there("java") && Jars::get().is_ok_and(|jars| jars.is_some());
        let all = [(Self::Kcat, jars::is_there("kcat")), (Self::Console, java)];
        all.into_iter().filter_map(|(verifier, is_there)| is_there.then_some(verifier)).collect()
    }

    /// The committed records of a topic up to where it ends now, by partition and offset.
    ///
    /// # Errors
    ///
    /// When the verifier fails, takes longer than two minutes, or says what it should not.
    pub fn read(self, address: &str, topic: &str) -> Result<Vec<Record>> {
        let mut records = match self {
            Self::Kcat => kcat(address, topic)?,
            // It may have joined its group too late to see anything.
            Self::Console => match console(address, topic, 4000)? {
                none if none.is_empty() => console(address, topic, 15_000)?,
                some => some,
            },
        };
        records.sort_unstable();
        Ok(records)
    }
}

impl Broker {
    /// The committed records of a topic as others see them, by partition and offset. Says once which consumer it is.
    ///
    /// # Errors
    ///
    /// When no verifier is installed, or as [`Verifier::read`].
    pub fn committed(&self, topic: &str) -> Result<Vec<Record>> {
        static SAID: Once = Once::new();
        let verifier = Verifier::installed().into_iter().next();
        let verifier = verifier.ok_or("no verifier: apt-get install kcat, or a Java runtime and Maven")?;
        SAID.call_once(|| println!("verified by {verifier:?}"));
        verifier.read(self.address(), topic)
    }

    /// For how long the last stable offset of any partition stays where it is although records lie behind it: those of a
    /// transaction that nobody ends. Waits until it moves, or has reached the end; at most for `patience`, which is then
    /// returned.
    ///
    /// # Errors
    ///
    /// When the broker does not answer.
    pub fn last_stable_offset_stuck(&self, topic: &str, patience: Duration) -> Result<Duration> {
        let client =
            |isolation: &str| -> Result<BaseConsumer> { Ok(self.config().set("isolation.level", isolation).create()?) };
        let (committed, all) = (client("read_committed")?, client("read_uncommitted")?);
        let end = |client: &BaseConsumer, partition: i32| -> Result<i64> {
            Ok(client.fetch_watermarks(topic, partition, Duration::from_secs(10))?.1)
        };
        let found = all.fetch_metadata(Some(topic), Duration::from_secs(10))?;
        let partitions = found.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id());
        let begin = Instant::now();
        let mut stuck: Vec<(i32, i64)> = Vec::new();
        for partition in partitions {
            stuck.push((partition, end(&committed, partition)?));
        }
        loop {
            let mut left = Vec::new();
            for (partition, stable) in stuck {
                let now = end(&committed, partition)?;
                if now == stable && now < end(&all, partition)? {
                    left.push((partition, stable));
                }
            }
            let passed = begin.elapsed();
            if left.is_empty() || passed >= patience {
                return Ok(passed.min(patience));
            }
            stuck = left;
            std::thread::sleep(LOOK);
        }
    }
}

/// Twice where there are headers: the text of `%h` cannot be told apart from its separators, and JSON has no bytes.
fn kcat(address: &str, topic: &str) -> Result<Vec<Record>> {
    let mark = mark();
    let format = format!("%p %o %T %K %S\n%k%s%h{mark}");
    let consume = |last: &[&str]| {
        let words = ["120", "kcat", "-C", "-b", address, "-t", topic, "-o", "beginning", "-e", "-q"];
        let options = ["-X", "isolation.level=read_committed", "-X", "check.crcs=true", "-X", "log_level=3"];
        jars::run(Path::new("/"), "timeout", words.iter().chain(&options).chain(last))
    };
    let output = consume(&["-f", &format])?;
    let mut rest = output.as_slice();
    let (mut records, mut some_headers) = (Vec::new(), false);
    while !rest.is_empty() {
        let numbers = take_line(&mut rest)?;
        let [partition, offset, time, key, value] = numbers[..] else {
            return Err(format!("kcat: five numbers expected: {numbers:?}").into());
        };
        let key = take(&mut rest, key)?;
        let value = take(&mut rest, value)?;
        let headers = take_until(&mut rest, &mark)?;
        some_headers |= !headers.is_empty();
        records.push(Record { partition: i32::try_from(partition)?, offset, time, key, value, headers: Vec::new() });
    }
    if some_headers {
        let mut headers = headers(&String::from_utf8_lossy(&consume(&["-J"])?))?;
        for record in &mut records {
            record.headers = headers.remove(&(record.partition.into(), record.offset)).unwrap_or_default();
        }
    }
    Ok(records)
}

type Headers = HashMap<(i64, i64), Vec<(String, Option<String>)>>;

fn headers(lines: &str) -> Result<Headers> {
    let mut found = Headers::new();
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let number = |name: &str| record[name].as_i64().ok_or_else(|| format!("kcat: no {name} in {line}"));
        let words = record["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().map(String::from);
        let headers = words.chunks(2).map(|pair| (text(&pair[0]).unwrap_or_default(), pair.get(1).and_then(text)));
        found.insert((number("partition")?, number("offset")?), headers.collect());
    }
    Ok(found)
}

/// Ends when nothing has come for a while: it does not know the end of a topic.
fn console(address: &str, topic: &str, silence_millis: u32) -> Result<Vec<Record>> {
    let jars = Jars::get()?.ok_or("no Java runtime")?;
    let mark = mark();
    let part = |name: &str| format!("<{name}{mark}>");
    let mut words = vec!["120".to_string()];
    words.extend(jars.java("org.apache.kafka.tools.consumer.ConsoleConsumer", 128, false));
    words.extend(["--bootstrap-server", address, "--topic", topic, "--from-beginning"].map(String::from));
    words.extend(["--isolation-level", "read_committed", "--timeout-ms"].map(String::from));
    words.push(silence_millis.to_string());
    let print = ["timestamp", "partition", "offset", "headers", "key", "value"];
    let mut properties: Vec<String> = print.iter().map(|what| format!("print.{what}=true")).collect();
    let separators =
        [("key.separator", "|"), ("line.separator", "."), ("headers.separator", ","), ("null.literal", "0")];
    properties.extend(separators.map(|(name, short)| format!("{name}={}", part(short))));
    words.extend(properties.into_iter().flat_map(|property| ["--property".to_string(), property]));
    let output = jars::run(Path::new("/"), "timeout", words)?;
    let mut rest = output.as_slice();
    let mut records = Vec::new();
    while !rest.is_empty() {
        let mut line = take_until(&mut rest, &part("."))?;
        let mut next = || take_until(&mut line, &part("|"));
        let (time, partition, offset, headers) = (next()?, next()?, next()?, next()?);
        let (key, value) = (next()?, line);
        let number = |text: &[u8]| -> Result<i64> {
            let text = std::str::from_utf8(text)?;
            Ok(text
                .rsplit(':')
                .next()
                .unwrap_or_default()
                .parse::<i64>()
                .map_err(|error| format!("{text}: {error}"))?)
        };
        let unless_null = |bytes: &[u8]| (bytes != part("0").as_bytes()).then(|| bytes.to_vec());
        records.push(Record {
            partition: i32::try_from(number(partition)?)?,
            offset: number(offset)?,
            time: number(time)?,
            key: unless_null(key),
            value: unless_null(value),
            headers: console_headers(&String::from_utf8_lossy(headers), &part(","), &part("0")),
        });
    }
    Ok(records)
}

fn console_headers(text: &str, comma: &str, null: &str) -> Vec<(String, Option<String>)> {
    let headers = text.strip_prefix("NO_HEADERS").unwrap_or(text).split(comma).filter_map(|one| one.split_once(':'));
    headers.map(|(name, value)| (name.to_string(), (value != null).then(|| value.to_string()))).collect()
}

/// Text that no record has.
fn mark() -> String {
    format!("~{:016x}~", fastrand::u64(..))
}

fn take_until<'a>(rest: &mut &'a [u8], mark: &str) -> Result<&'a [u8]> {
    let at = rest.windows(mark.len()).position(|window| window == mark.as_bytes());
    let at = at.ok_or_else(|| format!("a record does not end: {}", String::from_utf8_lossy(rest)))?;
    let found = &rest[..at];
    *rest = &rest[at + mark.len()..];
    Ok(found)
}

fn take_line(rest: &mut &[u8]) -> Result<Vec<i64>> {
    let line = std::str::from_utf8(take_until(rest, "\n")?)?;
    Ok(line.split(' ').map(str::parse).collect::<Result<_, _>>()?)
}

/// So many bytes; none for a negative length, which stands for null.
fn take(rest: &mut &[u8], length: i64) -> Result<Option<Vec<u8>>> {
    let Ok(length) = usize::try_from(length) else { return Ok(None) };
    let (taken, left) = rest.split_at_checked(length).ok_or("a record is cut off")?;
    *rest = left;
    Ok(Some(taken.to_vec()))
}
