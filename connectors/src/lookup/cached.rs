//! A cache in front of a table: what was looked up a while ago is not asked again, whether it was found or not.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, UInt32Array},
    compute::{concat_batches, take_record_batch},
    datatypes::SchemaRef,
};
use async_trait::async_trait;
use tokio::time::Instant;

use super::{Lookup, file_table::converter, later};
use crate::{ConnectorError, Result};

/// Keeps the rows of the keys that were used last, and which keys have none, for some time. A failed lookup is not kept.
///
/// ```
/// # use typed_arrow::Record;
/// # use std::time::Duration;
/// # use windrow_connectors::{Lookup, TableFile};
/// # #[derive(Record)]
/// # struct Shop { id: i64, city: Option<String> }
/// # let service = TableFile::csv::<Shop>("shops.csv");
/// use windrow_connectors::Cached;
///
/// let shops = Cached::new(service, 100_000, Duration::from_secs(60));
/// assert_eq!(shops.name(), "shops.csv");
/// ```
pub struct Cached<L> {
    lookup: L,
    capacity: usize,
    ttl: Duration,
    kept: Mutex<Kept>,
}

/// A key as bytes that compare as it does.
type Key = Arc<[u8]>;

#[derive(Default)]
struct Kept {
    /// The columns of the keys.
    columns: Option<SchemaRef>,
    entries: HashMap<Key, Entry>,
    /// The keys by when they were used last, oldest first.
    by_use: BTreeMap<u64, Key>,
    uses: u64,
}

struct Entry {
    /// None of them when the table has no such key.
    rows: RecordBatch,
    until: Instant,
    used: u64,
}

