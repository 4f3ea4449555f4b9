//! What a column of one type is as another, and values that are not what the file says of them.

use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType, Int32Type as Int32Type_, Int96, Int96Type};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Float32Array,
        Float64Array, Int32Array, Int64Array, LargeStringArray, ListArray, NullArray, StringArray, StringViewArray,
        StructArray, TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
    },
    datatypes::{DataType, Decimal128Type, Field, Fields, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType},
};

use super::super::{Place, error_of, read_all, read_well, schema};
use super::{rejects, rows, write, write_raw};
use crate::{File, Position, Source};

/// What a column of one type is as another: its values, and the reasons why others are not.
async fn read_as(values: ArrayRef, wanted: DataType) -> Result<(ArrayRef, Vec<String>), String> {
    let place = Place::new();
    let path = write(&place, "a.parquet", &rows(vec![("c", values)]), 100);
    let source = File::pattern(path).parquet_with(schema(&[("c", wanted, true)]));
    source.check().map_err(|error| error.to_string())?;
    let delivered = read_well(&source).await;
    let reasons = delivered.rejected.iter().map(|it| it.reason.clone()).collect();
    Ok((delivered.batch(&source.schema().unwrap()).column(0).clone(), reasons))
}

#[tokio::test]
async fn values_are_read_as_other_types_as_far_as_they_fit() {
    let float = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
    let int64 = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
    let text = || -> ArrayRef { Arc::new(StringArray::from(vec![Some("a"), None, Some("more than twelve bytes")])) };
    let micros = |values: Vec<i64>, zone: Option<&str>| -> ArrayRef {
        Arc::new(arrow::array::TimestampMicrosecondArray::from(values).with_timezone_opt(zone))
    };
    let micros_of = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into));
    let decimal = |values: Vec<i128>, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(8, scale).unwrap())
    };
    let beyond = i64::MAX / 1_000_000 + 1;
    let cases: Vec<(ArrayRef, ArrayRef, &[&str])> = vec![
        (Arc::new(Int32Array::from(vec![-1, i32::MAX])), int64(vec![-1, i64::from(i32::MAX)]), &[]),
        (
            int64(vec![1, -1, i64::MAX]),
            Arc::new(UInt64Array::from(vec![1, i64::MAX as u64])),
            &["-1 does not fit UInt64"],
        ),
        (int64(vec![1 << 40, 5]), Arc::new(Int32Array::from(vec![5])), &["1099511627776 does not fit Int32"]),
        (int64(vec![3]), float(vec![3.0]), &[]),
        (Arc::new(Float32Array::from(vec![0.5])), float(vec![0.5]), &[]),
        (text(), Arc::new(LargeStringArray::from(text().as_string::<i32>().iter().collect::<Vec<_>>())), &[]),
        (text(), Arc::new(StringViewArray::from(text().as_string::<i32>().iter().collect::<Vec<_>>())), &[]),
        (text(), Arc::new(text().as_string::<i32>().iter().collect::<DictionaryArray<Int32Type>>()), &[]),
        (
            Arc::new(BinaryArray::from(vec![b"ok".as_slice(), b"\xff\x00"])),
            Arc::new(StringArray::from(vec!["ok"])),
            &["ff00 does not fit Utf8"],
        ),
        // Cut off towards the past, also before 1970.
        (Arc::new(TimestampNanosecondArray::from(vec![1_999, -1, -1_000])), micros(vec![1, -1, -1], None), &[]),
        (
            Arc::new(TimestampSecondArray::from(vec![-7, beyond])),
            micros(vec![-7_000_000], Some("+00:00")),
            &["does not fit Timestamp(µs, \"+00:00\")"],
        ),
        // The same instant in another zone; without one it is UTC.
        (micros(vec![5], Some("+00:00")), micros(vec![5], Some("Europe/Berlin")), &[]),
        (micros(vec![5], None), micros(vec![5], Some("+02:00")), &[]),
        (int64(vec![5]), micros(vec![5], None), &[]),
        (decimal(vec![105], 2), decimal(vec![1_050], 3), &[]),
        (
            Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2], [3, 4]].into_iter()).unwrap()),
            Arc::new(BinaryArray::from(vec![b"\x01\x02".as_slice(), b"\x03\x04"])),
            &[],
        ),
        // A column that was always null, as others write it.
        (Arc::new(NullArray::new(2)), Arc::new(StringArray::from(vec![None::<&str>; 2])), &[]),
        (decimal(vec![1, 99_999_999], 2), decimal(vec![10], 3), &["does not fit Decimal128(8, 3)"]),
    ];
    for (values, expected, reasons) in cases {
        let case = format!("{} as {}", values.data_type(), expected.data_type());
        let (read, rejected) = read_as(values, expected.data_type().clone()).await.unwrap();
        assert_eq!(&read, &expected, "{case}");
        assert_eq!(rejected.len(), reasons.len(), "{case}: {rejected:?}");
        assert!(rejected.iter().zip(reasons).all(|(it, reason)| it.contains(reason)), "{case}: {rejected:?}");
    }
    let dictionary = |key: DataType, value: DataType| DataType::Dictionary(Box::new(key), Box::new(value));
    for (values, wanted, said) in [
        (text(), DataType::Int64, "column \"c\" is Utf8, which cannot be read as Int64"),
        (float(vec![1.0]), DataType::Int64, "column \"c\" is Float64, which cannot be read as Int64"),
        (float(vec![1.0]), DataType::Float32, "Float64, which cannot be read as Float32"),
        (int64(vec![1]), DataType::Utf8, "Int64, which cannot be read as Utf8"),
        (text(), micros_of(None), "Utf8, which cannot be read as Timestamp"),
        (decimal(vec![105], 2), DataType::Decimal128(8, 1), "cannot be read as Decimal128(8, 1)"),
        (text(), DataType::new_list(DataType::Utf8, true), "Utf8, which cannot be read as List"),
        (text(), dictionary(DataType::Int8, DataType::Utf8), "Utf8, which cannot be read as Dictionary(Int8"),
        (micros(vec![5], None), dictionary(DataType::Int32, micros_of(None)), "cannot be read as Dictionary"),
        (int64(vec![1]), DataType::Float16, "Int64, which cannot be read as Float16"),
    ] {
        let error = read_as(values, wanted).await.unwrap_err();
        assert!(error.contains("a.parquet: ") && error.contains(said), "{error}");
    }
}

