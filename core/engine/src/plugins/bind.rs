//! Use cases of operators: which plugin has a say in what, and how it is set.

use super::Broken;
use crate::{Engine, EngineError};
use bulkhead_model::plugin::{BINDINGS_PER_REQUEST_MAX, Binding, Mode, OnFailure, PluginName, Scope};
use bulkhead_model::{Action, Caller};
use bulkhead_policy::Subject;
use bulkhead_store::{Record, StoreError};

/// A binding as it is to be.
#[derive(Debug, Clone)]
pub struct NewBinding {
    /// A plugin's name, where there is one of that name, its digest, or the beginning of that.
    pub plugin: String,
    pub scope: NewScope,
    pub position: i32,
    pub mode: Mode,
    pub on_failure: OnFailure,
    pub settings: serde_json::Value,
}

/// Whose requests; a VCH by its name.
#[derive(Debug, Clone)]
pub enum NewScope {
    Everywhere,
    Class(String),
    Vch(String),
}

impl Engine {
    /// All of them, in the order in which they are asked.
    pub async fn bindings(&self, caller: &Caller) -> Result<Vec<Binding>, EngineError> {
        self.admit_operator(caller, Action::BindingList, Subject::Platform).await?;
        Ok(self.store().bindings().await?)
    }

    pub async fn binding(&self, caller: &Caller, name: &str) -> Result<Binding, EngineError> {
        let all = self.bindings(caller).await?;
        all.into_iter().find(|binding| binding.name.as_str() == name).ok_or_else(|| no_such(name))
    }

    /// Makes a binding, or puts another in its place, from the next request on. `before`: the revision that it must have
    /// now (0: there must be none); none: whatever there is.
    pub async fn binding_put(
        &self,
        caller: &Caller,
        name: PluginName,
        new: NewBinding,
        before: Option<u64>,
    ) -> Result<Binding, EngineError> {
        let (engine, caller) = (self.clone(), caller.clone());
        self.to_its_end(async move { engine.put_binding(&caller, name, new, before).await }).await
    }

    async fn put_binding(
        &self,
        caller: &Caller,
        name: PluginName,
        new: NewBinding,
        before: Option<u64>,
    ) -> Result<Binding, EngineError> {
        let admitted = self.admit_operator(caller, Action::BindingPut, Subject::Platform).await?;
        let _turn = self.0.plugins.turn.lock().await;
        let all = self.store().bindings().await?;
        let now = all.iter().find(|binding| binding.name == name).map(|binding| binding.revision);
        if before.is_some_and(|before| before != now.unwrap_or(0)) {
            return Err(changed(&name));
        }
        let plugin = self.find_plugin(&new.plugin).await?;
        let scope = self.scope(new.scope).await?;
        let others = all.iter().filter(|binding| binding.name != name);
        if others.filter(|binding| meet(&binding.scope, &scope)).count() >= BINDINGS_PER_REQUEST_MAX {
            let why = format!("{BINDINGS_PER_REQUEST_MAX} plugins have a say there already");
            return Err(EngineError::Invalid { what: "binding", value: name.to_string(), why });
        }
        self.check_settings(&plugin.digest, &new.settings).await?;
        let binding = Binding {
            name,
            plugin: plugin.manifest.name,
            digest: plugin.digest,
            scope,
            position: new.position,
            mode: new.mode,
            on_failure: new.on_failure,
            settings: new.settings,
            revision: now.unwrap_or(0) + 1,
            changed_at: self.now(),
            changed_by: caller.name.clone(),
        };
        let record = Record::at(binding.changed_at).audit(admitted.audit);
        match self.store().put_binding(&binding, now, &record).await {
            Ok(()) => {}
            Err(StoreError::Conflict { .. }) => return Err(changed(&binding.name)),
            Err(StoreError::NotFound { kind: "plugin", .. }) => {
                return Err(EngineError::NoSuchPlugin(new.plugin));
            }
            Err(other) => return Err(other.into()),
        }
        self.rebind(Broken::Stays).await?;
        Ok(binding)
    }

    pub async fn binding_remove(&self, caller: &Caller, name: &str) -> Result<(), EngineError> {
        let (engine, caller, name) = (self.clone(), caller.clone(), name.to_owned());
        self.to_its_end(async move { engine.remove_binding(&caller, &name).await }).await
    }

    async fn remove_binding(&self, caller: &Caller, name: &str) -> Result<(), EngineError> {
        let admitted = self.admit_operator(caller, Action::BindingRemove, Subject::Platform).await?;
        let _turn = self.0.plugins.turn.lock().await;
        let parsed: PluginName = name.parse().map_err(|_| no_such(name))?;
        let record = Record::at(self.now()).audit(admitted.audit);
        match self.store().delete_binding(&parsed, &record).await {
            Ok(()) => self.rebind(Broken::Stays).await,
            Err(StoreError::NotFound { .. }) => Err(no_such(name)),
            Err(other) => Err(other.into()),
        }
    }

    /// What is written down is put in force, whether or not somebody still waits for it.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        self.0.tasks.spawn(work).await.unwrap_or(Err(EngineError::Stopping))
    }

    async fn scope(&self, new: NewScope) -> Result<Scope, EngineError> {
        Ok(match new {
            NewScope::Everywhere => Scope::Everywhere,
            NewScope::Class(text) => {
                let set = self.0.policies.set();
                let known = set.classes().find(|class| class.as_str() == text).cloned();
                Scope::Class(known.ok_or_else(|| {
                    let known: Vec<_> = set.classes().map(ToString::to_string).collect();
                    let why = format!("there are {}", known.join(", "));
                    EngineError::Invalid { what: "class", value: text.chars().take(80).collect(), why }
                })?)
            }
            // An id stands for itself, as answers have it.
            NewScope::Vch(text) => match text.parse() {
                Ok(id) => {
                    Scope::Vch(self.store().vch(id).await.map_err(|_| EngineError::NoSuchVch(text))?.id)
                }
                Err(_) => Scope::Vch(self.vch_named(&text).await?.id),
            },
        })
    }

    async fn check_settings(
        &self,
        digest: &bulkhead_model::Digest,
        settings: &serde_json::Value,
    ) -> Result<(), EngineError> {
        let plugin = self.load_plugin(digest).await.map_err(EngineError::Plugin)?;
        let failed =
            |error| EngineError::PluginRefused(format!("asked about its settings, it failed: {error}"));
        let problems = plugin.check_settings(settings).await.map_err(failed)?;
        if problems.is_empty() {
            return Ok(());
        }
        let told = |(path, message): (String, String)| match path.is_empty() {
            true => message,
            false => format!("{path}: {message}"),
        };
        Err(EngineError::PluginSettings(problems.into_iter().map(told).collect()))
    }
}

/// Whether one request can be in both.
fn meet(one: &Scope, other: &Scope) -> bool {
    match (one, other) {
        (Scope::Class(one), Scope::Class(other)) => one == other,
        (Scope::Vch(one), Scope::Vch(other)) => one == other,
        _ => true,
    }
}

fn changed(name: &PluginName) -> EngineError {
    EngineError::Conflict(format!("binding {name} was changed meanwhile: read it again"))
}

fn no_such(name: &str) -> EngineError {
    EngineError::NoSuchBinding(name.chars().take(80).collect())
}
