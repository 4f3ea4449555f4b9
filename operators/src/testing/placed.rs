//! Holds tasks to what [`Plan::keyed_output`](crate::Plan::keyed_output) says of them, which an exchange is left out for.
//!
//! ```text
//!   task 1 of 3 ── a row ──────────────────► would an exchange by these columns send it to task 1?
//!               ── given 7, promised 5 ────► has another task that was given 7 promised 5?
//! ```

use std::collections::BTreeMap;

use super::arrivals::Message;
use crate::{KeyedOutput, Timestamp, key::Partitioner};

pub(super) struct Placed {
    /// One for each key that the rows are said to be with their tasks by.
    exchanges: Vec<(Vec<usize>, Partitioner)>,
    /// What was promised at each time.
    promised: BTreeMap<Timestamp, Timestamp>,
}

impl Placed {
    pub(super) fn new(output: &KeyedOutput, tasks: usize) -> Self {
        let exchange = |key: Vec<usize>| (key.clone(), Partitioner::new(key, tasks));
        Self { exchanges: output.keys().into_iter().map(exchange).collect(), promised: BTreeMap::new() }
    }

    /// What a task has emitted.
    pub(super) fn emitted(&mut self, task: usize, emitted: &[Message]) -> Result<(), String> {
        for message in emitted {
            let Message::Batch(batch) = message else { continue };
            for (key, exchange) in &mut self.exchanges {
                let parts = exchange.split(batch).map_err(|error| error.to_string())?;
                if let Some((other, part)) =
                    parts.into_iter().find(|(other, part)| *other != task && part.num_rows() > 0)
                {
                    let rows = part.num_rows();
                    return Err(format!(
                        "task {task} emitted {rows} rows that an exchange by the columns {key:?} would send to task {other}, although \
                         the plan says that they are where they are by these (keyed_output)"
                    ));
                }
            }
        }
        Ok(())
    }

    /// What a task has promised at a time that it was given.
    pub(super) fn promised(&mut self, given: Timestamp, promise: Timestamp) -> Result<(), String> {
        let other = *self.promised.entry(given).or_insert(promise);
        match other == promise {
            true => Ok(()),
            false => Err(format!(
                "given {given}, one task promised {other} and another {promise}, although what follows is said to need no exchange \
                 (keyed_output): its tasks would go on at different times"
            )),
        }
    }
}
