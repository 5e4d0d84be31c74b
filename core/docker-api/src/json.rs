//! Request bodies: JSON, read strictly where readers could differ and leniently where Go is.
//!
//! What is decided on must be what is executed. So a key that comes twice is refused, also when the two differ in
//! case only where keys name fields: two readers would pick different ones. Keys match case-insensitively and `null`
//! means "not given", as in Go.

use crate::error::ApiError;
use crate::query::clip;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// Nesting of honest bodies is below 10.
const DEPTH_MAX: usize = 32;

/// Parses a whole body: one value, nothing after it, no key twice in an object.
pub fn parse(bytes: &[u8]) -> Result<Value, ApiError> {
    let wrong = |error: serde_json::Error| ApiError::bad(format!("invalid JSON: {error}"));
    let Strict(value) = serde_json::from_slice(bytes).map_err(wrong)?;
    if depth(&value) > DEPTH_MAX {
        return Err(ApiError::bad(format!("invalid JSON: more than {DEPTH_MAX} levels")));
    }
    Ok(value)
}

/// Recursion is bounded: serde_json itself refuses more than 128 levels.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<String, Strict>()? {
            if map.contains_key(&key) {
                return Err(serde::de::Error::custom(format!("key `{}` comes twice", clip(&key))));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

/// An object whose keys name fields.
#[derive(Debug)]
pub struct Fields {
    /// For messages: `HostConfig.`
    prefix: String,
    /// By lower-case name; the name as sent is kept for messages.
    fields: BTreeMap<String, (String, Value)>,
}

impl Fields {
    /// `null` is an object without fields.
    pub fn of(prefix: &str, value: Value) -> Result<Self, ApiError> {
        let map = match value {
            Value::Object(map) => map,
            Value::Null => Map::new(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                let name = prefix.trim_end_matches('.');
                let name = if name.is_empty() { "the body" } else { name };
                return Err(ApiError::bad(format!("invalid JSON: {name} must be an object")));
            }
        };
        let mut fields = BTreeMap::new();
        for (name, value) in map {
            let lower = name.to_lowercase();
            if fields.insert(lower, (name.clone(), value)).is_some() {
                return Err(ApiError::bad(format!(
                    "invalid JSON: key `{prefix}{}` comes twice",
                    clip(&name)
                )));
            }
        }
        Ok(Self { prefix: prefix.into(), fields })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.values().map(|(name, _)| name.as_str())
    }

    /// `Null` where it was not sent.
    pub fn get(&self, name: &str) -> &Value {
        self.fields.get(&name.to_lowercase()).map_or(&Value::Null, |(_, value)| value)
    }

    fn wrong<T>(&self, name: &str, expected: &str) -> Result<T, ApiError> {
        Err(ApiError::bad(format!("invalid JSON: {}{name} must be {expected}", self.prefix)))
    }

    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.get(name) {
            Value::Null => Ok(false),
            Value::Bool(value) => Ok(*value),
            _ => self.wrong(name, "true or false"),
        }
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        match self.get(name) {
            Value::Null => Ok(None),
            Value::Number(number) if number.is_i64() => Ok(number.as_i64()),
            _ => self.wrong(name, "a whole number"),
        }
    }

    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        match self.get(name) {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            _ => self.wrong(name, "a string"),
        }
    }

    pub fn list(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        let item = |item: &Value| item.as_str().map(str::to_owned);
        match self.get(name) {
            Value::Null => Ok(None),
            Value::Array(items) => match items.iter().map(item).collect::<Option<Vec<_>>>() {
                Some(items) => Ok(Some(items)),
                None => self.wrong(name, "a list of strings"),
            },
            _ => self.wrong(name, "a list of strings"),
        }
    }

    /// A list, or one string that stands for a list of one: how commands may be written.
    pub fn words(&self, name: &str) -> Result<Option<Vec<String>>, ApiError> {
        match self.get(name) {
            Value::String(word) => Ok(Some(vec![word.clone()])),
            _ => self.list(name),
        }
    }

    /// Strings by string; a `null` value is an empty string, as in Go.
    pub fn map(&self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let entry = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Some((key.clone(), text.clone())),
            Value::Null => Some((key.clone(), String::new())),
            _ => None,
        };
        match self.get(name) {
            Value::Null => Ok(BTreeMap::new()),
            Value::Object(map) => match map.iter().map(entry).collect::<Option<BTreeMap<_, _>>>() {
                Some(map) => Ok(map),
                None => self.wrong(name, "an object of strings"),
            },
            _ => self.wrong(name, "an object of strings"),
        }
    }
}

/// Whether a value says nothing: null, false, zero, empty, or a list of nothing but zeros (a console size).
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(|item| item.is_number() && is_empty(item)),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: &str) -> Fields {
        Fields::of("", parse(json.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn keys_match_as_in_go() {
        let fields = fields(r#"{"image":"a","CMD":"x","env":null,"Labels":{"a":null}}"#);
        assert_eq!(fields.text("Image").unwrap().unwrap(), "a");
        assert_eq!(fields.words("Cmd").unwrap().unwrap(), ["x"]);
        assert_eq!(fields.list("Env").unwrap(), None);
        assert_eq!(fields.map("Labels").unwrap()["a"], "");
        assert!(fields.flag("Image").is_err());
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let deeper = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        for body in [
            r#"{"Image":"a","Image":"b"}"#,
            r#"{"HostConfig":{"Privileged":false,"Privileged":true}}"#,
            r#"{"a":1} {"b":2}"#,
            "\u{feff}{}",
            "",
            "{",
            &deep,
            &deeper,
        ] {
            let error = parse(body.as_bytes()).unwrap_err();
            assert_eq!(error.status, 400, "{}", clip(body));
        }
        let utf16: Vec<u8> = "{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(parse(&utf16).is_err());
        let twice = parse(br#"{"Image":"a","image":"b"}"#).unwrap();
        assert!(Fields::of("", twice).is_err(), "differing in case only");
        assert!(parse(br#"{"Labels":{"a":"1","A":"2"}}"#).is_ok(), "names of labels are not fields");
    }

    #[test]
    fn emptiness() {
        for json in ["null", "false", "0", "0.0", "\"\"", "[]", "{}", "[0,0]"] {
            assert!(is_empty(&serde_json::from_str(json).unwrap()), "{json}");
        }
        for json in ["true", "-1", "\"x\"", "[\"\"]", "{\"a\":null}", "[null]", "[0,1]"] {
            assert!(!is_empty(&serde_json::from_str(json).unwrap()), "{json}");
        }
    }
}
