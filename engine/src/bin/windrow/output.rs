//! What commands print with: tables, ages, JSON. Sizes are as in the view of a job: [`windrow::terminal::bytes`].
//!
//! Everything is made first and written at once, so that a pipe that closes early ends the command quietly.

use std::{
    io::{ErrorKind, Write},
    time::SystemTime,
};

use serde::Serialize;

use crate::failure::Failure;

/// Prints text for people.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    write(clean(text).trim_end())
}

/// Prints for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    write(&text.map_err(|error| Failure::new(format!("this has no JSON form: {error}")))?)
}

/// Prints as it is.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Failure::unread()),
        Err(error) => Err(Failure::new(format!("cannot write to stdout: {error}"))),
    }
}

/// Names of files, keys and messages come from elsewhere: what would steer the terminal is shown as text.
pub(crate) fn clean(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(shown).collect()
}

/// Lines with aligned columns, the first of them the header. Numbers stand to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(header.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let is_number = |cell: &String| cell.starts_with(|c: char| c.is_ascii_digit());
    let right: Vec<bool> = (0..header.len())
        .map(|column| {
            !rows.is_empty() && rows.iter().all(|row| row.get(column).is_none_or(|cell| cell == "-" || is_number(cell)))
        })
        .collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&right).enumerate().map(|(column, (cell, right))| {
            let pad = " ".repeat(width(column).saturating_sub(cell.chars().count()));
            if *right { format!("{pad}{cell}") } else { format!("{cell}{pad}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let header: Vec<String> = header.iter().map(|name| (*name).to_owned()).collect();
    line(&header) + &rows.iter().map(|row| line(row)).collect::<String>()
}

/// How long ago a time on the wall is: `3m 20s`.
pub(crate) fn age(millis: u64) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let seconds = now.saturating_sub(millis.into()) / 1_000;
    // Of what is days old nobody wants to know the seconds.
    let (day, hour, minute) = (86_400, 3_600, 60);
    match seconds {
        s if s >= day => format!("{}d {}h", s / day, s % day / hour),
        s if s >= hour => format!("{}h {}m", s / hour, s % hour / minute),
        s if s >= minute => format!("{}m {}s", s / minute, s % minute),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, table};

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let rows =
            vec![vec!["a".into(), "1".into()], vec!["längst".into(), "200".into()], vec!["b".into(), "-".into()]];
        assert_eq!(table(&["name", "rows"], &rows), "name    rows\na          1\nlängst   200\nb          -\n");
        assert_eq!(table(&["name"], &[]), "name\n");
    }

    #[test]
    fn what_would_steer_the_terminal_is_text() {
        assert_eq!(clean("a\x1b[31m\tb\n\u{9b}"), "a\\u{1b}[31m\tb\n\\u{9b}");
    }
}
