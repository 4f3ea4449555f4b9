//! Every payment that does not fit its order is found, and every record that does not decode is a dead letter: once, from memory
//! and from topic to topic, over a re-drive, and over starts in between.

use std::{collections::HashMap, path::Path};

use serde_json::Value;
use tests::{
    broker::{Broker, verify::Record},
    on_two_threads, rows, run,
};
use windrow::prelude::*;

use super::{PARALLELISM, sorted};
use crate::{
    fraud::{Order, Payment, Topics, compare, disorder, find, redrive},
    fraud_events::fill,
};

const WINDOW: i64 = 10_000_000;

/// `order, cents, country, time` and `order, paid, card country, time`; times in microseconds.
type Event = (i64, i64, String, i64);

/// What the job should find, by a plain loop over everything.
fn expected(orders: &[Event], payments: &[Event]) -> Vec<String> {
    let mut by_order: HashMap<i64, Vec<&Event>> = HashMap::new();
    orders.iter().for_each(|order| by_order.entry(order.0).or_default().push(order));
    let mut found = Vec::new();
    for (order, paid, card, at) in payments {
        for (_, cents, country, ordered) in by_order.get(order).into_iter().flatten() {
            let together = at.div_euclid(WINDOW) == ordered.div_euclid(WINDOW);
            if together && (paid != cents || card != country) {
                found.push(format!("{order}|{cents}|{paid}|{country}|{card}|{}", Timestamp::from_micros(*at)));
            }
        }
    }
    sorted(found)
}

/// Orders, and payments up to four seconds later: some of them in another window, some twice, some without an order.
fn events() -> (Vec<Event>, Vec<Event>) {
    let order = |n: i64| (n, n * 37 % 900, ["AT", "DE", "FR"][(n % 3) as usize].to_string(), n * 50_000);
    let payment = |n: i64| {
        let (_, cents, country, at) = order(n);
        let card = if n % 11 == 0 { "XX".into() } else { country };
        (n, cents - n % 7 / 6, card, at + n * 7_919 % 4_000_000)
    };
    let payments = (0..3_000).chain((0..3_000).step_by(13)).map(payment);
    ((0..2_900).map(order).collect(), payments.collect())
}

#[test]
fn payments_that_do_not_fit_are_found() {
    let (orders, payments) = events();
    let expected = expected(&orders, &payments);
    assert!(expected.len() > 400);
    let time = Timestamp::from_micros;
    for parallelism in PARALLELISM {
        let job = Job::new("fraud").parallelism(parallelism);
        let row = |(order, cents, country, at): &Event| Order {
            order: *order,
            cents: *cents,
            country: country.clone(),
            at: time(*at),
        };
        let orders = MemorySource::records(orders.iter().map(row).collect()).batch_rows(100);
        let row = |(order, paid, card, at): &Event| Payment {
            order: *order,
            paid: *paid,
            card_country: card.clone(),
            paid_at: time(*at),
        };
        // In the order of their times, or those that are paid late would be late.
        let mut payments: Vec<_> = payments.iter().map(row).collect();
        payments.sort_by_key(|payment| payment.paid_at);
        let payments = MemorySource::records(payments).batch_rows(100);
        let orders = job.source(orders).event_time("at", disorder()).fail_on_rejects();
        let payments = job.source(payments).event_time("paid_at", disorder()).fail_on_rejects();
        let out = MemorySink::new();
        compare(orders, payments).sink(out.clone());
        let report = run(job).unwrap();
        assert_eq!(rows(&out.batches()), expected, "parallelism {parallelism}");
        assert!(report.metrics.operators.iter().all(|operator| operator.balances() && operator.late == 0));
    }
}

/// The records of a topic as an independent reader sees them.
fn values(records: &[Record]) -> Vec<Value> {
    records.iter().map(|record| serde_json::from_str(&record.text()).unwrap()).collect()
}

fn event(value: &Value, amount: impl Fn(&Value) -> Option<i64>, names: [&str; 3]) -> Option<Event> {
    let [number, country, time] = names;
    let at: Timestamp = value[time].as_str()?.parse().unwrap();
    Some((value["order"].as_i64()?, amount(&value[number])?, value[country].as_str()?.to_string(), at.micros()))
}

fn cents(euros: &Value) -> Option<i64> {
    euros.as_f64().map(|euros| (euros * 100.0).round() as i64)
}

fn alert(value: &Value) -> String {
    let [order, cents, paid] = ["order", "cents", "paid"].map(|name| value[name].as_i64().unwrap());
    let [country, card, at] = ["country", "card_country", "paid_at"].map(|name| value[name].as_str().unwrap());
    let at: Timestamp = at.parse().unwrap();
    format!("{order}|{cents}|{paid}|{country}|{card}|{at}")
}

