//! Reads published files without Windrow: serde_json, a split at commas, and the rows of the parquet crate. Also what makes
//! a file complete: a reader that comes at any moment must find each file whole.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};
use serde_json::Value as Json;

use super::oracle::{Line, Value, line};

/// Every file below a directory; hidden ones and others apart.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) published: Vec<PathBuf>,
    pub(crate) hidden: Vec<PathBuf>,
}

/// The files below `directory`. What vanishes meanwhile, as hidden files do, is not there.
pub(crate) fn find(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(_) if name.as_encoded_bytes().starts_with(b".") => found.hidden.push(path),
                Ok(_) => found.published.push(path),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    found.published.sort();
    found.hidden.sort();
    Ok(found)
}

/// The rows of a published file, which must be complete and have some.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>, String> {
    let unreadable = |reason: String| format!("{}: {reason}", path.display());
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let rows = match extension {
        "parquet" => parquet(path),
        "jsonl" => text(path).and_then(|text| text.lines().map(json).collect()),
        "csv" => text(path).and_then(|text| csv(&text)),
        _ => Err("not a name that a sink gives".into()),
    };
    let rows = rows.map_err(unreadable)?;
    if rows.is_empty() {
        return Err(unreadable("a file without rows".into()));
    }
    Ok(rows.into_iter().map(line).collect())
}

type Columns = BTreeMap<String, Value>;

fn text(path: &Path) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    match text.ends_with('\n') {
        true => Ok(text),
        false => Err(format!("its last line has no end: {:?}", text.lines().last())),
    }
}

fn is_time(name: &str) -> bool {
    matches!(name, "at" | "window_start")
}

fn json(line: &str) -> Result<Columns, String> {
    let fields: BTreeMap<String, Json> = serde_json::from_str(line).map_err(|error| format!("{error} in {line:?}"))?;
    let field = |(name, value): (String, Json)| {
        let value = match value {
            Json::String(text) if is_time(&name) => Value::Whole(micros(&text)?),
            Json::String(text) => Value::Text(text),
            Json::Number(number) if name == "mean" => Value::Fraction(number.as_f64().unwrap_or(f64::NAN)),
            Json::Number(number) => Value::Whole(number.as_i64().ok_or_else(|| format!("{name} is {number}"))?),
            other => return Err(format!("{name} is {other}")),
        };
        Ok((name, value))
    };
    fields.into_iter().map(field).collect()
}

fn csv(text: &str) -> Result<Vec<Columns>, String> {
    let mut lines = text.lines().map(fields);
    let header = lines.next().unwrap_or_default();
    let row = |fields: Vec<String>| {
        if fields.len() != header.len() {
            return Err(format!("{} fields under {} names: {fields:?}", fields.len(), header.len()));
        }
        header.iter().cloned().zip(fields).map(|(name, field)| Ok((name.clone(), typed(&name, field)?))).collect()
    };
    lines.map(row).collect()
}

/// A field of CSV, by its column.
fn typed(name: &str, field: String) -> Result<Value, String> {
    let wrong = |field: &str| format!("{name} is {field:?}");
    Ok(match name {
        "country" => Value::Text(field),
        "mean" => Value::Fraction(field.parse().map_err(|_| wrong(&field))?),
        name if is_time(name) => Value::Whole(micros(&field)?),
        _ => Value::Whole(field.parse().map_err(|_| wrong(&field))?),
    })
}

/// The fields of a line of CSV without line ends in fields.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let (mut quoted, mut letters) = (false, line.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                fields.last_mut().into_iter().for_each(|field| field.push('"'));
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            letter => fields.last_mut().into_iter().for_each(|field| field.push(letter)),
        }
    }
    fields
}

fn parquet(path: &Path) -> Result<Vec<Columns>, String> {
    let file = fs::File::open(path).map_err(|error| error.to_string())?;
    let reader = SerializedFileReader::new(file).map_err(|error| error.to_string())?;
    let rows = reader.get_row_iter(None).map_err(|error| error.to_string())?;
    rows.map(|row| {
        let row = row.map_err(|error| error.to_string())?;
        let field = |(name, field): (&String, &Field)| {
            let value = match field {
                Field::Long(value) | Field::TimestampMicros(value) => Value::Whole(*value),
                Field::Int(value) => Value::Whole(i64::from(*value)),
                Field::UInt(value) => Value::Whole(i64::from(*value)),
                Field::ULong(value) => Value::Whole(i64::try_from(*value).map_err(|error| error.to_string())?),
                Field::Double(value) => Value::Fraction(*value),
                Field::Str(value) => Value::Text(value.clone()),
                other => return Err(format!("{name} is {other:?}")),
            };
            Ok((name.clone(), value))
        };
        row.get_column_iter().map(field).collect()
    })
    .collect()
}

/// `2026-01-01T00:50:07.25Z` as microseconds since 1970.
fn micros(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is not a time");
    let number = |range: std::ops::Range<usize>| -> Result<i64, String> {
        text.get(range).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)
    };
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    let rest = text.get(19..).and_then(|rest| rest.strip_suffix('Z')).ok_or_else(wrong)?;
    let fraction = match rest.strip_prefix('.') {
        Some(digits) => format!("{digits:0<6}").parse().map_err(|_| wrong())?,
        None if rest.is_empty() => 0,
        None => return Err(wrong()),
    };
    // The days since 1970 are counted from March, so that the leap day is the last of a year.
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    Ok((days * 86_400 + seconds) * 1_000_000 + fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_fields_are_read_as_they_are_written() {
        assert_eq!(micros("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(micros("2026-01-01T00:50:07.25Z"), Ok(1_767_228_607_250_000));
        assert_eq!(micros("2024-02-29T23:59:59.000001Z"), Ok(1_709_251_199_000_001));
        assert!(micros("2024-02-29").is_err());
        assert_eq!(fields("1,\"a,b\",\"say \"\"hi\"\"\",,\"\"\"\""), ["1", "a,b", "say \"hi\"", "", "\""]);
    }
}
