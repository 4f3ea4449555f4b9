//! Rows as text: numbers as they are, times in microseconds, doubles with three digits.

use windrow::arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};

/// The rows of all batches, sorted.
pub(crate) fn rows(batches: &[RecordBatch]) -> Vec<String> {
    let mut rows: Vec<String> = batches.iter().flat_map(of_batch).collect();
    rows.sort_unstable();
    rows
}

fn of_batch(batch: &RecordBatch) -> Vec<String> {
    let mut rows = vec![String::new(); batch.num_rows()];
    for (index, column) in batch.columns().iter().enumerate() {
        for (row, text) in rows.iter_mut().zip(texts(column.as_ref())) {
            row.push_str(if index == 0 { "" } else { "|" });
            row.push_str(&text);
        }
    }
    rows
}

fn texts(column: &dyn Array) -> Vec<String> {
    let value: Box<dyn Fn(usize) -> String> = match column.data_type() {
        DataType::Utf8 => Box::new(|row| column.as_string::<i32>().value(row).to_owned()),
        DataType::Utf8View => Box::new(|row| column.as_string_view().value(row).to_owned()),
        DataType::Float64 => Box::new(|row| thousandths(column.as_primitive::<Float64Type>().value(row))),
        _ => {
            let numbers = cast(column, &DataType::Int64).expect("a number or a time");
            Box::new(move |row| numbers.as_primitive::<Int64Type>().value(row).to_string())
        }
    };
    (0..column.len()).map(|row| if column.is_null(row) { "null".to_owned() } else { value(row) }).collect()
}

/// A double with three digits.
pub(crate) fn thousandths(value: f64) -> String {
    format!("{value:.3}")
}
