//! A sink that keeps nothing but sums of what it is given: cheap, and the optimiser cannot leave the results out.

use std::sync::{Arc, Mutex, PoisonError};

use windrow::{
    arrow::{array::RecordBatch, datatypes::SchemaRef},
    connectors::{ConnectorError, Epoch, Incarnation, Receipt, Sink, SinkWriter},
};

/// Adds up `N` figures of all results of a job.
#[derive(Clone)]
pub struct AddUp<const N: usize> {
    add: fn(&mut [i64; N], &RecordBatch),
    total: Arc<Mutex<[i64; N]>>,
}

impl<const N: usize> AddUp<N> {
    /// `add` adds the figures of a batch.
    pub fn new(add: fn(&mut [i64; N], &RecordBatch)) -> Self {
        Self { add, total: Arc::new(Mutex::new([0; N])) }
    }

    /// The sums, once the job has ended.
    pub fn total(&self) -> [i64; N] {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer<const N: usize> {
    own: [i64; N],
    shared: AddUp<N>,
}

#[async_trait::async_trait]
impl<const N: usize> Sink for AddUp<N> {
    fn name(&self) -> String {
        "sums".into()
    }

    fn accepts(&self, _: &SchemaRef) -> Result<(), ConnectorError> {
        Ok(())
    }

    fn accepts_changes(&self, _: &SchemaRef, _: &[usize]) -> Result<(), ConnectorError> {
        Ok(())
    }

    async fn writer(&self, _: &Incarnation, _: usize, _: SchemaRef) -> Result<Box<dyn SinkWriter>, ConnectorError> {
        Ok(Box::new(Writer { own: [0; N], shared: self.clone() }))
    }
}

#[async_trait::async_trait]
impl<const N: usize> SinkWriter for Writer<N> {
    async fn write(&mut self, batch: RecordBatch) -> Result<(), ConnectorError> {
        (self.shared.add)(&mut self.own, &batch);
        Ok(())
    }

    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>, ConnectorError> {
        let mut total = self.shared.total.lock().unwrap_or_else(PoisonError::into_inner);
        for (total, own) in total.iter_mut().zip(std::mem::replace(&mut self.own, [0; N])) {
            *total += own;
        }
        Ok(Vec::new())
    }
}
