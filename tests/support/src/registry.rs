//! A real registry: `docker-registry` with TLS under a private authority and a password, on a loopback port of its own.

use crate::images::TestImage;
use crate::wait_for;
use anyhow::{Context as _, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Client, Method, StatusCode, Url};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Else plain HTTP.
    pub tls: bool,
    /// Else anyone may pull and push.
    pub password: bool,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self { tls: true, password: true }
    }
}

/// Ends when dropped, and leaves nothing.
#[derive(Debug)]
pub struct Registry {
    /// `127.0.0.1:port`, as in a reference.
    pub address: String,
    /// The authority that signed its certificate.
    pub ca_pem_path: PathBuf,
    pub username: String,
    pub password: String,
    options: RegistryOptions,
    folder: TempDir,
    child: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    /// With TLS and a password.
    pub fn start() -> Result<Self> {
        Self::start_with(RegistryOptions::default())
    }

    pub fn start_with(options: RegistryOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        certificates(folder.path())?;
        let (username, password) = ("alice".to_owned(), "s3cret:with ünicode".to_owned());
        let made =
            Command::new("htpasswd").args(["-Bbn", &username, &password]).output().context("htpasswd")?;
        ensure!(made.status.success(), "htpasswd: {}", String::from_utf8_lossy(&made.stderr));
        std::fs::write(at("htpasswd"), made.stdout)?;
        let mut config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {0}/data\n  delete:\n    enabled: true\n",
            folder.path().display()
        );
        if options.password {
            config += &format!(
                "auth:\n  htpasswd:\n    realm: test\n    path: {}/htpasswd\n",
                folder.path().display()
            );
        }
        config += "http:\n  addr: 127.0.0.1:0\n";
        if options.tls {
            config += &format!(
                "  tls:\n    certificate: {0}/server.pem\n    key: {0}/server.key\n",
                folder.path().display()
            );
        }
        std::fs::write(at("config.yml"), config)?;
        let log = at("log");
        let sink = std::fs::File::create(&log)?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(at("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(sink.try_clone()?)
            .stderr(sink)
            .spawn()
            .context("docker-registry (Debian package `docker-registry`)")?;
        let address = wait_for("the registry listens", START_LIMIT, || listening(&log));
        let address = match address {
            Ok(address) => address,
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                bail!("{error:#}: {}", std::fs::read_to_string(&log).unwrap_or_default());
            }
        };
        Ok(Self { address, ca_pem_path: at("ca.pem"), username, password, options, folder, child })
    }

    /// Pushes over the distribution protocol; `name` is `repository:tag`. Gives the manifest's digest.
    pub fn push(&self, name: &str, image: &TestImage) -> Result<String> {
        let (repository, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let built = image.build();
        for (digest, bytes) in &built.blobs {
            self.push_blob(repository, digest, bytes.clone())?;
        }
        self.push_manifest(repository, tag, built.manifest_type, built.manifest.clone())?;
        Ok(built.manifest_digest())
    }

    /// A manifest or index as it is, under a tag or digest.
    pub fn push_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Vec<u8>,
    ) -> Result<()> {
        let path = format!("{repository}/manifests/{reference}");
        self.ask(Method::PUT, &path, Some(media_type), bytes, StatusCode::CREATED).map(drop)
    }

    pub fn push_blob(&self, repository: &str, digest: &str, bytes: Vec<u8>) -> Result<()> {
        let path = format!("{repository}/blobs/uploads/");
        let location = self.ask(Method::POST, &path, None, Vec::new(), StatusCode::ACCEPTED)?;
        let mut target = Url::parse(&location)?;
        target.query_pairs_mut().append_pair("digest", digest);
        let octets = Some("application/octet-stream");
        self.ask(Method::PUT, target.as_str(), octets, bytes, StatusCode::CREATED).map(drop)
    }

    /// Where the registry keeps its data, to damage it.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Asks in a thread with a runtime of its own, so that it works from tests with and without one. Gives the `Location`.
    fn ask(
        &self,
        method: Method,
        path: &str,
        kind: Option<&str>,
        body: Vec<u8>,
        expected: StatusCode,
    ) -> Result<String> {
        let scheme = if self.options.tls { "https" } else { "http" };
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{scheme}://{}/v2/{path}", self.address)
        };
        let client = self.client()?;
        let mut request =
            client.request(method, &url).basic_auth(&self.username, Some(&self.password)).body(body);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let work = move || -> Result<String> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let answer = request.send().await?;
                let status = answer.status();
                let location =
                    answer.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
                if status != expected {
                    bail!("{url} answers {status}: {}", answer.text().await.unwrap_or_default());
                }
                Ok(location.unwrap_or_default())
            })
        };
        match std::thread::spawn(work).join() {
            Ok(result) => result,
            Err(_) => bail!("asking the registry panicked"),
        }
    }

    fn client(&self) -> Result<Client> {
        use rustls::pki_types::pem::PemObject as _;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_file(&self.ca_pem_path)?)?;
        let tls =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        Ok(Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .build()?)
    }
}

/// The address in the registry's log.
fn listening(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let (_, rest) = text.split_once("listening on ")?;
    let address: String =
        rest.chars().take_while(|letter| letter.is_ascii_digit() || matches!(letter, '.' | ':')).collect();
    // The line may be half written.
    rest.get(address.len()..)?.starts_with(['"', ',', ' ', '\n']).then_some(address)
}

/// `ca.pem`, and `server.pem` with `server.key` for 127.0.0.1 and localhost.
fn certificates(folder: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])?
        .signed_by(&key, &authority)?;
    std::fs::write(folder.join("ca.pem"), authority.pem())?;
    std::fs::write(folder.join("server.pem"), server.pem())?;
    std::fs::write(folder.join("server.key"), key.serialize_pem())?;
    Ok(())
}
