//! How a task that holds more than it should keeps the sources before it from reading.
//!
//! ```text
//!   source ──► … ──► async task: reads on until the barrier that is wanted has come, and calls slowly
//!      ▲                │ has more rows waiting than a channel holds
//!      └──── Brake ◄────┘
//! ```
//!
//! A full channel does the same from message to message. But a barrier has to get through, and each that does brings the
//! rows before it along; without a brake slow calls and many checkpoints would gather rows without end. A source that brakes
//! takes barriers and stops.

use tokio::sync::watch;

/// A task's hand on the brake of the sources before it.
pub(crate) struct Brake {
    /// Of each source: how many tasks brake it.
    sources: Vec<watch::Sender<usize>>,
    on: bool,
}

impl Brake {
    pub(crate) fn new(sources: Vec<watch::Sender<usize>>) -> Self {
        Self { sources, on: false }
    }

    /// Brakes, or lets go.
    pub(crate) fn set(&mut self, on: bool) {
        if std::mem::replace(&mut self.on, on) == on {
            return;
        }
        for source in &self.sources {
            source.send_modify(|braking| *braking = if on { *braking + 1 } else { *braking - 1 });
        }
    }
}

impl Drop for Brake {
    /// A task that has ended holds nothing.
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_braked_until_the_last_lets_go() {
        let (one, other) = (watch::Sender::new(0), watch::Sender::new(0));
        let mut first = Brake::new(vec![one.clone()]);
        let mut second = Brake::new(vec![one.clone(), other.clone()]);
        first.set(true);
        second.set(true);
        second.set(true);
        assert_eq!((*one.borrow(), *other.borrow()), (2, 1));
        first.set(false);
        assert_eq!((*one.borrow(), *other.borrow()), (1, 1));
        drop(second);
        assert_eq!((*one.borrow(), *other.borrow()), (0, 0));
    }
}
