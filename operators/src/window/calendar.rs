//! Days, weeks, months and years of a time zone, as intervals of instants.
//!
//! ```text
//!   local dates   30 March ─────────┼ 31 March ───────┼ 1 April ────────────┼
//!   instants      23:00Z      24 h  23:00Z    23 h    22:00Z        24 h    22:00Z      Europe/Berlin, 2024
//! ```
//!
//! A unit begins at the first instant at which the clocks show its first date or a later one. That is local midnight,
//! except on the days that have none because clocks were put forward over it (they begin at one o'clock) and those that have
//! two. Between two such instants lies a slice; dates that a zone left out have none.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Datelike, Days as CountOfDays, Months, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};

use super::Slice;
use crate::{OperatorError, Result, Timestamp, schema::likely};

/// Beyond 262,000 years before and after Christ there is no calendar: what lies there belongs to the first unit and to the last.
const FIRST_YEAR: i32 = -262_000;
const LAST_YEAR: i32 = 262_000;

/// No clock is further than this from UTC, not even where a date was left out.
const FARTHEST_SECONDS: i64 = 26 * 3600;

const MICROS: i64 = 1_000_000;

/// What a calendar window is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Day,
    /// From Monday.
    Week,
    Month,
    Year,
}

impl Unit {
    /// The first date of the unit that `date` is in.
    fn first(self, date: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Day => Some(date),
            Self::Week => date.checked_sub_days(CountOfDays::new(date.weekday().num_days_from_monday().into())),
            Self::Month => date.with_day(1),
            Self::Year => date.with_ordinal(1),
        }
    }

    /// The first date of the next unit.
    fn next(self, first: NaiveDate) -> Option<NaiveDate> {
        match self {
            Self::Day => first.succ_opt(),
            Self::Week => first.checked_add_days(CountOfDays::new(7)),
            Self::Month => first.checked_add_months(Months::new(1)),
            Self::Year => first.checked_add_months(Months::new(12)),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "days",
            Self::Week => "weeks",
            Self::Month => "months",
            Self::Year => "years",
        })
    }
}

/// The units of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Days {
    unit: Unit,
    zone: Tz,
}

impl Days {
    pub(super) fn new(unit: Unit, zone: &str) -> Result<Self> {
        Ok(Self { unit, zone: Tz::from_str(zone).map_err(|_| unknown(zone))? })
    }

    /// The unit that `time` falls into.
    pub(super) fn slice_of(&self, time: i64) -> Slice {
        let (first, last) = (start_of_year(FIRST_YEAR), start_of_year(LAST_YEAR));
        let (mut start, mut end) = self.around(time.clamp(first, last)).unwrap_or((i64::MIN, i64::MAX));
        if start <= first {
            start = i64::MIN;
        }
        if end > last {
            end = i64::MAX;
        }
        Slice { start: Timestamp::from_micros(start), end: Timestamp::from_micros(end) }
    }

    /// The same at a time that there is a calendar for.
    fn around(&self, time: i64) -> Option<(i64, i64)> {
        let mut first = self.unit.first(self.local(time.div_euclid(MICROS))?.date())?;
        let mut start = self.begin(first)?;
        // When clocks are put back over midnight they show the date that is over once more.
        let mut end = loop {
            let next = self.unit.next(first)?;
            let end = self.begin(next)?;
            if time < end {
                break end;
            }
            (first, start) = (next, end);
        };
        while time < start {
            first = self.unit.first(first.pred_opt()?)?;
            (start, end) = (self.begin(first)?, start);
        }
        Some((start, end))
    }

    /// What the clocks show at an instant, in seconds since 1970.
    fn local(&self, seconds: i64) -> Option<NaiveDateTime> {
        let utc = DateTime::from_timestamp(seconds, 0)?.naive_utc();
        utc.checked_add_offset(self.zone.offset_from_utc_datetime(&utc).fix())
    }

    /// The first instant at which the clocks show `date` or a later one, in microseconds.
    fn begin(&self, date: NaiveDate) -> Option<i64> {
        let midnight = date.and_time(NaiveTime::MIN);
        if let Some(begin) = self.zone.from_local_datetime(&midnight).earliest() {
            return Some(begin.timestamp_micros());
        }
        // Clocks were put forward over it: search for when.
        let seconds = midnight.and_utc().timestamp();
        let (mut before, mut after) = (seconds - FARTHEST_SECONDS, seconds + FARTHEST_SECONDS);
        while after - before > 1 {
            let middle = before + (after - before) / 2;
            match self.local(middle)? >= midnight {
                true => after = middle,
                false => before = middle,
            }
        }
        Some(after * MICROS)
    }
}

