//! What a stream of changes adds up to.

use std::collections::BTreeMap;

use super::{Row, Value};
use crate::changes::{DELETE, INSERT, UPDATE};

/// For [`Check::reduced`](super::Check::reduced): the table that changes by the visible columns `key` add up to. Fails when the
/// changes of a key are not in order: an insert of a key that is there, an update or a delete of one that is not, or a delete
/// that does not have the last row.
pub fn final_table(key: &[usize]) -> impl Fn(Vec<Row>) -> Result<Vec<Row>, String> + use<> {
    let key = key.to_vec();
    move |changes| {
        let mut table: BTreeMap<Vec<Value>, Row> = BTreeMap::new();
        for change in changes {
            let Some((op, row)) = change.values().split_first() else { continue };
            let of = key.iter().map(|&column| row[column].clone()).collect::<Vec<_>>();
            let row = Row::from(row.to_vec());
            let former = table.get(&of);
            match op {
                op if *op == INSERT.into() && former.is_none() => drop(table.insert(of, row)),
                op if *op == UPDATE.into() && former.is_some() => drop(table.insert(of, row)),
                op if *op == DELETE.into() && former == Some(&row) => drop(table.remove(&of)),
                _ => {
                    let former = former.map_or("nothing".into(), Row::to_string);
                    return Err(format!("the change {change} (insert 0, update 1, delete 2) came upon {former}"));
                }
            }
        }
        Ok(table.into_values().collect())
    }
}
