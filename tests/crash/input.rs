//! The input of a run: rows drawn from the seed, and the files they are written to.

use std::{fmt::Write, fs, path::Path};

use super::scenario::{Format, Scenario};

/// An event as the tests know it. The job has its own idea of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Of no other row.
    pub(crate) id: i64,
    pub(crate) user: i64,
    pub(crate) country: String,
    pub(crate) amount: i64,
    /// Microseconds since 1970.
    pub(crate) at: i64,
    /// Earlier than the bound allows. Such a row may be late; no other may.
    pub(crate) is_beyond: bool,
}

/// Names that are hard to quote, or hard to make a directory of.
const COUNTRIES: [&str; 8] = ["DE", "FR", "Côte d'Ivoire", "a,b", "say \"hi\"", "..", "x=1/y", "null"];

/// The rows of one file, out of order within `bound`, and some beyond it where that is wanted.
pub(crate) fn rows(
    random: &mut fastrand::Rng,
    next_id: &mut i64,
    count: usize,
    begin: i64,
    bound: i64,
    is_late: bool,
) -> Vec<Row> {
    let step = random.i64(1..40_000_000);
    let (users, countries) = (random.i64(1..40), random.usize(1..=COUNTRIES.len()));
    let begin = begin + random.i64(0..600_000_000);
    let mut latest = i64::MIN;
    let row = |place: usize| {
        let latest_possible = begin + place as i64 * step;
        let lateness = if is_late && random.u8(..10) == 0 { bound + random.i64(0..3_600_000_000) } else { 0 };
        let disorder = if bound == 0 { 0 } else { random.i64(0..=bound) };
        let at = latest_possible - disorder - lateness;
        let is_beyond = latest.checked_sub(bound).is_some_and(|least| at < least);
        latest = latest.max(at);
        *next_id += 1;
        Row {
            id: *next_id,
            user: random.i64(0..users),
            country: COUNTRIES[random.usize(..countries)].into(),
            amount: random.i64(-1_000..1_000),
            at,
            is_beyond,
        }
    };
    (0..count).map(row).collect()
}

/// Writes the files of a scenario: `in/{source}/{file}`.
pub(crate) fn write(scenario: &Scenario, place: &Path) -> std::io::Result<()> {
    for (index, source) in scenario.sources.iter().enumerate() {
        let directory = place.join("in").join(index.to_string());
        fs::create_dir_all(&directory)?;
        for (number, rows) in source.files.iter().enumerate() {
            let name = format!("{number}.{}", source.format.extension());
            fs::write(directory.join(name), text(source.format, rows))?;
        }
    }
    Ok(())
}

fn text(format: Format, rows: &[Row]) -> String {
    let mut text = if format == Format::Csv { "id,user,country,amount,at\n".to_string() } else { String::new() };
    for Row { id, user, country, amount, at, .. } in rows {
        let written = match format {
            Format::Csv => {
                let country = country.replace('"', "\"\"");
                writeln!(text, "{id},{user},\"{country}\",{amount},{at}")
            }
            _ => {
                let country = serde_json::Value::from(country.as_str());
                writeln!(text, "{{\"id\":{id},\"user\":{user},\"country\":{country},\"amount\":{amount},\"at\":{at}}}")
            }
        };
        // Text takes whatever is written to it.
        let _ = written;
    }
    text
}
