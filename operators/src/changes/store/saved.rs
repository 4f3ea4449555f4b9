//! The pieces of a store as the segments of a checkpoint.

use arrow::array::RecordBatch;

use super::Newest;
use crate::{
    OperatorError, Result,
    bytes::own_bytes,
    state::{StateReader, StateWriter},
};

impl Newest {
    /// Seals what is new and names what is not. `segment` gives rows the columns of a segment.
    pub(crate) fn save(
        &mut self,
        state: &mut StateWriter<'_>,
        segment: impl Fn(&RecordBatch) -> Result<RecordBatch>,
    ) -> Result<()> {
        for at in 0..self.pieces.len() {
            let piece = &self.pieces[at];
            if let Some(id) = piece.segment {
                state.keep(id);
                continue;
            }
            // A dead row must not be sealed: its key may have gone without a word.
            if piece.held < piece.rows.num_rows() {
                self.merge(at..at + 1)?;
            }
            let rows = segment(&self.pieces[at].rows)?;
            let columns = rows.columns().iter().cloned().map(own_bytes).collect();
            self.pieces[at].segment = Some(state.seal(RecordBatch::try_new(rows.schema(), columns)?));
        }
        Ok(())
    }

    /// Takes what former tasks left. `rows` gives the rows of a segment that are this store's, or `None`.
    pub(crate) fn load(
        &mut self,
        state: &StateReader,
        rows: impl Fn(&RecordBatch) -> Result<Option<RecordBatch>>,
    ) -> Result<()> {
        // Segments of several tasks are written again: their numbers are of different tasks.
        let one = state.parts.iter().filter(|part| !part.segments.is_empty()).count() == 1;
        for (id, segment) in state.parts.iter().flat_map(|part| &part.segments) {
            let Some(rows) = rows(segment)?.filter(|rows| rows.num_rows() > 0) else { continue };
            if rows.schema_ref().fields().len() != self.columns.fields().len() {
                return Err(OperatorError::Internal("a segment has other columns than its operator".into()));
            }
            let keys = self.encode(self.key(&rows))?;
            let found = self.find(&keys, rows.num_rows());
            self.add(rows, &keys, &found, one.then_some(*id))?;
        }
        self.tidy()
    }
}
