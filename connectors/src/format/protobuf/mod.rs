//! Protocol Buffers: messages into rows and rows into messages, with or without a schema registry.
//!
//! ```text
//!   without a registry:  │ message │                        the schema is a .proto text or a set of descriptors
//!   with a registry:     │ 0 │ id, 4 bytes │ which message of the schema │ message │        (as Confluent's clients frame)
//!                                  │
//!                                  ▼
//!   SchemaRegistry::schema(id) ──► .proto text ──► descriptor ──┐
//!                                                               ├──► plan: which field goes into which column ──► columns
//!                                             wanted columns ───┘
//! ```
//!
//! A field goes into the column of its name. The schema is *compiled* by `protox` and described by `prost-reflect`; the
//! messages themselves are read by a walk over their bytes, which takes no memory for what nobody asked for: as dynamic
//! messages, 10 MiB of a repeated field would be half a gigabyte.
//!
//! | file | why it exists |
//! |---|---|
//! | `builtin` | files that schemas import and registries do not have |
//! | `schema` | .proto text into a descriptor, with limits; the numbers that say which message of a schema |
//! | `plan` | fields of a message to columns, and which types go together |
//! | `walk` | a message into columns |
//! | `decode` | the decoder, and what it remembers of a registry |
//! | `generate` | columns into .proto text |
//! | `columns` | fields into columns, where nobody says which |
//! | `encode` | the encoder |

use std::{fmt, sync::Arc};

use arrow::datatypes::SchemaRef;
use prost_reflect::{DescriptorPool, MessageDescriptor};

use super::{PayloadFormat, RowEncoder, config, text::alternatives};
use crate::{
    ConnectorError, Result,
    registry::{RegisteredSchema, SchemaKind, SchemaRegistry},
};

mod builtin;
mod columns;
mod decode;
mod encode;
mod generate;
mod plan;
mod schema;
mod walk;

pub use decode::ProtobufDecoder;
pub use encode::ProtobufEncoder;

/// Messages of Protocol Buffers as payloads.
///
/// Columns are found by the names of fields, in nested messages too. What goes together:
///
/// | field | column |
/// |---|---|
/// | whole numbers | any integer; a timestamp, in the column's unit; Date32, in days |
/// | `float`, `double` | Float64; `float` also Float32 |
/// | `bool` | Boolean |
/// | `string` | text; a timestamp or date as RFC 3339 text |
/// | `bytes` | Binary |
/// | an enum | text: the name of the value; any integer: its number |
/// | `google.protobuf.Timestamp` | a timestamp |
/// | `google.protobuf.Int64Value` and its kin | nullable, what goes into it goes here |
/// | other messages | Struct |
/// | `repeated`, `map` | List, for a map of structs with `key` and `value` |
///
/// Read: a field with presence (`optional`, in a `oneof`, a message) that is not there is null, also if proto2 has a default
/// for it, and a reason to reject the message if the column is not nullable. Other fields that are not there have their
/// default: 0, empty, the enum's first. A number that an enum has no name for is a reason to reject the message.
///
/// Written: null is left out, so a reader sees the default where the field has no presence; a list that is null is
/// empty.
///
/// ```
/// use std::sync::Arc;
/// use arrow::datatypes::{DataType, Field, Schema};
/// use windrow_connectors::format::{Decoder, Payloads, Protobuf, RowEncoder};
///
/// let orders = Protobuf::from_proto(
///     r#"syntax = "proto3"; message Order { int64 id = 1; optional string note = 2; }"#, "Order")?;
/// let fields = vec![Field::new("id", DataType::Int64, false), Field::new("note", DataType::Utf8, true)];
/// let schema = Arc::new(Schema::new(fields));
/// let mut decoder = orders.decoder(schema.clone())?;
/// decoder.push(&[0x08, 0x07]).unwrap();
/// decoder.push(&[0x08, 0x07, 0x12, 0x02, b'o', b'k']).unwrap();
/// assert!(decoder.push(&[0x08]).is_err());
/// let rows = decoder.flush()?;
/// assert_eq!(rows.num_rows(), 2);
///
/// let mut payloads = Payloads::new();
/// orders.encoder(&schema, "orders")?.encode(&rows, &mut payloads)?;
/// assert_eq!(payloads.get(1), Some(&[0x08, 0x07, 0x12, 0x02, b'o', b'k'][..]));
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
#[derive(Clone)]
pub struct Protobuf {
    /// The message, and its text if it came as one. Without it a registry says what is read, and the columns what is written.
    message: Option<(MessageDescriptor, Option<Arc<str>>)>,
    registry: Option<SchemaRegistry>,
    subject: Option<String>,
}

