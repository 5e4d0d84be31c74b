//! Times on the command line.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

/// `2026-01-31T12:00:00Z`, or so long ago: `90s`, `30m`, `12h`, `7d`.
pub fn parse(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(at.with_timezone(&Utc));
    }
    let ago = || {
        let unit = text.chars().next_back()?;
        let count: i64 = text.strip_suffix(unit)?.parse().ok().filter(|count| *count >= 0)?;
        let ago = match unit {
            's' => TimeDelta::try_seconds(count),
            'm' => TimeDelta::try_minutes(count),
            'h' => TimeDelta::try_hours(count),
            'd' => TimeDelta::try_days(count),
            _ => None,
        }?;
        Utc::now().checked_sub_signed(ago)
    };
    ago()
        .ok_or_else(|| format!("`{text}` is neither a time (2026-01-31T12:00:00Z) nor an age (30m, 12h, 7d)"))
}

/// For a query of a URL: no `+` in it.
pub fn in_url(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// For people.
pub fn shown(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ages_are_understood() {
        assert_eq!(in_url(parse("2026-01-31T12:00:00+01:00").unwrap()), "2026-01-31T11:00:00.000000Z");
        let hour = Utc::now() - parse("1h").unwrap();
        assert!((3599..3605).contains(&hour.num_seconds()), "{hour}");
        for bad in
            ["", "h", "-1h", "1w", "1.5h", "yesterday", "99999999999999999d", "9223372036854775807d", "1é"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
