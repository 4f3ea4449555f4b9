//! Several jobs on one connection, several starts at once, and what becomes of transactions when a job has ended.

use super::*;

fn of(job: &str, nonce: u32) -> Incarnation {
    Incarnation { job: format!("{job:0>8}"), generation: 1, nonce }
}

#[tokio::test]
async fn jobs_that_share_a_connection_do_not_disturb_each_other() {
    let cluster = InMemory::with_topics(&["a", "b"]);
    let kafka = Kafka::brokers("memory").written_to(Arc::new(cluster.clone()));
    let (a, b) = (kafka.to_topic("a").json().exactly_once(), kafka.to_topic("b").json().exactly_once());
    let witness = a.witness().unwrap();
    let (fraud, theft) = (of("1", 1), of("2", 1));
    witness.fence("fraud", &fraud, &[]).await.unwrap();
    let mut of_fraud = a.writer(&fraud, 0, schema()).await.unwrap();
    of_fraud.write(row(1)).await.unwrap();
    of_fraud.stage(Epoch(1)).await.unwrap();
    witness.fence("theft", &theft, &[]).await.unwrap();
    let mut of_theft = b.writer(&theft, 0, schema()).await.unwrap();
    assert_eq!(witness.open_for("theft"), None);
    assert!(witness.open_for("fraud").is_some());
    of_theft.write(row(2)).await.unwrap();
    // The gate of one is not that of the other.
    soon(of_theft.stage(Epoch(9))).await.unwrap();
    witness.decide(&Marker { incarnation: fraud.clone(), epoch: Epoch(1) }).await.unwrap();
    assert_eq!((cluster.values("a").len(), cluster.values("b").len()), (1, 0));
    // One ends, the other goes on.
    drop(of_fraud);
    witness.give_up("fraud", &fraud).await;
    witness.decide(&Marker { incarnation: theft.clone(), epoch: Epoch(9) }).await.unwrap();
    assert_eq!((cluster.values("a").len(), cluster.values("b").len()), (1, 1));
    assert_eq!(witness.newest("fraud").await.unwrap().unwrap().incarnation, fraud);
    assert_eq!(witness.newest("theft").await.unwrap().unwrap().incarnation, theft);
    drop(of_theft);
    witness.give_up("theft", &theft).await;
    assert_eq!(cluster.alive(), 0, "nothing is left of jobs that have ended");
}

#[tokio::test]
async fn what_is_staged_and_not_decided_is_thrown_away_when_the_job_has_ended() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    a.stage(Epoch(1)).await.unwrap();
    a.write(row(2)).await.unwrap();
    s.cluster.story();
    // Not by another incarnation.
    s.witness.give_up("fraud", &incarnation(2)).await;
    assert_eq!(s.cluster.story(), [""; 0]);
    s.witness.give_up("fraud", &incarnation(1)).await;
    let mut story = s.cluster.story();
    story.sort_unstable();
    assert_eq!(story, ["abort 0", "abort 1"]);
    assert!(soon(a.write(row(3))).await.is_err());
    drop(a);
    assert_eq!(s.cluster.alive(), 0);
    let late = s.witness.decide(&marker(1, 1)).await.unwrap_err();
    assert!(late.to_string().contains("given up"), "{late}");
    assert_eq!(s.cluster.committed(), []);
}

#[tokio::test]
async fn who_gives_up_waits_for_what_a_failure_has_begun_to_throw_away() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    s.cluster.hold("abort");
    drop(a);
    soon(s.cluster.is_held()).await;
    let giving_up = tokio::spawn({
        let witness = s.witness.clone();
        async move { witness.give_up("fraud", &incarnation(1)).await }
    });
    settled().await;
    assert!(!giving_up.is_finished());
    s.cluster.let_go();
    soon(giving_up).await.unwrap();
    assert_eq!(s.cluster.story(), ["begin 0", "abort 0"], "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decision_that_fails_before_the_commit_is_thrown_away() {
    for call in ["send", "begin", "room"] {
        let s = Setting::new().await;
        let mut a = s.writer(&s.a).await;
        if call != "begin" {
            a.write(row(1)).await.unwrap();
        }
        a.stage(Epoch(1)).await.unwrap();
        if call == "room" {
            // There is none, until who waits for it is dropped.
            s.cluster.is_full_for(usize::MAX);
            s.cluster.hold("room");
            let witness = s.witness.clone();
            let deciding = tokio::spawn(async move { witness.decide(&marker(1, 1)).await });
            soon(s.cluster.is_held()).await;
            deciding.abort();
            assert!(soon(deciding).await.unwrap_err().is_cancelled());
        } else {
            s.cluster.fail(call);
            s.witness.decide(&marker(1, 1)).await.unwrap_err();
        }
        s.witness.give_up("fraud", &incarnation(1)).await;
        let story: &[&str] = if call == "begin" { &[] } else { &["begin 0", "flush 0", "abort 0"] };
        assert_eq!(s.cluster.story(), story, "{call}");
    }
}

#[tokio::test]
async fn a_commit_that_was_asked_for_is_not_thrown_away_when_the_job_has_ended() {
    let s = Setting::new().await;
    let mut a = s.writer(&s.a).await;
    a.write(row(1)).await.unwrap();
    a.stage(Epoch(1)).await.unwrap();
    s.cluster.fail("commit");
    s.witness.decide(&marker(1, 1)).await.unwrap_err();
    s.witness.give_up("fraud", &incarnation(1)).await;
    assert_eq!(s.cluster.story(), ["begin 0", "flush 0", "flush 0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_starts_at_once_one_has_both_producers() {
    for round in 0..50 {
        let s = Setting::new().await;
        let fence = |nonce| {
            let witness = s.witness.clone();
            tokio::spawn(async move { witness.fence("fraud", &incarnation(nonce), &[]).await })
        };
        s.cluster.hold("init");
        let (one, other) = (fence(2), fence(3));
        soon(s.cluster.is_held()).await;
        s.cluster.let_go();
        soon(one).await.unwrap().unwrap();
        soon(other).await.unwrap().unwrap();
        // Those of one start in any order, and both before those of the other.
        let mut story = s.cluster.story();
        story.chunks_mut(2).for_each(|start| start.sort_unstable());
        assert_eq!(story, ["init 0", "init 1", "init 0", "init 1"], "round {round}");
        let mut won = 0;
        for nonce in [2, 3] {
            let Ok(mut a) = s.a.writer(&incarnation(nonce), 0, schema()).await else { continue };
            won += 1;
            for epoch in 1..3 {
                a.write(row(epoch)).await.unwrap();
                a.stage(Epoch(epoch.unsigned_abs())).await.unwrap();
                s.witness.decide(&marker(nonce, epoch.unsigned_abs())).await.unwrap();
            }
        }
        assert_eq!((won, s.cluster.values("a").len()), (1, 2), "round {round}");
    }
}
