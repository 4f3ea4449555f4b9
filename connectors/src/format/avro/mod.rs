//! Avro, with a schema registry.
//!
//! ```text
//!   0 │ id │ record ──► plan of the writer's schema ──► columns
//!         │               ▲
//!         └─► registry ───┘ once for each id
//!
//!   columns ──► Avro schema ──► registry ──► id      rows ──► 0 │ id │ record
//! ```
//!
//! Records are decoded by code of our own, straight into the column buffers that JSON has too. arrow-avro 59.3 is not used for
//! it, since it reads wrong values without a word where a writer's schema names a type a second time and the reader wants less of
//! it, or where milliseconds meet microseconds (the tests show both); since a record that fails half-way leaves its first half in its
//! buffers; and since a union of three types becomes a union column, which no operator takes. Encoding is its work.
//!
//! | file | why it exists |
//! |---|---|
//! | `schema` | schemas, parsed |
//! | `plan` | how the records of one writer become columns |
//! | `cursor`, `read` | bytes, read with care; values out of them |
//! | `default` | defaults in a reader's schema |
//! | `arrow` | the columns of a schema |
//! | `decode`, `encode` | the decoder and the encoder |

use ::arrow::datatypes::SchemaRef;

use crate::{
    ConnectorError, Result,
    registry::{RegisteredSchema, SchemaKind},
};

mod arrow;
mod cursor;
mod decode;
mod default;
mod encode;
mod plan;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use decode::AvroDecoder;
pub use encode::{AvroEncoder, AvroFormat};

/// The columns of an Avro schema from a registry, for streams whose rows have no type of their own: `int` is `Int32`, `enum` and
/// `uuid` are text, timestamps keep their unit, a union with null is nullable.
///
/// ```no_run
/// use windrow_connectors::{SchemaRegistry, format::avro};
///
/// let registry = SchemaRegistry::at("http://localhost:8081");
/// let columns = avro::columns(&*registry.latest("orders-value")?)?;
/// # Ok::<(), windrow_connectors::ConnectorError>(())
/// ```
///
/// # Errors
/// `Config`, naming the field, where there is no such column: a union of several types, a type that contains itself.
pub fn columns(schema: &RegisteredSchema) -> Result<SchemaRef> {
    let wrong = |reason: String| ConnectorError::Config(format!("the schema with id {}: {reason}", schema.id));
    if schema.kind != SchemaKind::Avro {
        return Err(wrong(format!("it is {}, not Avro", schema.kind)));
    }
    let references = schema.references.iter().map(|reference| reference.text.as_str());
    schema::Schema::parse(&schema.text, references).and_then(|schema| arrow::columns(&schema)).map_err(wrong)
}
