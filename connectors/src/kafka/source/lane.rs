//! One partition on its way into columns.

use std::sync::atomic::Ordering::Relaxed;

use rdkafka::{Message, message::Header};

use super::{
    super::letters::{self, EXCERPT_BYTES},
    feed::Partition,
    layout::{Builder, headers},
    plan::Plan,
    watch::Watch,
};
use crate::{Origins, Position, Rejected, Result, Rows, SplitId, format::Decoder};

/// A batch is given away when its records have this many bytes, or its columns that many: those of sparse records are larger.
const BATCH_BYTES: usize = 1 << 20;
const COLUMN_BYTES: usize = 16 << 20;

/// The columns are measured after so many records, and after each that is longer than that.
const MEASURED: usize = 16;
const LONG: usize = 4 << 10;

/// The records of a partition since its last batch.
pub(super) struct Lane {
    pub(super) at: Partition,
    pub(super) split: SplitId,
    /// The offset of the next record. What is below it was taken already, or is no record: at the end of a partition this is its end.
    pub(super) next: u64,
    /// Where to end, if it is to end.
    pub(super) end: Option<u64>,
    pub(super) ended: bool,
    pub(super) watch: Watch,
    /// The records of the batch, rejected ones too, and their bytes.
    records: usize,
    bytes: usize,
    /// The bytes of the columns when they were last measured, or of the records if these are more.
    held: usize,
    decoder: Option<Box<dyn Decoder>>,
    builders: Vec<Builder>,
    /// The messages that the rows are.
    origins: Origins,
    rejected: Vec<Rejected>,
    /// Records that are no rows by their format.
    passed_over: u64,
    /// Headers are not kept any more for rows that may be rejected later: the name of one could not be read, and that is as slow as a
    /// panic.
    pub(super) blind: bool,
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was there already, or lies behind the end.
    No,
    /// It is in the batch, which has this many bytes more.
    Yes(usize),
    /// It is, and the batch should go now.
    Full(usize),
}

impl Lane {
    pub(super) fn new(at: Partition, next: u64, end: Option<u64>, plan: &Plan) -> Self {
        Self {
            at,
            split: at.split(&plan.topics),
            next,
            end,
            ended: false,
            watch: Watch::default(),
            records: 0,
            bytes: 0,
            held: 0,
            decoder: None,
            builders: plan.layout.builders(),
            origins: Origins::of_partition(at.number),
            rejected: Vec::new(),
            passed_over: 0,
            blind: false,
        }
    }

    /// The records that wait for [`Lane::flush`].
    pub(super) fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Their bytes, or those of their columns.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether everything up to the end has been taken.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }

    /// Takes a record, unless it comes again: after a reconnect librdkafka may repeat some. That offsets are missing is in order:
    /// transactions leave markers that are no records, aborted ones their records, and compaction takes some away.
    pub(super) fn take<M: Message>(&mut self, record: &M, plan: &Plan) -> Result<Taken> {
        let Ok(offset) = u64::try_from(record.offset()) else { return Ok(Taken::No) };
        if offset < self.next || self.ended {
            return Ok(Taken::No);
        }
        if self.end.is_some_and(|end| offset >= end) {
            self.next = self.next.max(offset);
            return Ok(Taken::No);
        }
        let (headers, unreadable) = self.headers(record, plan);
        let (bytes, fits) = bytes(record, headers.as_deref().unwrap_or_default(), plan);
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            empty => empty.insert(plan.decoder()?),
        };
        let read = headers.as_deref().unwrap_or_default();
        match unreadable.map_or_else(|| decode(record, read, bytes, decoder.as_mut(), plan), Err) {
            Ok(true) => {
                self.builders.iter_mut().for_each(|builder| builder.push(record));
                if !plan.without_origins.load(Relaxed) {
                    let at = Position(offset);
                    match record.payload() {
                        Some(payload) => self.origins.push(at, None, payload, record.key()),
                        None => self.origins.push_null(at, record.key()),
                    }
                    let headers = read.iter().filter(|_| fits).map(|header| (header.key, header.value));
                    self.origins.beside(headers, record.timestamp().to_millis());
                }
            }
            Ok(false) => self.passed_over += 1,
            Err(reason) => match decoder.failure() {
                // The record is not to blame. The rows before it are read again with it.
                Some(error) => return Err(error),
                None => self.rejected.push(reject(record, headers, Position(offset), self.at.number, reason, plan)),
            },
        }
        self.next = offset + 1;
        self.records += 1;
        self.bytes += bytes;
        let measured = self.records.is_multiple_of(MEASURED) || bytes >= LONG;
        let columns = if measured { decoder.bytes() } else { 0 };
        let taken = self.bytes.max(columns).saturating_sub(self.held);
        self.held += taken;
        let full = self.records >= plan.batch_rows || self.bytes >= BATCH_BYTES || columns >= COLUMN_BYTES;
        Ok(if full { Taken::Full(taken) } else { Taken::Yes(taken) })
    }

    /// The headers of a record, if somebody needs them before it is known what it is: there is a column for them, or rows are kept as
    /// what they were, or it may be a letter that was cut. Of all others they are not asked for, because librdkafka then makes a list of
    /// them. If there is a column for them and one cannot be read, also the reason in words.
    fn headers<'a, M: Message>(&mut self, record: &'a M, plan: &Plan) -> (Option<Vec<HeaderOf<'a>>>, Option<String>) {
        let wanted = plan.layout.has_headers();
        let kept = !self.blind && !plan.without_origins.load(Relaxed);
        if !wanted && !kept && record.payload().is_some() {
            return (None, None);
        }
        let (headers, unreadable) = headers(record);
        self.blind |= unreadable.is_some();
        (Some(headers), unreadable.filter(|_| wanted))
    }

    /// Gives away what was taken.
    pub(super) fn flush(&mut self, plan: &Plan) -> Result<Rows> {
        let payload = match &mut self.decoder {
            Some(decoder) => decoder.flush()?,
            None => arrow::array::RecordBatch::new_empty(plan.layout.payload.clone()),
        };
        let topic = plan.topics.get(self.at.topic).map_or("", String::as_str);
        let batch = plan.layout.join(payload, &mut self.builders, topic, self.at.number)?;
        (self.records, self.bytes, self.held) = (0, 0, 0);
        // The thread has begun to read before it could be told that nobody asks for them.
        let origins = Some(self.origins.take()).filter(|origins| origins.len() == batch.num_rows());
        Ok(Rows {
            split: self.split.clone(),
            batch,
            rejected: std::mem::take(&mut self.rejected),
            passed_over: std::mem::take(&mut self.passed_over),
            next: Position(self.next),
            origins,
        })
    }
}

