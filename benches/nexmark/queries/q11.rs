//! q11, user sessions: how many bids a bidder has made without a pause of ten seconds, and from when to when.
//!
//! As in the suite, a session ends ten seconds after its last bid, and a bid at that very instant still belongs to it. A session
//! of Windrow would be over by then, so the gap is a microsecond longer, which the end of the window is told without.

use std::time::Duration;

use windrow::{arrow::datatypes::DataType, cast, connectors::Untyped, prelude::*};

use crate::nexmark::Site;

/// The least difference of two times.
const INSTANT: Duration = Duration::from_micros(1);

/// `bidder`, `bids`, `window_start`, `window_end`.
pub fn sessions(site: &Site, job: &Job) -> Stream<Untyped> {
    let end = cast(cast(col("window_end"), DataType::Int64) - lit(1_i64), Timestamp::data_type());
    site.bids(job, ["bidder", "at"])
        .key_by("bidder")
        .window(Session::gap(secs(10) + INSTANT))
        .aggregate([count().alias("bids")])
        .drop_late()
        .select([col("bidder"), col("bids"), col("window_start"), end.alias("window_end")])
}
