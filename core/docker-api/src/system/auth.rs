//! `POST /auth`: `docker login` asks whether a registry takes the credentials.

use super::credentials::{self, AuthConfig};
use crate::call::{Answer, Call};
use crate::error::ApiError;
use crate::{body, reply};
use serde_json::json;

pub async fn post(mut call: Call) -> Answer {
    let bytes = body::json(&mut call).await?;
    // Strict first: no key twice. The message must not repeat what it read: there is a password in it.
    let value = crate::json::parse(&bytes)?;
    let auth: AuthConfig =
        serde_json::from_value(value).map_err(|_| ApiError::bad("invalid JSON: expected credentials"))?;
    let registry = credentials::registry(auth.serveraddress.as_deref());
    call.engine().login(&call.session, &registry, auth.into_credentials()).await?;
    reply::ok(&json!({ "Status": "Login Succeeded", "IdentityToken": "" }))
}
