//! Reasons are data: built where the fact is known, rendered at the edges.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why something was refused, chosen or warned about: a rule, what it looked at, and what lies beneath.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    pub rule: Rule,
    /// What it is about, in the user's words: `image`, `memory`, a name.
    pub subject: String,
    /// One sentence, lower case, no full stop.
    pub text: String,
    /// What would make it pass, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub numbers: Vec<Number>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Reason>,
}

/// What said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "id")]
pub enum Rule {
    /// A Cedar policy, by its `@id`.
    Policy(String),
    /// No policy permits it.
    NotPermitted,
    /// A policy could not be evaluated; that denies.
    PolicyError(String),
    /// A plugin, by its binding.
    Plugin(String),
    /// A limit of a VCH or resource pool.
    Limit(String),
    /// The engine's own rule, by a stable name.
    Engine(String),
}

/// The engine's rule that a container has a place.
pub const PLACEMENT: &str = "placement";

impl Rule {
    /// Whether it is of those that speak after the policies have permitted something: plugins, placement, limits. Policies
    /// that are asked again know nothing of them.
    pub fn is_beside_policies(&self) -> bool {
        match self {
            Rule::Plugin(_) | Rule::Limit(_) => true,
            Rule::Engine(name) => name == PLACEMENT,
            Rule::Policy(_) | Rule::NotPermitted | Rule::PolicyError(_) => false,
        }
    }
}

/// A figure that a rule compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    pub name: String,
    pub value: i64,
    pub unit: String,
}

impl Reason {
    pub fn new(rule: Rule, subject: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            rule,
            subject: subject.into(),
            text: text.into(),
            advice: None,
            numbers: Vec::new(),
            children: Vec::new(),
        }
    }

    pub fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    pub fn number(mut self, name: &str, value: i64, unit: &str) -> Self {
        self.numbers.push(Number { name: name.into(), value, unit: unit.into() });
        self
    }

    pub fn child(mut self, child: Reason) -> Self {
        self.children.push(child);
        self
    }

    /// The whole tree, a line per reason, indented.
    pub fn page(&self) -> String {
        let mut page = String::new();
        self.write_page(&mut page, 0);
        page
    }

    fn write_page(&self, page: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        page.push_str(&format!("{indent}{}: {}\n", self.rule, self.text));
        for number in &self.numbers {
            page.push_str(&format!("{indent}  {} = {} {}\n", number.name, number.value, number.unit));
        }
        if let Some(advice) = &self.advice {
            page.push_str(&format!("{indent}  would pass: {advice}\n"));
        }
        for child in &self.children {
            child.write_page(page, depth + 1);
        }
    }
}

/// One sentence for an error text: `policy "no-privileged": prod runs nothing privileged; …`.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)?;
        if let Some(advice) = &self.advice {
            write!(f, " ({advice})")?;
        }
        for child in &self.children {
            write!(f, "; {child}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Policy(id) => write!(f, "policy \"{id}\""),
            Rule::NotPermitted => f.write_str("no policy permits this"),
            Rule::PolicyError(id) => write!(f, "policy \"{id}\" failed, which denies"),
            Rule::Plugin(binding) => write!(f, "plugin \"{binding}\""),
            Rule::Limit(name) => write!(f, "limit \"{name}\""),
            Rule::Engine(name) => write!(f, "rule \"{name}\""),
        }
    }
}
