//! Both versions of a line, and both versions of the state, are the same money.

use std::{fs, path::Path};

use tests::{on_two_threads, rows};
use windrow::prelude::*;

use crate::schema_versions::{Spending, before, run, write_day};

/// What each user has spent after some days, by a look at the text. `whole` leaves out the cents of each order of the first
/// day, as the older program did.
fn spent(directory: &Path, days: i64, whole: bool) -> Vec<String> {
    let mut users = [0; 3];
    for day in 0..days {
        let text = fs::read_to_string(directory.join(format!("orders-{day}.jsonl"))).unwrap();
        for line in text.lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let cents = match line["version"].as_i64() {
                Some(1) => line["dollars"].as_i64().map(|dollars| dollars * 100),
                Some(2) => line["cents"].as_i64(),
                _ => None,
            };
            let cents = cents.unwrap_or_default();
            let user = line["user"].as_u64().unwrap() as usize;
            users[user] += if whole && day == 0 { cents / 100 * 100 } else { cents };
        }
    }
    users.iter().enumerate().map(|(user, cents)| format!("{user}|{cents}")).collect()
}

#[test]
fn the_newer_program_goes_on_where_the_older_ended() {
    on_two_threads(async {
        let directory = tempfile::tempdir().unwrap();
        let (table, dead) = (MemoryTable::new(), MemorySink::new());
        let path = directory.path();
        write_day(path, 0).unwrap();
        run(before::Spending, path, &table, &dead).await.unwrap();
        assert_eq!(rows(&table.batches()), spent(path, 1, true));

        write_day(path, 1).unwrap();
        run(Spending, path, &table, &dead).await.unwrap();
        assert_eq!(rows(&table.batches()), spent(path, 2, true));
        assert_ne!(spent(path, 2, true), spent(path, 2, false), "cents are lost by the older program only");

        let reasons = rows(&dead.batches());
        assert_eq!(reasons.iter().filter(|reason| *reason == "version 3 is not known").count(), 2);
        assert_eq!(reasons.iter().filter(|reason| *reason == "version 2 without its amount").count(), 2);
        assert_eq!(reasons.len(), 6, "and one line of each day is no JSON: {reasons:?}");

        let error = run(before::Spending, path, &table, &dead).await.unwrap_err().to_string();
        assert!(error.contains("newer than version 1 of this program"), "{error}");
    });
}

#[test]
fn without_a_checkpoint_the_newer_program_knows_all_cents() {
    on_two_threads(async {
        let directory = tempfile::tempdir().unwrap();
        let (table, dead) = (MemoryTable::new(), MemorySink::new());
        (0..3).for_each(|day| write_day(directory.path(), day).unwrap());
        run(Spending, directory.path(), &table, &dead).await.unwrap();
        assert_eq!(rows(&table.batches()), spent(directory.path(), 3, false));
        assert_eq!(dead.rows(), 9);
    });
}
