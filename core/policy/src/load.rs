//! From files to policies, or to the places that are wrong.
//!
//! Files are parsed and validated one by one, so that positions are those of the file.

use crate::error::{PolicyError, Problem};
use crate::explain::{self, Comparison};
use crate::facts::NAMESPACE;
use crate::{literals, nesting};
use bulkhead_model::{Action, Class};
use cedar_policy::{Policy, ValidationMode, Validator};
use miette::Diagnostic;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const ID_BYTES_MAX: usize = 100;

/// A policy file and whom it concerns.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub path: PathBuf,
    /// `None`: every class.
    pub class: Option<Class>,
    pub text: String,
}

/// A policy that passed every check.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub policy: Policy,
    /// Where it begins; without a message.
    pub place: Problem,
    pub class: Option<Class>,
    pub reason: Option<String>,
    pub advice: Option<String>,
    pub comparisons: Vec<Comparison>,
    /// See [`explain::is_curable`].
    pub curable: bool,
    /// See [`literals::of`].
    pub literals: BTreeSet<(String, String)>,
    pub text: String,
}

/// The classes that have a folder.
pub(crate) fn classes(sources: &[Source]) -> Vec<Class> {
    let classes: BTreeSet<Class> = sources.iter().filter_map(|source| source.class.clone()).collect();
    classes.into_iter().collect()
}

/// Every policy of every file by its id, or every problem.
pub(crate) fn check(
    sources: &[Source],
    validator: &Validator,
) -> Result<BTreeMap<String, Rule>, PolicyError> {
    let mut rules = BTreeMap::new();
    let mut problems = Vec::new();
    for source in sources {
        check_file(source, validator, &mut rules, &mut problems);
    }
    if problems.is_empty() { Ok(rules) } else { Err(PolicyError::Invalid(problems)) }
}

fn check_file(
    source: &Source,
    validator: &Validator,
    rules: &mut BTreeMap<String, Rule>,
    problems: &mut Vec<Problem>,
) {
    let at =
        |offset, length, message| Problem::at(source.path.clone(), &source.text, offset, length, message);
    if let Some((offset, why)) = nesting::too_deep(&source.text) {
        problems.push(at(offset, 1, why));
        return;
    }
    let set: cedar_policy::PolicySet = match source.text.parse() {
        Ok(set) => set,
        Err(errors) => {
            for error in errors.iter() {
                note(problems, diagnose(source, error));
            }
            return;
        }
    };
    // A file that an editor has just emptied must not take its guards away.
    if set.is_empty() {
        problems.push(at(0, 0, "there is no policy in this file; delete the file if that is meant".into()));
    }
    if set.num_of_templates() > 0 {
        problems.push(at(
            0,
            0,
            "templates (`?principal`, `?resource`) are not supported: write the policy out".into(),
        ));
    }
    let result = validator.validate(&set, ValidationMode::Strict);
    for error in result.validation_errors() {
        note(problems, diagnose(source, error));
    }
    // Warnings are policies that can never apply and look-alike characters: both are not what they seem to be. Of a
    // policy with an error they only say the same again.
    let wrong: BTreeSet<_> = result.validation_errors().map(|error| error.policy_id()).collect();
    for warning in result.validation_warnings().filter(|warning| !wrong.contains(warning.policy_id())) {
        note(problems, diagnose(source, warning));
    }
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| position_id(policy));
    let mut from = 0;
    for policy in policies {
        let text = policy.to_cedar().unwrap_or_default();
        let offset =
            source.text.get(from..).and_then(|rest| rest.find(&text)).map_or(from, |found| from + found);
        from = (offset + text.len()).min(source.text.len());
        match named(policy, source, &text) {
            Ok((id, mut rule)) => {
                rule.place = at(offset, first_line(&text), String::new());
                if let Some(other) = rules.get(&id) {
                    let there = other.place.file.display();
                    let message =
                        format!("the id `{id}` is taken already, by a policy of {there}: ids are unique");
                    problems.push(at(offset, first_line(&text), message));
                }
                rules.insert(id, rule);
            }
            Err(message) => problems.push(at(offset, first_line(&text), message)),
        }
    }
}

/// Cedar numbers the policies of a text: `policy0`, `policy1` …
fn position_id(policy: &Policy) -> usize {
    policy
        .id()
        .to_string()
        .strip_prefix("policy")
        .and_then(|number| number.parse().ok())
        .unwrap_or(usize::MAX)
}

fn first_line(text: &str) -> usize {
    text.lines().next().map_or(1, str::len)
}

fn named(policy: &Policy, source: &Source, text: &str) -> Result<(String, Rule), String> {
    let id = policy.annotation("id").unwrap_or_default();
    let good = (1..=ID_BYTES_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if id.is_empty() {
        return Err("this policy has no id: write @id(\"name\") above it".into());
    }
    if !good {
        return Err(format!(
            "the id `{}` is not 1 to {ID_BYTES_MAX} letters, digits, `-`, `_`, `.`",
            id.escape_debug()
        ));
    }
    let json = policy.to_json().map_err(|error| error.to_string())?;
    let words = |key: &str| policy.annotation(key).filter(|words| !words.is_empty()).map(str::to_owned);
    let rule = Rule {
        policy: policy.new_id(cedar_policy::PolicyId::new(id)),
        place: Problem::at(source.path.clone(), "", 0, 0, String::new()),
        class: source.class.clone(),
        reason: words("reason"),
        advice: words("advice"),
        comparisons: explain::comparisons(&json),
        curable: explain::is_curable(&json),
        literals: literals::of(&json),
        text: text.to_owned(),
    };
    Ok((id.to_owned(), rule))
}

/// Cedar repeats an error for every action that a policy may apply to.
fn note(problems: &mut Vec<Problem>, problem: Problem) {
    if !problems.contains(&problem) {
        problems.push(problem);
    }
}

fn diagnose(source: &Source, error: &dyn Diagnostic) -> Problem {
    let label = error.labels().and_then(|mut labels| labels.next());
    let (offset, length) = label.as_ref().map_or((0, 0), |label| (label.offset(), label.len()));
    let mut message = error.to_string();
    if let Some(words) = label.as_ref().and_then(|label| label.label()) {
        message = format!("{message}: {words}");
    }
    // Cedar names a policy by its place, which the position says better: "for policy `policy3`, …".
    if let Some(rest) = message.strip_prefix("for policy `policy") {
        let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if let Some(rest) = rest.strip_prefix("`, ").or_else(|| rest.strip_prefix("`: ")) {
            message = rest.to_owned();
        }
    }
    let action = message.strip_prefix("unrecognized action `").and_then(nearest_action);
    let mut problem = Problem::at(source.path.clone(), &source.text, offset, length, message);
    // Cedar's own hint looks at groups as well and is far off.
    problem.help = action.or_else(|| error.help().map(|help| help.to_string()));
    problem
}

/// For the rest of Cedar's message after "unrecognized action `".
fn nearest_action(rest: &str) -> Option<String> {
    let typed = rest.split('"').nth(1)?;
    let near = Action::ALL.iter().map(|action| action.name());
    let (name, likeness) =
        near.map(|name| (name, strsim::jaro_winkler(name, typed))).max_by(|a, b| a.1.total_cmp(&b.1))?;
    (likeness > 0.8).then(|| format!("did you mean `{NAMESPACE}::Action::\"{name}\"`?"))
}
