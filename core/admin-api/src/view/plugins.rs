//! Plugins and bindings.

use bulkhead_model::plugin::{Binding, Mode, OnFailure, Plugin, Point, Scope};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// An installed plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginView {
    pub name: String,
    pub version: String,
    /// Of the component's bytes.
    pub digest: String,
    pub description: String,
    pub license: String,
    /// A JSON Schema.
    pub settings_schema: serde_json::Value,
    /// Where it is asked.
    pub points: Vec<Point>,
    pub bytes: u64,
    pub installed_at: DateTime<Utc>,
    pub installed_by: String,
}

impl From<Plugin> for PluginView {
    fn from(plugin: Plugin) -> Self {
        Self {
            name: plugin.manifest.name.to_string(),
            version: plugin.manifest.version,
            digest: plugin.digest.to_string(),
            description: plugin.manifest.description,
            license: plugin.manifest.license,
            settings_schema: plugin.manifest.settings_schema,
            points: plugin.manifest.points,
            bytes: plugin.bytes,
            installed_at: plugin.installed_at,
            installed_by: plugin.installed_by,
        }
    }
}

/// Whose requests a binding has a say in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "of", deny_unknown_fields)]
pub enum ScopeView {
    #[default]
    Everywhere,
    Class(String),
    /// By name or id; in answers, by id.
    Vch(String),
}

/// A binding as it is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindingAsk {
    /// A plugin's name, where there is one of that name, its digest, or the beginning of that.
    pub plugin: String,
    #[serde(default)]
    pub scope: ScopeView,
    /// Lower ones are asked first.
    #[serde(default)]
    pub position: i32,
    #[serde(default = "enforce")]
    pub mode: Mode,
    #[serde(default = "refuse")]
    pub on_failure: OnFailure,
    #[serde(default = "no_settings")]
    pub settings: serde_json::Value,
}

fn enforce() -> Mode {
    Mode::Enforce
}

fn refuse() -> OnFailure {
    OnFailure::Refuse
}

fn no_settings() -> serde_json::Value {
    serde_json::json!({})
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    pub name: String,
    pub plugin: String,
    pub digest: String,
    pub scope: ScopeView,
    pub position: i32,
    pub mode: Mode,
    pub on_failure: OnFailure,
    pub settings: serde_json::Value,
    /// Also its entity tag.
    pub revision: u64,
    pub changed_at: DateTime<Utc>,
    pub changed_by: String,
}

impl From<Binding> for BindingView {
    fn from(binding: Binding) -> Self {
        Self {
            name: binding.name.to_string(),
            plugin: binding.plugin.to_string(),
            digest: binding.digest.to_string(),
            scope: match binding.scope {
                Scope::Everywhere => ScopeView::Everywhere,
                Scope::Class(class) => ScopeView::Class(class.to_string()),
                Scope::Vch(id) => ScopeView::Vch(id.to_string()),
            },
            position: binding.position,
            mode: binding.mode,
            on_failure: binding.on_failure,
            settings: binding.settings,
            revision: binding.revision,
            changed_at: binding.changed_at,
            changed_by: binding.changed_by,
        }
    }
}
