//! How many bytes rows take, and how they are freed of the bytes of others.
//!
//! ```text
//!   a batch of 8192 rows   views │ v0 │ v1 │ v2 │ …      buffer │ text 0 … text 1 … text 2 …… text 8191 │
//!   its rows 1 and 2             ╰─────┬─────╯ slice                     ▲        ▲
//!                                      └── refers to ────────────────────┴────────┘ and keeps all of it
//!
//!   bytes_of(rows 1 and 2)   two views, text 1, text 2: what they would take alone
//!   own_bytes(rows 1 and 2)  the same rows, with a buffer that has nothing but text 1 and text 2
//! ```
//!
//! Arrow's figures say something else: `get_array_memory_size` is of whole buffers, so that each of a hundred slices of a batch would
//! count all of it, and `get_slice_memory_size` leaves out the texts that views refer to, and takes the whole child of a list for
//! every slice of it.
//!
//! So what holds rows for long first makes them its own, and then what is counted is what is held. To copy every text for that
//! is what text in views is there to avoid: rows that stay in memory may keep some others, which [`lean_bytes`] bounds.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, FixedSizeListArray, GenericByteViewArray, GenericListArray, MapArray,
        OffsetSizeTrait, StructArray,
    },
    buffer::OffsetBuffer,
    datatypes::{ByteViewType, DataType, FieldRef},
};

/// About how many bytes arrays take, without those of others that they share buffers with, whatever they are nested in. A buffer
/// counts once, however many views refer to the same part of it. Takes time in the number of rows only where there
/// are texts in views: a look at each of these, none at the texts.
///
/// ```
/// use std::sync::Arc;
/// use windrow_operators::bytes::{bytes_of, own_bytes};
/// use arrow::array::{Array, ArrayRef, StringViewArray};
///
/// let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(vec!["a text of 26 bytes at all."; 1_000]));
/// let one = texts.slice(500, 1);
/// assert_eq!(bytes_of(std::slice::from_ref(&one)), 16 + 26);
/// assert!(one.get_array_memory_size() > 26_000, "it keeps all others");
/// assert!(own_bytes(one).get_array_memory_size() < 20_000, "their texts are gone");
/// ```
pub fn bytes_of(columns: &[ArrayRef]) -> usize {
    columns.iter().map(|column| bytes(column.as_ref())).sum()
}

fn bytes(array: &dyn Array) -> usize {
    let values = match array.data_type() {
        DataType::Utf8View => viewed(array.as_string_view()),
        DataType::BinaryView => viewed(array.as_binary_view()),
        DataType::List(_) => listed(array.as_list::<i32>().offsets(), array.as_list::<i32>().values()),
        DataType::LargeList(_) => listed(array.as_list::<i64>().offsets(), array.as_list::<i64>().values()),
        DataType::Map(..) => listed(array.as_map().offsets(), array.as_map().entries()),
        DataType::FixedSizeList(..) => bytes(array.as_fixed_size_list().values()),
        DataType::Struct(_) => bytes_of(array.as_struct().columns()),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            return bytes(dictionary.keys()) + bytes(dictionary.values());
        }
        other => match other.primitive_width() {
            Some(width) => array.len() * width,
            None => return array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()),
        },
    };
    values + array.nulls().map_or(0, |_| array.len().div_ceil(8))
}

fn viewed<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    let whole: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
    size_of_val(&views.views()[..]) + if whole == 0 { 0 } else { views.total_buffer_bytes_used().min(whole) }
}

/// A list array that is a part of another still has all its values.
fn listed<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &dyn Array) -> usize {
    let (first, rows) = within(offsets);
    size_of_val(&offsets[..]) + bytes(values.slice(first, rows).as_ref())
}

/// Where the values begin that belong to the rows, and how many they are.
fn within<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let end = |offset: Option<&O>| offset.map_or(0, |offset| offset.as_usize());
    let (first, last) = (end(offsets.first()), end(offsets.last()));
    (first, last - first)
}

/// The same rows; where they have views of text, also in lists and structs, with the bytes of their own rows only. Others are as they
/// were: taking rows out of them has copied what they hold.
///
/// Rows that are taken out of batches, or slices of them, would keep all texts of these batches, and write them to disk. Nothing
/// is copied when that would make nothing smaller.
pub fn own_bytes(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View if keeps_more(array.as_string_view(), 1) => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView if keeps_more(array.as_binary_view(), 1) => Arc::new(array.as_binary_view().gc()),
        nested if nested.is_nested() && has_views(nested) => with_own_children(&array).unwrap_or(array),
        _ => array,
    }
}

