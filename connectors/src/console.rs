//! A sink for people and for pipes: a table for who looks at a terminal, JSON lines for the next program.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, new_empty_array},
    datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type},
    error::ArrowError,
    json::{
        WriterBuilder,
        writer::{EncoderOptions, LineDelimited, make_encoder},
    },
    util::{
        display::{ArrayFormatter, FormatOptions},
        pretty::pretty_format_batches,
    },
};
use async_trait::async_trait;

use crate::{ConnectorError, Epoch, Incarnation, OP, Receipt, Result, Sink, SinkWriter};

/// How [`Console`] writes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleStyle {
    /// A table with a header for every batch.
    Table,
    /// One JSON object for every row, on a line of its own; a null is written as `null`.
    JsonLines,
}

/// Writes rows to the standard output: tables if that is a terminal, else JSON lines. All rows are written, and what
/// was written is flushed after every batch.
///
/// A table needs the whole batch to know the widths of its columns, so batches decide how rows are grouped. When the
/// other end of a pipe is closed, as by `head`, writing is an error that says so.
///
/// Of changes the first column, [`OP`], says what each does: `+` a new row, `~` the row of its key now, `-` the row that is gone.
///
/// What was printed cannot be taken back, so rows are visible as they are written and there is nothing to commit: after
/// a crash the rows since the last checkpoint are printed again (at least once).
///
/// ```
/// use std::sync::Arc;
/// use arrow::{array::{Int64Array, RecordBatch}, datatypes::{DataType, Field, Schema}};
/// use windrow_connectors::{Console, Epoch, Incarnation, Sink};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> windrow_connectors::Result<()> {
/// let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
/// let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(Int64Array::from(vec![1, 2]))])?;
///
/// let console = Console::new();
/// console.accepts(&schema)?;
/// let incarnation = Incarnation { job: "00c0ffee".into(), generation: 1, nonce: 7 };
/// let mut writer = console.writer(&incarnation, 0, schema).await?;
/// writer.write(batch).await?; // {"n":1} and {"n":2}, or a table
/// assert!(writer.stage(Epoch(1)).await?.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Console {
    style: ConsoleStyle,
    out: Arc<Mutex<dyn Write + Send>>,
}

impl Console {
    /// The standard output of this process, in the style that suits it.
    pub fn new() -> Self {
        let out = io::stdout();
        let style = if out.is_terminal() { ConsoleStyle::Table } else { ConsoleStyle::JsonLines };
        Self::to(out, style)
    }

    /// Writes to `out` instead, in a given style: for tests, or the standard error.
    pub fn to(out: impl Write + Send + 'static, style: ConsoleStyle) -> Self {
        Self { style, out: Arc::new(Mutex::new(out)) }
    }

    fn print(&self, text: &[u8]) -> Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(text).and_then(|()| out.flush()).map_err(|error| {
            let error = match error.kind() {
                io::ErrorKind::BrokenPipe => io::Error::new(
                    io::ErrorKind::BrokenPipe,
                    "the program at the other end of the pipe has closed it, as `head` does when it has its lines",
                ),
                _ => error,
            };
            ConnectorError::io("write to", "the console", error)
        })
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Console {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Console").field("style", &self.style).finish_non_exhaustive()
    }
}

#[async_trait]
impl Sink for Console {
    fn name(&self) -> String {
        "console".to_owned()
    }

    fn accepts(&self, schema: &SchemaRef) -> Result<()> {
        for field in schema.fields() {
            self.style.accepts(field).map_err(|error| {
                ConnectorError::Config(format!(
                    "the console cannot show column `{}` of type {}: {error}. Cast it or project it away",
                    field.name(),
                    field.data_type()
                ))
            })?;
        }
        Ok(())
    }

    fn accepts_changes(&self, schema: &SchemaRef, _key: &[usize]) -> Result<()> {
        self.accepts(schema)
    }

    /// Tables of several tasks would mix.
    fn max_writers(&self) -> usize {
        1
    }

    async fn writer(&self, _: &Incarnation, _task: usize, _schema: SchemaRef) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Console {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        // The whole text first, then one write: a reader of the pipe never sees half a line of a failed batch.
        self.print(&self.style.format(&with_signs(batch)?)?)
    }

    /// Flushes. There are no receipts, because nothing is hidden.
    async fn stage(&mut self, _: Epoch) -> Result<Vec<Receipt>> {
        self.print(&[])?;
        Ok(Vec::new())
    }
}

