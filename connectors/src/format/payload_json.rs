//! Rows as JSON payloads: one object each, without a line end.

use std::sync::Arc;

use arrow::{
    array::{RecordBatch, StructArray},
    datatypes::{Field, SchemaRef},
    json::writer::{EncoderOptions, make_encoder},
};

use super::{Encoder, Format, Payloads, RowEncoder, encode::check_times};
use crate::Result;

/// Makes a JSON object of each row, as [`Encoder`] does: nulls are left out, times are RFC 3339 text.
#[derive(Debug)]
pub struct JsonRowEncoder(());

impl JsonRowEncoder {
    /// An encoder for rows of `schema`. Fails for a column that JSON has no form for, naming it.
    pub fn new(schema: &SchemaRef) -> Result<Self> {
        Encoder::accepts(Format::Json, schema)?;
        Ok(Self(()))
    }
}

impl RowEncoder for JsonRowEncoder {
    fn encode(&mut self, batch: &RecordBatch, out: &mut Payloads) -> Result<()> {
        objects(batch, &EncoderOptions::default(), out)
    }
}

/// An object of each row: what arrow's writer of lines does, without the lines, which would have to be found again.
pub(crate) fn objects(batch: &RecordBatch, options: &EncoderOptions, out: &mut Payloads) -> Result<()> {
    framed_objects(batch, options, &[], out)
}

/// The same, with `frame` in front of each.
pub(super) fn framed_objects(
    batch: &RecordBatch,
    options: &EncoderOptions,
    frame: &[u8],
    out: &mut Payloads,
) -> Result<()> {
    check_times(batch)?;
    let field = Arc::new(Field::new_struct("", batch.schema_ref().fields().clone(), false));
    let rows = StructArray::from(batch.clone());
    let mut object = make_encoder(&field, &rows, options)?;
    for row in 0..batch.num_rows() {
        out.buffer().extend_from_slice(frame);
        object.encode(row, out.buffer());
        out.end();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, StringArray, TimestampMicrosecondArray},
        datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit},
    };

    use super::*;

    #[test]
    fn each_row_is_an_object_without_its_line_end() {
        let fields = vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)];
        let schema = Arc::new(Schema::new(fields));
        let n = Int64Array::from(vec![Some(1), None, None]);
        let text = StringArray::from(vec![Some("a\nb"), Some("x"), None]);
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(n), Arc::new(text)]).unwrap();
        let mut encoder = JsonRowEncoder::new(&schema).unwrap();
        let mut out = Payloads::new();
        // Twice into the same buffer: the second rows lie behind the first.
        for _ in 0..2 {
            encoder.encode(&batch, &mut out).unwrap();
        }
        let rows: Vec<_> =
            (0..out.len()).map(|row| String::from_utf8_lossy(out.get(row).unwrap()).into_owned()).collect();
        let once = [r#"{"n":1,"text":"a\nb"}"#, r#"{"text":"x"}"#, "{}"];
        assert_eq!(rows, [once, once].concat());
    }

    #[test]
    fn what_json_cannot_hold_is_refused() {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let at = Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), false);
        let schema = Arc::new(Schema::new(vec![at]));
        let batch =
            RecordBatch::try_new(schema.clone(), vec![Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]))])
                .unwrap();
        let failed = JsonRowEncoder::new(&schema).unwrap().encode(&batch, &mut Payloads::new()).unwrap_err();
        assert!(failed.to_string().contains("outside the calendar"), "{failed}");
        let union = DataType::Dictionary(Box::new(DataType::Int8), Box::new(interval));
        let schema = Arc::new(Schema::new(vec![Field::new("i", union, false)]));
        let refused = JsonRowEncoder::new(&schema).map(drop);
        if let Err(refused) = refused {
            assert!(refused.to_string().contains("\"i\""), "{refused}");
        }
    }
}
