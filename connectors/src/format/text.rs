//! Times, dates, numbers and truth values from text. Strict: no trimming, and a value that does not fit is refused
//! rather than rounded to infinity or wrapped.

use std::{num::IntErrorKind, str::FromStr};

use arrow::{
    array::timezone::Tz,
    compute::kernels::cast_utils::{Parser, string_to_datetime},
    datatypes::{Date32Type, TimeUnit},
};

use super::{columns::Misfit, excerpt};

/// A point in time, from RFC 3339 text, in `unit` since 1970. Text without an offset counts as UTC; digits finer than
/// the unit are cut off, towards the past.
pub(super) fn timestamp(text: &[u8], unit: TimeUnit, utc: &Tz) -> Result<i64, Misfit> {
    let (seconds, nanos) = match plain_time(text) {
        Some(time) => time,
        None => {
            let text = str::from_utf8(text).map_err(|_| Misfit::Kind)?;
            let time = string_to_datetime(utc, text).map_err(|_| Misfit::Kind)?;
            (time.timestamp(), time.timestamp_subsec_nanos())
        }
    };
    since_1970(seconds, nanos, unit)
}

/// The seconds and nanoseconds since 1970 of a time as most programs write it: `2024-02-29T12:30:00`, with a fraction or
/// without, with a `Z` or without. Others are left to Arrow, which reads these as well but takes several times as long.
fn plain_time(text: &[u8]) -> Option<(i64, u32)> {
    let (time, behind) = text.split_first_chunk::<19>()?;
    let is_in_form = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    if !time.iter().zip(b"0000-00-00T00:00:00").fold(true, |fits, pair| fits & is_in_form(pair)) {
        return None;
    }
    let digit = |at: usize| i64::from(time[at] & 0xf);
    let pair = |at: usize| digit(at) * 10 + digit(at + 1);
    let (year, month, day) = (pair(0) * 100 + pair(2), pair(5), pair(8));
    let (hour, minute, second) = (pair(11), pair(14), pair(17));
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Years that begin with March, so that the day which is not in all of them is their last. Every five months of them
    // have 153 days.
    let (march_year, march_month) = (year - i64::from(month < 3), (month + 9) % 12);
    let leap_days = march_year.div_euclid(4) - march_year.div_euclid(100) + march_year.div_euclid(400);
    let days = march_year * 365 + leap_days + (march_month * 153 + 2) / 5 + day - 1 - DAYS_TO_1970;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second, nanos(behind.strip_suffix(b"Z").unwrap_or(behind))?))
}

/// From the first of March of the year 0.
const DAYS_TO_1970: i64 = 719_468;

/// A fraction of a second with its point, or nothing.
fn nanos(fraction: &[u8]) -> Option<u32> {
    match fraction {
        [] => Some(0),
        [b'.', digits @ ..] if (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let whole = digits.iter().fold(0, |whole, digit| whole * 10 + u32::from(digit & 0xf));
            Some((digits.len()..9).fold(whole, |whole, _| whole * 10))
        }
        _ => None,
    }
}

/// A point in time, in `unit` since 1970. Digits finer than the unit are cut off, towards the past.
pub(super) fn since_1970(seconds: i64, nanos: u32, unit: TimeUnit) -> Result<i64, Misfit> {
    let (per_second, nanos_per_unit) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    // Just before 1677-09-21T00:12:44 the product overflows although the sum does not, hence the wider type.
    let total = i128::from(seconds) * per_second + i128::from(nanos / nanos_per_unit);
    i64::try_from(total).map_err(|_| Misfit::Range)
}

/// A point in time from a field without types: an integer in the column's unit, or RFC 3339 text.
pub(super) fn timestamp_field(text: &str, unit: TimeUnit, utc: &Tz) -> Result<i64, Misfit> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return whole(text);
    }
    timestamp(text.as_bytes(), unit, utc)
}

/// Days since 1970 from `2024-02-29`. A date with a time is refused: the time would be lost.
pub(super) fn date(text: &str) -> Result<i32, Misfit> {
    let long_year = text.starts_with(['+', '-']);
    if !long_year && text.len() != 10 {
        return Err(Misfit::Kind);
    }
    Date32Type::parse(text).ok_or(Misfit::Kind)
}

/// A whole number.
pub(super) fn whole<T: FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<T, Misfit> {
    text.parse().map_err(|error: std::num::ParseIntError| match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => Misfit::Range,
        _ => Misfit::Kind,
    })
}

/// A number with a fraction. `inf` and `NaN` are read as such, but 1e400 is too large, not infinite.
pub(super) fn float<T: FromStr + Copy + Into<f64>>(text: &str) -> Result<T, Misfit> {
    let value: T = text.parse().map_err(|_| Misfit::Kind)?;
    if value.into().is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(Misfit::Range);
    }
    Ok(value)
}

/// `true` or `false`, in any case.
pub(super) fn boolean(text: &str) -> Result<bool, Misfit> {
    if text.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if text.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err(Misfit::Kind)
    }
}

/// The names that there are instead of `wanted`, and which of them was probably meant.
pub(crate) fn alternatives<'a>(wanted: &str, there: impl Iterator<Item = &'a str> + Clone) -> String {
    const SHOWN: usize = 50;
    let mut names: Vec<String> = there.clone().take(SHOWN).map(|name| format!("{:?}", excerpt(name))).collect();
    let more = there.clone().skip(SHOWN).count();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    let hint = nearest(wanted, there).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
    format!("{}{hint}", names.join(", "))
}

