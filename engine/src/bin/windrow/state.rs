//! `windrow state`: the tables that operators had in a checkpoint, and questions to them in SQL.

use windrow::arrow::array::RecordBatch;

use crate::{
    failure::Failure,
    output::{self, table},
    place::Place,
};

const LIST_EXAMPLES: &str = "\
Examples:
  windrow state list /var/lib/jobs/hot-items
  windrow state list /var/lib/jobs/hot-items --savepoint before-upgrade --json";

const QUERY_EXAMPLES: &str = "\
Examples:
  windrow state query /var/lib/jobs/hot-items 'select auction, bids from window_1 order by bids desc limit 3'
  windrow state query /var/lib/jobs/hot-items 'select * from source_1' --format csv --epoch 7

The tables: windrow state list. It reads the state of that checkpoint into memory. Needs the feature sql:
  cargo install windrow --features cli,sql";

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Lists the tables of a checkpoint
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        place: Place,
        /// JSON for programs
        #[arg(long)]
        json: bool,
    },
    /// Asks the tables of a checkpoint in SQL
    #[command(after_help = QUERY_EXAMPLES)]
    Query {
        #[command(flatten)]
        place: Place,
        /// A SELECT of DataFusion's SQL
        sql: String,
        /// How to print the rows
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
        /// The same as --format json
        #[arg(long, conflicts_with = "format")]
        json: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
    Csv,
}

pub(crate) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List { place, json } => list(&place, json).await,
        Command::Query { place, sql, format, json } => {
            let format = if json { Format::Json } else { format };
            let rows = rows(&asked(&place, &sql).await?, format)?;
            // CSV has the newline already; blanks before it belong to the last value.
            output::write(rows.strip_suffix('\n').unwrap_or(&rows))
        }
    }
}

async fn list(place: &Place, json: bool) -> Result<(), Failure> {
    let state = place.state().await?;
    let columns = |rows: &RecordBatch| -> Vec<String> {
        rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect()
    };
    if json {
        let tables = state.tables().map(|(name, table)| {
            let (columns, rows) = (columns(table.rows()), table.rows().num_rows());
            serde_json::json!({"table": name, "rows": rows, "columns": columns, "meaning": table.meaning()})
        });
        let tables: Vec<_> = tables.collect();
        return output::json(&serde_json::json!({"job": state.job(), "epoch": state.epoch(), "tables": tables}));
    }
    let rows = state.tables().map(|(name, table)| {
        let (columns, rows) = (columns(table.rows()).join(", "), table.rows().num_rows().to_string());
        vec![name.to_owned(), rows, table.meaning().to_owned(), columns]
    });
    let head = format!("checkpoint {} of job {:?}\n\n", state.epoch(), state.job());
    output::print(&(head + &table(&["TABLE", "ROWS", "WHAT", "COLUMNS"], &rows.collect::<Vec<_>>())))
}

#[cfg(feature = "sql")]
async fn asked(place: &Place, sql: &str) -> Result<Vec<RecordBatch>, Failure> {
    use datafusion::execution::context::SQLOptions;

    let state = place.state().await?;
    let tables: Vec<&str> = state.tables().map(|(name, _)| name).collect();
    let refused = |error: datafusion::error::DataFusionError| {
        let error = error.strip_backtrace();
        Failure::new(format!("{error}\n  the tables are: {}; their columns: windrow state list", tables.join(", ")))
    };
    // To ask is not to write: DataFusion could make files and read others.
    let only_select = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let asked = state.context().map_err(refused)?.sql_with_options(sql, only_select).await.map_err(refused)?;
    // So that an answer without rows has its columns too.
    let none = RecordBatch::new_empty(asked.schema().inner().clone());
    let mut batches = asked.collect().await.map_err(refused)?;
    batches.push(none);
    Ok(batches)
}

#[cfg(not(feature = "sql"))]
async fn asked(_: &Place, _: &str) -> Result<Vec<RecordBatch>, Failure> {
    Err(Failure::new(
        "this windrow was built without SQL: cargo install windrow --features cli,sql. What tables there are: windrow state list",
    ))
}

fn rows(batches: &[RecordBatch], format: Format) -> Result<String, Failure> {
    let failed =
        |error: windrow::arrow::error::ArrowError| Failure::new(format!("the rows cannot be printed: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|error| Failure::new(error.to_string()));
    match format {
        Format::Table => {
            let table = windrow::arrow::util::pretty::pretty_format_batches(batches).map_err(failed)?;
            Ok(output::clean(&table.to_string()))
        }
        Format::Json => {
            // As over HTTP: every row has every column.
            let builder = windrow::arrow::json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, windrow::arrow::json::writer::JsonArray>(Vec::new());
            batches.iter().try_for_each(|batch| writer.write(batch)).and_then(|()| writer.finish()).map_err(failed)?;
            let text = text(writer.into_inner())?;
            Ok(if text.is_empty() { "[]".into() } else { text })
        }
        Format::Csv => {
            let mut bytes = Vec::new();
            let mut writer = windrow::arrow::csv::Writer::new(&mut bytes);
            // The one without rows is for the header, which comes with the first batch.
            let (empty, full): (Vec<_>, Vec<_>) = batches.iter().partition(|batch| batch.num_rows() == 0);
            let shown = if full.is_empty() { empty } else { full };
            shown.into_iter().try_for_each(|batch| writer.write(batch)).map_err(failed)?;
            drop(writer);
            text(bytes)
        }
    }
}
