//! A VCH's certificate authority.

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
const AUTHORITY_DAYS: u32 = 3650;
/// Much longer than the listener keeps one.
const SERVER_DAYS: u32 = 120;
/// Client keys lie on other people's machines: they are short-lived.
pub const CLIENT_DAYS: u32 = 90;
/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Signs for one VCH.
#[derive(Debug, Clone)]
pub struct Authority {
    dir: PathBuf,
}

/// A certificate and its key.
pub struct Issued {
    pub cert_der: Vec<u8>,
    pub key_der: Vec<u8>,
    pub cert_pem: String,
    pub key_pem: String,
    pub not_after: SystemTime,
}

impl Authority {
    /// The authority in a folder (`tls/ID`), made if there is none.
    pub fn open(dir: &Path, vch_name: &str, now: SystemTime) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let authority = Self { dir: dir.into() };
        // The certificate is written last: one without a key cannot be.
        if !authority.certificate_file().exists() {
            authority
                .make(vch_name, now)
                .with_context(|| format!("cannot make a certificate authority in `{}`", dir.display()))?;
        }
        Ok(authority)
    }

    fn make(&self, vch_name: &str, now: SystemTime) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, format!("Bulkhead VCH {vch_name}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + DAY * AUTHORITY_DAYS).into();
        let certificate = params.self_signed(&key)?;
        write_private(&self.key_file(), &key.serialize_pem())?;
        write_private(&self.certificate_file(), &certificate.pem())
    }

    fn certificate_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn key_file(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    pub fn certificate_pem(&self) -> Result<String> {
        let path = self.certificate_file();
        fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))
    }

    pub fn certificate(&self) -> Result<CertificateDer<'static>> {
        CertificateDer::from_pem_slice(self.certificate_pem()?.as_bytes())
            .map_err(|error| anyhow::anyhow!("{error}"))
    }

    pub fn issue_server(&self, names: &[String], now: SystemTime) -> Result<Issued> {
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "bulkhead");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params, SERVER_DAYS, now)
    }

    /// `name` becomes the common name, and so the caller.
    pub fn issue_client(&self, name: &str, now: SystemTime) -> Result<Issued> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params, CLIENT_DAYS, now)
    }

    fn issue(&self, mut params: CertificateParams, days: u32, now: SystemTime) -> Result<Issued> {
        let path = self.key_file();
        let key = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem()?, KeyPair::from_pem(&key)?)?;
        let not_after = now + DAY * days;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATED).into();
        params.not_after = not_after.into();
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Issued {
            cert_der: certificate.der().to_vec(),
            key_der: key.serialize_der(),
            cert_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            not_after,
        })
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// Whole or not at all, for its owner only.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(())
}
