//! Where partitions begin that have appeared, or could not be read when the reader began, found out without keeping those waiting
//! that are read.
//!
//! ```text
//!   KafkaReader::add ──► a thread, with a client of its own ──► which brokers lead them? ──► the first leader: offsets ──┐
//!        ▲                                                        └ none: not now            the next leader: …          │
//!        └── what is known after half a second; the rest when it is asked again ◄────────────────────────────────────────┘
//! ```
//!
//! One thread and one client ask for all of them, and are kept while there is something to ask again: a partition may have no leader
//! for as long as its broker is away. Who has not answered keeps others waiting once: then its leader is asked last.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc as std_mpsc},
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, error::TryRecvError, unbounded_channel},
    time::Instant,
};

use super::{
    feed::{Feed, Partition},
    plan::Plan,
    reader::{Ends, thread_ended},
    start::{self, Assigned, Begin, Unknown},
};
use crate::{ConnectorError, Result};

/// So long the reading stands still for an answer. Most come within milliseconds.
const SOON: Duration = Duration::from_millis(500);

/// Before anything is read, so long it is asked again.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the thread says: where one begins, or why that is not known; or that nothing else will help.
type Answer = Result<(Partition, Result<Begin, Unknown>)>;

/// A question, and where its answers go: each as soon as it is there.
struct Question {
    of: Vec<Assigned>,
    answers: UnboundedSender<Answer>,
}

/// Answers questions until there will be no more. Blocks.
type Serve = dyn FnOnce(std_mpsc::Receiver<Question>) + Send + Sync;

pub(super) struct Appeared {
    /// What the thread does that asks; none once there is one.
    serve: Option<Box<Serve>>,
    /// To that thread.
    questions: Option<std_mpsc::Sender<Question>>,
    /// What is known of those that are not read yet.
    found: BTreeMap<Partition, Begin>,
    /// Why others could not be found out.
    reasons: BTreeMap<Partition, Unknown>,
    /// Of the question that is being asked.
    answers: Option<UnboundedReceiver<Answer>>,
}

impl Appeared {
    /// Asks with a feed that `open` makes, and that is kept as long as there is something to ask again.
    pub(super) fn new<F: Feed>(
        plan: &Plan,
        open: Arc<impl Fn(Option<Ends>) -> Result<F> + Send + Sync + 'static>,
    ) -> Self {
        let plan = plan.clone();
        let serve = move |questions: std_mpsc::Receiver<Question>| {
            let (mut kept, mut hung) = (None, BTreeSet::new());
            for Question { of, answers } in questions {
                // The reader may be gone.
                let say = |answer| drop(answers.send(answer));
                let mut left = of.len();
                let feed = match &mut kept {
                    Some(feed) => Ok(feed),
                    none => open(None).map(|feed| none.insert(feed)),
                };
                let asked = feed.and_then(|feed| {
                    start::find(feed, &plan, &of, &mut hung, |at, answer| {
                        left -= usize::from(answer.is_ok());
                        say(Ok((at, answer)));
                    })
                });
                match asked {
                    Ok(()) => {}
                    Err(ConnectorError::Remote { reason, passes: true, .. }) => {
                        of.iter().for_each(|of| say(Ok((of.at, Err(Unknown::unanswered(reason.clone()))))));
                    }
                    Err(error) => say(Err(error)),
                }
                drop(answers);
                if left == 0 {
                    kept = None;
                }
            }
        };
        let (found, reasons) = (BTreeMap::new(), BTreeMap::new());
        Self { serve: Some(Box::new(serve)), questions: None, found, reasons, answers: None }
    }

    /// Where these begin, as far as it is known; and the others, with the reasons. `waits`: nothing is read yet, so there is time for
    /// the answer.
    pub(super) async fn find(
        &mut self,
        plan: &Plan,
        of: &[Assigned],
        waits: bool,
    ) -> Result<(Vec<Begin>, start::PutOff)> {
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
        let left = self.unknown(of).unwrap_or_default().into_iter().map(|left| (left, self.reason(plan, left.at)));
        let left = left.collect();
        Ok((of.iter().filter_map(|assigned| self.found.remove(&assigned.at)).collect(), left))
    }

    fn reason(&self, plan: &Plan, at: Partition) -> Unknown {
        let split = at.split(&plan.topics);
        match self.reasons.get(&at) {
            Some(why) => {
                Unknown { reason: format!("where {split} begins is not known: {}", why.reason), ..why.clone() }
            }
            None => Unknown::unanswered(format!("the cluster has not said yet where {split} begins")),
        }
    }

    fn unknown(&self, of: &[Assigned]) -> Option<Vec<Assigned>> {
        let unknown: Vec<Assigned> = of.iter().filter(|of| !self.found.contains_key(&of.at)).copied().collect();
        Some(unknown).filter(|unknown| !unknown.is_empty())
    }

    fn begin(&mut self, plan: &Plan, of: Vec<Assigned>) -> Result<()> {
        if let Some(serve) = self.serve.take() {
            let (questions, asked) = std_mpsc::channel();
            std::thread::Builder::new()
                .name("windrow-kafka".into())
                .spawn(move || serve(asked))
                .map_err(|error| ConnectorError::io("start a thread for", plan.name(), error))?;
            self.questions = Some(questions);
        }
        let (say, answers) = unbounded_channel();
        let asked = self.questions.as_ref().map(|questions| questions.send(Question { of, answers: say }));
        asked.and_then(Result::ok).ok_or_else(|| thread_ended(plan))?;
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

    fn hear(&mut self, answer: Answer) -> Result<()> {
        match answer? {
            (at, Ok(begin)) => {
                self.reasons.remove(&at);
                self.found.insert(at, begin);
            }
            (at, Err(why)) => drop(self.reasons.insert(at, why)),
        }
        Ok(())
    }
}