impl<L: Lookup> Cached<L> {
    /// Keeps at most `capacity` keys, each for at most `ttl` (time to live): so old can be what a lookup gives.
    pub fn new(lookup: L, capacity: usize, ttl: Duration) -> Self {
        Self { lookup, capacity, ttl, kept: Mutex::new(Kept::default()) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows that are there, and which of `keys` have to be looked up.
    fn known(&self, columns: &SchemaRef, keys: &[Key]) -> (Vec<RecordBatch>, Vec<usize>) {
        let (mut rows, mut missing, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
        let (mut kept, now) = (self.kept(), Instant::now());
        if kept.columns.as_ref().is_none_or(|other| other.fields() != columns.fields()) {
            *kept = Kept { columns: Some(columns.clone()), ..Kept::default() };
        }
        for (place, key) in keys.iter().enumerate().filter(|(_, key)| seen.insert(*key)) {
            match kept.get(key, now) {
                Some(own) => rows.push(own),
                None => missing.push(place),
            }
        }
        (rows, missing)
    }
}

impl Kept {
    fn get(&mut self, key: &Key, now: Instant) -> Option<RecordBatch> {
        let entry = self.entries.get_mut(key).filter(|entry| now < entry.until)?;
        self.by_use.remove(&entry.used);
        self.uses += 1;
        entry.used = self.uses;
        self.by_use.insert(self.uses, key.clone());
        Some(entry.rows.clone())
    }

    fn put(&mut self, key: Key, rows: RecordBatch, until: Instant, capacity: usize) {
        self.uses += 1;
        let used = self.uses;
        if let Some(former) = self.entries.insert(key.clone(), Entry { rows, until, used }) {
            self.by_use.remove(&former.used);
        }
        self.by_use.insert(used, key);
        while self.entries.len() > capacity
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// The keys of rows.
fn encode(columns: &SchemaRef, rows: &RecordBatch) -> Result<Vec<Key>> {
    let column = |name: &str| {
        let missing =
            || ConnectorError::Data { at: "a lookup".into(), reason: format!("no column {name:?} came back") };
        rows.column_by_name(name).cloned().ok_or_else(missing)
    };
    let arrays = columns.fields().iter().map(|field| column(field.name())).collect::<Result<Vec<ArrayRef>>>()?;
    let encoded = converter(columns)?.convert_columns(&arrays)?;
    Ok(encoded.iter().map(|row| Key::from(row.as_ref())).collect())
}

#[async_trait]
impl<L: Lookup> Lookup for Cached<L> {
    fn name(&self) -> String {
        self.lookup.name()
    }

    fn schema(&self) -> Result<SchemaRef> {
        self.lookup.schema()
    }

    async fn open(&self, keys: &SchemaRef) -> Result<()> {
        self.lookup.open(keys).await
    }

    async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch> {
        let columns = keys.schema();
        let encoded = encode(&columns, &keys)?;
        let (mut rows, missing) = self.known(&columns, &encoded);
        if !missing.is_empty() {
            let asked = UInt32Array::from_iter_values(missing.iter().map(|&place| place as u32));
            let asked = if missing.len() == keys.num_rows() { keys } else { take_record_batch(&keys, &asked)? };
            let found = self.lookup.lookup(asked).await?;
            let mut places: HashMap<Key, Vec<u32>> = HashMap::new();
            for (row, key) in (0..).zip(encode(&columns, &found)?) {
                places.entry(key).or_default().push(row);
            }
            let until = later(self.ttl);
            let mut kept = self.kept();
            for place in missing {
                let own = places.remove(&encoded[place]).unwrap_or_default();
                let own = take_record_batch(&found, &UInt32Array::from(own))?;
                kept.put(encoded[place].clone(), own, until, self.capacity);
            }
            rows.push(found);
        }
        Ok(concat_batches(&self.schema()?, &rows)?)
    }

    fn warning(&self) -> Option<String> {
        self.lookup.warning()
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{AsArray, Int64Array},
        datatypes::{DataType, Field, Int64Type, Schema},
    };

    use super::*;

    /// Even numbers twice; notes what it is asked.
    #[derive(Clone, Default)]
    struct Even {
        asked: Arc<Mutex<Vec<Vec<i64>>>>,
        fails: Arc<std::sync::atomic::AtomicBool>,
    }

    fn schema() -> SchemaRef {
        let columns = ["n", "copy"].map(|name| Field::new(name, DataType::Int64, false));
        Arc::new(Schema::new(columns.to_vec()))
    }

    fn keys(numbers: &[i64]) -> RecordBatch {
        RecordBatch::try_new(
            Arc::new(schema().project(&[0]).unwrap()),
            vec![Arc::new(Int64Array::from(numbers.to_vec()))],
        )
        .unwrap()
    }

    #[async_trait]
    impl Lookup for Even {
        fn name(&self) -> String {
            "even".into()
        }

        fn schema(&self) -> Result<SchemaRef> {
            Ok(schema())
        }

        async fn lookup(&self, keys: RecordBatch) -> Result<RecordBatch> {
            if self.fails.load(std::sync::atomic::Ordering::SeqCst) {
                return Err(ConnectorError::Config("the line is down".into()));
            }
            let asked = keys.column(0).as_primitive::<Int64Type>().values().to_vec();
            self.asked.lock().unwrap().push(asked.clone());
            let even = asked.into_iter().filter(|n| n % 2 == 0);
            let rows: Vec<i64> = even.flat_map(|n| [n, n]).collect();
            let copies = (0..rows.len() as i64).map(|place| place % 2).collect::<Vec<_>>();
            let columns = [rows, copies].map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
            Ok(RecordBatch::try_new(schema(), columns.to_vec())?)
        }
    }

    async fn found(cache: &Cached<Even>, numbers: &[i64]) -> Vec<i64> {
        let rows = cache.lookup(keys(numbers)).await.unwrap();
        let mut found = rows.column(0).as_primitive::<Int64Type>().values().to_vec();
        found.sort_unstable();
        found
    }

    fn asked(even: &Even) -> Vec<Vec<i64>> {
        std::mem::take(&mut even.asked.lock().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_is_not_asked_until_its_time_is_over() {
        let even = Even::default();
        let cache = Cached::new(even.clone(), 100, Duration::from_secs(10));
        assert_eq!(found(&cache, &[2, 3, 2, 3, 2]).await, [2, 2]);
        assert_eq!(asked(&even), [vec![2, 3]], "equal keys are one");
        assert_eq!(found(&cache, &[3, 4, 2]).await, [2, 2, 4, 4]);
        assert_eq!(asked(&even), [vec![4]], "that there is no 3 is known as well");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(found(&cache, &[2, 3]).await, [2, 2]);
        assert_eq!(asked(&even), Vec::<Vec<i64>>::new());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(found(&cache, &[2, 3]).await, [2, 2]);
        assert_eq!(asked(&even), [vec![2, 3]], "use does not make it younger");
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_that_was_used_longest_ago_goes_first() {
        let even = Even::default();
        let cache = Cached::new(even.clone(), 2, Duration::from_secs(10));
        found(&cache, &[2]).await;
        found(&cache, &[4]).await;
        found(&cache, &[2]).await;
        found(&cache, &[6]).await;
        asked(&even);
        found(&cache, &[2]).await;
        assert_eq!(asked(&even), Vec::<Vec<i64>>::new());
        found(&cache, &[4]).await;
        assert_eq!(asked(&even), [vec![4]]);
        let many: Vec<i64> = (0..1_000).collect();
        assert_eq!(found(&cache, &many).await.len(), 1_000, "more than it keeps");
        let kept = cache.kept();
        assert_eq!((kept.entries.len(), kept.by_use.len()), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept() {
        let even = Even::default();
        let cache = Cached::new(even.clone(), 2, Duration::from_secs(10));
        even.fails.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(cache.lookup(keys(&[2])).await.is_err());
        even.fails.store(false, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(found(&cache, &[2]).await, [2, 2]);
    }
}
