//! Admission by Cedar policies: may this caller do this, here, like that, and why not.
//!
//! ```text
//!   policies/base/*.cedar   ─┐ parse, ids, strict validation   ┌─ PolicySet ─┐
//!   policies/CLASS/*.cedar  ─┴────────────────────────────────▶│ a set per   │◀── Decider: swapped whole
//!   schema (in this crate)  ──────────────────────────────────▶│ class       │    when the files change
//!                                                              └──────┬──────┘
//!   Query (model types) ──▶ entities and context ──▶ Cedar ───────────┴──▶ Outcome (verdict, reasons, inputs)
//! ```
//!
//! **Invariants:**
//! - Only this crate knows Cedar. No JSON on the way to a decision, and never a request's raw bytes.
//! - A policy that fails denies, although Cedar itself would skip it.
//! - A set is in force whole or not at all: what is wrong in one file keeps the old set.
//! - The files of a class are read by VCHs of that class only; `base` by all.

mod decider;
mod error;
mod explain;
mod facts;
mod inputs;
mod load;
mod query;
mod schema;
mod set;
mod shipped;

pub use decider::{Decider, Status};
pub use error::{PolicyError, Problem};
pub use query::{ContainerFacts, HostFacts, ImageFacts, Outcome, Query, Settings, Subject, Usage};
pub use schema::{SCHEMA, schema_text};
pub use set::{Difference, PolicySet};
pub use shipped::write_defaults;
