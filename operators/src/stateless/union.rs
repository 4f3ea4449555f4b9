//! The rows of several inputs as one stream.

use arrow::array::RecordBatch;

use crate::{Operator, Outbox, Port, Result};

/// Passes rows on as they come. Its caller has merged the inputs and their watermarks; what remains is to answer for the
/// rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Union;

impl Operator for Union {
    fn process(&mut self, _port: Port, batch: RecordBatch, out: &mut Outbox) -> Result<()> {
        out.processed(batch.num_rows());
        out.emit(batch);
        Ok(())
    }
}