/// The same rows for who keeps them in memory: texts are copied only when the buffers they are in are more than four times as large, or
/// more than 32. So parts of a batch that tasks have shared out, and rows that are merged with others again and again, are hardly
/// ever copied; and of a batch of which few rows are left nothing else stays. What is written is made [`own_bytes`] first.
///
/// ```
/// use std::sync::Arc;
/// use windrow_operators::bytes::lean_bytes;
/// use arrow::array::{Array, ArrayRef, StringViewArray};
///
/// let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values(vec!["a text of 26 bytes at all."; 1_000]).gc());
/// let (half, one) = (lean_bytes(texts.slice(0, 500)), lean_bytes(texts.slice(0, 1)));
/// assert!(half.get_array_memory_size() > 26_000, "nothing was copied");
/// assert!(one.get_array_memory_size() < 1_000, "the other texts are gone");
/// ```
pub fn lean_bytes(array: ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Utf8View if is_lean(array.as_string_view()) => array,
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView if is_lean(array.as_binary_view()) => array,
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        _ => own_bytes(array),
    }
}

/// How many times as large as its texts the buffers of a lean array may be, and how many it may have: each costs something
/// whenever rows are taken out of it.
const LEAN: usize = 4;
const LEAN_BUFFERS: usize = 32;

fn is_lean<T: ByteViewType>(views: &GenericByteViewArray<T>) -> bool {
    if views.data_buffers().len() <= LEAN_BUFFERS {
        return !keeps_more(views, LEAN);
    }
    // A copy would be much larger where many rows show the same text.
    views.total_buffer_bytes_used() > kept(views).saturating_mul(2)
}

/// Whether its buffers are larger than so many times its texts.
fn keeps_more<T: ByteViewType>(views: &GenericByteViewArray<T>, times: usize) -> bool {
    let kept = kept(views);
    kept > 0 && kept > views.total_buffer_bytes_used().saturating_mul(times)
}

/// The bytes of its buffers.
fn kept<T: ByteViewType>(views: &GenericByteViewArray<T>) -> usize {
    views.data_buffers().iter().map(|buffer| buffer.len().max(buffer.capacity())).sum()
}

fn has_views(of: &DataType) -> bool {
    match of {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::Map(field, _) => has_views(field.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_views(field.data_type())),
        DataType::Dictionary(_, values) => has_views(values),
        _ => false,
    }
}

