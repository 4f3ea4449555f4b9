//! q10, log to file system: all bids to CSV files, in a directory per day and minute.
//!
//! The suite's directories are `dt=2015-07-15/hm=23:59`; here they are `dt=2015-07-15/hm=2359`, because a name has no colon that
//! need not be escaped. Files are published at the end, or with each checkpoint where there are some.

use windrow::{arrow::datatypes::DataType, cast, connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// `auction`, `bidder`, `price`, `at`, `extra`, `hm`: what is in the files, which are in [`Site::log`].
pub fn log(site: &Site, job: &Job) -> Stream<Untyped> {
    let minutes = cast(col("at"), DataType::Int64) / lit(60_000_000_i64);
    let hm = minutes.clone() / lit(60) % lit(24) * lit(100) + minutes % lit(60);
    let bids = site.bids(job, ["auction", "bidder", "price", "at", "extra"]).select([
        col("auction"),
        col("bidder"),
        col("price"),
        col("at"),
        col("extra"),
        hm.alias("hm"),
    ]);
    let files = File::directory(site.log()).csv().partition_by_time("at", TimePartition::Daily).partition_by(["hm"]);
    bids.clone().sink(files);
    bids
}
