//! A source of which one batch is ready at a time.
//!
//! Small batches that are ready are taken through a job as one. A test that is about batches has to know where they begin and end.

use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{
        ConnectorError, Fetch, MemorySource, Position, Source, SourceReader, SplitId, TypedSource, Untyped, async_trait,
    },
};

/// What it holds, batch by batch.
pub struct OneByOne(pub MemorySource);

#[async_trait]
impl Source for OneByOne {
    fn name(&self) -> String {
        self.0.name()
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Source::schema(&self.0)
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Source::splits(&self.0).await
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        Ok(Box::new(Reader { reader: self.0.reader(assigned).await?, waited: false }))
    }
}

impl TypedSource for OneByOne {
    type Row = Untyped;
}

struct Reader {
    reader: Box<dyn SourceReader>,
    /// Whether it has not been ready since its last batch.
    waited: bool,
}

#[async_trait]
impl SourceReader for Reader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        if !std::mem::replace(&mut self.waited, true) {
            tokio::task::yield_now().await;
        }
        let fetched = self.reader.fetch().await;
        self.waited = false;
        fetched
    }

    fn pause(&mut self, splits: &[SplitId]) -> bool {
        self.reader.pause(splits)
    }
}
