//! Points in time as people write them: RFC 3339 in UTC, or milliseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

const MS_PER_DAY: i64 = 86_400_000;

/// Milliseconds since the Unix epoch, now.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// `2026-11-21T04:55:00.123Z`; `-` for no time (-1), the number itself for one beyond the calendar.
pub(super) fn format_ms(ms: i64) -> String {
    if ms == -1 {
        return "-".to_owned();
    }
    let (days, rest) = (ms.div_euclid(MS_PER_DAY), ms.rem_euclid(MS_PER_DAY));
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return ms.to_string();
    }
    let (seconds, ms) = (rest / 1000, rest % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Reads `1700000000000`, `2026-11-21`, `2026-11-21T04:55:00Z` or `2026-11-21T04:55:00.123Z`; without the `Z`, which
/// Kafka's tools do not ask for, it is UTC too.
pub(super) fn parse_ms(text: &str) -> Result<i64, String> {
    if let Ok(ms) = text.parse::<i64>() {
        return if ms >= 0 { Ok(ms) } else { Err("a time before 1970".to_owned()) };
    }
    let expected =
        || "expected milliseconds since 1970, or UTC like 2026-11-21T04:55:00Z or 2026-11-21".to_owned();
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time.strip_suffix('Z').unwrap_or(time)),
        None => (text, "00:00:00"),
    };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2]).ok_or_else(expected)?;
    let [hour, minute, second] = numbers(time, ':', [2, 2, 2]).ok_or_else(expected)?;
    let is_fraction = (1..=3).contains(&fraction.len()) && fraction.bytes().all(|b| b.is_ascii_digit());
    let ms: i64 = format!("{fraction:0<3}").parse().map_err(|_| expected())?;
    let days = days(year, month, day);
    let exists = civil(days) == (year, month, day) && hour < 24 && minute < 60 && second < 60;
    if !exists || !is_fraction || days < 0 {
        return Err(expected());
    }
    Ok(days * MS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1000 + ms)
}

/// Milliseconds of an ISO 8601 duration of days, hours, minutes and seconds, each once and in this order.
pub(super) fn parse_duration_ms(text: &str) -> Result<i64, String> {
    let expected = || "expected a duration like PT30M, P1D or P1DT2H30M15S".to_owned();
    let rest = text.strip_prefix('P').ok_or_else(expected)?;
    let (days, time) = match rest.split_once('T') {
        Some((_, "")) => return Err(expected()),
        Some((days, time)) => (days, time),
        None => (rest, ""),
    };
    let mut total: i64 = 0;
    let mut parts = 0;
    for (mut rest, units) in
        [(days, &[('D', MS_PER_DAY)][..]), (time, &[('H', 3_600_000), ('M', 60_000), ('S', 1000)][..])]
    {
        for (unit, ms) in units {
            let Some((number, after)) = rest.split_once(*unit) else { continue };
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse::<i64>().ok().filter(|_| is_number).ok_or_else(expected)?;
            let part = number.checked_mul(*ms).ok_or_else(expected)?;
            total = total.checked_add(part).ok_or_else(expected)?;
            (rest, parts) = (after, parts + 1);
        }
        if !rest.is_empty() {
            return Err(expected());
        }
    }
    if parts == 0 { Err(expected()) } else { Ok(total) }
}

/// Three numbers of so many digits each.
fn numbers(text: &str, between: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(between);
    let mut found = [0; 3];
    for (number, digits) in found.iter_mut().zip(digits) {
        let part =
            parts.next().filter(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar. Years are counted from March on, so that the leap day
/// comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468
}

/// The date that is so many days after 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, date)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn times_as_the_tools_of_the_system_have_them() {
        // date -u -d @SECONDS +%FT%TZ
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(format_ms(ms), text);
            assert_eq!(parse_ms(text), Ok(ms));
        }
        assert_eq!(parse_ms("2024-02-29"), Ok(1_709_164_800_000));
        assert_eq!(parse_ms("2023-11-14T22:13:20.1Z"), Ok(1_700_000_000_100));
        assert_eq!(parse_ms("2023-11-14T22:13:20.123"), Ok(1_700_000_000_123));
        assert_eq!(parse_ms("1700000000123"), Ok(1_700_000_000_123));
        assert_eq!((format_ms(-1), format_ms(i64::MAX)), ("-".to_owned(), i64::MAX.to_string()));
    }

    #[test]
    fn every_day_of_four_centuries_leads_back() {
        for day in 0..146_097 {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
    }

    #[test]
    fn durations() {
        for (text, ms) in [
            ("PT0S", 0),
            ("P1D", MS_PER_DAY),
            ("PT90M", 5_400_000),
            ("P2DT3H4M5S", 2 * MS_PER_DAY + 11_045_000),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "P1DT",
            "1D",
            "P1H",
            "PT1D",
            "PT5S3M",
            "PT-5S",
            "PT+5S",
            "PT1.5S",
            "P99999999999999999D",
        ] {
            assert!(parse_duration_ms(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn no_times() {
        for text in [
            "",
            "-5",
            "2023-02-29",
            "2024-13-01",
            "2024-1-1",
            "2024-01-01T00:00:00ZZ",
            "2024-01-01T24:00:00Z",
            "2024-01-01T00:00:00.1234Z",
            "2024-01-01T00:00:00.Z",
            "1969-12-31",
            "yesterday",
            "2024-01-01T00:00Z",
        ] {
            assert!(parse_ms(text).is_err(), "{text:?}");
        }
    }
}