/// In microseconds since 1970, by UTC.
fn start_of_year(year: i32) -> i64 {
    let date = NaiveDate::from_ymd_opt(year, 1, 1).unwrap_or_default();
    date.and_time(NaiveTime::MIN).and_utc().timestamp_micros()
}

fn unknown(zone: &str) -> OperatorError {
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    // `Berlin` alone is like `Europe/Berlin`, if there is nothing better.
    let city = |name: &'static str| name.rsplit('/').next().unwrap_or(name);
    let by_city = || names().find(|name| Some(city(name)) == likely(zone, names().map(city)));
    let hint = likely(zone, names()).or_else(by_city);
    let hint = hint.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
    OperatorError::Plan(format!(
        "there is no time zone {zone:?}{hint} (zones have the names of the IANA database, such as \"Europe/Berlin\")"
    ))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use proptest::prelude::*;

    use super::*;

    const HALF_HOUR: i64 = 1_800 * MICROS;

    fn days(unit: Unit, zone: &str) -> Days {
        Days::new(unit, zone).unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<DateTime<Utc>>().unwrap().timestamp_micros()
    }

    fn slice(unit: Unit, zone: &str, text: &str) -> (String, String) {
        let slice = days(unit, zone).slice_of(at(text));
        (slice.start.to_string(), slice.end.to_string())
    }

    #[track_caller]
    fn is(unit: Unit, zone: &str, text: &str, start: &str, end: &str) {
        assert_eq!(slice(unit, zone, text), (format!("{start}Z"), format!("{end}Z")));
    }

    #[test]
    fn days_have_23_24_or_25_hours() {
        use Unit::Day;
        is(Day, "Europe/Berlin", "2024-03-31T12:00:00Z", "2024-03-30T23:00:00", "2024-03-31T22:00:00");
        is(Day, "Europe/Berlin", "2024-10-27T12:00:00Z", "2024-10-26T22:00:00", "2024-10-27T23:00:00");
        is(Day, "America/New_York", "2024-03-10T12:00:00Z", "2024-03-10T05:00:00", "2024-03-11T04:00:00");
        is(Day, "Australia/Lord_Howe", "2024-04-07T00:00:00Z", "2024-04-06T13:00:00", "2024-04-07T13:30:00");
        is(Day, "Asia/Kathmandu", "2024-04-07T00:00:00Z", "2024-04-06T18:15:00", "2024-04-07T18:15:00");
    }

    /// The day begins at one o'clock.
    #[test]
    fn a_day_without_midnight() {
        use Unit::Day;
        is(Day, "America/Sao_Paulo", "2018-11-04T12:00:00Z", "2018-11-04T03:00:00", "2018-11-05T02:00:00");
        is(Day, "America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03T03:00:00", "2018-11-04T03:00:00");
        is(Day, "Asia/Beirut", "2024-03-31T12:00:00Z", "2024-03-30T22:00:00", "2024-03-31T21:00:00");
        is(Day, "Africa/Cairo", "2024-04-26T12:00:00Z", "2024-04-25T22:00:00", "2024-04-26T21:00:00");
    }

    /// At midnight clocks are put back to 23 o'clock: the hour belongs to the day that it is of, which has 25.
    #[test]
    fn an_hour_that_is_repeated() {
        use Unit::Day;
        is(Day, "America/Sao_Paulo", "2018-02-18T02:30:00Z", "2018-02-17T02:00:00", "2018-02-18T03:00:00");
        // At one minute past midnight: that minute has begun the new day, and the repeated hour belongs to it.
        is(Day, "America/St_Johns", "2010-11-07T02:29:00Z", "2010-11-06T02:30:00", "2010-11-07T02:30:00");
        is(Day, "America/St_Johns", "2010-11-07T02:30:30Z", "2010-11-07T02:30:00", "2010-11-08T03:30:00");
        is(Day, "America/St_Johns", "2010-11-07T02:45:00Z", "2010-11-07T02:30:00", "2010-11-08T03:30:00");
        // From one o'clock to midnight: the day begins at the first midnight.
        is(Day, "America/Havana", "2023-11-05T05:30:00Z", "2023-11-05T04:00:00", "2023-11-06T05:00:00");
    }

    #[test]
    fn a_date_that_a_zone_left_out() {
        is(Unit::Day, "Pacific/Apia", "2011-12-30T09:59:59Z", "2011-12-29T10:00:00", "2011-12-30T10:00:00");
        is(Unit::Day, "Pacific/Apia", "2011-12-30T10:00:00Z", "2011-12-30T10:00:00", "2011-12-31T10:00:00");
    }

    #[test]
    fn weeks_begin_on_monday_and_months_and_years_on_the_first() {
        let zone = "Europe/Berlin";
        is(Unit::Week, zone, "2024-03-31T12:00:00Z", "2024-03-24T23:00:00", "2024-03-31T22:00:00");
        is(Unit::Week, zone, "2024-03-31T22:00:00Z", "2024-03-31T22:00:00", "2024-04-07T22:00:00");
        is(Unit::Month, zone, "2024-02-29T12:00:00Z", "2024-01-31T23:00:00", "2024-02-29T23:00:00");
        is(Unit::Month, zone, "2024-03-31T12:00:00Z", "2024-02-29T23:00:00", "2024-03-31T22:00:00");
        is(Unit::Year, zone, "2024-12-31T23:30:00Z", "2024-12-31T23:00:00", "2025-12-31T23:00:00");
    }

    #[test]
    fn beyond_the_calendar_there_is_one_first_and_one_last_unit() {
        for unit in [Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
            for zone in ["Pacific/Apia", "America/New_York", "UTC"] {
                let days = days(unit, zone);
                let (first, last) = (days.slice_of(i64::MIN), days.slice_of(i64::MAX - 1));
                assert_eq!((first.start, last.end), (Timestamp::MIN, Timestamp::MAX));
                for (slice, edge) in [(first, start_of_year(FIRST_YEAR)), (last, start_of_year(LAST_YEAR))] {
                    assert!(slice.contains(Timestamp::from_micros(edge)));
                    assert_eq!(days.slice_of(edge), slice);
                }
                assert_eq!(days.slice_of(first.end.micros() - 1), first);
                assert_eq!(days.slice_of(first.end.micros()).start, first.end);
                assert_eq!(days.slice_of(last.start.micros() - 1).end, last.start);
            }
        }
    }

    /// The instants of a year and a bit at which the date of the first of a unit appears, found by walking.
    fn edges(unit: Unit, zone: &str, year: i32) -> Vec<i64> {
        let zone: Tz = zone.parse().unwrap();
        let date = |time: i64| DateTime::from_timestamp_micros(time).unwrap().with_timezone(&zone).date_naive();
        let begins = |date: NaiveDate| match unit {
            Unit::Day => true,
            Unit::Week => date.format("%a").to_string() == "Mon",
            Unit::Month => date.format("%d").to_string() == "01",
            Unit::Year => date.format("%m-%d").to_string() == "01-01",
        };
        let steps = (start_of_year(year) / HALF_HOUR - 48..start_of_year(year + 2) / HALF_HOUR).map(|n| n * HALF_HOUR);
        steps.filter(|&time| date(time) != date(time - HALF_HOUR) && begins(date(time))).collect()
    }

    #[test]
    fn as_by_walking_through_the_changes_of_two_years() {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo", "Africa/Cairo"];
        for zone in zones {
            for unit in [Unit::Day, Unit::Week, Unit::Month, Unit::Year] {
                for year in [1970, 2017, 2023] {
                    let (days, edges) = (days(unit, zone), edges(unit, zone, year));
                    assert!(!edges.is_empty());
                    for edge in edges.windows(2) {
                        let expected = (edge[0], edge[1]);
                        for time in (edge[0]..edge[1]).step_by(10 * HALF_HOUR as usize).chain([edge[1] - 1]) {
                            let slice = days.slice_of(time);
                            assert_eq!((slice.start.micros(), slice.end.micros()), expected, "{zone} {unit} {time}");
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Slices lie side by side, in every zone and at all times.
        #[test]
        fn slices_leave_no_gap_and_do_not_overlap(
            zone in prop::sample::select(TZ_VARIANTS.to_vec()),
            unit in prop::sample::select(vec![Unit::Day, Unit::Week, Unit::Month, Unit::Year]),
            time in prop_oneof![
                any::<i64>(),
                at("1880-01-01T00:00:00Z")..at("2050-01-01T00:00:00Z"),
                Just(i64::MIN), Just(i64::MAX - 1), i64::MAX - 50..i64::MAX, i64::MIN..i64::MIN + 50,
            ],
        ) {
            let days = Days { unit, zone };
            let slice = days.slice_of(time);
            let (start, end) = (slice.start.micros(), slice.end.micros());
            prop_assert!(start <= time && time < end, "{} {} {}: {}..{}", zone, unit, time, start, end);
            prop_assert_eq!(days.slice_of(start), slice);
            prop_assert_eq!(days.slice_of(end - 1), slice);
            prop_assert!(start == i64::MIN || days.slice_of(start - 1).end == slice.start);
            prop_assert!(end == i64::MAX || days.slice_of(end).start == slice.end);
        }
    }
}
