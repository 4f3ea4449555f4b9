//! Sessions and left carts are those of a look at each user's sorted clicks.

use std::collections::BTreeMap;

use tests::{rows, run};
use windrow::prelude::*;

use super::{PARALLELISM, sorted};
use crate::sessions_and_funnels::{Click, clicks, day, reminders, sessions};

const HALF_AN_HOUR: i64 = 30 * 60 * 1_000_000;

fn by_gaps(clicks: &[Click]) -> Vec<String> {
    let mut users: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    clicks.iter().for_each(|click| users.entry(click.user).or_default().push(click.at.micros()));
    let mut sessions = Vec::new();
    for (user, mut at) in users {
        at.sort_unstable();
        for session in at.chunk_by(|a, b| b - a < HALF_AN_HOUR) {
            let [from, to] = [session[0], session[session.len() - 1]].map(Timestamp::from_micros);
            sessions.push(format!("{user}|{from}|{to}|{}", session.len()));
        }
    }
    sorted(sessions)
}

fn left_carts(clicks: &[Click]) -> Vec<String> {
    let mut funnels: BTreeMap<(i64, &str), Vec<(i64, &str)>> = BTreeMap::new();
    for click in clicks {
        funnels.entry((click.user, &click.product)).or_default().push((click.at.micros(), &click.action));
    }
    let mut left = Vec::new();
    for ((user, product), mut clicks) in funnels {
        clicks.sort_unstable();
        let mut from = 0;
        while from < clicks.len() {
            let (seen, action) = clicks[from];
            from += 1;
            if action != "view" {
                continue;
            }
            let inside = clicks[from..].iter().take_while(|(at, _)| at - seen < HALF_AN_HOUR).count();
            let after = &clicks[from..from + inside];
            let Some(cart) = after.iter().position(|(_, action)| *action == "cart") else { continue };
            if after[cart + 1..].iter().all(|(_, action)| *action != "purchase") {
                let [seen, carted] = [seen, after[cart].0].map(Timestamp::from_micros);
                left.push(format!("{user}|{product}|{seen}|{carted}"));
                // The next reminder is about what comes after this cart.
                from += cart + 1;
            }
        }
    }
    sorted(left)
}

#[test]
fn sessions_and_left_carts_do_not_depend_on_the_order_of_arrival() {
    let arriving = day();
    let (expected, left) = (by_gaps(&arriving), left_carts(&arriving));
    assert!(expected.len() > 100 && left.len() > 100 && left.len() < 1_000, "{} and {}", expected.len(), left.len());
    for parallelism in PARALLELISM {
        let job = Job::new("shop").parallelism(parallelism);
        let (found, reminded) = (MemorySink::new(), MemorySink::new());
        let clicks = clicks(&job, MemorySource::records(arriving.clone()).batch_rows(97));
        sessions(clicks.clone()).sink(found.clone());
        reminders(clicks).sink(reminded.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&found.batches()), expected, "parallelism {parallelism}");
        assert_eq!(rows(&reminded.batches()), left, "parallelism {parallelism}");
        assert!(report.metrics.operators.iter().all(|operator| operator.balances() && operator.late == 0));
    }
}
