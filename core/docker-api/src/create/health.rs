//! `Healthcheck`: what is asked of a container, again and again.

use super::fields::{self, Rule::Mapped};
use crate::error::ApiError;
use crate::json::Fields;
use bulkhead_model::health::HealthAsk;
use serde_json::{Value, json};

const FIELDS: &[(&str, fields::Rule)] = &[
    ("Test", Mapped),
    ("Interval", Mapped),
    ("Timeout", Mapped),
    ("StartPeriod", Mapped),
    ("StartInterval", Mapped),
    ("Retries", Mapped),
];

pub fn ask(config: &Fields) -> Result<HealthAsk, ApiError> {
    let prefix = "Healthcheck.";
    let health = Fields::of(prefix, config.get("Healthcheck").clone())?;
    fields::check(prefix, &health, FIELDS)?;
    let number = |name| health.integer(name).map(Option::unwrap_or_default);
    let ask = HealthAsk {
        test: health.words("Test")?.unwrap_or_default(),
        interval_ns: number("Interval")?,
        timeout_ns: number("Timeout")?,
        start_period_ns: number("StartPeriod")?,
        start_interval_ns: number("StartInterval")?,
        retries: number("Retries")?,
    };
    match ask.fault() {
        Some(fault) => Err(ApiError::bad(fault)),
        None => Ok(ask),
    }
}

/// As inspect shows it: what was not said is absent.
pub fn view(ask: &HealthAsk) -> Value {
    let mut view = json!({ "Test": ask.test });
    let numbers = [
        ("Interval", ask.interval_ns),
        ("Timeout", ask.timeout_ns),
        ("StartPeriod", ask.start_period_ns),
        ("StartInterval", ask.start_interval_ns),
        ("Retries", ask.retries),
    ];
    if let Some(map) = view.as_object_mut() {
        map.extend(
            numbers
                .into_iter()
                .filter(|(_, value)| *value != 0)
                .map(|(name, value)| (name.into(), value.into())),
        );
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Value) -> Result<HealthAsk, String> {
        ask(&Fields::of("", json!({ "Healthcheck": value })).unwrap()).map_err(|error| error.message)
    }

    #[test]
    fn checks_are_read_and_shown() {
        assert_eq!(check(Value::Null), Ok(HealthAsk::default()));
        let sent = json!({"Test": ["CMD", "true"], "Interval": 1_000_000, "Retries": 2});
        assert_eq!(view(&check(sent.clone()).unwrap()), sent);
    }

    #[test]
    fn wrong_ones_are_refused() {
        for (value, text) in [
            (json!({"Interval": 5}), "Interval in Healthcheck cannot be less than 1ms"),
            (json!({"Test": ["RUN", "x"]}), "Unknown healthcheck type 'RUN' (expected 'CMD')"),
            (json!({"Wish": 1}), "bulkhead: Healthcheck.Wish is not known"),
        ] {
            assert!(check(value).unwrap_err().contains(text), "{text}");
        }
    }
}
