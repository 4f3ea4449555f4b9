//! Everything a job needs: `use windrow::prelude::*;`.

pub use datafusion_expr::{Expr, lit};
pub use datafusion_functions_aggregate::expr_fn::{avg, max, min, sum};
// `#[derive(Record)]` writes code that names `typed_arrow`: import it along with `Record`, as the glob does.
pub use typed_arrow::{self, Record};
#[cfg(any(feature = "kafka", feature = "serve"))]
pub use windrow_connectors::Secret;
pub use windrow_connectors::{
    Cached, Console, File, MemorySink, MemorySource, MemoryTable, Nexmark, Sequence, TableFile, TimePartition,
    TypedSource, Untyped,
};
#[cfg(feature = "kafka")]
pub use windrow_connectors::{
    SchemaRegistry,
    format::{AvroFormat, JsonSchemaFormat, Protobuf},
    kafka::{Isolation, Kafka, Sasl, Start, Tls},
};
pub use windrow_operators::{
    Timestamp,
    count::Count,
    join::{Interval, JoinType},
    keyed::{BroadcastProcess, Keyed, KeyedBy, ListState, MapState, NoSide, Process, Saved, State, Timer},
    pattern::{Condition, Pattern, Skip, count_of, first, last},
    session::Session,
    typed::{Aggregate, custom},
    window::{Calendar, Cumulating, Global, Hopping, Tumbling, Window},
};

pub use crate::{
    EventTime, Job, LookupKind, Restarts, Restore, Retry, Stream, Watermarks,
    functions::{col, col_of, count, filtered, hours, left, millis, mins, right, secs},
};
