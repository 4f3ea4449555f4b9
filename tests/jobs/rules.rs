//! Rules for every task: a process with a second input that is broadcast.

use tests::rows;
use windrow::{Restarts, prelude::*};

use super::clicks::{Click, ClickView, Hand, Payment, PaymentView, ended, state_bytes, written};

/// Tells, a second of event time after it, each click whose amount is above the limit of its user, which is that of user 0
/// if there is none. Amounts below zero go aside.
#[derive(Clone)]
struct Above;

#[derive(Record)]
struct Alert {
    user: i64,
    amount: i64,
    limit: i64,
}

impl BroadcastProcess for Above {
    type Row = Click;
    type Rule = Payment;
    type Rules = std::collections::BTreeMap<i64, i64>;
    type State = Vec<(i64, i64)>;
    type Output = Alert;
    type Side = Alert;

    fn rule(&mut self, rule: PaymentView<'_>, rules: &mut Self::Rules) {
        rules.insert(rule.other, rule.paid);
    }

    fn row(&mut self, click: ClickView<'_>, rules: &Self::Rules, key: &mut KeyedBy<'_, Self>) {
        if click.amount < 0 {
            let limit = rules.get(&click.user).copied().unwrap_or_default();
            return key.emit_side(Alert { user: click.user, amount: click.amount, limit });
        }
        key.state_mut().push((click.user, click.amount));
        key.set_timer(key.time() + secs(1));
    }

    fn timer(&mut self, _: Timer, rules: &Self::Rules, key: &mut KeyedBy<'_, Self>) {
        for (user, amount) in std::mem::take(key.state_mut()) {
            let limit = rules.get(&user).or_else(|| rules.get(&0)).copied().unwrap_or(i64::MIN);
            if amount > limit {
                key.emit(Alert { user, amount, limit });
            }
        }
        key.clear();
    }
}

fn alerts(clicks: Stream<Click>, rules: Stream<Payment>) -> (Stream<Untyped>, Stream<Untyped>) {
    let (alerts, side) = clicks.key_by("user").with_rules(rules).process_with_side(Above);
    let shown = || ["user", "amount", "limit"].map(col);
    (alerts.select(shown()), side.select(shown()))
}

/// Rules without event time that never end must not hold the watermark of the rows, nor rules that have ended.
#[tokio::test(start_paused = true)]
async fn rules_do_not_hold_time_up() {
    for parallelism in 1..=3 {
        for ends_first in [false, true] {
            let job = Job::new("rules").parallelism(parallelism);
            let [out, aside] = [(); 2].map(|()| MemorySink::new());
            let (clicks, limits) = (Hand::of_clicks(), Hand::of_payments());
            let (alerts, side) = alerts(clicks.timed(&job), limits.source(&job));
            alerts.sink(out.clone());
            side.sink(aside.clone());
            let running = job.start().await.unwrap();
            let handle = running.handle();
            limits.push(&[(0, 5, 0), (1, 50, 0), (4, 50, 0)]).await;
            if ends_first {
                limits.end();
            }
            clicks.push(&[(1, 40, 1), (2, 6, 1), (3, 5, 1), (1, -7, 1), (9, 100, 1)]).await;
            assert_eq!(written(&out), Vec::<String>::new());
            assert_eq!(written(&aside), ["1|-7|50"]);
            let full = state_bytes(&handle, "process with rules");
            clicks.push(&[(4, 60, 10)]).await;
            let told = "ends first: ";
            assert_eq!(written(&out), ["2|6|5", "9|100|5"], "{told}{ends_first}, parallelism {parallelism}");
            assert!(state_bytes(&handle, "process with rules") < full);
            if !ends_first {
                limits.push(&[(4, 70, 0)]).await;
            }
            clicks.end();
            limits.end();
            ended(running).await;
            let expected: &[&str] = if ends_first { &["2|6|5", "4|60|50", "9|100|5"] } else { &["2|6|5", "9|100|5"] };
            assert_eq!(rows(&out.batches()), expected, "{told}{ends_first}");
        }
    }
}

/// With event time on both sides the watermark is that of both.
#[tokio::test(start_paused = true)]
async fn rules_with_event_time_hold_the_rows_until_they_have_come() {
    for parallelism in 1..=2 {
        let job = Job::new("timed-rules").parallelism(parallelism);
        let out = MemorySink::new();
        let (clicks, limits) = (Hand::of_clicks(), Hand::of_payments());
        let (alerts, side) = alerts(clicks.timed(&job), limits.timed(&job));
        alerts.sink(out.clone());
        side.discard();
        let running = job.start().await.unwrap();
        clicks.push(&[(1, 40, 1), (2, 6, 1)]).await;
        clicks.push(&[(4, 60, 10)]).await;
        assert_eq!(written(&out), Vec::<String>::new(), "no rule has come");
        limits.push(&[(0, 5, 2)]).await;
        assert_eq!(written(&out), ["1|40|5", "2|6|5"], "at 2 s");
        clicks.end();
        limits.end();
        ended(running).await;
    }
}

/// A job that goes on with another number of tasks knows its rules in every task.
#[tokio::test(start_paused = true)]
async fn rules_are_there_after_a_restore() {
    for (before, after) in [(1, 3), (3, 1), (2, 2), (2, 4)] {
        for read_again in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let (clicks, limits) = (Hand::of_clicks(), Hand::of_payments());
            let out = MemorySink::new();
            let job = |parallelism: usize| {
                let job = Job::new("rules").parallelism(parallelism).restarts(Restarts::never());
                let (alerts, side) = alerts(clicks.timed(&job), limits.source(&job));
                alerts.sink(out.clone());
                side.discard();
                job.checkpoint(directory.path().to_str().unwrap(), hours(10))
            };
            let running = job(before).start().await.unwrap();
            let handle = running.handle();
            limits.push(&[(0, 5, 0), (1, 50, 0)]).await;
            clicks.push(&[(1, 40, 1), (2, 6, 1)]).await;
            let (saved, ended_well) = tokio::join!(handle.stop_with_savepoint("half"), running.wait());
            saved.unwrap();
            ended_well.unwrap();
            let running = job(after).start().await.unwrap();
            if read_again {
                limits.push(&[(1, 30, 0)]).await;
            }
            let many: Vec<_> = (3..40).map(|user| (user, 6, 2)).collect();
            clicks.push(&many).await;
            clicks.end();
            limits.end();
            ended(running).await;
            let mut expected: Vec<String> = (2..40).map(|user| format!("{user}|6|5")).collect();
            expected.extend(read_again.then(|| "1|40|30".to_string()));
            expected.sort_unstable();
            assert_eq!(rows(&out.batches()), expected, "{before} → {after}");
        }
    }
}

/// The rules go to all tasks, the rows by key.
#[tokio::test]
async fn the_plan_says_what_goes_to_every_task() {
    let job = Job::new("plan").parallelism(2);
    let (clicks, limits) = (Hand::of_clicks(), Hand::of_payments());
    let (alerts, side) = alerts(clicks.timed(&job), limits.source(&job));
    alerts.sink(MemorySink::new());
    side.discard();
    let printed = job.to_string();
    assert!(printed.contains("process with rules per user"), "{printed}");
    let plan = job.explain().await.unwrap();
    assert!(plan.contains("══ by key group ══►") && plan.contains("══ to every task ══►"), "{plan}");
}
