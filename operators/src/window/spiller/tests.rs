//! What is counted of groups that are put away, against the rows that came.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::Int64Array,
    datatypes::{DataType, Field, Schema},
};
use datafusion_expr::lit;
use datafusion_functions_aggregate::expr_fn::count;

use super::*;
use crate::{
    StreamSchema,
    aggregates::Planned,
    testing::TestRoom,
    window::{form::of_aggregation, table::Tables},
};

/// Saves of few and of many changes, of keys that are in memory, in runs that more came in, or only in `whole` ones.
#[test]
fn which_groups_changed_when_is_counted_right() {
    const KEYS: i64 = 1_000;
    let stream = StreamSchema::without_time(Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false)])));
    let planned = Planned::new(&stream, &["k"], &[count(lit(1))]).unwrap();
    let form = of_aggregation("a test", &planned, false).unwrap();
    let mut random = fastrand::Rng::with_seed(13);
    for bytes in [2_000, 20_000, 4_000_000] {
        let spiller = Spiller::new(TestRoom::new().memory(bytes), &form.columns, 1);
        let (mut tables, mut scratch, mut last) =
            (Tables::new(planned.key_schema.clone()), Vec::new(), BTreeMap::new());
        tables.record();
        let mut groups = Groups::Spilled(Box::default());
        let mut save = 1;
        for _ in 0..60 {
            let aggregates = &planned.aggregates;
            let many = [1, 5, 40, 400][random.usize(..4)];
            let keys: Vec<i64> = (0..many).map(|_| random.i64(0..KEYS)).collect();
            last.extend(keys.iter().map(|key| (*key, save)));
            let ones: ArrayRef = Arc::new(Int64Array::from(vec![1; keys.len()]));
            let key: ArrayRef = Arc::new(Int64Array::from(keys));
            let table = groups.taking(&mut tables, aggregates).unwrap();
            table.merge(&[key], &[ones], many, &mut scratch).unwrap();
            let mut tools = Tools { aggregates, tables: &mut tables, scratch: &mut scratch, save };
            match random.u8(..3) {
                0 => spiller.spill(&mut groups, &mut tools).unwrap(),
                1 => {
                    let of = spilled(Some(&mut groups)).unwrap();
                    spiller.settle(of, &mut tools).unwrap();
                    let (mut expected, mut actual) = (Changes::new(), Changes::new());
                    last.values().for_each(|save| *expected.entry(*save).or_default() += 1);
                    of.add_changes(&mut actual).unwrap();
                    assert_eq!(actual, expected);
                    if random.u8(..8) == 0 {
                        // As after a restore: all are counted anew.
                        of.changes = None;
                        spiller.settle(of, &mut tools).unwrap();
                        assert_eq!(of.changes, Some(expected));
                    }
                    save += 1;
                }
                _ => {}
            }
        }
        assert!(save > 10 && last.len() > KEYS as usize / 2);
    }
}
