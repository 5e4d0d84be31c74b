//! Facts as policies see them, kept in one form from which both Cedar's values and the recorded inputs are made:
//! what is recorded is what was decided on.

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::LazyLock;

pub(crate) const NAMESPACE: &str = "Bulkhead";

const KINDS: [&str; 13] = [
    "Action",
    "Class",
    "Container",
    "Image",
    "Network",
    "Platform",
    "Registries",
    "Registry",
    "Repository",
    "Tenant",
    "User",
    "Vch",
    "Volume",
];

/// Parsed once: Cedar's parser is the dearest part of making an entity.
pub(crate) static TYPES: LazyLock<BTreeMap<&'static str, EntityTypeName>> = LazyLock::new(|| {
    let parse =
        |kind: &&'static str| Some((*kind, EntityTypeName::from_str(&format!("{NAMESPACE}::{kind}")).ok()?));
    KINDS.iter().filter_map(parse).collect()
});

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    Bool(bool),
    Long(i64),
    Text(String),
    Texts(Vec<String>),
    Time(DateTime<Utc>),
    Thing(Uid),
    Record(Facts),
}

/// Ours have names that are known beforehand, recorded ones bring theirs.
pub(crate) type Facts = BTreeMap<Cow<'static, str>, Fact>;

/// Names an entity: its type without the namespace, and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uid {
    pub kind: &'static str,
    pub id: String,
}

/// An entity before it is Cedar's.
#[derive(Debug, Clone)]
pub(crate) struct Thing {
    pub uid: Uid,
    pub facts: Facts,
    pub parents: Vec<Uid>,
    pub tags: BTreeMap<String, String>,
}

/// A value that Cedar does not take: a programming error here, which denies.
#[derive(Debug, thiserror::Error)]
#[error("`{what}` cannot be told to the policies: {why}")]
pub(crate) struct FactError {
    pub what: String,
    pub why: String,
}

impl FactError {
    pub fn new(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self { what: what.into(), why: why.to_string() }
    }
}

impl Uid {
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    pub fn to_cedar(&self) -> Result<EntityUid, FactError> {
        let kind =
            TYPES.get(self.kind).ok_or_else(|| FactError::new(self.kind, "the schema has no such type"))?;
        Ok(EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(&self.id)))
    }

    fn to_json(&self) -> Value {
        json!({ "type": format!("{NAMESPACE}::{}", self.kind), "id": self.id })
    }
}

/// `Container::"…"`.
impl std::fmt::Display for Uid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::\"{}\"", self.kind, self.id.escape_debug())
    }
}

impl Fact {
    pub fn to_cedar(&self) -> Result<RestrictedExpression, FactError> {
        Ok(match self {
            Fact::Bool(value) => RestrictedExpression::new_bool(*value),
            Fact::Long(value) => RestrictedExpression::new_long(*value),
            Fact::Text(text) => RestrictedExpression::new_string(text.clone()),
            Fact::Texts(texts) => {
                RestrictedExpression::new_set(texts.iter().cloned().map(RestrictedExpression::new_string))
            }
            Fact::Time(at) => RestrictedExpression::new_datetime(time(at)),
            Fact::Thing(uid) => RestrictedExpression::new_entity_uid(uid.to_cedar()?),
            Fact::Record(facts) => RestrictedExpression::new_record(pairs(facts)?)
                .map_err(|error| FactError::new("a record", error))?,
        })
    }

    /// Cedar's JSON form (docs.cedarpolicy.com, "Entity and context syntax").
    pub fn to_json(&self) -> Value {
        match self {
            Fact::Bool(value) => json!(value),
            Fact::Long(value) => json!(value),
            Fact::Text(text) => json!(text),
            Fact::Texts(texts) => json!(texts),
            Fact::Time(at) => json!({ "__extn": { "fn": "datetime", "arg": time(at) } }),
            Fact::Thing(uid) => json!({ "__entity": uid.to_json() }),
            Fact::Record(facts) => facts_json(facts),
        }
    }
}