#[tokio::test]
async fn times_within_lists_and_structs_are_of_any_zone() {
    let zone = |zone: &str| DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()));
    let array = |zone_of: &str| -> ArrayRef {
        let times = arrow::array::TimestampMicrosecondArray::from(vec![1, 2]).with_timezone(zone_of);
        let times: ArrayRef = Arc::new(times);
        Arc::new(StructArray::new(Fields::from(vec![Field::new("at", zone(zone_of), true)]), vec![times], None))
    };
    for there in ["+00:00", "Europe/Berlin"] {
        let (read, reasons) = read_as(array(there), array("+00:00").data_type().clone()).await.unwrap();
        assert_eq!((&read, reasons.len()), (&array("+00:00"), 0));
    }
}

/// Others write everything as if it could be null.
#[tokio::test]
async fn what_must_not_be_null_within_a_list_rejects_its_row() {
    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![None]), None]);
    let wanted = DataType::List(Arc::new(Field::new("it", DataType::Int64, false)));
    let (read, reasons) = read_as(Arc::new(lists), wanted).await.unwrap();
    assert_eq!((read.len(), read.null_count()), (2, 1));
    assert_eq!(read.as_list::<i32>().value(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].starts_with("column \"c\": [null] does not fit List"), "{reasons:?}");
}

/// Numbers with more digits than their column says.
#[tokio::test]
async fn decimals_that_are_too_long_are_rejected() {
    let place = Place::new();
    let path =
        write_raw::<Int32Type_>(&place, "a.parquet", "required int32 c (DECIMAL(4, 2))", &[1_234, 10_000_000], None);
    for (wanted, value) in [(DataType::Decimal128(4, 2), 1_234), (DataType::Decimal128(8, 3), 12_340)] {
        let wanted = schema(&[("c", wanted, true)]);
        let delivered = read_well(&File::pattern(&path).parquet_with(wanted.clone())).await;
        let batch = delivered.batch(&wanted);
        assert_eq!(batch.column(0).as_primitive::<Decimal128Type>().values(), &[value]);
        assert_eq!(delivered.rejected[0].position, Some(Position(1)));
    }
}

/// The library takes the word of a file that something is text, of all but the usual way to say so.
#[tokio::test]
async fn what_is_called_text_and_is_none_is_rejected() {
    let place = Place::new();
    let values = ["\"a\"".into(), ByteArray::from(vec![b'"', 0xff, b'"']), "\"longer than twelve bytes\"".into()];
    for (n, annotation) in ["(JSON)", "(STRING)", "(UTF8)", ""].into_iter().enumerate() {
        let path = write_raw::<ByteArrayType>(
            &place,
            &format!("{n}.parquet"),
            &format!("required binary c {annotation}"),
            &values,
            None,
        );
        let source = File::pattern(path).parquet_with(schema(&[("c", DataType::Utf8, false)]));
        let (delivered, end) = read_all(&source).await;
        match end {
            Ok(()) => {
                assert_eq!((delivered.rows(), delivered.rejected.len()), (2, 1), "{annotation}");
                assert_eq!(delivered.rejected[0].position, Some(Position(1)), "{annotation}");
            }
            // What the library looks at itself makes the page unreadable.
            Err(error) => assert!(error.to_string().contains("non UTF-8"), "{annotation}: {error}"),
        }
    }
}

