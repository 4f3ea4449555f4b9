//! The answers of a scenario, computed naively from what a consumer found in the input topic; and what was found in the topics that
//! the job writes, in the same words. It shares no code with Windrow.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tests::broker::verify::Record;

use super::scenario::{IN, Join, MORE, Scenario};

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

/// What comes of the records of the input: of the first topic, and of the second if there is one.
pub(crate) fn answers(scenario: &Scenario, input: &[Record], more: &[Record]) -> Answers {
    let (mut kept, dead) = rows(IN, input);
    kept.retain(|row| row.amount % scenario.divisor != scenario.but);
    let (more, more_dead) = rows(MORE, more);
    let line = |row: &Row| format!("row {} of user {}: {}", row.id, row.user, row.amount);
    Answers {
        rows: kept.iter().chain(&more).map(line).collect(),
        dead: [dead, more_dead].concat(),
        answers: match scenario.join {
            Some(join) => pairs(join, &kept, &more),
            None => windows(scenario.window, kept),
        },
    }
}

/// The rows of a topic, and its dead letters.
fn rows(topic: &str, records: &[Record]) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut letters) = (Vec::new(), Vec::new());
    for record in records {
        match row(record) {
            Some(row) => rows.push(row),
            None => {
                letters.push(dead(topic, &record.partition.to_string(), &record.offset.to_string(), record));
            }
        }
    }
    (rows, letters)
}

fn windows(size: i64, rows: Vec<Row>) -> Vec<String> {
    let mut windows: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
    for row in rows {
        windows.entry((row.at.div_euclid(size), row.user)).or_default().push(row);
    }
    windows.iter().map(|((_, user), rows)| answer(*user, rows)).collect()
}

fn pairs(join: Join, rows: &[Row], more: &[Row]) -> Vec<String> {
    let mut pairs = Vec::new();
    for row in rows {
        let span = row.at - join.before..=row.at + join.after;
        for partner in more.iter().filter(|partner| partner.user == row.user && span.contains(&partner.at)) {
            pairs.push(pair(row.user, row.id, partner.id));
        }
    }
    pairs
}

fn pair(user: i64, id: i64, partner: i64) -> String {
    format!("row {id} of user {user} is near row {partner}")
}

fn answer(user: i64, rows: &[Row]) -> String {
    let total: i64 = rows.iter().map(|row| row.amount).sum();
    let (first, last) = (rows.iter().map(|row| row.id).min(), rows.iter().map(|row| row.id).max());
    let (first, last) = (first.unwrap_or_default(), last.unwrap_or_default());
    format!("user {user}, {} rows from {first} to {last}: {total}", rows.len())
}

/// A payload that is missing and one that is empty are the same here.
fn dead(topic: &str, partition: &str, offset: &str, record: &Record) -> String {
    let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().unwrap_or_default().escape_ascii().to_string();
    let key = record.key.as_ref().map(|_| text(&record.key));
    format!("{topic}/{partition}, {offset}, key {key:?}: {}", text(&record.value))
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

/// The records of the topic of windows, or of pairs.
pub(crate) fn found_answers(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let value = json(record)?;
        let number = |name: &str| value.get(name)?.as_i64();
        if let (Some(id), Some(partner)) = (number("id"), number("partner")) {
            return Some(pair(number("user")?, id, partner));
        }
        let (user, n, total) = (number("user")?, number("n")?, number("total")?);
        Some(format!("user {user}, {n} rows from {} to {}: {total}", number("first")?, number("last")?))
    };
    records.iter().map(|record| line(record).unwrap_or_else(|| unknown(record))).collect()
}

/// The records of the topic of dead letters, with where they came from: that is topics of the job.
pub(crate) fn found_dead(job: &str, records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        let header = |name: &str| record.header(&format!("windrow.{name}"));
        let from = header("topic")?;
        let topic = from.strip_prefix(job)?.strip_prefix('.')?;
        let is_complete =
            header("split")? == format!("{from}/{}", header("partition")?) && !header("error")?.is_empty();
        is_complete.then(|| Some(dead(topic, header("partition")?, header("offset")?, record)))?
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
