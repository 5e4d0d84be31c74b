//! A policy set: checked whole, never changed.

use crate::error::PolicyError;
use crate::facts::Uid;
use crate::folder::{BASE, read_folder, sources};
use crate::load::{self, Rule, Source};
use crate::schema::{parse, schema_text};
use bulkhead_model::{Action, Class, Digest, PolicyFiles, PolicyRevision};
use cedar_policy::{Effect, Entities, Schema, Validator};
use std::collections::BTreeMap;
use std::path::Path;

const STACK_BYTES: usize = 64 << 20;

/// Validated policies of all classes.
pub struct PolicySet {
    pub(crate) digest: Digest,
    pub(crate) schema: Schema,
    schema_text: String,
    /// Each action with the groups that it is in, which Cedar wants as entities, by the action's name.
    pub(crate) actions: BTreeMap<&'static str, Entities>,
    pub(crate) rules: BTreeMap<String, Rule>,
    /// `base` alone: what decides about the installation itself.
    pub(crate) base: cedar_policy::PolicySet,
    /// `base` and what the class adds.
    pub(crate) classes: BTreeMap<Class, cedar_policy::PolicySet>,
}

/// What differs between two sets, by policy id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl PolicySet {
    /// Reads `base/*.cedar` and `CLASS/*.cedar` below a folder. Blocks on files.
    pub fn load(dir: &Path) -> Result<Self, PolicyError> {
        Self::from_files(&read_folder(dir)?, dir)
    }

    /// The policies that come with Bulkhead.
    pub fn shipped() -> Result<Self, PolicyError> {
        Self::from_files(&crate::shipped::files(), Path::new("policies"))
    }

    /// `root`: where messages say that the files are; empty where they are in no folder.
    pub fn from_files(files: &PolicyFiles, root: &Path) -> Result<Self, PolicyError> {
        let sources = sources(files, root)?;
        let names = load::classes(&sources);
        if names.is_empty() {
            let why = "there is no class: make a folder such as `dev`".into();
            return Err(PolicyError::Layout { path: root.into(), why });
        }
        Self::from_sources(&sources, schema_text(&names)).map_err(|error| match error {
            PolicyError::Schema { why } => PolicyError::Layout { path: root.into(), why },
            other => other,
        })
    }

    /// The set as it decided, whatever the schema is by now.
    pub fn of_revision(revision: &PolicyRevision) -> Result<Self, PolicyError> {
        Self::from_sources(&sources(&revision.files, Path::new(""))?, revision.schema.clone())
    }

    /// On a stack of its own, in which what is allowed to nest has room with any compiler.
    fn from_sources(sources: &[Source], schema_text: String) -> Result<Self, PolicyError> {
        let failed = |why: &str| PolicyError::Schema { why: why.to_owned() };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let reading = thread.spawn_scoped(scope, || Self::read(sources, schema_text));
            let reading =
                reading.map_err(|error| failed(&format!("there is no thread to read it: {error}")))?;
            reading.join().unwrap_or_else(|_| Err(failed("reading it failed; the log tells more")))
        })
    }

    fn read(sources: &[Source], schema_text: String) -> Result<Self, PolicyError> {
        let schema = parse(&schema_text)?;
        let rules = load::check(sources, &Validator::new(schema.clone()))?;
        let base = select(&rules, None)?;
        let mut classes = BTreeMap::new();
        for class in load::classes(sources) {
            let policies = select(&rules, Some(&class))?;
            if !policies.policies().any(|policy| policy.effect() == Effect::Permit) {
                let why = format!("no policy permits anything in class `{class}`");
                return Err(PolicyError::Schema { why });
            }
            classes.insert(class, policies);
        }
        let actions = actions(&schema)?;
        let digest = digest(sources, &schema_text);
        Ok(Self { digest, schema, schema_text, actions, rules, base, classes })
    }

    /// Of schema and policies: equal digests decide equally.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What its policies were checked against.
    pub fn schema_text(&self) -> &str {
        &self.schema_text
    }

    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.keys()
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Never so for a set that was loaded.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The source text of a policy, for showing.
    pub fn text(&self, id: &str) -> Option<&str> {
        self.rules.get(id).map(|rule| rule.text.as_str())
    }

    pub fn difference(&self, newer: &PolicySet) -> Difference {
        let mut difference = Difference::default();
        for (id, rule) in &newer.rules {
            match self.rules.get(id) {
                None => difference.added.push(id.clone()),
                Some(old) if old.text != rule.text || old.class != rule.class => {
                    difference.changed.push(id.clone())
                }
                Some(_) => {}
            }
        }
        let gone = self.rules.keys().filter(|id| !newer.rules.contains_key(*id));
        difference.removed.extend(gone.cloned());
        difference
    }
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicySet")
            .field("digest", &self.digest)
            .field("policies", &self.rules.len())
            .finish_non_exhaustive()
    }
}

fn actions(schema: &Schema) -> Result<BTreeMap<&'static str, Entities>, PolicyError> {
    let wrong = |error: &dyn std::fmt::Display| PolicyError::Schema { why: error.to_string() };
    let all = schema.action_entities().map_err(|error| wrong(&error))?;
    let mut actions = BTreeMap::new();
    for action in Action::ALL {
        let uid = Uid::new("Action", action.name()).to_cedar().map_err(|error| wrong(&error))?;
        let groups = all.ancestors(&uid).into_iter().flatten();
        let wanted = groups.chain([&uid]).filter_map(|uid| all.get(uid).cloned());
        let entities = Entities::from_entities(wanted, None).map_err(|error| wrong(&error))?;
        actions.insert(action.name(), entities);
    }
    Ok(actions)
}

fn select(
    rules: &BTreeMap<String, Rule>,
    class: Option<&Class>,
) -> Result<cedar_policy::PolicySet, PolicyError> {
    let chosen = rules.values().filter(|rule| rule.class.is_none() || rule.class.as_ref() == class);
    cedar_policy::PolicySet::from_policies(chosen.map(|rule| rule.policy.clone()))
        .map_err(|error| PolicyError::Schema { why: error.to_string() })
}

/// Lengths go in, so that text cannot move between files unseen; folders go in, paths above them do not.
fn digest(sources: &[Source], schema_text: &str) -> Digest {
    let mut bytes = schema_text.as_bytes().to_vec();
    for source in sources {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        let class = source.class.as_ref().map_or(BASE, Class::as_str);
        bytes.extend(format!("\n{class}/{name} {}\n", source.text.len()).bytes());
        bytes.extend(source.text.bytes());
    }
    Digest::of(&bytes)
}
