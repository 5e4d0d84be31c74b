//! Whom to trust.

use super::config::{RegistryConfig, names};
use crate::error::ImageError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The system's certificate authorities, and private ones for some registries.
#[derive(Debug)]
pub(super) struct Roots {
    system: RootCertStore,
    private: BTreeMap<String, Vec<CertificateDer<'static>>>,
}

impl Roots {
    pub fn load(config: &RegistryConfig) -> Result<Self, ImageError> {
        let mut system = RootCertStore::empty();
        system.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if system.is_empty() {
            // A machine without a store of its own.
            system.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let mut private: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for (registry, files) in &config.ca_files {
            for file in files {
                let wrong =
                    |why: String| ImageError::invalid(format!("certificates in `{}`", file.display()), why);
                let found: Result<Vec<_>, _> =
                    CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?.collect();
                let found = found.map_err(|error| wrong(error.to_string()))?;
                if found.is_empty() {
                    return Err(wrong("there are none".into()));
                }
                private.entry(registry.clone()).or_default().extend(found);
            }
        }
        Ok(Self { system, private })
    }

    /// How to speak TLS with a registry, and with the hosts that it names.
    pub fn client_config(&self, registry: &str, verify: bool) -> Result<ClientConfig, ImageError> {
        let provider = Arc::new(ring::default_provider());
        let wrong = |error: rustls::Error| ImageError::Registry {
            registry: registry.into(),
            why: "TLS could not be set up".into(),
            source: Some(error.into()),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(wrong)?;
        if !verify {
            let anyone = Arc::new(Anyone { provider });
            return Ok(builder.dangerous().with_custom_certificate_verifier(anyone).with_no_client_auth());
        }
        let mut roots = self.system.clone();
        for (entry, certificates) in &self.private {
            if names(entry, registry) {
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(wrong)?;
                }
            }
        }
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

/// For registries that the operator marked insecure: any certificate will do.
#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
