//! Tenants and VCHs that policies name. Cedar checks actions and classes; a tenant may be anything, so a typo in a guard
//! is a guard of nobody.

use crate::error::Problem;
use crate::facts::NAMESPACE;
use crate::set::PolicySet;
use serde_json::Value;
use std::collections::BTreeSet;

/// Likeness from which a name is held to be meant.
const ALIKE: f64 = 0.8;

/// What an installation has that policies can name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    /// Tenants that have a VCH.
    pub tenants: BTreeSet<String>,
    /// Ids of VCHs.
    pub vchs: BTreeSet<String>,
}

/// Kind (`Tenant`) and id of each entity that a policy in Cedar's JSON form names, in its scope or its conditions.
pub(crate) fn of(policy: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    walk(policy, &mut found);
    found
}

fn walk(value: &Value, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Object(object) => {
            let text = |name: &str| object.get(name).and_then(Value::as_str);
            if let (Some(kind), Some(id)) = (text("type"), text("id"))
                && let Some(kind) = kind.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix("::"))
            {
                found.insert((kind.to_owned(), id.to_owned()));
            }
            object.values().for_each(|value| walk(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| walk(value, found)),
        _ => {}
    }
}

impl PolicySet {
    /// Policies that name a tenant or a VCH that is not there. That may be meant: it may come.
    pub fn strangers(&self, known: &Known) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (id, rule) in &self.rules {
            for (kind, name) in &rule.literals {
                let (there, noun) = match kind.as_str() {
                    "Tenant" => (&known.tenants, "tenant"),
                    "Vch" => (&known.vchs, "VCH"),
                    _ => continue,
                };
                if there.contains(name) {
                    continue;
                }
                let mut problem = rule.place.clone();
                problem.message =
                    format!("policy `{id}` names the {noun} `{}`, which is not there", name.escape_debug());
                problem.help = nearest(there, name).map(|near| format!("did you mean `{near}`?"));
                problems.push(problem);
            }
        }
        problems
    }
}

fn nearest<'a>(there: &'a BTreeSet<String>, name: &str) -> Option<&'a String> {
    let likeness = |known: &'a String| (known, strsim::jaro_winkler(known, name));
    let nearest = there.iter().map(likeness).max_by(|a, b| a.1.total_cmp(&b.1));
    nearest.filter(|(_, likeness)| *likeness > ALIKE).map(|(known, _)| known)
}
