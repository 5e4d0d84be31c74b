//! The Docker Engine API of a VCH: requests become use cases of the engine, answers become Docker's JSON.
//!
//! ```text
//!   listener ──▶ gate: version, origin, headers ──▶ routes ──▶ endpoint (a file each) ──▶ engine
//!   (who asks)                                        │
//!                                                     └──▶ known, but not there yet: refused by name
//! ```
//!
//! **Invariants:** it takes no decisions and keeps no state; every word of Docker's API is spoken here and nowhere
//! below. Who asks is what the listener put into the request's extensions, never anything that the client sent.
//! A field, parameter or call that is not there yet is refused by name.

// The long objects of the API are written as one `json!` each.
#![recursion_limit = "256"]

mod body;
mod call;
mod containers;
#[cfg(test)]
mod coverage;
mod create;
mod detach;
mod error;
mod exec;
mod filters;
mod framing;
mod gate;
mod hijack;
mod images;
mod json;
mod networks;
mod parameters;
mod query;
mod reply;
mod routes;
mod size;
mod system;
mod time;
mod unsupported;
mod version;
mod volumes;
mod websocket;

use bulkhead_engine::Engine;
use bulkhead_model::{Clock, VchId};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What the API of one VCH needs. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ApiState {
    pub engine: Engine,
    /// The VCH whose endpoint this is.
    pub vch: VchId,
    /// For ages in lists ("Up 3 minutes").
    pub clock: Clock,
    /// Owns what outlives a request: attached clients. The server waits for it when it stops.
    pub tasks: TaskTracker,
    /// Ends streams that would never end by themselves, when the server stops.
    pub stop: CancellationToken,
}

/// The API of one VCH. Each request must carry a [`bulkhead_model::Caller`] in its extensions, put there by the
/// listener; without it, nothing is answered.
pub fn router(state: ApiState) -> axum::Router {
    axum::Router::new().fallback(gate::answer).with_state(state)
}
