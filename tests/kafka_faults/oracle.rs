//! The answers of a scenario, computed naively from what a consumer found in the input topic; and what was found in the topics that
//! the job writes, in the same words. It shares no code with Windrow.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tests::broker::verify::Record;

use super::scenario::Scenario;

/// What each topic has to hold: lines that can be compared, in any order.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    pub(crate) rows: Vec<String>,
    pub(crate) answers: Vec<String>,
    pub(crate) dead: Vec<String>,
}

struct Row {
    id: i64,
    user: i64,
    amount: i64,
    at: i64,
}

fn row(record: &Record) -> Option<Row> {
    let value: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    let number = |name: &str| value.get(name)?.as_i64();
    Some(Row { id: number("id")?, user: number("user")?, amount: number("amount")?, at: number("at")? })
}

/// What comes of the records of the input.
pub(crate) fn answers(scenario: &Scenario, input: &[Record]) -> Answers {
    let mut found = Answers::default();
    let mut windows: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
    for record in input {
        let Some(row) = row(record) else {
            let (partition, offset) = (record.partition.to_string(), record.offset.to_string());
            found.dead.push(dead(&partition, &offset, record));
            continue;
        };
        if row.amount % scenario.divisor != scenario.but {
            found.rows.push(format!("row {} of user {}: {}", row.id, row.user, row.amount));
            windows.entry((row.at.div_euclid(scenario.window), row.user)).or_default().push(row);
        }
    }
    found.answers = windows.iter().map(|((_, user), rows)| answer(*user, rows)).collect();
    found
}

fn answer(user: i64, rows: &[Row]) -> String {
    let total: i64 = rows.iter().map(|row| row.amount).sum();
    let (first, last) = (rows.iter().map(|row| row.id).min(), rows.iter().map(|row| row.id).max());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    format!("user {user}, {} rows from {first} to {last}: {total}", rows.len())
}

/// A payload that is missing and one that is empty are the same here.
fn dead(partition: &str, offset: &str, record: &Record) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().unwrap_or_default().escape_ascii().to_string();
    format!("{partition}/{offset}, key {:?}: {}", record.key.as_ref().map(|_| text(&record.key)), text(&record.value))
}

/// The records of the topic of rows.
pub(crate) fn found_rows(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let value = json(record)?;
        let number = |name: &str| value.get(name)?.as_i64();
        Some(format!("row {} of user {}: {}", number("id")?, number("user")?, number("amount")?))
    };
    records.iter().map(|record| line(record).unwrap_or_else(|| unknown(record))).collect()
}

/// The records of the topic of windows.
pub(crate) fn found_answers(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let value = json(record)?;
        let number = |name: &str| value.get(name)?.as_i64();
        let (user, n, total) = (number("user")?, number("n")?, number("total")?);
        Some(format!("user {user}, {n} rows from {} to {}: {total}", number("first")?, number("last")?))
    };
    records.iter().map(|record| line(record).unwrap_or_else(|| unknown(record))).collect()
}

/// The records of the topic of dead letters, with where they came from. That `topic` is theirs is a part of it.
pub(crate) fn found_dead(topic: &str, records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let header = |name: &str| record.header(&format!("windrow.{name}"));
        let from = header("topic").filter(|from| *from == topic)?;
        let is_complete =
            header("split")? == format!("{from}/{}", header("partition")?) && !header("error")?.is_empty();
        is_complete.then(|| Some(dead(header("partition")?, header("offset")?, record)))?
    };
    records.iter().map(|record| line(record).unwrap_or_else(|| unknown(record))).collect()
}

fn json(record: &Record) -> Option<Value> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

fn unknown(record: &Record) -> String {
    format!("unknown: {record:?}")
}

/// How two multisets of lines differ.
#[derive(Debug)]
pub(crate) struct Difference {
    pub(crate) lost: Vec<String>,
    pub(crate) repeated: Vec<String>,
}

impl Difference {
    pub(crate) fn between(expected: &[String], found: &[String]) -> Self {
        let mut count: HashMap<&String, i64> = HashMap::new();
        expected.iter().for_each(|line| *count.entry(line).or_default() += 1);
        found.iter().for_each(|line| *count.entry(line).or_default() -= 1);
        let times = |line: &String, times: i64| std::iter::repeat_n(line.clone(), times.max(0) as usize);
        let mut lost: Vec<String> = count.iter().flat_map(|(line, count)| times(line, *count)).collect();
        let mut repeated: Vec<String> = count.iter().flat_map(|(line, count)| times(line, -*count)).collect();
        lost.sort();
        repeated.sort();
        Self { lost, repeated }
    }

    /// The first few lines; none without a difference.
    pub(crate) fn text(&self) -> Option<String> {
        if self.lost.is_empty() && self.repeated.is_empty() {
            return None;
        }
        let few = |what: &'static str, lines: &[String]| {
            lines.iter().take(5).map(move |line| format!("    {what} {line}")).collect::<Vec<_>>()
        };
        let (lost, repeated) = (self.lost.len(), self.repeated.len());
        let lines = [few("lost    ", &self.lost), few("repeated", &self.repeated)].concat().join("\n");
        Some(format!("{lost} lost, {repeated} repeated or unexplained\n{lines}"))
    }
}