/// Nanoseconds since 1970 in 64 bits end in 2262, and the times of old files need not.
#[tokio::test]
async fn times_of_96_bits_are_read_far_from_1970() {
    let place = Place::new();
    let time = |julian_day: u32, nanos: u64| {
        let mut time = Int96::new();
        time.set_data((nanos & 0xffff_ffff) as u32, (nanos >> 32) as u32, julian_day);
        time
    };
    // 1970-01-01, 0001-01-01, 3000-01-01.
    let times = [time(2_440_588, 1_500), time(1_721_426, 0), time(2_816_788, 0)];
    let path = write_raw::<Int96Type>(&place, "a.parquet", "required int96 at", &times, None);
    let source = File::pattern(&path).infer_parquet().unwrap();
    assert_eq!(source.schema().unwrap().field(0).data_type(), &DataType::Timestamp(TimeUnit::Microsecond, None));
    let batch = read_well(&source).await.batch(&source.schema().unwrap());
    assert_eq!(
        batch.column(0).as_primitive::<TimestampMicrosecondType>().values(),
        &[1, -62_135_596_800_000_000, 32_503_680_000_000_000]
    );
    let nanos = schema(&[("at", DataType::Timestamp(TimeUnit::Nanosecond, None), false)]);
    let delivered = read_well(&File::pattern(&path).parquet_with(nanos)).await;
    assert_eq!((delivered.rows(), delivered.rejected.len()), (1, 2), "neither 1 nor 3000 fits");
    let wanted = schema(&[("at", DataType::Timestamp(TimeUnit::Second, Some("+00:00".into())), false)]);
    let delivered = read_well(&File::pattern(path).parquet_with(wanted.clone())).await;
    let seconds = delivered.batch(&wanted);
    let seconds = seconds.column(0).as_primitive::<arrow::datatypes::TimestampSecondType>();
    assert_eq!(seconds.values(), &[0, -62_135_596_800, 32_503_680_000]);
}

/// Where the values of a list would be read wrong and nobody would see it.
#[tokio::test]
async fn what_cannot_be_looked_at_within_others_is_refused() {
    let place = Place::new();
    let texts = [ByteArray::from(vec![0xff]), ByteArray::from(vec![b'a'])];
    let json = write_raw::<ByteArrayType>(&place, "a.parquet", "repeated binary c (JSON)", &texts, Some(&[0, 1]));
    let times = [Int96::new(), Int96::new()];
    let times = write_raw::<Int96Type>(&place, "b.parquet", "repeated int96 at", &times, Some(&[0, 0]));
    for (path, what) in [(json, "text that is not marked as UTF8"), (times, "times of 96 bits")] {
        let error = error_of(&File::pattern(&path).infer_parquet().unwrap()).await;
        assert!(error.starts_with(&format!("{path}: column ")) && error.contains(what), "{error}");
    }
}

#[tokio::test]
async fn decimals_within_others_are_looked_at_too() {
    let decimals = Decimal128Array::from(vec![1_234, 10_000_000, 5]).with_precision_and_scale(4, 2).unwrap();
    let item = Arc::new(Field::new("item", decimals.data_type().clone(), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([1, 1, 1]);
    let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(decimals), None));
    let (read, reasons) = read_as(lists.clone(), lists.data_type().clone()).await.unwrap();
    assert_eq!((read.len(), reasons.len()), (2, 1));
}

#[tokio::test]
async fn months_stay_months() {
    let place = Place::new();
    let months: ArrayRef = Arc::new(arrow::array::IntervalYearMonthArray::from(vec![14]));
    let path = write(&place, "a.parquet", &rows(vec![("c", months.clone())]), 10);
    let source = File::pattern(path).infer_parquet().unwrap();
    assert_eq!(read_well(&source).await.batch(&source.schema().unwrap()).column(0), &months);
    let bytes = ::parquet::data_type::FixedLenByteArray::from(vec![1; 12]);
    let column = "required fixed_len_byte_array(12) c (INTERVAL)";
    let path = write_raw::<::parquet::data_type::FixedLenByteArrayType>(&place, "b.parquet", column, &[bytes], None);
    let error = error_of(&File::pattern(path).infer_parquet().unwrap()).await;
    assert!(error.contains("of which nobody says which it has"), "{error}");
}

#[tokio::test]
async fn a_row_that_is_rejected_is_shown_whatever_zones_there_are() {
    let place = Place::new();
    let times = |zone: &str| -> ArrayRef { Arc::new(TimestampSecondArray::from(vec![7]).with_timezone(zone)) };
    let columns =
        vec![("at", times("UTC")), ("odd", times("Mars/Olympus")), ("price", Arc::new(Int64Array::new_null(1)) as _)];
    let path = write(&place, "a.parquet", &rows(columns), 10);
    let zone = |zone: &str| DataType::Timestamp(TimeUnit::Second, Some(zone.into()));
    let wanted = [("at", zone("UTC"), true), ("odd", zone("Mars/Olympus"), true), ("price", DataType::Int64, false)];
    let delivered = read_well(&File::pattern(path).parquet_with(schema(&wanted))).await;
    assert_eq!(rejects(&delivered)[0].2, "at=1970-01-01T00:00:07Z odd=? price=null");
}
