//! Runs plugins: WebAssembly components that strangers wrote and an operator installed.
//!
//! ```text
//!   component ──▶ compile (a child without rights) ──▶ code, kept by digest ──▶ Plugin, loaded once
//!                                                                                  │ a call: a fresh instance,
//!   model types ──▶ WIT types ─────────────────────────────────────────────────────┤ fuel, memory, time, size
//!   model types ◀── checked answer ◀───────────────────────────────────────────────┘
//! ```
//!
//! **Invariants:**
//! - Only this crate knows WebAssembly.
//! - An instance lives for one call. A plugin has nothing from outside but its arguments and a log, so that the same
//!   question has the same answer, and costs the same fuel, whenever it is asked.
//! - What a plugin answers is data from a stranger: it is checked, and cut to size, before anybody else sees it.
//! - Native code is loaded only if this program wrote it.

mod admission;
mod answer;
mod call;
mod compile;
mod engine;
mod host;
mod placement;
mod question;

pub use admission::Review;
pub use call::{CallError, Called, Limits, LogLine, clip};
pub use compile::{Compiler, child_main};
pub use host::{Host, HostError, Plugin};
pub use placement::{Candidates, Ratings, Texts, ToPlace};
pub use question::{Asked, Circumstances, Container, Question, Subject, UsageAfter};