impl Thing {
    pub fn new(kind: &'static str, id: impl Into<String>) -> Self {
        Self { uid: Uid::new(kind, id), facts: Facts::new(), parents: Vec::new(), tags: BTreeMap::new() }
    }

    pub fn fact(mut self, name: &'static str, fact: Fact) -> Self {
        self.facts.insert(name.into(), fact);
        self
    }

    pub fn parent(mut self, kind: &'static str, id: impl Into<String>) -> Self {
        let uid = Uid::new(kind, id);
        if !self.parents.contains(&uid) {
            self.parents.push(uid);
        }
        self
    }

    pub fn to_cedar(&self) -> Result<Entity, FactError> {
        let parents = self.parents.iter().map(Uid::to_cedar).collect::<Result<Vec<_>, _>>()?;
        let tags = self
            .tags
            .iter()
            .map(|(key, value)| (key.clone(), RestrictedExpression::new_string(value.clone())));
        Entity::new_with_tags(self.uid.to_cedar()?, pairs(&self.facts)?, parents, tags)
            .map_err(|error| FactError::new(self.uid.to_string(), error))
    }

    pub fn to_json(&self) -> Value {
        json!({
            "uid": self.uid.to_json(),
            "attrs": facts_json(&self.facts),
            "parents": self.parents.iter().map(Uid::to_json).collect::<Vec<_>>(),
            "tags": self.tags,
        })
    }
}

pub(crate) fn pairs(facts: &Facts) -> Result<Vec<(String, RestrictedExpression)>, FactError> {
    facts.iter().map(|(name, fact)| Ok((name.to_string(), fact.to_cedar()?))).collect()
}

fn facts_json(facts: &Facts) -> Value {
    Value::Object(facts.iter().map(|(name, fact)| (name.to_string(), fact.to_json())).collect::<Map<_, _>>())
}

fn time(at: &DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Whole mebibytes, rounded up, so that a cap in MiB cannot be passed by a few bytes.
pub(crate) fn mebibytes(bytes: u64) -> Fact {
    Fact::Long(i64::try_from(bytes.div_ceil(1 << 20)).unwrap_or(i64::MAX))
}

/// Everything that one decision is made from.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub principal: Uid,
    pub action: Uid,
    pub resource: Uid,
    pub context: Facts,
    pub things: Vec<Thing>,
}

impl Inputs {
    /// The name of the VCH at hand; there is at most one.
    pub fn vch_name(&self) -> Option<&str> {
        match self.things.iter().find(|thing| thing.uid.kind == "Vch")?.facts.get("name")? {
            Fact::Text(name) => Some(name),
            _ => None,
        }
    }

    pub fn thing(&self, uid: &Uid) -> Option<&Thing> {
        self.things.iter().find(|thing| thing.uid == *uid)
    }

    pub fn to_json(&self, class: Option<&str>) -> Value {
        json!({
            "class": class,
            "principal": self.principal.to_json(),
            "action": self.action.to_json(),
            "resource": self.resource.to_json(),
            "context": facts_json(&self.context),
            "entities": self.things.iter().map(Thing::to_json).collect::<Vec<_>>(),
        })
    }

    /// The number at a path of attributes such as `["resource", "memoryMib"]`.
    pub fn number(&self, path: &[String]) -> Option<i64> {
        let (root, rest) = path.split_first()?;
        let mut facts = match root.as_str() {
            "principal" => &self.thing(&self.principal)?.facts,
            "resource" => &self.thing(&self.resource)?.facts,
            "context" => &self.context,
            _ => return None,
        };
        let (last, between) = rest.split_last()?;
        for name in between {
            facts = match facts.get(name.as_str())? {
                Fact::Record(inner) => inner,
                Fact::Thing(uid) => &self.thing(uid)?.facts,
                _ => return None,
            };
        }
        match facts.get(last.as_str())? {
            Fact::Long(value) => Some(*value),
            _ => None,
        }
    }
}
