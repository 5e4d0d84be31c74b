//! The body of `POST /containers/create`: every field of the API has a rule, and becomes part of the ask, is kept
//! for inspect, or is refused by name. Nothing is silently accepted.

pub mod ask;
pub mod cpu;
mod devices;
pub mod fields;
pub mod health;
mod links;
mod log;
mod mounts;
pub mod network;
pub mod process;
pub mod restart;
mod tmpfs;
mod view;

pub use ask::{CreateRequest, read};
pub use view::amend;
