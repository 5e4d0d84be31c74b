//! Write plugins for Bulkhead.
//!
//! A plugin has a say in what a container host does. It is a WebAssembly component; with this crate it is a type with a
//! few methods:
//!
//! ```
//! use bulkhead_sdk::admission::{Admission, Container, Review};
//! use bulkhead_sdk::{About, Call};
//!
//! struct Greeter;
//!
//! #[derive(serde::Deserialize, Default)]
//! #[serde(default, deny_unknown_fields)]
//! struct Settings {
//!     team: String,
//! }
//!
//! impl Admission for Greeter {
//!     type Settings = Settings;
//!     const ABOUT: About = About {
//!         name: "greeter",
//!         version: "1.0.0",
//!         description: "puts the team's label on each container",
//!         license: "Apache-2.0",
//!         settings_schema: r#"{"type": "object", "properties": {"team": {"type": "string"}}}"#,
//!     };
//!
//!     fn container_create(settings: &Settings, _call: &Call, container: &Container) -> Review {
//!         match container.label("team") {
//!             Some(_) => Review::allow(),
//!             None => Review::allow().set_label("team", &settings.team, "whose it is must be known"),
//!         }
//!     }
//! }
//!
//! bulkhead_sdk::admission_plugin!(Greeter);
//! # fn main() {}
//! ```
//!
//! In a crate of type `cdylib`, `bulkhead plugin build` makes the component of it. Everything else of it can be tested
//! natively, by `cargo test`: a review is a value, and nothing is needed to make the question.

pub mod admission;
#[doc(hidden)]
pub mod admission_bindings;
#[doc(hidden)]
pub mod bindings;
mod export;
pub mod placement;
#[doc(hidden)]
pub mod placement_bindings;
mod settings;

pub use bindings::bulkhead::plugin::log;
pub use bindings::bulkhead::plugin::types::CallInfo as Call;

/// What a plugin says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// 1 to 40 of a-z, 0-9 and `-`, beginning with a letter.
    pub name: &'static str,
    /// As semver.org has it.
    pub version: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// An SPDX expression.
    pub license: &'static str,
    /// A JSON Schema of the settings, for those who write them.
    pub settings_schema: &'static str,
}

impl From<About> for bindings::exports::bulkhead::plugin::lifecycle::Manifest {
    fn from(about: About) -> Self {
        Self {
            name: about.name.into(),
            version: about.version.into(),
            description: about.description.into(),
            license: about.license.into(),
            settings_schema: about.settings_schema.into(),
        }
    }
}
