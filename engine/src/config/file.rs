//! The file: TOML, of which every mistake is told with its line.
//!
//! ```toml
//! parallelism = 4                       # for every job of the program
//!
//! [checkpoint]
//! url = "/var/lib/jobs"
//! every = "10s"
//!
//! [job.hot-items]                       # for the job of this name only: goes before what is said for every job
//! parallelism = 8
//! checkpoint.every = "1s"
//! ```

use std::{collections::BTreeMap, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Setting, Settings, did_you_mean,
    knobs::{KNOBS, knob, tables},
    refused_secret, setting,
    value::Found,
};

/// The table with one table for each job.
pub(super) const JOB: &str = "job";

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// For every job.
    pub(super) all: Settings,
    /// By the name of the job.
    pub(super) jobs: BTreeMap<String, Section>,
}

/// What a file says for one job.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Section {
    /// Where it begins.
    pub(super) from: String,
    pub(super) settings: Settings,
}

/// Reads a file; or all its mistakes. `name` is what it is called in messages.
pub(super) fn read(name: &str, text: &str) -> Result<Said, Vec<String>> {
    let mut reader = Reader { name, text, mistakes: Vec::new() };
    let said = match DeTable::parse(text) {
        Ok(table) => reader.whole(table.get_ref()),
        Err(error) => {
            let place = reader.place(error.span().unwrap_or_default());
            reader.mistakes.push(format!("{place}: this is not TOML: {}", error.message()));
            Said::default()
        }
    };
    if reader.mistakes.is_empty() { Ok(said) } else { Err(reader.mistakes) }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    mistakes: Vec<String>,
}

impl Reader<'_> {
    /// `windrow.toml:3`.
    fn place(&self, span: Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        format!("{}:{}", self.name, before.matches('\n').count() + 1)
    }

    fn whole(&mut self, table: &DeTable<'_>) -> Said {
        let mut said = Said::default();
        for (key, value) in table.iter() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                (JOB, DeValue::Table(jobs)) => {
                    for (job, value) in jobs.iter() {
                        let section = said.jobs.entry(job.get_ref().to_string()).or_default();
                        section.from = self.place(job.span());
                        match value.get_ref() {
                            DeValue::Table(table) => self.table("", table, &mut section.settings),
                            _ => self.no_table(job, &format!("[{JOB}.{}]", job.get_ref())),
                        }
                    }
                }
                (JOB, _) => self.no_table(key, &format!("[{JOB}.NAME]")),
                _ => self.entry("", key, value, &mut said.all),
            }
        }
        said
    }

    fn table(&mut self, prefix: &str, table: &DeTable<'_>, into: &mut Settings) {
        for (key, value) in table.iter() {
            self.entry(prefix, key, value, into);
        }
    }

    fn no_table(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, header: &str) {
        let place = self.place(key.span());
        self.mistakes.push(format!("{place}: {} is a table of settings: write {header}", key.get_ref()));
    }

    fn entry(
        &mut self,
        prefix: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        into: &mut Settings,
    ) {
        let own = key.get_ref().as_ref();
        let full = format!("{prefix}{own}");
        if prefix.is_empty() && tables().any(|table| table == own) {
            return match value.get_ref() {
                DeValue::Table(table) => self.table(&format!("{own}."), table, into),
                _ => self.no_table(key, &format!("[{own}]")),
            };
        }
        let place = self.place(key.span());
        let Some(knob) = knob(&full) else {
            let known: Vec<_> = KNOBS.iter().map(|knob| knob.key).chain(tables()).chain([JOB]).collect();
            let near = did_you_mean(&full, &known);
            let why = refused_secret(&full).unwrap_or_else(|| format!("there is no setting {full:?}"));
            let why = why + &near;
            self.mistakes.push(format!("{place}: {why}"));
            return;
        };
        match setting(knob, &found(value.get_ref()), place) {
            Ok(setting) => drop::<Option<Setting>>(into.insert(knob.key, setting)),
            Err(mistake) => self.mistakes.push(mistake),
        }
    }
}

fn found<'a>(value: &'a DeValue<'_>) -> Found<'a> {
    match value {
        DeValue::String(text) => Found::Text(text),
        DeValue::Integer(number) if number.radix() == 10 => Found::Number(number.as_str()),
        DeValue::Boolean(flag) => Found::Flag(*flag),
        DeValue::Integer(_) => Found::Other("a number that is not decimal"),
        DeValue::Float(_) => Found::Other("a number with a point"),
        DeValue::Datetime(_) => Found::Other("a date"),
        DeValue::Array(_) => Found::Other("a list"),
        DeValue::Table(_) => Found::Other("a table"),
    }
}
