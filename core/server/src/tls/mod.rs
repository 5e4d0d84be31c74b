//! TLS of a VCH: an authority of its own, which signs the listener's certificate and those of its clients.
//!
//! ```text
//!   DATA/tls/ID/ca.pem ca.key  made at first use, kept
//!        ├─ server certificate         made when the listener opens, and again before it ages; never on disk
//!        └─ client certificates        made for `bulkhead vch context`; the key is handed out and forgotten
//! ```
//!
//! **Invariant:** a certificate of one VCH opens no other.

mod authority;
mod names;

pub use authority::{Authority, write_private};
pub use names::{context_host, server_names};

use anyhow::{Context as _, Result};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio_rustls::TlsAcceptor;

/// The listener gets a new certificate this often; the old one is good for much longer.
const RENEW: Duration = Duration::from_secs(30 * 24 * 3600);

/// The server's side of TLS: client certificates of this VCH are required.
#[derive(Debug)]
pub struct TlsServer {
    authority: Authority,
    names: Vec<String>,
    current: Mutex<Option<(Instant, Acceptor)>>,
}

#[derive(Clone)]
struct Acceptor(TlsAcceptor);

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptor")
    }
}

impl TlsServer {
    pub fn new(authority: Authority, listen: SocketAddr) -> Result<Self> {
        let server = Self { authority, names: server_names(listen), current: Mutex::new(None) };
        server.acceptor()?;
        Ok(server)
    }

    /// The acceptor in use, or a new one when it is due.
    pub fn acceptor(&self) -> Result<TlsAcceptor> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, acceptor)) = current.as_ref()
            && made.elapsed() < RENEW
        {
            return Ok(acceptor.0.clone());
        }
        let acceptor = self.build()?;
        *current = Some((Instant::now(), Acceptor(acceptor.clone())));
        Ok(acceptor)
    }

    fn build(&self) -> Result<TlsAcceptor> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let issued = self.authority.issue_server(&self.names, SystemTime::now())?;
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate()?).context("the VCH's own authority")?;
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let key = PrivateKeyDer::try_from(issued.key_der).map_err(|error| anyhow::anyhow!("{error}"))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![CertificateDer::from(issued.cert_der)], key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The common name of a client certificate that was verified.
pub fn client_name(certificates: Option<&[CertificateDer<'static>]>) -> Option<String> {
    use x509_parser::prelude::FromDer as _;
    let first = certificates?.first()?;
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(first).ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned()).filter(|name| !name.is_empty())
}
