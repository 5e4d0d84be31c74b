//! `bulkhead vch context`: a client certificate as the files that docker looks for.

use super::client::Client;
use super::failure::{FAILED, Failure};
use super::output;
use crate::tls::write_private;
use bulkhead_admin_api::view::{CertificateAsk, ClientCertificate};
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

pub fn write(client: &Client, name: &str, vch_path: &str, out: &Path, who: &str) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(FAILED, format!("cannot write to `{}`: {error}", out.display()))
    };
    // Before a certificate is made that could not be written.
    DirBuilder::new().recursive(true).mode(0o700).create(out).map_err(|error| failed(&error))?;
    let dir = out.canonicalize().map_err(|error| failed(&error))?;
    let ask = CertificateAsk { client: who.into() };
    let certificate: ClientCertificate = client.post(&format!("{vch_path}/client-certificates"), &ask)?;
    for (file, text) in [
        ("ca.pem", &certificate.ca_pem),
        ("cert.pem", &certificate.cert_pem),
        ("key.pem", &certificate.key_pem),
    ] {
        write_private(&dir.join(file), text).map_err(|error| failed(&error))?;
    }
    let (host, dir) = (&certificate.host, dir.display());
    eprintln!(
        "wrote ca.pem, cert.pem and key.pem for `{who}`, good until {}; as a docker context:",
        certificate.not_after.format("%Y-%m-%d")
    );
    eprintln!(
        "  docker context create {name} --docker \"host={host},ca={dir}/ca.pem,cert={dir}/cert.pem,key={dir}/key.pem\""
    );
    output::text(&format!(
        "export DOCKER_HOST={host}\nexport DOCKER_TLS_VERIFY=1\nexport DOCKER_CERT_PATH={dir}\n"
    ));
    Ok(())
}