/// Changes with a first column of `+`, `~` and `-`; rows as they are.
fn with_signs(batch: RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let Some((last, visible)) = schema.fields().split_last() else { return Ok(batch) };
    let Some(ops) = batch.column(visible.len()).as_primitive_opt::<UInt8Type>().filter(|_| last.name() == OP) else {
        return Ok(batch);
    };
    let sign = |op: &u8| match op {
        0 => "+",
        1 => "~",
        _ => "-",
    };
    let signs = StringArray::from_iter_values(ops.values().iter().map(sign));
    let fields: Vec<_> =
        [Arc::new(Field::new(OP, DataType::Utf8, false))].into_iter().chain(visible.to_vec()).collect();
    let columns = [Arc::new(signs) as ArrayRef].into_iter().chain(batch.columns()[..visible.len()].to_vec()).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl ConsoleStyle {
    fn accepts(self, field: &Arc<Field>) -> Result<(), ArrowError> {
        let array = new_empty_array(field.data_type());
        match self {
            Self::Table => ArrayFormatter::try_new(&array, &FormatOptions::default()).map(drop),
            Self::JsonLines => make_encoder(field, &array as &dyn Array, &EncoderOptions::default()).map(drop),
        }
    }

    fn format(self, batch: &RecordBatch) -> Result<Vec<u8>> {
        // Arrow would print its own error message in the place of a time that no calendar holds.
        crate::format::encode::check_times(batch)?;
        match self {
            Self::Table => Ok(format!("{}\n", pretty_format_batches(std::slice::from_ref(batch))?).into_bytes()),
            Self::JsonLines => {
                let builder = WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, LineDelimited>(Vec::new());
                writer.write(batch)?;
                writer.finish()?;
                Ok(writer.into_inner())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, TimestampMicrosecondArray, UInt8Array},
        datatypes::{UnionFields, UnionMode},
    };

    use super::*;

    /// A writer that a test can look into.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Page {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }

        fn flushes(&self) -> usize {
            self.0.lock().unwrap().1
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.lock().unwrap().1 += 1;
            Ok(())
        }
    }

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn incarnation() -> Incarnation {
        Incarnation { job: "00c0ffee".to_owned(), generation: 1, nonce: 7 }
    }

    fn batch() -> RecordBatch {
        let who: ArrayRef = Arc::new(StringArray::from(vec![Some("Kate \"K\""), None]));
        let price: ArrayRef = Arc::new(Int64Array::from(vec![100, 2_000]));
        let at = TimestampMicrosecondArray::from(vec![0, 1_500_000]).with_timezone("+00:00");
        RecordBatch::try_from_iter_with_nullable([
            ("who", who, true),
            ("price", price, false),
            ("at", Arc::new(at) as ArrayRef, false),
        ])
        .unwrap()
    }

    async fn printed(style: ConsoleStyle, batches: &[RecordBatch]) -> Page {
        let page = Page::default();
        let console = Console::to(page.clone(), style);
        let mut writer = console.writer(&incarnation(), 0, batches[0].schema()).await.unwrap();
        for batch in batches {
            writer.write(batch.clone()).await.unwrap();
        }
        assert_eq!(page.flushes(), batches.iter().filter(|batch| batch.num_rows() > 0).count());
        assert_eq!(writer.stage(Epoch(1)).await.unwrap(), []);
        page
    }

    #[tokio::test]
    async fn json_lines_have_all_columns_of_every_row() {
        let page = printed(ConsoleStyle::JsonLines, &[batch(), batch().slice(0, 0), batch().slice(1, 1)]).await;
        let second = r#"{"who":null,"price":2000,"at":"1970-01-01T00:00:01.500Z"}"#;
        let first = r#"{"who":"Kate \"K\"","price":100,"at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(page.text(), format!("{first}\n{second}\n{second}\n"));
    }

    #[tokio::test]
    async fn a_table_has_a_header_per_batch_and_every_row() {
        let page = printed(ConsoleStyle::Table, &[batch(), batch().slice(0, 0), batch()]).await;
        let text = page.text();
        assert_eq!(text.matches("| who ").count(), 2, "{text}");
        assert_eq!(text.matches("Kate").count(), 2, "{text}");
        assert!(text.ends_with("+\n"), "{text}");

        let long = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(0..5_000)) as _)]).unwrap();
        let text = printed(ConsoleStyle::Table, &[long]).await.text();
        assert_eq!(text.lines().count(), 5_000 + 4);
    }

    #[tokio::test]
    async fn changes_have_signs() {
        let n: ArrayRef = Arc::new(Int64Array::from(vec![5, 6, 7]));
        let ops: ArrayRef = Arc::new(UInt8Array::from(vec![0, 1, 2]));
        let changes = RecordBatch::try_from_iter([("n", n.clone()), (OP, ops)]).unwrap();
        let page = printed(ConsoleStyle::JsonLines, std::slice::from_ref(&changes)).await;
        let lines = ["{\"__op\":\"+\",\"n\":5}\n", "{\"__op\":\"~\",\"n\":6}\n", "{\"__op\":\"-\",\"n\":7}\n"];
        assert_eq!(page.text(), lines.concat());
        let text = printed(ConsoleStyle::Table, &[changes]).await.text();
        assert!(text.contains("| ~    | 6 |"), "{text}");
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        assert!(Console::to(io::sink(), ConsoleStyle::Table).accepts_changes(&schema, &[0]).is_ok());
    }

    #[tokio::test]
    async fn a_closed_pipe_is_an_error_that_says_so() {
        let console = Console::to(Closed, ConsoleStyle::JsonLines);
        let mut writer = console.writer(&incarnation(), 0, batch().schema()).await.unwrap();
        let error = writer.write(batch()).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot write to the console: the program at the other end of the pipe has closed it, as `head` does when \
             it has its lines"
        );
    }

    #[test]
    fn one_writer_and_only_what_can_be_shown() {
        let console = Console::to(io::sink(), ConsoleStyle::JsonLines);
        assert_eq!(console.max_writers(), 1);
        assert!(console.accepts(&batch().schema()).is_ok());
        let fields = UnionFields::from_fields([Field::new("i", DataType::Int64, true)]);
        let union = DataType::Union(fields, UnionMode::Sparse);
        let schema = Arc::new(Schema::new(vec![Field::new("odd", union, false)]));
        let error = console.accepts(&schema).unwrap_err().to_string();
        assert!(error.contains("column `odd`"), "{error}");
    }
}
