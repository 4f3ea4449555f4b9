//! The decoder, and what it remembers of a registry.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::RecordBatch,
    datatypes::{Fields, SchemaRef},
};
use prost_reflect::{FileDescriptor, MessageDescriptor};

use super::{
    plan::{For, Plan},
    schema::{compile, message_at, read_indexes},
    walk::{self, Scratch},
};
use crate::{
    ConnectorError, Result, SchemaRegistry,
    format::{
        Decoder, Frame, Span,
        columns::{Columns, Medium},
        config,
    },
    registry::SchemaKind,
};

/// How many schemas, and messages of them, are remembered. More are asked for again.
const MAX_KNOWN: usize = 1_000;

/// Decodes messages; made by [`Protobuf::decoder`](super::Protobuf::decoder), which has an example.
///
/// With a registry, a message is rejected if it has no frame or an id that the registry has no Protobuf schema for, or
/// one whose fields do not go into the columns; if the registry does not answer, [`Decoder::failure`] says so.
#[derive(Debug)]
pub struct ProtobufDecoder {
    schema: SchemaRef,
    columns: Columns,
    plans: Plans,
    scratch: Scratch,
    failure: Option<ConnectorError>,
}

#[derive(Debug)]
enum Plans {
    One(Arc<Plan>),
    Registry(Box<Known>),
}

impl ProtobufDecoder {
    pub(super) fn plain(schema: SchemaRef, message: &MessageDescriptor) -> Result<Self> {
        let plan = Plan::new(message, schema.fields(), "", For::Reading).map_err(config)?;
        Self::new(schema, Plans::One(Arc::new(plan)))
    }

    pub(super) fn framed(schema: SchemaRef, registry: SchemaRegistry) -> Result<Self> {
        let known = Known { registry, files: HashMap::new(), plans: HashMap::new() };
        Self::new(schema, Plans::Registry(Box::new(known)))
    }

    fn new(schema: SchemaRef, plans: Plans) -> Result<Self> {
        let columns = Columns::new(schema.fields(), "", Medium::Binary)?;
        Ok(Self { schema, columns, plans, scratch: Scratch::default(), failure: None })
    }

    fn decode(&mut self, record: &[u8]) -> Result<(), String> {
        let (plan, message) = match &mut self.plans {
            Plans::One(plan) => (plan.clone(), record),
            Plans::Registry(known) => known.plan(record, self.schema.fields(), &mut self.failure)?,
        };
        self.scratch.begin(message.len());
        walk::message(&plan, message, &mut self.columns, &mut self.scratch).map_err(walk::Fault::explain)
    }
}

impl Decoder for ProtobufDecoder {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Messages have no end of their own, so bytes in a row are not records.
    fn frame(&mut self, bytes: &[u8], _last: bool) -> Frame {
        if bytes.is_empty() {
            return Frame::More;
        }
        let span = Span { end: bytes.len(), next: bytes.len(), lines: 0 };
        Frame::Bad(
            span,
            "messages of Protocol Buffers have no end of their own: they are read from topics, not from files",
        )
    }

    fn push(&mut self, record: &[u8]) -> Result<(), String> {
        self.failure = None;
        let rows = self.columns.rows();
        self.decode(record).inspect_err(|_| self.columns.truncate(rows))
    }

    fn failure(&mut self) -> Option<ConnectorError> {
        self.failure.take()
    }

    fn len(&self) -> usize {
        self.columns.rows()
    }

    fn bytes(&self) -> usize {
        self.columns.bytes()
    }

    fn flush(&mut self) -> Result<RecordBatch> {
        self.columns.batch(&self.schema)
    }
}

/// What is known of a registry.
#[derive(Debug)]
struct Known {
    registry: SchemaRegistry,
    /// By id.
    files: HashMap<u32, Result<FileDescriptor, String>>,
    /// By the bytes between the first one and the message: id and which message of the schema.
    plans: HashMap<Vec<u8>, Result<Arc<Plan>, String>>,
}

impl Known {
    /// The plan for a framed message, and the message.
    fn plan<'a>(
        &mut self,
        record: &'a [u8],
        columns: &Fields,
        failure: &mut Option<ConnectorError>,
    ) -> Result<(Arc<Plan>, &'a [u8]), String> {
        let Some((0, framed)) = record.split_first().map(|(magic, framed)| (*magic, framed)) else {
            return Err(
                "it does not begin with the byte 0 that stands before the id of a schema in a registry".to_string()
            );
        };
        let Some((id, behind)) = framed.split_first_chunk() else {
            return Err("it ends within the id of its schema".to_string());
        };
        let id = u32::from_be_bytes(*id);
        let (path, length) = read_indexes(behind)?;
        let (frame, message) = framed.split_at(size_of::<u32>() + length);
        if let Some(known) = self.plans.get(frame) {
            return Ok((known.clone()?, message));
        }
        let plan = self.file(id, failure)?.and_then(|file| {
            let Some(message) = message_at(&file, &path) else {
                return Err(format!("it is said to be the message {path:?} of schema {id}, which has none there"));
            };
            let plan = Plan::new(&message, columns, "", For::Evolving);
            plan.map(Arc::new).map_err(|reason| format!("schema {id}: {reason}"))
        });
        if self.plans.len() >= MAX_KNOWN {
            self.plans.clear();
        }
        self.plans.insert(frame.to_vec(), plan.clone());
        Ok((plan?, message))
    }

    /// The schema with this id, or what is wrong with it. An error is for this record alone.
    fn file(
        &mut self,
        id: u32,
        failure: &mut Option<ConnectorError>,
    ) -> Result<Result<FileDescriptor, String>, String> {
        if let Some(file) = self.files.get(&id) {
            return Ok(file.clone());
        }
        let found = match self.registry.schema(id) {
            Ok(found) => found?,
            Err(error) => {
                let reason = format!("the registry did not answer for schema {id}: {error}");
                *failure = Some(error);
                return Err(reason);
            }
        };
        let file = match found.kind {
            SchemaKind::Protobuf => {
                compile(&found.as_ref().into()).map_err(|reason| format!("schema {id} does not compile: {reason}"))
            }
            kind => Err(format!("schema id {id} is {kind}, not Protobuf")),
        };
        if self.files.len() >= MAX_KNOWN {
            self.files.clear();
        }
        self.files.insert(id, file.clone());
        Ok(file)
    }
}
