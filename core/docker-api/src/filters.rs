//! The `filters` parameter: a JSON map, in either of its two encodings.
//!
//! Values of one key are alternatives (labels must all match), keys must all match.

use crate::error::ApiError;
use crate::query::{Query, clip};
use regex::RegexBuilder;
use serde_json::Value;
use std::collections::BTreeMap;

const VALUES_MAX: usize = 256;
/// Compiled size; enough for any honest name.
const PATTERN_BYTES_MAX: usize = 256 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// `known`: other keys are refused, by name.
    pub fn parse(query: &Query, known: &[&str]) -> Result<Self, ApiError> {
        let filters = Self::parse_any(query)?;
        match filters.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => Err(ApiError::bad(format!("invalid filter '{}'", clip(key)))),
            None => Ok(filters),
        }
    }

    /// Takes any key: the caller treats unknown ones.
    pub fn parse_any(query: &Query) -> Result<Self, ApiError> {
        let Some(text) = query.text("filters") else { return Ok(Self::default()) };
        let wrong = || ApiError::bad(format!("invalid filter: `{}`", clip(text)));
        let map: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let mut filters = BTreeMap::new();
        for (key, value) in map {
            let values: Vec<String> = match value {
                // {"label": ["a=b"]}, as SDKs send it
                Value::Array(list) => list
                    .into_iter()
                    .map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong))
                    .collect::<Result<_, _>>()?,
                // {"label": {"a=b": true}}, as the CLI sends it
                Value::Object(map) => map
                    .into_iter()
                    .filter(|(_, on)| *on == Value::Bool(true))
                    .map(|(value, _)| value)
                    .collect(),
                Value::Null => Vec::new(),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => return Err(wrong()),
            };
            if values.len() > VALUES_MAX {
                return Err(ApiError::bad(format!(
                    "more than {VALUES_MAX} values for filter '{}'",
                    clip(&key)
                )));
            }
            filters.insert(key, values);
        }
        Ok(Self(filters))
    }

    pub fn add(&mut self, key: &str, value: &str) {
        self.0.entry(key.to_owned()).or_default().push(value.to_owned());
    }

    pub fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    pub fn has(&self, key: &str) -> bool {
        !self.values(key).is_empty()
    }

    /// Whether one of the values satisfies `test`; true where the key was not given.
    pub fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        let values = self.values(key);
        values.is_empty() || values.iter().any(|value| test(value))
    }

    /// Whether all `label` values match: `name` alone asks for presence.
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.values("label").iter().all(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// Whether none of the `label!` values matches.
    pub fn without_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.values("label!").iter().any(|wanted| match wanted.split_once('=') {
            Some((name, value)) => labels.get(name).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        })
    }

    /// The values of a key as unanchored regular expressions, once, before they are tried on many names.
    pub fn patterns(&self, key: &str) -> Result<Patterns, ApiError> {
        let compile = |text: &String| {
            RegexBuilder::new(text)
                .size_limit(PATTERN_BYTES_MAX)
                .dfa_size_limit(PATTERN_BYTES_MAX)
                .build()
                .map_err(|_| ApiError::bad(format!("invalid filter '{key}={}'", clip(text))))
        };
        Ok(Patterns(self.values(key).iter().map(compile).collect::<Result<_, _>>()?))
    }
}

#[derive(Debug)]
pub struct Patterns(Vec<regex::Regex>);

impl Patterns {
    /// Whether one pattern is found in one of the texts; true without patterns.
    pub fn found_in(&self, texts: &[&str]) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| texts.iter().any(|text| pattern.is_match(text)))
    }
}

/// Shell patterns of `reference=`: `*` and `?` within one path segment.
pub fn glob(pattern: &str, text: &str) -> bool {
    // Iterative, with one point to go back to: no pattern makes it slow.
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while let Some(found) = text.get(t) {
        match pattern.get(p) {
            Some('*') => {
                back = Some((p, t));
                p += 1;
            }
            Some('?') if *found != '/' => {
                p += 1;
                t += 1;
            }
            Some(wanted) if wanted == found => {
                p += 1;
                t += 1;
            }
            _ => match back {
                Some((star, from)) if text.get(from).is_some_and(|skipped| *skipped != '/') => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    t = from + 1;
                }
                _ => return false,
            },
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|c| *c == '*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Filters, ApiError> {
        let encoded: String = json.bytes().map(|b| format!("%{b:02x}")).collect();
        Filters::parse(&Query::parse(&format!("filters={encoded}")).unwrap(), &["label", "name"])
    }

    #[test]
    fn both_encodings_mean_the_same() {
        let list = parse(r#"{"label":["a=b","c"]}"#).unwrap();
        let map = parse(r#"{"label":{"a=b":true,"c":true,"d":false}}"#).unwrap();
        assert_eq!(list, map);
        let labels = |text: &[(&str, &str)]| text.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        assert!(list.labels(&labels(&[("a", "b"), ("c", "")])));
        assert!(!list.labels(&labels(&[("a", "b")])));
    }

    #[test]
    fn wrong_filters_are_refused() {
        assert_eq!(parse(r#"{"color":["red"]}"#).unwrap_err().message, "invalid filter 'color'");
        for json in ["[", "[]", r#"{"label":3}"#, r#"{"label":[3]}"#] {
            assert_eq!(parse(json).unwrap_err().status, 400, "{json}");
        }
        let bad = parse(r#"{"name":["("]}"#).unwrap();
        assert_eq!(bad.patterns("name").unwrap_err().status, 400);
        let bomb = parse(r#"{"name":["(((x{100}){100}){100}){100}"]}"#).unwrap();
        assert_eq!(bomb.patterns("name").unwrap_err().status, 400);
    }

    #[test]
    fn names_are_unanchored_patterns() {
        let filters = parse(r#"{"name":["^/we?b$","db"]}"#).unwrap();
        let patterns = filters.patterns("name").unwrap();
        assert!(patterns.found_in(&["web", "/web"]));
        assert!(patterns.found_in(&["my-db-1", "/my-db-1"]));
        assert!(!patterns.found_in(&["website", "/website"]));
    }

    #[test]
    fn globs_stay_in_their_segment() {
        for (pattern, text, expect) in [
            ("nginx*", "nginx:latest", true),
            ("*/app", "me/app", true),
            ("*", "me/app", false),
            ("m?/app", "me/app", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}");
        }
    }
}
