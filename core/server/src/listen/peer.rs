//! Who is at the other end.

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use bulkhead_admin_api::{Problem, code};
use std::net::SocketAddr;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

/// Which uids a unix socket is for. The file's mode lets everybody connect, so that whoever is refused can be told why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    pub uids: Vec<u32>,
    pub refusal: Refusal,
}

/// How a refusal is worded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// As a problem document.
    Admin,
    /// As Docker's clients expect.
    Docker { vch: String },
}

/// A connection, not served yet.
pub(super) enum Peer {
    Unix { stream: UnixStream, uid: u32, refusal: Option<Refused> },
    Tls { stream: TcpStream, address: SocketAddr, acceptor: TlsAcceptor },
    Loopback { stream: TcpStream, address: SocketAddr },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    uid: u32,
    how: Refusal,
}

impl Access {
    pub(super) fn refuse(&self, uid: u32) -> Option<Refused> {
        let allowed = uid == 0 || self.uids.contains(&uid);
        if allowed { None } else { Some(Refused { uid, how: self.refusal.clone() }) }
    }
}

impl Peer {
    /// Whose connections are counted together.
    pub fn key(&self) -> String {
        match self {
            Peer::Unix { uid, refusal: None, .. } => format!("uid:{uid}"),
            // All strangers share one allowance.
            Peer::Unix { refusal: Some(_), .. } => "strangers".into(),
            Peer::Tls { address, .. } | Peer::Loopback { address, .. } => address.ip().to_string(),
        }
    }
}

impl Refused {
    pub fn response(&self) -> Response {
        let uid = self.uid;
        match &self.how {
            Refusal::Admin => Problem::new(
                StatusCode::FORBIDDEN,
                code::NOT_AN_ADMIN,
                format!("uid {uid} may not use the admin socket"),
            )
            .remedy(format!("add {uid} to `uids` in the section [admin] of the server's configuration"))
            .into_response(),
            Refusal::Docker { vch } => {
                let message = format!(
                    "permission denied: uid {uid} may not use the VCH `{vch}`; an operator lets it in with `bulkhead vch create --socket-uid {uid}` or `uids` in the section [admin] of the configuration"
                );
                (StatusCode::FORBIDDEN, axum::Json(serde_json::json!({ "message": message }))).into_response()
            }
        }
    }
}
