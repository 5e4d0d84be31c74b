//! Recorded inputs back to facts: read straight into the form that they were written from, without Cedar's own reader,
//! which takes most of the time of a decision.

use crate::facts::{Fact, Facts, Inputs, NAMESPACE, TYPES, Thing, Uid};
use bulkhead_model::{Action, Class};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Why a recorded decision cannot be decided again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the recorded inputs cannot be read: {what}: {why}")]
pub struct ReplayError {
    pub what: String,
    pub why: String,
}

/// A question as it was recorded.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub action: Action,
    pub class: Option<Class>,
    pub inputs: Inputs,
}

type Read<T> = Result<T, ReplayError>;

fn wrong(what: &str, why: impl Into<String>) -> ReplayError {
    ReplayError { what: what.chars().take(80).collect(), why: why.into() }
}

impl Recorded {
    /// The opposite of [`Inputs::to_json`].
    pub fn read(value: &Value) -> Read<Self> {
        let class = match member(value, "class")? {
            Value::Null => None,
            Value::String(text) => Some(text.parse().map_err(|error| wrong("class", format!("{error}")))?),
            _ => return Err(wrong("class", "it is no text")),
        };
        let action_uid = uid(member(value, "action")?)?;
        let action = Action::ALL.iter().find(|action| action.name() == action_uid.id);
        let action = *action.ok_or_else(|| wrong(&action_uid.id, "this release has no such action"))?;
        let entities = member(value, "entities")?.as_array();
        let entities = entities.ok_or_else(|| wrong("entities", "they are no list"))?;
        let inputs = Inputs {
            principal: uid(member(value, "principal")?)?,
            action: action_uid,
            resource: uid(member(value, "resource")?)?,
            context: facts(object(member(value, "context")?, "context")?)?,
            things: entities.iter().map(thing).collect::<Read<_>>()?,
        };
        Ok(Self { action, class, inputs })
    }
}

fn member<'a>(value: &'a Value, name: &str) -> Read<&'a Value> {
    value.get(name).ok_or_else(|| wrong(name, "it is missing"))
}

fn object<'a>(value: &'a Value, what: &str) -> Read<&'a Map<String, Value>> {
    value.as_object().ok_or_else(|| wrong(what, "it is no object"))
}

fn text<'a>(value: &'a Value, what: &str) -> Read<&'a str> {
    value.as_str().ok_or_else(|| wrong(what, "it is no text"))
}

fn uid(value: &Value) -> Read<Uid> {
    let kind = text(member(value, "type")?, "type")?;
    let bare = kind.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix("::"));
    let known = bare.and_then(|bare| TYPES.get_key_value(bare));
    let (kind, _) = known.ok_or_else(|| wrong(kind, "the schema has no such type"))?;
    Ok(Uid::new(kind, text(member(value, "id")?, "id")?))
}

fn thing(value: &Value) -> Read<Thing> {
    let parents = member(value, "parents")?.as_array().ok_or_else(|| wrong("parents", "they are no list"))?;
    let mut tags = BTreeMap::new();
    for (key, value) in object(member(value, "tags")?, "tags")? {
        tags.insert(key.clone(), text(value, key)?.to_owned());
    }
    Ok(Thing {
        uid: uid(member(value, "uid")?)?,
        facts: facts(object(member(value, "attrs")?, "attrs")?)?,
        parents: parents.iter().map(uid).collect::<Read<_>>()?,
        tags,
    })
}

fn facts(object: &Map<String, Value>) -> Read<Facts> {
    object.iter().map(|(name, value)| Ok((Cow::Owned(name.clone()), fact(value, name)?))).collect()
}

/// Records are one within the other at most once or twice; `serde_json` bounds what strangers could nest.
fn fact(value: &Value, name: &str) -> Read<Fact> {
    Ok(match value {
        Value::Bool(value) => Fact::Bool(*value),
        Value::Number(number) => {
            Fact::Long(number.as_i64().ok_or_else(|| wrong(name, "it is no whole number of 64 bits"))?)
        }
        Value::String(text) => Fact::Text(text.clone()),
        Value::Array(list) => {
            Fact::Texts(list.iter().map(|one| Ok(text(one, name)?.to_owned())).collect::<Read<_>>()?)
        }
        Value::Object(object) => match (object.get("__entity"), object.get("__extn")) {
            (Some(entity), _) => Fact::Thing(uid(entity)?),
            (_, Some(extension)) => Fact::Time(time(extension, name)?),
            _ => Fact::Record(facts(object)?),
        },
        Value::Null => return Err(wrong(name, "it has no value")),
    })
}

fn time(extension: &Value, name: &str) -> Read<DateTime<Utc>> {
    if member(extension, "fn")? != "datetime" {
        return Err(wrong(name, "it is no time"));
    }
    let text = text(member(extension, "arg")?, name)?;
    let parsed = DateTime::parse_from_rfc3339(text).map_err(|error| wrong(name, error.to_string()))?;
    Ok(parsed.with_timezone(&Utc))
}
