//! q13, bounded side input join: every bid with what a file says of the remainder of its auction's number by 10,000.

use windrow::{connectors::Untyped, prelude::*};

use crate::nexmark::{Site, site::SIDE_ROWS};

/// A line of the file.
#[derive(Record)]
pub struct Side {
    key: i64,
    value: String,
}

/// `auction`, `bidder`, `price`, `at`, `value`.
pub fn side_input(site: &Site, job: &Job) -> Stream<Untyped> {
    let side = TableFile::csv::<Side>(site.side_input().to_string_lossy());
    site.bids(job, ["auction", "bidder", "price", "at"])
        .select([
            col("auction"),
            col("bidder"),
            col("price"),
            col("at"),
            (col("auction") % lit(SIDE_ROWS)).alias("key"),
        ])
        .lookup(side, "key", LookupKind::Inner)
        .fail_on_failure()
        .select(["auction", "bidder", "price", "at", "value"].map(col))
}
