//! Two incarnations of a job at once: one sleeps in the middle of the protocol, another takes its place, and then the first
//! wakes up. The lock forbids this on a local disk; here it is removed, as if the store had none.
//!
//! Whichever step the first one sleeps in: when it wakes it says that it was replaced, publishes nothing, and does not
//! disturb the other, whose answer is right.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use tests::topic::Topic;
use windrow::{CheckpointError, Error, Faults, prelude::*};

use super::{
    lives::{place, start},
    scenario::{JOB, Outputs, Scenario, schema},
};

/// Where the first one sleeps, and whether it is in a restart by then.
pub const SLEEPS: [(&str, usize); 5] = [
    ("K4 manifest begun", 2),
    ("K13 R1 generation", 1),
    ("K5 prepared", 2),
    ("K8 decided", 2),
    ("K2 segments written", 2),
];

/// Sleeps at `point`, is replaced, wakes up. `None` if the job never came to that point.
pub fn run(seed: u64, sleep: (&'static str, usize), faults: Faults) -> Result<Option<()>, String> {
    run_to(Scenario::new(seed), sleep, faults, Outputs::default())
}

/// As [`run`], with this scenario and to there.
pub fn run_to(
    scenario: Scenario,
    (point, pass): (&'static str, usize),
    faults: Faults,
    to: Outputs,
) -> Result<Option<()>, String> {
    let seed = scenario.seed;
    let scenario = Arc::new(scenario);
    let directory = place();
    let store = directory.path().to_str().unwrap().to_string();
    let (asleep, is_asleep) = mpsc::channel();
    let (wake, woken) = mpsc::channel();
    let (passed, woken, asleep_too) = (AtomicUsize::new(0), Mutex::new(woken), asleep.clone());
    let sleeping = faults.clone().at_points(move |at| {
        if at == point && passed.fetch_add(1, SeqCst) + 1 == pass {
            asleep.send(true).unwrap();
            let _ = woken.lock().unwrap().recv();
        }
    });
    let first = thread::spawn({
        let (scenario, store, to) = (scenario.clone(), store.clone(), to.clone());
        move || {
            let ended = tests::on_two_threads(sleeping.during(async {
                let run = async { scenario.job(&store, scenario.parallelism, &to).start().await?.wait().await };
                // Some scenarios are silent at their end and come to the point or do not.
                tokio::time::timeout(Duration::from_secs(10), run).await
            }));
            let _ = asleep_too.send(false);
            ended
        }
    });
    let comes = is_asleep.recv_timeout(Duration::from_millis(500)).unwrap_or(false);
    if !comes {
        drop(wake);
        scenario.speak_last();
        let _ = first.join();
        return Ok(None);
    }
    std::fs::remove_file(directory.path().join(JOB).join("LOCK")).unwrap();
    let said = |what: &str, wrong: &dyn std::fmt::Display| format!("seed {seed}, asleep at {point}: {what}: {wrong}");
    let second = tests::on_two_threads(faults.during(async {
        let patience = Duration::from_secs(5);
        let running = start(|| scenario.job(&store, 2, &to)).await.map_err(|error| said("the second", &error))?;
        wake.send(()).map_err(|_| said("the first", &"it is gone"))?;
        scenario.speak_last();
        let ended = tokio::time::timeout(patience, running.wait()).await;
        ended.map_err(|_| said("the second", &"it hangs"))?.map_err(|error| said("the second", &error))
    }));
    let first = first.join().map_err(|_| said("the first", &"it panicked"))?;
    second?;
    match first {
        Ok(Err(Error::Checkpoint { error: CheckpointError::Fenced { .. }, .. })) => {}
        Ok(Err(error)) => return Err(said("the first", &error)),
        Ok(Ok(_)) => return Err(said("the first", &"it came to its end as if nothing had happened")),
        Err(_) => return Err(said("the first", &"it goes on")),
    }
    scenario.check(&to).map_err(|wrong| said("the answer", &wrong))?;
    Ok(Some(()))
}

/// Nothing is read any more, so there is nothing to save, and no checkpoint that would fail.
#[test]
fn an_incarnation_that_is_idle_notices_all_the_same_that_it_was_replaced() {
    let (directory, out) = (place(), MemorySink::new());
    let topic = Topic::new(schema(), 1, hours(1));
    let job = || {
        let job = Job::new("idle").checkpoint(directory.path().to_str().unwrap(), millis(20));
        job.source(topic.clone()).sink(out.clone());
        job
    };
    tests::on_two_threads(async {
        let first = job().start().await.unwrap();
        while first.handle().metrics().checkpoints.completed == 0 {
            tokio::time::sleep(millis(1)).await;
        }
        std::fs::remove_file(directory.path().join("idle/LOCK")).unwrap();
        let second = job().start().await.unwrap();
        match first.wait().await {
            Err(Error::Checkpoint { error: CheckpointError::Fenced { .. }, .. }) => {}
            other => panic!("{other:?}"),
        }
        second.handle().stop();
        assert!(second.wait().await.unwrap().stopped);
    });
}

#[test]
fn an_incarnation_that_wakes_up_behind_another_says_so_and_publishes_nothing() {
    let mut slept = 0;
    for seed in 0..4 {
        for sleep in SLEEPS {
            let done = run(seed, sleep, Faults::default()).unwrap_or_else(|wrong| panic!("{wrong}"));
            slept += usize::from(done.is_some());
        }
    }
    assert!(slept > 10, "only {slept} of 20 slept");
}
