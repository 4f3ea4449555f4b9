//! Where partitions begin that have appeared, found out without keeping those waiting that are read.
//!
//! ```text
//!   KafkaReader::add ──► a thread, with a client of its own ──► which brokers lead them? ──► the first leader: offsets ──┐
//!        ▲                                                        └ none: not now            the next leader: …          │
//!        └── what is known after half a second; the rest when it is asked again ◄────────────────────────────────────────┘
//! ```
//!
//! A partition that has just been made may have no leader, for a moment or for as long as its broker is away.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel},
    time::Instant,
};

use super::{
    feed::{Feed, Partition},
    plan::Plan,
    reader::Ends,
    start::{self, Begin},
};
use crate::{ConnectorError, Result};

/// So long the reading stands still for an answer. Most come within milliseconds.
const SOON: Duration = Duration::from_millis(500);

/// Before anything is read, so long it is asked again.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the thread says: where one begins, or why that is not known.
type Answer = (Partition, Result<Begin>);

/// Asks the cluster, and says each answer as soon as it is there. Blocks.
type Ask = dyn Fn(&[Partition], &UnboundedSender<Answer>) + Send + Sync;

pub(super) struct Appeared {
    ask: Arc<Ask>,
    /// What is known of those that are not read yet.
    found: BTreeMap<Partition, Begin>,
    /// Why others could not be found out, in words.
    reasons: BTreeMap<Partition, String>,
    /// Of the thread that asks, while it does.
    answers: Option<UnboundedReceiver<Answer>>,
}

impl Appeared {
    /// Asks with feeds that `open` makes.
    pub(super) fn new<F: Feed>(
        plan: &Plan,
        open: Arc<impl Fn(Option<Ends>) -> Result<F> + Send + Sync + 'static>,
    ) -> Self {
        let plan = plan.clone();
        let ask = move |of: &[Partition], say: &UnboundedSender<Answer>| {
            // The reader may be gone.
            let say = |at, answer| drop(say.send((at, answer)));
            match open(None) {
                Ok(mut feed) => start::from_first(&mut feed, &plan, of, say),
                Err(error) => start::say_of_all(of, error, say),
            }
        };
        Self { ask: Arc::new(ask), found: BTreeMap::new(), reasons: BTreeMap::new(), answers: None }
    }

    /// Where these begin: all of them, or an error that passes. `waits`: nothing is read yet, so there is time for the answer.
    pub(super) async fn find(&mut self, plan: &Plan, of: &[Partition], waits: bool) -> Result<Vec<Begin>> {
        while let Some(answers) = &mut self.answers {
            match answers.try_recv() {
                Ok(answer) => self.hear(answer)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => self.answers = None,
            }
        }
        let begun = Instant::now();
        while let Some(unknown) = self.unknown(of).filter(|_| self.answers.is_none()) {
            self.begin(plan, unknown)?;
            if !waits {
                // What comes later is there when it is asked again.
                tokio::time::timeout(SOON, self.hear_all()).await.unwrap_or(Ok(()))?;
                break;
            }
            self.hear_all().await?;
            if begun.elapsed() >= PATIENCE || self.unknown(of).is_none() {
                break;
            }
            tokio::time::sleep(SOON).await;
        }
        if let Some(at) = of.iter().find(|at| !self.found.contains_key(at)) {
            let split = at.split(&plan.topics);
            let reason = match self.reasons.get(at) {
                Some(reason) => format!("where {split} begins is not known: {reason}"),
                None => format!("the cluster has not said yet where {split} begins"),
            };
            return Err(ConnectorError::Remote { system: plan.topic(at.topic), reason, passes: true });
        }
        Ok(of.iter().filter_map(|at| self.found.remove(at)).collect())
    }

    fn unknown(&self, of: &[Partition]) -> Option<Vec<Partition>> {
        let unknown: Vec<Partition> = of.iter().filter(|at| !self.found.contains_key(at)).copied().collect();
        Some(unknown).filter(|unknown| !unknown.is_empty())
    }

    fn begin(&mut self, plan: &Plan, of: Vec<Partition>) -> Result<()> {
        let (say, answers) = unbounded_channel();
        let ask = self.ask.clone();
        std::thread::Builder::new()
            .name("windrow-kafka".into())
            .spawn(move || ask(&of, &say))
            .map_err(|error| ConnectorError::io("start a thread for", plan.name(), error))?;
        self.answers = Some(answers);
        Ok(())
    }

    /// Waits until the thread has said everything. Cancel-safe.
    async fn hear_all(&mut self) -> Result<()> {
        while let Some(answers) = &mut self.answers {
            match answers.recv().await {
                Some(answer) => self.hear(answer)?,
                None => self.answers = None,
            }
        }
        Ok(())
    }

    fn hear(&mut self, (at, answer): Answer) -> Result<()> {
        match answer {
            Ok(begin) => {
                self.reasons.remove(&at);
                self.found.insert(at, begin);
            }
            Err(ConnectorError::Remote { reason, passes: true, .. }) => {
                self.reasons.insert(at, reason);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