/// The name in `there` that is nearly `wanted`: one that a typing mistake, or another case, would explain.
fn nearest<'a>(wanted: &str, there: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = wanted.to_lowercase();
    // A short name is near to everything: one mistake in three letters, and no more than three in all.
    let most = (wanted.chars().count() / 3).clamp(1, 3);
    there
        .filter(|name| name.len() <= 256)
        .map(|name| (distance(&wanted, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extreme_times() {
        let utc: Tz = "+00:00".parse().unwrap();
        let at = |text: &str, unit| timestamp(text.as_bytes(), unit, &utc);
        assert_eq!(at("9999-12-31T23:59:59.999Z", TimeUnit::Millisecond), Ok(253_402_300_799_999));
        assert_eq!(at("9999-12-31T23:59:59Z", TimeUnit::Nanosecond), Err(Misfit::Range));
        assert_eq!(at("1969-12-31T23:59:59.9999Z", TimeUnit::Millisecond), Ok(-1));
        assert_eq!(at("0000-01-01T00:00:00Z", TimeUnit::Second), Ok(-62_167_219_200));
        assert_eq!(at("1677-09-21T00:12:43.145224192Z", TimeUnit::Nanosecond), Ok(i64::MIN));
        assert_eq!(at("1677-09-21T00:12:43.145224191Z", TimeUnit::Nanosecond), Err(Misfit::Range));
        assert_eq!(at("2262-04-11T23:47:16.854775807Z", TimeUnit::Nanosecond), Ok(i64::MAX));
        assert_eq!(at("2020-01-01T02:00:00+02:00", TimeUnit::Second), Ok(1_577_836_800));
        for bad in ["", "yesterday", "2020-13-01T00:00:00Z", "2020-02-30T00:00:00Z", "2020-01-01T25:00:00Z"] {
            assert_eq!(at(bad, TimeUnit::Second), Err(Misfit::Kind), "{bad}");
        }
        assert_eq!(timestamp_field("-9223372036854775808", TimeUnit::Second, &utc), Ok(i64::MIN));
        assert_eq!(timestamp_field("9223372036854775808", TimeUnit::Second, &utc), Err(Misfit::Range));
        assert_eq!(timestamp_field("-", TimeUnit::Second, &utc), Err(Misfit::Kind));
    }

    /// Whatever is read without Arrow is what Arrow reads, and the usual times are.
    #[test]
    fn plain_times_are_those_of_arrow() {
        let utc: Tz = "+00:00".parse().unwrap();
        let arrow =
            |text: &str| string_to_datetime(&utc, text).ok().map(|t| (t.timestamp(), t.timestamp_subsec_nanos()));
        for year in (0..9999).step_by(7).chain([4, 100, 400, 1900, 1970, 1972, 2000, 2024, 9999]) {
            for (month, day) in (0..=13).flat_map(|month| [0, 1, 28, 29, 30, 31, 32].map(|day| (month, day))) {
                let text = format!("{year:04}-{month:02}-{day:02}T23:59:58");
                assert_eq!(plain_time(text.as_bytes()), arrow(&text), "{text}");
            }
        }
        for clock in [
            "00:00:00.1Z",
            "23:59:59.123456789",
            "10:20:30.25",
            "10:20:30Z",
            "24:00:00",
            "10:60:00",
            "1:20:30",
            "10:20:3x",
        ] {
            let text = format!("2024-02-29T{clock}");
            assert_eq!(plain_time(text.as_bytes()), arrow(&text), "{text}");
        }
        for left in [
            "10:20:60",
            "10:20:30.1234567890",
            "10:20:30.",
            "10:20:30+01:00",
            "10:20:30z",
            "10:20:30 Z",
            "10:20:30ZZ",
            "102030",
        ] {
            assert_eq!(plain_time(format!("2024-02-29T{left}").as_bytes()), None, "{left}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(date("1970-01-02"), Ok(1));
        assert_eq!(date("1969-12-31"), Ok(-1));
        assert_eq!(date("+10000-01-01"), Ok(2_932_897));
        for bad in ["", "+", "-", "19700102", "1970-01-02T10:00:00Z", "1970-02-30", "+99999999999-01-01"] {
            assert_eq!(date(bad), Err(Misfit::Kind), "{bad}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit() {
        assert_eq!(whole::<i8>("128"), Err(Misfit::Range));
        assert_eq!(whole::<i8>(" 12"), Err(Misfit::Kind));
        assert_eq!(whole::<i64>("1.0"), Err(Misfit::Kind));
        assert_eq!(float::<f64>("1e400"), Err(Misfit::Range));
        assert_eq!(float::<f32>("1e39"), Err(Misfit::Range));
        assert_eq!(float::<f64>("-inf"), Ok(f64::NEG_INFINITY));
        assert_eq!(boolean("TRUE"), Ok(true));
        assert_eq!(boolean("1"), Err(Misfit::Kind));
    }

    #[test]
    fn suggestions_are_near() {
        let there = ["auction", "Price", "bidder"];
        assert_eq!(nearest("price", there.into_iter()), Some("Price"));
        assert_eq!(nearest("aucton", there.into_iter()), Some("auction"));
        assert_eq!(nearest("at", there.into_iter()), None);
    }
}
