//! Times as Docker writes and reads them.

use crate::error::ApiError;
use chrono::{DateTime, NaiveDate, NaiveDateTime, SecondsFormat, TimeDelta, Utc};

/// Go's zero time: "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with up to nine digits.
pub fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

pub fn rfc3339_or_never(at: Option<DateTime<Utc>>) -> String {
    at.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// The stamp in front of a log line: always nine digits, so that lines stay aligned.
pub fn log_stamp(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// A `since` or `until`: seconds since 1970 with an optional fraction of up to nine digits, or RFC 3339.
/// Empty and `0` mean that it was not given (some clients send 0 for "none").
pub fn parse_bound(what: &str, text: Option<&str>) -> Result<Option<DateTime<Utc>>, ApiError> {
    let text = match text {
        None | Some("" | "0") => return Ok(None),
        Some(text) => text,
    };
    let wrong = || {
        let shown: String = text.chars().take(64).collect();
        ApiError::bad(format!("invalid `{what}` time `{shown}`: expected seconds since 1970 or RFC 3339"))
    };
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Some(at.to_utc()));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().map_err(|_| wrong())?;
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().map_err(|_| wrong())?;
    // Go counts the fraction onwards also before 1970; so does chrono.
    DateTime::from_timestamp(seconds, nanos).map(Some).ok_or_else(wrong)
}

/// The `until` of a prune: as above, a day, a time without a zone (UTC here), or an age as Go writes durations: `24h`,
/// `1h30m`.
pub fn parse_until(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    if let Some(age) = parse_duration(text) {
        return Ok(now - age);
    }
    let day = || text.parse::<NaiveDate>().ok().and_then(|day| day.and_hms_opt(0, 0, 0));
    if let Some(at) = text.parse::<NaiveDateTime>().ok().or_else(day) {
        return Ok(at.and_utc());
    }
    parse_bound("until", Some(text))?
        .ok_or_else(|| ApiError::bad(format!("invalid `until` time `{}`", crate::query::clip(text))))
}

/// Numbers, perhaps with a fraction, each with its unit. `None`: it is none, or longer than a time can be.
fn parse_duration(text: &str) -> Option<TimeDelta> {
    let mut rest = text;
    let mut nanos: f64 = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').filter(|at| *at > 0)?;
        let (number, tail) = rest.split_at(digits);
        let units = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(units);
        let factor = match unit {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number.parse::<f64>().ok()? * factor;
        rest = tail;
    }
    // As far as Go's durations reach: 292 years.
    let fits = !text.is_empty() && (0.0..9.2e18).contains(&nanos);
    #[expect(clippy::cast_possible_truncation, reason = "it was just seen to fit")]
    fits.then(|| TimeDelta::nanoseconds(nanos as i64))
}

/// `Less than a second`, `5 minutes`, `About an hour`: the words that people know from `docker ps`.
pub fn in_words(span: TimeDelta) -> String {
    let seconds = span.num_seconds();
    let minutes = span.num_minutes();
    // Rounded to the nearest hour, unlike seconds and minutes.
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_seconds_with_a_fraction_or_rfc_3339() {
        let at = |text| parse_bound("since", Some(text)).unwrap().map(log_stamp);
        assert_eq!(at("1700000000").unwrap(), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(at("1700000000.5").unwrap(), "2023-11-14T22:13:20.500000000Z");
        assert_eq!(at("1700000000.000000001").unwrap(), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(at("2023-11-14T23:13:20+01:00").unwrap(), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(at("0"), None);
        assert_eq!(at(""), None);
        for text in ["x", "1.x", "1.0000000001", "99999999999999999999", "1.-5"] {
            assert_eq!(parse_bound("since", Some(text)).unwrap_err().status, 400, "{text}");
        }
    }

    #[test]
    fn an_until_is_a_time_or_an_age() {
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let until = |text| parse_until(text, now).map(rfc3339).map_err(|error| error.status.as_u16());
        assert_eq!(until("24h").unwrap(), "2023-11-13T22:13:20Z");
        assert_eq!(until("1h30m").unwrap(), "2023-11-14T20:43:20Z");
        assert_eq!(until("1.5s").unwrap(), "2023-11-14T22:13:18.500Z");
        assert_eq!(until("2023-11-01").unwrap(), "2023-11-01T00:00:00Z");
        assert_eq!(until("2023-11-01T10:00:00").unwrap(), "2023-11-01T10:00:00Z");
        assert_eq!(until("2023-11-01T10:00:00+01:00").unwrap(), "2023-11-01T09:00:00Z");
        assert_eq!(until("1690000000").unwrap(), "2023-07-22T04:26:40Z");
        for wrong in ["", "0", "h", "1x", "-1h", "yesterday", "1.2.3s", "99999999999999h"] {
            assert_eq!(until(wrong), Err(400), "{wrong}");
        }
    }

    #[test]
    fn durations_in_words() {
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (3 * 86400, "3 days"),
            (20 * 86400, "2 weeks"),
            (100 * 86400, "3 months"),
            (1000 * 86400, "2 years"),
        ] {
            assert_eq!(in_words(TimeDelta::seconds(seconds)), words);
        }
    }
}
