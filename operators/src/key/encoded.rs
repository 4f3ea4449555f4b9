//! Keys as bytes that can be hashed and compared, and back: one conversion for a whole batch.
//!
//! ```text
//!   key columns ──encode──► bytes of each row ──► a map holds a key for as long as it is needed, and forgets it then
//!   key columns ◄──decode── bytes of some keys    (tables of groups keep every key they have met)
//! ```
//!
//! The bytes are Arrow's row format: equal keys have equal bytes, and greater ones greater bytes. They are not a disk
//! format: what is saved are columns.

use std::{collections::HashMap, ops::Range};

use arrow::{
    array::ArrayRef,
    compute::cast,
    datatypes::DataType,
    row::{RowConverter, Rows, SortField},
};

use foldhash::fast::RandomState;

use super::comparable;
use crate::{OperatorError, Result};

/// A map by the bytes of keys: [`Key`](super::bytes::Key), or `&[u8]` of a batch.
pub(crate) type ByKey<K, V> = HashMap<K, V, RandomState>;

/// Between columns and bytes.
#[derive(Debug)]
pub(crate) struct KeyEncoder {
    /// `None` without columns: then there is one key, of no bytes.
    converter: Option<RowConverter>,
    types: Vec<DataType>,
}

impl KeyEncoder {
    /// For columns of these types.
    pub(crate) fn new<'a>(types: impl Iterator<Item = &'a DataType>) -> Result<Self> {
        let types: Vec<DataType> = types.cloned().collect();
        let fields: Vec<SortField> = types.iter().cloned().map(SortField::new).collect();
        let converter = (!fields.is_empty()).then(|| RowConverter::new(fields)).transpose()?;
        Ok(Self { converter, types })
    }

    /// Whether values of this type have such bytes.
    pub(crate) fn supports(data_type: &DataType) -> bool {
        RowConverter::supports_fields(&[SortField::new(data_type.clone())])
    }

    /// The keys of the rows of a batch. Floats that are one key have the same bytes.
    pub(crate) fn encode(&self, columns: &[ArrayRef]) -> Result<KeyBytes> {
        let columns: Vec<ArrayRef> = columns.iter().map(comparable).collect();
        self.encode_exactly(&columns)
    }

    /// The same with floats as they are: for values that are not keys.
    pub(crate) fn encode_exactly(&self, columns: &[ArrayRef]) -> Result<KeyBytes> {
        let bytes = self.converter.as_ref().map(|converter| converter.convert_columns(columns)).transpose()?;
        Ok(KeyBytes { bytes, chosen: None })
    }

    /// The columns of bytes that an encoder for these types has made. Fails when they are more than a batch can take: whoever
    /// has many cuts them first (see [`cut`](crate::state::bounded::cut)).
    pub(crate) fn decode<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) -> Result<Vec<ArrayRef>> {
        let Some(converter) = &self.converter else { return Ok(Vec::new()) };
        let keys: Vec<&[u8]> = keys.into_iter().collect();
        check_size(keys.iter().map(|key| key.len()).sum(), i32::MAX as usize)?;
        let parser = converter.parser();
        let columns = converter.convert_rows(keys.into_iter().map(|key| parser.parse(key)))?;
        // The row format gives the values of a dictionary.
        let typed = columns.into_iter().zip(&self.types).map(|(column, to)| match column.data_type() == to {
            true => Ok(column),
            false => cast(&column, to),
        });
        Ok(typed.collect::<Result<_, _>>()?)
    }
}

/// Arrow counts the bytes of a text column in 32 bits, and the row format does not look.
fn check_size(bytes: usize, most: usize) -> Result<()> {
    if bytes <= most {
        return Ok(());
    }
    Err(OperatorError::TooLarge(format!(
        "what one key has is {bytes} bytes, and a column takes at most {most}: leave large text, bytes and lists out of \
         the key and of what is kept for it, or cut them"
    )))
}

/// The keys of some rows.
pub(crate) struct KeyBytes {
    bytes: Option<Rows>,
    /// Which of them, when not all.
    chosen: Option<Vec<u32>>,
}

impl KeyBytes {
    /// The key of a row.
    pub(crate) fn get(&self, row: usize) -> &[u8] {
        let row = self.chosen.as_ref().map_or(row, |chosen| chosen[row] as usize);
        self.bytes.as_ref().map_or(&[], |rows| rows.row(row).data())
    }

    /// The keys of these rows.
    pub(crate) fn only(self, rows: &[u32]) -> Self {
        let chosen = match &self.chosen {
            Some(chosen) => rows.iter().map(|&row| chosen[row as usize]).collect(),
            None => rows.to_vec(),
        };
        Self { chosen: Some(chosen), ..self }
    }
}

/// Some rows of a batch by key. Keys are numbered in the order in which they come.
pub(crate) struct Grouped {
    /// The number of the key of each row.
    pub(crate) of_row: Vec<u32>,
    /// Where the rows of each key begin in `rows`, and where the last ones end.
    starts: Vec<u32>,
    rows: Vec<u32>,
}