/// One start of a job that is stopped when it has read and written everything that there is.
fn run_until_quiet(broker: &Broker, topics: &Topics, checkpoints: &Path, parallelism: usize, records: u64) {
    on_two_threads(async {
        let job =
            Job::new(&topics.alerts).parallelism(parallelism).checkpoint(checkpoints.to_string_lossy(), millis(200));
        find(&job, &Kafka::brokers(broker.address()), topics);
        let running = job.start().await.unwrap();
        let handle = running.handle();
        let read = || handle.metrics().named("source").map(|source| source.rows_in).sum::<u64>();
        let waiting = async {
            while read() < records {
                tokio::time::sleep(millis(20)).await;
            }
            handle.stop();
        };
        let (report, ()) = tokio::join!(running.wait(), waiting);
        let report = report.unwrap();
        assert!(report.stopped);
        assert!(report.metrics.operators.iter().all(|operator| operator.balances() && operator.late == 0));
    });
}

#[test]
fn from_topic_to_topic_every_alert_and_every_dead_letter_is_there_once() {
    let Some(broker) = Broker::shared() else { return };
    let topic = |name: &str| broker.new_topic(name, 3).unwrap();
    let topics =
        Topics { orders: topic("orders"), payments: topic("payments"), alerts: topic("alerts"), dead: topic("dead") };
    let kafka = Kafka::brokers(broker.address());
    let directory = tempfile::tempdir().unwrap();
    // 20 s of event time each; the second run of the job goes on behind the first, at another parallelism.
    for (turn, parallelism) in [(0, 1), (1, 3)] {
        let numbers = Sequence::new(10_000).step(2_000).start(1_767_225_600_000_000 + turn * 20_000_000);
        on_two_threads(fill(&kafka, &topics.orders, &topics.payments, numbers)).unwrap();
        run_until_quiet(broker, &topics, directory.path(), parallelism, 20_000);
    }
    // An hour later, so that all windows before it are complete.
    let numbers = Sequence::new(1_000).start(1_767_229_200_000_000);
    on_two_threads(fill(&kafka, &topics.orders, &topics.payments, numbers)).unwrap();
    run_until_quiet(broker, &topics, directory.path(), 2, 2_000);

    let committed = |topic: &str| broker.committed(topic).unwrap();
    let (orders, payments) = (values(&committed(&topics.orders)), values(&committed(&topics.payments)));
    assert_eq!((orders.len(), payments.len()), (21_000, 21_000));
    let complete = |event: &Event| event.3 < 1_767_229_200_000_000;
    let orders: Vec<Event> =
        orders.iter().filter_map(|value| event(value, Value::as_i64, ["cents", "country", "at"])).collect();
    let names = ["paid", "card_country", "paid_at"];
    let good = payments.iter().filter_map(|value| event(value, Value::as_i64, names)).filter(complete);
    let expected_alerts = expected(&orders, &good.collect::<Vec<_>>());
    assert!(expected_alerts.len() > 300);
    let alerts = values(&committed(&topics.alerts)).iter().map(alert).collect();
    assert_eq!(sorted(alerts), expected_alerts);

    let bad = payments.iter().filter(|value| value["paid"].is_null());
    let bad: Vec<String> = sorted(bad.map(Value::to_string).collect());
    assert_eq!(bad.len(), 210);
    let dead = committed(&topics.dead);
    assert_eq!(sorted(values(&dead).iter().map(Value::to_string).collect()), bad);
    for letter in &dead {
        assert_eq!(letter.header("windrow.topic"), Some(topics.payments.as_str()));
        assert!(letter.header("windrow.error").unwrap().contains("paid"), "{letter:?}");
        assert!(letter.header("windrow.offset").is_some() && letter.key.is_some());
    }

    // The same letters again, by a reader that knows the other form: twice, which makes no difference.
    for _ in 0..2 {
        let job = Job::new(format!("{}-again", topics.alerts));
        let job = job.parallelism(2).checkpoint(directory.path().to_string_lossy(), millis(200));
        redrive(&job, &kafka, &topics, 0);
        run(job).unwrap();
    }
    let mended = payments.iter().filter_map(|value| event(value, cents, ["euros", "card_country", "paid_at"]));
    let mended: Vec<_> = mended.collect();
    assert_eq!(mended.len(), 210 - 21, "some have no amount at all");
    let expected_now = sorted([expected_alerts.clone(), expected(&orders, &mended)].concat());
    assert!(expected_now.len() > expected_alerts.len() + 20);
    let alerts = values(&committed(&topics.alerts)).iter().map(alert).collect();
    assert_eq!(sorted(alerts), expected_now);
    assert_eq!(committed(&topics.dead).len(), bad.len());
}
