//! Real log lines, counted by Windrow and by `awk`, `sort` and `uniq`.

use std::{path::PathBuf, process::Command};

use crate::{
    files::{Counts, account, args, example},
    windows_over_files::{Args, Unit},
};

const ROWS: u64 = 2_000;

/// The file, unless it is not here: it is no part of the repository.
fn data() -> Option<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/bgl.csv");
    match path.canonicalize() {
        Ok(path) => Some(path.to_str()?.to_string()),
        Err(error) => {
            println!("skipped: {}: {error}", path.display());
            None
        }
    }
}

fn shell(script: &str, path: &str) -> String {
    let output = Command::new("sh").args(["-c", script, "sh", path]).output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("ASCII")
}

/// Counts per hour and level, by tools that share nothing with Windrow. They know nothing of quotes, and need not: the
/// two columns stand before the first that has any.
fn independently(path: &str) -> Counts {
    let before_quotes = "awk -F, 'NR > 1 && ($3 !~ /^[0-9]+$/ || $10 !~ /^[A-Z]+$/ || index($0, \"\\\"\") && \
                         split(substr($0, 1, index($0, \"\\\"\")), head, \",\") < 11)' \"$1\" | wc -l";
    assert_eq!(shell(before_quotes, path).trim(), "0", "lines that awk cannot read");
    let header = shell("head -1 \"$1\"", path);
    let names: Vec<&str> = header.trim().split(',').collect();
    assert_eq!((names[2], names[9]), ("Timestamp", "Level"));

    let counts = shell("awk -F, 'NR > 1 { print $3 - $3 % 3600, $10 }' \"$1\" | sort | uniq -c", path);
    let parse = |line: &str| {
        let [count, hour, level] = line.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let number = |text: &str| text.parse::<i64>().expect("a number");
        ((number(hour) * 1_000_000, level.to_string()), number(count))
    };
    counts.lines().map(parse).collect()
}

#[test]
fn hourly_counts_of_levels_are_those_of_awk() {
    let Some(path) = data() else { return };
    let expected = independently(&path);
    assert_eq!(expected.values().sum::<i64>() as u64, ROWS);
    for parallelism in [1, 2] {
        let args = Args {
            out_of_order: std::time::Duration::ZERO,
            strict: true,
            parallelism,
            ..args(vec![path.clone()], "Timestamp", Some(Unit::S), "Level")
        };
        let (counts, report) = example(&args).expect("a job that ends");
        assert_eq!(account(&report), (ROWS, 0, 0), "at parallelism {parallelism}");
        assert_eq!(counts, expected, "at parallelism {parallelism}");
        assert!(!report.stopped);
    }
}