impl Grouped {
    pub(crate) fn new(keys: &KeyBytes, rows: Range<usize>) -> Self {
        let mut numbers: ByKey<&[u8], u32> = HashMap::with_capacity_and_hasher(rows.len(), RandomState::default());
        let mut ends: Vec<u32> = Vec::new();
        let number = |row| {
            let number = *numbers.entry(keys.get(row)).or_insert_with(|| {
                ends.push(0);
                (ends.len() - 1) as u32
            });
            ends[number as usize] += 1;
            number
        };
        let of_row: Vec<u32> = rows.clone().map(number).collect();
        let mut end = 0;
        for rows in &mut ends {
            end += *rows;
            *rows = end;
        }
        // From behind, each end becomes where the rows of its key begin.
        let (mut starts, mut sorted) = (ends, vec![0; of_row.len()]);
        for (row, number) in rows.zip(&of_row).rev() {
            let place = &mut starts[*number as usize];
            *place -= 1;
            sorted[*place as usize] = row as u32;
        }
        starts.push(end);
        Self { of_row, starts, rows: sorted }
    }

    /// The rows of each key, in order.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[u32]> {
        self.starts.windows(2).map(|bounds| &self.rows[bounds[0] as usize..bounds[1] as usize])
    }

    /// The last row of each key, in the order in which these rows come.
    pub(crate) fn last(&self) -> Vec<u32> {
        let mut last: Vec<u32> = self.rows().filter_map(|rows| rows.last().copied()).collect();
        last.sort_unstable();
        last
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Array, AsArray, DictionaryArray, Float64Array, StringViewArray},
        datatypes::{Float64Type, Int8Type},
    };

    use super::*;

    #[test]
    fn keys_come_back_from_their_bytes() {
        let text = "a text of more than twelve bytes";
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-0.0), Some(0.0)]));
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec![Some(text), Some(""), None, None]));
        let encoder = KeyEncoder::new([numbers.data_type(), texts.data_type()].into_iter()).unwrap();
        let keys = encoder.encode(&[numbers.clone(), texts.clone()]).unwrap();
        assert_eq!(keys.get(2), keys.get(3), "zeros are one key");
        let grouped = Grouped::new(&keys, 0..4);
        assert_eq!(grouped.rows().collect::<Vec<_>>(), [&[0][..], &[1], &[2, 3]]);
        assert_eq!((grouped.of_row.as_slice(), grouped.last()), (&[0, 1, 2, 2][..], vec![0, 1, 3]));
        let chosen = encoder.encode(&[numbers.clone(), texts.clone()]).unwrap().only(&[3, 1, 0]).only(&[2, 1]);
        assert_eq!([chosen.get(0), chosen.get(1)], [keys.get(0), keys.get(1)], "of those that were chosen");
        assert_eq!(Grouped::new(&keys, 2..4).rows().collect::<Vec<_>>(), [&[2, 3]]);
        assert_eq!(Grouped::new(&keys, 2..2).rows().count(), 0);
        let columns = encoder.decode([1, 0].map(|row| keys.get(row))).unwrap();
        assert_eq!(columns[0].as_primitive::<Float64Type>().iter().collect::<Vec<_>>(), [None, Some(1.5)]);
        assert_eq!(columns[1].as_string_view().iter().collect::<Vec<_>>(), [Some(""), Some(text)]);
        let exact = encoder.encode_exactly(&[numbers, texts]).unwrap();
        assert_ne!(exact.get(2), exact.get(3));
        let back = encoder.decode([exact.get(2)]).unwrap();
        assert!(back[0].as_primitive::<Float64Type>().value(0).is_sign_negative());
    }

    #[test]
    fn without_columns_there_is_one_key_and_a_dictionary_comes_back_as_one() {
        let none = KeyEncoder::new(std::iter::empty()).unwrap();
        assert_eq!(none.encode(&[]).unwrap().get(7), b"");
        assert_eq!(none.decode([&b""[..]]).unwrap().len(), 0);
        let column: ArrayRef = Arc::new(["a", "b", "a"].into_iter().collect::<DictionaryArray<Int8Type>>());
        let encoder = KeyEncoder::new([column.data_type()].into_iter()).unwrap();
        let keys = encoder.encode(std::slice::from_ref(&column)).unwrap();
        let back = encoder.decode((0..3).map(|row| keys.get(row))).unwrap();
        assert_eq!(&back[0], &column);
    }

    #[test]
    fn what_no_column_can_take_is_an_error_that_says_so() {
        assert!(check_size(10, 10).is_ok());
        let error = check_size(11, 10).unwrap_err();
        assert!(error.is_too_large());
        assert_eq!(
            error.to_string(),
            "what one key has is 11 bytes, and a column takes at most 10: leave large text, bytes and lists out of the key \
             and of what is kept for it, or cut them"
        );
    }
}
