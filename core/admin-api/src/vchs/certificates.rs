//! `POST /v1/vchs/{name}/client-certificates`: lets a client in through TLS.

use crate::error::Problem;
use crate::extract::Body;
use crate::state::AdminState;
use crate::view::{CertificateAsk, ClientCertificate};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use bulkhead_model::Caller;

/// RFC 5280, appendix A.1: ub-common-name.
const CLIENT_CHARS_MAX: usize = 64;

pub(crate) async fn handle(
    State(state): State<AdminState>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(ask): Body<CertificateAsk>,
) -> Result<(StatusCode, Json<ClientCertificate>), Problem> {
    check(&ask.client)?;
    let (vch, _) = state.engine.vch(&caller, &name).await?;
    if vch.settings.tls_listen.is_none() {
        return Err(Problem::conflict(format!("VCH `{name}` has no TLS listener"))
            .remedy("create it with --tls ADDRESS:PORT, or use its unix socket"));
    }
    let certificate = (state.certificates)(&vch, &ask.client)?;
    tracing::info!(vch.name = %name, %caller, client = %ask.client, not_after = %certificate.not_after, "issued a client certificate");
    Ok((StatusCode::CREATED, Json(certificate)))
}

fn check(client: &str) -> Result<(), Problem> {
    let good = (1..=CLIENT_CHARS_MAX).contains(&client.len())
        && client.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.@".contains(&b));
    if good {
        Ok(())
    } else {
        Err(Problem::invalid(format!(
            "invalid client name: expected 1 to {CLIENT_CHARS_MAX} of letters, digits, `-`, `_`, `.` and `@`"
        )))
    }
}
