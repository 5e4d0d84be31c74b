//! Networks: who is on which, with which address, and what of the host leads to whom.
//!
//! ```text
//!   use case, driver ──▶ store: networks, places, leases ──▶ keeper: all of it, made so by the back end
//!                                     │
//!                                     └──▶ names: told to the agents of those who can see each other
//! ```

mod connect;
mod create;
mod events;
mod find;
mod ipv6;
mod join;
mod keeper;
mod links;
mod plan;
mod told;

pub use create::NewNetwork;
pub(crate) use events::run_events;
pub use ipv6::NewPool6;
pub(crate) use join::nics;
pub(crate) use keeper::Keeper;