/// `None` for a kind of nesting that is not known here.
fn with_own_children(array: &ArrayRef) -> Option<ArrayRef> {
    let nulls = array.nulls().cloned();
    Some(match array.data_type() {
        DataType::List(field) => Arc::new(list(field, array.as_list::<i32>())?),
        DataType::LargeList(field) => Arc::new(list(field, array.as_list::<i64>())?),
        DataType::Map(field, ordered) => {
            let (offsets, entries) = own_values(array.as_map().offsets(), array.as_map().entries());
            let entries = entries.as_struct_opt()?.clone();
            Arc::new(MapArray::try_new(field.clone(), offsets, entries, nulls, *ordered).ok()?)
        }
        DataType::FixedSizeList(field, size) => {
            let values = own_bytes(array.as_fixed_size_list().values().clone());
            Arc::new(FixedSizeListArray::try_new(field.clone(), *size, values, nulls).ok()?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().cloned().map(own_bytes).collect();
            Arc::new(StructArray::try_new(fields.clone(), columns, nulls).ok()?)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            dictionary.with_values(own_bytes(dictionary.values().clone()))
        }
        _ => return None,
    })
}

fn list<O: OffsetSizeTrait>(field: &FieldRef, list: &GenericListArray<O>) -> Option<GenericListArray<O>> {
    let (offsets, values) = own_values(list.offsets(), list.values());
    GenericListArray::try_new(field.clone(), offsets, values, list.nulls().cloned()).ok()
}

/// The values that belong to the rows, and offsets into these.
fn own_values<O: OffsetSizeTrait>(offsets: &OffsetBuffer<O>, values: &dyn Array) -> (OffsetBuffer<O>, ArrayRef) {
    let (first, rows) = within(offsets);
    let offsets = if first == 0 { offsets.clone() } else { OffsetBuffer::from_lengths(offsets.lengths()) };
    (offsets, own_bytes(values.slice(first, rows)))
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{
            BinaryViewArray, DictionaryArray, Int64Array, Int64Builder, ListBuilder, MapBuilder, StringArray,
            StringViewArray, StringViewBuilder, UInt32Array, new_null_array,
        },
        compute::{concat, take},
        datatypes::{Field, Int8Type, Int64Type},
    };

    use super::*;

    /// Bytes of each text.
    const TEXT: usize = 1_000;
    const ROWS: usize = 100;

    fn text(row: usize) -> String {
        format!("{row:0TEXT$}")
    }

    /// Two texts a row, one of them in views, in every kind of column.
    fn columns() -> Vec<ArrayRef> {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..ROWS).map(text)));
        let binary: ArrayRef = Arc::new(BinaryViewArray::from_iter_values((0..ROWS).map(text)));
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        let mut maps = MapBuilder::new(None, StringViewBuilder::new(), Int64Builder::new());
        for row in 0..ROWS {
            lists.append_value([Some(text(row))]);
            maps.keys().append_value(text(row));
            maps.values().append_value(row as i64);
            maps.append(true).unwrap();
        }
        let lists: ArrayRef = Arc::new(lists.finish());
        let field = |array: &ArrayRef| Arc::new(Field::new("it", array.data_type().clone(), true));
        let structs: ArrayRef = Arc::new(StructArray::from(vec![(field(&lists), lists.clone())]));
        let large = OffsetBuffer::<i64>::from_lengths(vec![1; ROWS]);
        let large: ArrayRef = Arc::new(GenericListArray::new(field(&structs), large, structs.clone(), None));
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::new(field(&texts), 1, texts.clone(), None));
        vec![texts, binary, lists, structs, large, fixed, Arc::new(maps.finish())]
    }

    #[test]
    fn texts_in_views_count_wherever_they_are() {
        for column in columns() {
            let (all, one) = (bytes_of(std::slice::from_ref(&column)), bytes_of(&[column.slice(7, 1)]));
            assert!((ROWS * TEXT..ROWS * (TEXT + 60)).contains(&all), "{all} bytes of {}", column.data_type());
            assert!((TEXT..TEXT + 60).contains(&one), "{one} bytes of {}", column.data_type());
        }
    }

    #[test]
    fn what_is_its_own_has_the_same_rows_and_holds_no_others() {
        for column in columns() {
            let parts = [column.slice(7, 2), take(&column, &UInt32Array::from(vec![99, 3]), None).unwrap()];
            for part in parts {
                let own = own_bytes(part.clone());
                assert_eq!(&own, &part);
                assert!(part.get_array_memory_size() > ROWS * TEXT / 2);
                let held = own.get_array_memory_size();
                assert!(held < 20 * TEXT, "{held} bytes of two rows of {}", column.data_type());
            }
        }
    }

    #[test]
    fn what_holds_no_others_is_not_copied() {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..ROWS).map(text)));
        let own = own_bytes(texts.slice(0, 5));
        let again = own_bytes(own.clone());
        assert_eq!(own.as_string_view().data_buffers()[0].as_ptr(), again.as_string_view().data_buffers()[0].as_ptr());
        // A thousand rows that show the same text: a copy of each would be a thousand times as large.
        let same = take(&own_bytes(texts.slice(0, 1)), &UInt32Array::from(vec![0; 1_000]), None).unwrap();
        assert_eq!(bytes_of(std::slice::from_ref(&same)), 16_000 + TEXT);
        assert!(own_bytes(same).get_array_memory_size() < 20_000 + 10 * TEXT);
    }

    #[test]
    fn what_is_lean_keeps_a_bounded_part_of_others_in_few_buffers() {
        for column in columns().into_iter().take(2).map(own_bytes) {
            let part = lean_bytes(column.slice(0, ROWS / 3));
            assert!(part.get_array_memory_size() > ROWS * TEXT, "not copied");
            let few = lean_bytes(column.slice(7, ROWS / 10));
            assert!(few.get_array_memory_size() < ROWS * TEXT / 5, "copied");
            let each: Vec<ArrayRef> = (0..ROWS).map(|row| own_bytes(column.slice(row, 1))).collect();
            let (several, all) = ([&each[..LEAN_BUFFERS], &each[..]]).map(together).into();
            assert_eq!((several.1, all.1), (LEAN_BUFFERS, 1));
            assert_eq!((&several.0, &all.0), (&column.slice(0, LEAN_BUFFERS), &column));
        }
        // What is not text in views itself is made its own.
        let lists = columns().swap_remove(2);
        assert!(lean_bytes(lists.slice(0, ROWS / 2)).get_array_memory_size() < ROWS * TEXT * 3 / 4);
    }

    /// One array of several, made lean, and how many buffers it has.
    fn together(arrays: &[ArrayRef]) -> (ArrayRef, usize) {
        let arrays: Vec<&dyn Array> = arrays.iter().map(AsRef::as_ref).collect();
        let one = lean_bytes(concat(&arrays).unwrap());
        let buffers = one.to_data().buffers().len() - 1;
        (one, buffers)
    }

    #[test]
    fn other_columns_count_as_arrow_counts_them() {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter([Some(1), None, Some(3)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "bb", "ccc"]));
        let short: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "bb", "ccc"]));
        assert_eq!(bytes_of(&[numbers.clone(), texts.clone(), short]), (24 + 1) + (16 + 6) + 48);
        assert_eq!(bytes_of(&[numbers.slice(1, 1), texts.slice(2, 1)]), (8 + 1) + (8 + 3));
        let named: ArrayRef = Arc::new(["a", "b", "a"].into_iter().collect::<DictionaryArray<Int8Type>>());
        assert_eq!(bytes_of(&[named]), 3 + (12 + 2));
        let nothing = new_null_array(&DataType::Null, 5);
        assert_eq!(bytes_of(&[nothing]), 0);
        let lists = vec![Some(vec![Some(1), Some(2)]), None, Some(vec![Some(3)])];
        let lists: ArrayRef = Arc::new(GenericListArray::<i32>::from_iter_primitive::<Int64Type, _, _>(lists));
        assert_eq!(bytes_of(&[lists.slice(2, 1)]), 8 + 8 + 1);
        assert_eq!(bytes_of(&[lists.slice(0, 0)]), 4);
    }
}