impl Protobuf {
    /// Messages of the type `message`, such as `shop.Order`, in a .proto file with this text, without framing. The file may
    /// import those of `google/protobuf/`, `google/type/` and `confluent/` only. Fails if it does not compile or has no such message.
    pub fn from_proto(text: &str, message: &str) -> Result<Self> {
        let text_of = schema::ProtoText { text: text.to_string(), references: Vec::new() };
        let file = schema::compile(&text_of).map_err(|reason| config(format!("the .proto text: {reason}")))?;
        let found = find(file.parent_pool(), message)?;
        if found.parent_file() != file {
            return Err(config(format!("the message {message:?} is not in the .proto text, only imported by it")));
        }
        Ok(Self { message: Some((found, Some(text.into()))), registry: None, subject: None })
    }

    /// Messages of the type `message`, such as `shop.Order`, in the bytes of a `FileDescriptorSet` as
    /// `protoc --include_imports --descriptor_set_out` writes it, without framing. Fails if it is not one, or has no such
    /// message.
    pub fn from_descriptor_set(bytes: &[u8], message: &str) -> Result<Self> {
        let pool =
            DescriptorPool::decode(bytes).map_err(|error| config(format!("not a set of descriptors: {error}")))?;
        Ok(Self { message: Some((find(&pool, message)?, None)), registry: None, subject: None })
    }

    /// Framed messages, of whatever schema the registry has for the id in front of each. What is written has a schema made from
    /// the columns, registered as `{topic}-value`. A column keeps the number that the newest schema of the subject has for its name,
    /// wherever it stands; a new one gets a number that was never used.
    pub fn from_registry(registry: &SchemaRegistry) -> Self {
        Self { message: None, registry: Some(registry.clone()), subject: None }
    }

    /// Messages of the same type, framed: the text of [`Protobuf::from_proto`] is what is registered as `{topic}-value` and
    /// written. Read is whatever the id in front of a message says.
    #[must_use]
    pub fn with_registry(self, registry: &SchemaRegistry) -> Self {
        Self { registry: Some(registry.clone()), ..self }
    }

    /// Registers under this subject instead of `{topic}-value`.
    #[must_use]
    pub fn subject(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }

    /// The columns of the messages, for streams whose rows have no type of their own. With a registry alone they are those of the
    /// first message in the newest schema of the subject; it is asked now, and blocks.
    ///
    /// ```
    /// use windrow_connectors::format::Protobuf;
    ///
    /// let text = r#"syntax = "proto3"; message Order { int64 id = 1; repeated string tags = 2; }"#;
    /// assert_eq!(Protobuf::from_proto(text, "Order")?.columns("orders")?.fields().len(), 2);
    /// # Ok::<(), windrow_connectors::ConnectorError>(())
    /// ```
    ///
    /// # Errors
    /// `Config`, naming the field, where there is no such column: a group, a message that contains itself.
    pub fn columns(&self, topic: &str) -> Result<SchemaRef> {
        let message = match (&self.message, &self.registry) {
            (Some((message, _)), _) => message.clone(),
            (None, Some(registry)) => {
                let subject = self.subject_of(topic);
                first_message(&*registry.latest(&subject)?, &subject)?
            }
            (None, None) => return Err(neither()),
        };
        columns::of(&message).map_err(config)
    }

