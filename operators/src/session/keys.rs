//! Keys as bytes, so that a map can hold a key for as long as it has an open session and forget it then. (DataFusion's
//! `GroupValues` are faster but keep every key they have met.)

use arrow::{
    array::{Array, ArrayRef},
    datatypes::SchemaRef,
    row::{RowConverter, Rows, SortField},
};

use crate::{Result, state::segments::own_bytes};

/// Between key columns and keys.
pub(super) struct Keys {
    /// `None` without key columns: all rows have one key, of no bytes.
    converter: Option<RowConverter>,
}

/// The keys of the rows of a batch.
pub(super) struct RowKeys(Option<Rows>);

impl Keys {
    pub(super) fn new(key: &SchemaRef) -> Result<Self> {
        if key.fields().is_empty() {
            return Ok(Self { converter: None });
        }
        let fields = key.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self { converter: Some(RowConverter::new(fields)?) })
    }

    pub(super) fn rows(&self, key: &[ArrayRef]) -> Result<RowKeys> {
        Ok(RowKeys(self.converter.as_ref().map(|converter| converter.convert_columns(key)).transpose()?))
    }

    /// The key columns of keys that [`Keys::rows`] made.
    pub(super) fn columns<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let parser = converter.parser();
        let columns = converter.convert_rows(keys.map(|key| parser.parse(key)))?;
        Ok(columns.into_iter().map(own_bytes).collect())
    }
}

impl RowKeys {
    pub(super) fn of(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

/// About how many bytes arrays hold, without those of others that they share buffers with.
pub(super) fn bytes_of(columns: &[ArrayRef]) -> usize {
    let bytes =
        |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size());
    columns.iter().map(bytes).sum()
}
