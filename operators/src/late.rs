//! Rows that come too late are set aside: the one way in which they leave an operator that looks at rows one by one.
//! (Windows on slices look at slices, sessions at what is open.)

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::{filter_record_batch, not},
};

use crate::{Outbox, Port, Result, time::times_of};

/// Sends the rows that are late out by `port` and answers for them; gives back the others, which are the caller's to answer
/// for. `column` is that of event time.
pub(crate) fn set_late_aside(
    batch: RecordBatch,
    column: usize,
    is_late: impl Fn(i64) -> bool,
    port: Port,
    out: &mut Outbox,
) -> Result<RecordBatch> {
    let times = times_of(&batch, column)?;
    if !times.iter().any(|&time| is_late(time)) {
        return Ok(batch);
    }
    let late: BooleanArray = times.iter().map(|&time| Some(is_late(time))).collect();
    out.late_on(port, filter_record_batch(&batch, &late)?);
    Ok(filter_record_batch(&batch, &not(&late)?)?)
}
