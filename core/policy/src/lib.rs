//! Admission by Cedar policies: may this caller do this, here, like that, and why not.
//!
//! ```text
//!   base/*.cedar            ─┐ parse, ids, strict validation   ┌─ PolicySet ─┐
//!   CLASS/*.cedar           ─┴────────────────────────────────▶│ a set per   │◀── Decider: swapped whole,
//!   schema (in this crate)  ──────────────────────────────────▶│ class       │    revision by revision
//!                                                              └──────┬──────┘
//!   Query (model types) ──▶ entities and context ──▶ Cedar ───────────┴──▶ Outcome (verdict, reasons, inputs)
//!   recorded inputs     ──────────────▲                                        as before, in a replay
//! ```
//!
//! **Invariants:**
//! - Only this crate knows Cedar. No JSON on the way to a decision, and never a request's raw bytes.
//! - A policy that fails denies, although Cedar itself would skip it.
//! - A set is in force whole or not at all: what is wrong in one file keeps the old set.
//! - The files of a class are read by VCHs of that class only; `base` by all.

mod cases;
mod decide;
mod decider;
mod diff;
mod error;
mod examine;
mod explain;
mod facts;
mod folder;
mod inputs;
mod literals;
mod load;
mod nesting;
mod query;
mod recorded;
mod schema;
mod set;
mod shipped;
mod watch;

pub use cases::{CaseResult, Scene, SceneError};
pub use decide::Replayed;
pub use decider::{Decider, Status, Version};
pub use diff::unified_diff;
pub use error::{PolicyError, Problem};
pub use examine::{Examined, examine};
pub use folder::{BYTES_MAX, read_cases, read_folder};
pub use literals::Known;
pub use query::{ContainerFacts, HostFacts, ImageFacts, Outcome, Query, Settings, Subject, Usage};
pub use recorded::ReplayError;
pub use schema::{SCHEMA, schema_text};
pub use set::{Difference, PolicySet};
pub use shipped::write_defaults;
pub use watch::{LOOK_EVERY, Watched};
