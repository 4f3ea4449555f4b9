//! The generator as a source: events are made as they are asked for, and a run includes what that costs.

use std::{collections::VecDeque, ops::Range};

use async_trait::async_trait;
use windrow::{
    arrow::datatypes::SchemaRef,
    connectors::{ConnectorError, Fetch, Position, Rows, Source, SourceReader, SplitId, TypedSource, Untyped},
};

use super::{Events, Kind, columns::batch};

/// Some columns of the events of one kind.
#[derive(Clone)]
pub(super) struct Inline {
    pub(super) events: Events,
    pub(super) kind: Kind,
    pub(super) columns: Vec<usize>,
}

struct Split {
    id: SplitId,
    /// What is still to come.
    batches: VecDeque<Range<u64>>,
    next: Position,
}

struct Reader {
    source: Inline,
    splits: VecDeque<Split>,
}

impl Inline {
    fn ids(&self) -> impl Iterator<Item = SplitId> {
        (0..self.events.splits).map(|split| SplitId::new(split.to_string()))
    }
}

#[async_trait]
impl Source for Inline {
    fn name(&self) -> String {
        format!("generated {:?}s", self.kind)
    }

    fn schema(&self) -> Result<SchemaRef, ConnectorError> {
        Ok(batch(self.kind, Vec::new())?.project(&self.columns)?.schema())
    }

    async fn splits(&self) -> Result<Vec<SplitId>, ConnectorError> {
        Ok(self.ids().collect())
    }

    async fn reader(
        &self,
        assigned: Vec<(SplitId, Option<Position>)>,
    ) -> Result<Box<dyn SourceReader>, ConnectorError> {
        let splits = assigned.into_iter().filter_map(|(id, position)| {
            let number = self.ids().position(|known| known == id)?;
            let next = position.unwrap_or_default();
            let batches = self.events.batches().skip(number).step_by(self.events.splits);
            Some(Split { id, batches: batches.skip(next.0 as usize).collect(), next })
        });
        Ok(Box::new(Reader { source: self.clone(), splits: splits.collect() }))
    }
}

impl TypedSource for Inline {
    type Row = Untyped;
}

#[async_trait]
impl SourceReader for Reader {
    async fn fetch(&mut self) -> Result<Fetch, ConnectorError> {
        let Some(mut split) = self.splits.pop_front() else { return Ok(Fetch::End) };
        let Some(positions) = split.batches.pop_front() else { return Ok(Fetch::SplitEnd(split.id)) };
        let Inline { events, kind, columns } = &self.source;
        let batch = batch(*kind, events.of(*kind, positions))?.project(columns)?;
        split.next = Position(split.next.0 + 1);
        let (id, next) = (split.id.clone(), split.next);
        // The splits take turns.
        self.splits.push_back(split);
        Ok(Fetch::Rows(Rows { split: id, batch, rejected: Vec::new(), passed_over: 0, next, origins: None }))
    }
}