/// A header of a record.
type HeaderOf<'a> = Header<'a, &'a [u8]>;

/// The bytes of a record, and whether it fits with all its headers: those that nobody asked for are no reason to reject it.
fn bytes<M: Message>(record: &M, headers: &[HeaderOf<'_>], plan: &Plan) -> (usize, bool) {
    let own = record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len);
    let all = own + headers.iter().map(size).sum::<usize>();
    let fits = all <= plan.max_record_bytes;
    (if fits || plan.layout.has_headers() { all } else { own }, fits)
}

/// Whether it is a row now; the reason, if it cannot be one.
fn decode<M: Message>(
    record: &M,
    headers: &[HeaderOf<'_>],
    bytes: usize,
    decoder: &mut dyn Decoder,
    plan: &Plan,
) -> Result<bool, String> {
    // To a format it would be a tombstone.
    if record.payload().is_none()
        && !plan.lists
        && let Some(reason) = letters::cut(headers)
    {
        return Err(reason);
    }
    if bytes > plan.max_record_bytes {
        let limit = plan.max_record_bytes;
        return Err(format!("has {bytes} bytes, more than the {limit} of max_record_bytes"));
    }
    plan.layout.check(record)?;
    match record.payload() {
        Some(payload) => decoder.push(payload).map(|()| true),
        None => decoder.push_null(),
    }
}

fn size(header: &HeaderOf<'_>) -> usize {
    header.key.len() + header.value.map_or(0, <[u8]>::len)
}

/// The record as it was, or its beginning if it is too long. Of headers that are too much those of letters
/// stay, which say where it came from first.
#[cold]
fn reject<M: Message>(
    record: &M,
    read: Option<Vec<HeaderOf<'_>>>,
    position: Position,
    partition: i32,
    reason: String,
    plan: &Plan,
) -> Rejected {
    let mut headers = read.unwrap_or_else(|| headers(record).0);
    let (bytes, fits) = bytes(record, &headers, plan);
    let whole = bytes <= plan.max_record_bytes;
    if !fits {
        headers.retain(|header| letters::is_own(header.key));
        headers.truncate(letters::OWN);
    }
    let beginning = |part: &[u8], whole: bool| part.get(..EXCERPT_BYTES).filter(|_| !whole).unwrap_or(part).to_vec();
    let header = |header: &HeaderOf<'_>| (header.key.to_owned(), header.value.map(|value| beginning(value, fits)));
    Rejected {
        position: Some(position),
        bytes: record.payload().map(|payload| beginning(payload, whole)),
        key: record.key().map(|key| beginning(key, whole)),
        truncated: (!whole).then_some(bytes as u64),
        headers: headers.iter().map(header).collect(),
        timestamp: record.timestamp().to_millis(),
        partition: Some(partition),
        ..Rejected::of(reason)
    }
}