    /// What is allowed and unwise in how the registry is asked.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.registry.as_ref().map_or_else(Vec::new, SchemaRegistry::warnings)
    }

    fn subject_of(&self, topic: &str) -> String {
        self.subject.clone().unwrap_or_else(|| format!("{topic}-value"))
    }

    /// A decoder for rows of `schema`. Without a registry it fails here for a column that the message has no field for, or one
    /// of another type. With one this is found when an id is first met, and a reason to reject its messages; a nullable
    /// column without a field is null.
    pub fn decoder(&self, schema: SchemaRef) -> Result<ProtobufDecoder> {
        match (&self.registry, &self.message) {
            (Some(registry), _) => ProtobufDecoder::framed(schema, registry.clone()),
            (None, Some((message, _))) => ProtobufDecoder::plain(schema, message),
            (None, None) => Err(neither()),
        }
    }

    /// An encoder for rows of `schema`. With a registry it registers the schema of the messages here, and blocks. Fails for a
    /// column that they cannot hold, naming it.
    pub fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<Box<dyn RowEncoder>> {
        let Some(registry) = &self.registry else {
            let (message, _) = self.written(schema, topic, None)?;
            return Ok(Box::new(ProtobufEncoder::new(schema, &message, Vec::new())?));
        };
        let subject = self.subject_of(topic);
        let former = match &self.message {
            Some(_) => None,
            None => {
                let former = registry.find_latest(&subject)?.filter(|former| former.kind == SchemaKind::Protobuf);
                former.map(|former| first_message(&former, &subject)).transpose()?
            }
        };
        let (message, text) = self.written(schema, topic, former.as_ref())?;
        let text = text.ok_or_else(neither)?;
        Ok(Box::new(ProtobufEncoder::registered(schema, &message, &text, &subject, registry)?))
    }

    /// The message that rows of `schema` are written as, and its text if a registry is to have it. `former` is what rows were
    /// written as before.
    fn written(
        &self,
        schema: &SchemaRef,
        topic: &str,
        former: Option<&MessageDescriptor>,
    ) -> Result<(MessageDescriptor, Option<Arc<str>>)> {
        match (&self.message, &self.registry) {
            (Some((message, _)), None) => Ok((message.clone(), None)),
            (Some((message, Some(text))), Some(_)) => Ok((message.clone(), Some(text.clone()))),
            (Some((message, None)), Some(_)) => Err(config(format!(
                "a registry takes the text of a schema, and {} comes from a set of descriptors: use from_proto",
                message.full_name()
            ))),
            (None, Some(_)) => {
                generate::message(schema, topic, former).map(|(message, text)| (message, Some(text.into())))
            }
            (None, None) => Err(neither()),
        }
    }
}

fn neither() -> ConnectorError {
    config("Protobuf without a message and without a registry".to_string())
}

/// The first message of the newest schema of a subject.
fn first_message(schema: &RegisteredSchema, subject: &str) -> Result<MessageDescriptor> {
    let wrong =
        |reason: String| config(format!("the newest schema of subject {subject:?}, id {}: {reason}", schema.id));
    if schema.kind != SchemaKind::Protobuf {
        return Err(wrong(format!("it is {}, not Protobuf", schema.kind)));
    }
    let file = schema::compile(&schema.into()).map_err(wrong)?;
    let first = file.messages().next();
    first.ok_or_else(|| wrong("it has no message".to_string()))
}

impl PayloadFormat for Protobuf {
    fn accepts(&self, schema: &SchemaRef, topic: &str) -> Result<()> {
        let (message, _) = self.written(schema, topic, None)?;
        ProtobufEncoder::new(schema, &message, Vec::new()).map(drop)
    }

    fn encoder(&self, schema: &SchemaRef, topic: &str) -> Result<Box<dyn RowEncoder>> {
        Self::encoder(self, schema, topic)
    }

    fn warnings(&self) -> Vec<String> {
        Self::warnings(self)
    }
}

impl fmt::Debug for Protobuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.message.as_ref().map(|(message, _)| message.full_name());
        f.debug_struct("Protobuf").field("message", &message).field("registry", &self.registry).finish()
    }
}

fn find(pool: &DescriptorPool, name: &str) -> Result<MessageDescriptor> {
    pool.get_message_by_name(name).ok_or_else(|| {
        let all: Vec<MessageDescriptor> = pool.all_messages().filter(|message| !message.is_map_entry()).collect();
        let own = all.iter().map(MessageDescriptor::full_name).filter(|name| !name.starts_with("google.protobuf."));
        config(format!("there is no message {name:?}; there is {}", alternatives(name, own)))
    })
}
