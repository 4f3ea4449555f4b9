//! Keys as bytes that can be hashed and compared: one conversion for a whole batch.

use arrow::{
    array::ArrayRef,
    datatypes::DataType,
    row::{RowConverter, Rows, SortField},
};

use crate::{Result, key::comparable};

/// Makes bytes of the columns of a key. Equal keys have equal bytes, and greater ones greater bytes.
pub(crate) struct KeyEncoder {
    /// `None` without columns: then there is one key.
    converter: Option<RowConverter>,
}

impl KeyEncoder {
    /// For columns of these types.
    pub(crate) fn new<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<Self> {
        let fields: Vec<SortField> = types.cloned().map(SortField::new).collect();
        let converter = (!fields.is_empty()).then(|| RowConverter::new(fields)).transpose()?;
        Ok(Self { converter })
    }

    /// Whether values of this type have such bytes.
    pub(crate) fn supports(data_type: &DataType) -> bool {
        RowConverter::supports_fields(&[SortField::new(data_type.clone())])
    }

    /// The keys of the rows of a batch.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<KeyBytes> {
        let Some(converter) = &self.converter else { return Ok(KeyBytes(None)) };
        let columns: Vec<ArrayRef> = columns.iter().map(comparable).collect();
        Ok(KeyBytes(Some(converter.convert_columns(&columns)?)))
    }
}

/// The keys of some rows.
pub(crate) struct KeyBytes(Option<Rows>);

impl KeyBytes {
    /// The key of a row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        self.0.as_ref().map_or(&[], |rows| rows.row(row).data())
    }
}

/// For each key, the last of its rows, in the order in which these rows come.
pub(crate) fn last_of_each(keys: &KeyBytes, rows: usize) -> Vec<u32> {
    let mut seen = std::collections::HashSet::with_capacity(rows);
    let mut last: Vec<u32> = (0..rows).rev().filter(|&row| seen.insert(keys.get(row))).map(|row| row as u32).collect();
    last.reverse();
    last
}
