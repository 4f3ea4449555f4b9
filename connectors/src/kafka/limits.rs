//! The largest records that topics take, asked once at each start of a job, however many tasks want to know.
//!
//! ```text
//!   fence  ──► the topics of its exactly-once sinks ─┐                             │ no: those of a fence in one request
//!   writer ──► its topic ────────────────────────────┴─► known for this start? ────┴──► Cluster::largest_records
//! ```
//!
//! A broker refuses a batch that is larger than its topic takes, and with it the job fails: so producers make none, and dead letters
//! are cut to fit. All topics of one transaction are written by one producer, which therefore has to know them before it is made.
//! That nobody answered is not kept: who comes next asks again.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::cluster::Cluster;
use crate::{Incarnation, Result};

/// What is known of the topics that a connection writes to.
#[derive(Default)]
pub(super) struct Limits {
    known: Mutex<BTreeMap<String, (Incarnation, Known)>>,
}

/// The answer at one start of a job; `None` if nobody may say.
type Known = Arc<OnceCell<Option<usize>>>;

impl Limits {
    fn known(&self, topic: &str, incarnation: &Incarnation) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(topic) {
            Some((of, answer)) if of == incarnation => answer.clone(),
            _ => {
                let answer = Known::default();
                known.insert(topic.to_owned(), (incarnation.clone(), answer.clone()));
                answer
            }
        }
    }

    /// The largest record that a topic takes, if that can be found out. Who comes second waits for the answer to the first.
    pub(super) async fn of(
        &self,
        cluster: &dyn Cluster,
        topic: &str,
        incarnation: &Incarnation,
    ) -> Result<Option<usize>> {
        let ask = || async { Ok(cluster.largest_records(&[topic]).await?.remove(topic)) };
        self.known(topic, incarnation).get_or_try_init(ask).await.copied()
    }

    /// The largest record that all these topics take, as far as that can be found out.
    pub(super) async fn of_all(
        &self,
        cluster: &dyn Cluster,
        topics: &[String],
        incarnation: &Incarnation,
    ) -> Result<Option<usize>> {
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        if topics.is_empty() {
            return Ok(None);
        }
        let largest = cluster.largest_records(&topics).await?;
        for topic in topics {
            // Who has asked already has the same answer.
            let _ = self.known(topic, incarnation).set(largest.get(topic).copied());
        }
        Ok(largest.into_values().min())
    }
}
