//! Unknown keys: found with their line, and the nearest known one named.
//!
//! The known keys are those of the default settings, so there is no second list to forget.

use super::{ConfigError, Sections};
use serde_json::Value;
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// Names less alike than this are no help as a suggestion (Jaro-Winkler, 0 to 1).
const LIKENESS_MIN: f64 = 0.8;

/// Section to keys; the top of the file is the section ``. Sections whose keys are the operator's own names are left
/// out.
pub(super) fn known() -> BTreeMap<String, Vec<String>> {
    let mut known = BTreeMap::new();
    if let Ok(Value::Object(top)) = serde_json::to_value(Sections::default()) {
        for (section, value) in &top {
            if let Value::Object(keys) = value {
                known.insert(section.clone(), keys.keys().cloned().collect());
            }
        }
        known.insert(String::new(), top.keys().cloned().collect());
    }
    known
}

/// The first unknown key of the file is an error. A file that is no TOML passes: its error is told by the parser.
pub(super) fn check(text: &str, file: &str) -> Result<(), ConfigError> {
    let Ok(document) = DeTable::parse(text) else { return Ok(()) };
    let known = known();
    check_table(document.get_ref(), "", &known, text, file)?;
    for (name, value) in document.get_ref() {
        if let DeValue::Table(table) = value.get_ref() {
            check_table(table, name.get_ref(), &known, text, file)?;
        }
    }
    Ok(())
}

fn check_table(
    table: &DeTable<'_>,
    section: &str,
    known: &BTreeMap<String, Vec<String>>,
    text: &str,
    file: &str,
) -> Result<(), ConfigError> {
    let Some(keys) = known.get(section) else { return Ok(()) };
    // In the order of the file: the table itself is sorted.
    let first = table
        .keys()
        .filter(|key| !keys.iter().any(|known| known == key.get_ref()))
        .min_by_key(|key| key.span().start);
    let Some(key) = first else { return Ok(()) };
    let likeness = |known: &&String| strsim::jaro_winkler(known, key.get_ref());
    let nearest = keys.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(ConfigError::UnknownKey {
        file: file.into(),
        line: line_of(text, key.span().start),
        key: key.get_ref().to_string(),
        section: section.into(),
        nearest: nearest.filter(|known| likeness(known) >= LIKENESS_MIN).cloned(),
    })
}

pub(super) fn message(key: &str, section: &str, nearest: Option<&str>) -> String {
    let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
    match nearest {
        Some(nearest) => format!("unknown key `{key}`{place}; did you mean `{nearest}`?"),
        None => {
            let keys = known().remove(section).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
            format!("unknown key `{key}`{place}; known are {}", keys.join(", "))
        }
    }
}

/// Counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
