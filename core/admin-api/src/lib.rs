//! The operator's API: VCHs, decisions, policies, client certificates. JSON over HTTP, on a unix socket.
//!
//! ```text
//!   GET    /v1/vchs                              POST /v1/vchs
//!   GET    /v1/vchs/{name}                       POST /v1/vchs/{name}/client-certificates
//!   PATCH  /v1/vchs/{name}                       DELETE /v1/vchs/{name}?force=true
//!   GET    /v1/decisions?vch=&verdict=&action=&caller=&since=&until=&limit=&cursor=
//!   GET    /v1/decisions/{id}                    POST /v1/decisions/{id}/replay
//!   GET    /v1/policies/status                   GET  /v1/policies/revisions?limit=&cursor=
//!   GET    /v1/policies/revisions/{number}       GET  /v1/policies/revisions/{number}/diff/{to}
//!   POST   /v1/policies/revisions/{number}/rollback
//!   GET    /v1/policies/drafts                   PUT  /v1/policies/drafts/{name}
//!   GET    /v1/policies/drafts/{name}            DELETE /v1/policies/drafts/{name}
//!   POST   /v1/policies/drafts/{name}/check      POST /v1/policies/drafts/{name}/what-if
//!   POST   /v1/policies/drafts/{name}/activate
//!   GET    /v1/templates                         POST /v1/templates
//!   DELETE /v1/templates/{name}                  GET  /v1/fsck
//!   GET    /v1/machines                          GET  /v1/machines/{container}
//!   GET    /v1/plugins                           POST /v1/plugins (a component's bytes)
//!   GET    /v1/plugins/{plugin}                  DELETE /v1/plugins/{plugin}
//!   GET    /v1/bindings                          PUT  /v1/bindings/{name}
//!   GET    /v1/bindings/{name}                   DELETE /v1/bindings/{name}
//! ```
//!
//! **Invariants:** every request carries a [`bulkhead_model::Caller`] that the listener put there; nothing here decides,
//! the engine does. Errors are problem documents (RFC 9457), see [`Problem`]. The CLI is a client like any other and
//! uses the types of [`view`].

mod bindings;
mod decisions;
mod error;
mod extract;
mod fsck;
mod machines;
mod plugins;
mod policies;
mod state;
mod templates;
mod vchs;
pub mod view;

pub use error::{Problem, code};
pub use state::{AdminState, CertificateIssuer, Endpoints, PolicyStatus};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};

/// No request of this API is larger, but those that install a plugin or write a draft.
const BODY_BYTES_MAX: usize = 64 << 10;

pub fn router(state: AdminState) -> Router {
    Router::new()
        .route("/v1/vchs", get(vchs::list::handle).post(vchs::create::handle))
        .route(
            "/v1/vchs/{name}",
            get(vchs::inspect::handle).patch(vchs::update::handle).delete(vchs::remove::handle),
        )
        .route("/v1/vchs/{name}/client-certificates", post(vchs::certificates::handle))
        .route("/v1/decisions", get(decisions::list))
        .route("/v1/decisions/{id}", get(decisions::inspect))
        .route("/v1/decisions/{id}/replay", post(decisions::replay))
        .route("/v1/policies/status", get(policies::status::handle))
        .route("/v1/policies/revisions", get(policies::revisions::list))
        .route("/v1/policies/revisions/{number}", get(policies::revisions::inspect))
        .route("/v1/policies/revisions/{number}/diff/{to}", get(policies::revisions::diff))
        .route("/v1/policies/revisions/{number}/rollback", post(policies::revisions::rollback))
        .route("/v1/policies/drafts", get(policies::drafts::list))
        .route(
            "/v1/policies/drafts/{name}",
            get(policies::drafts::inspect)
                .put(policies::drafts::put)
                .delete(policies::drafts::remove)
                .layer(DefaultBodyLimit::max(policies::drafts::BODY_BYTES_MAX)),
        )
        .route("/v1/policies/drafts/{name}/check", post(policies::drafts::check))
        .route("/v1/policies/drafts/{name}/activate", post(policies::drafts::activate))
        .route("/v1/policies/drafts/{name}/what-if", post(policies::drafts::what_if))
        .route("/v1/fsck", get(fsck::handle))
        .route("/v1/machines", get(machines::list))
        .route("/v1/machines/{container}", get(machines::inspect))
        .route(
            "/v1/plugins",
            get(plugins::list)
                .post(plugins::install)
                .layer(DefaultBodyLimit::max(bulkhead_model::plugin::COMPONENT_BYTES_MAX)),
        )
        .route("/v1/plugins/{plugin}", get(plugins::inspect).delete(plugins::remove))
        .route("/v1/bindings", get(bindings::list))
        .route("/v1/bindings/{name}", get(bindings::inspect).put(bindings::put).delete(bindings::remove))
        .route("/v1/templates", get(templates::list).post(templates::build))
        .route("/v1/templates/{name}", delete(templates::remove))
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}
