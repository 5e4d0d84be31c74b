//! A real registry with TLS of a private authority and a password.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bulkhead_test_support::Docker;
use bulkhead_test_support::run;
use bulkhead_test_support::wait_for;

pub const USER: &str = "tester";
pub const PASSWORD: &str = "correct horse";

const STARTS_WITHIN: Duration = Duration::from_secs(30);
const PUSH_WITHIN: Duration = Duration::from_secs(300);

/// A running registry; dropping it ends it; the data stays.
pub struct Registry {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl Registry {
    /// Serves what is in `data`, or will be pushed to it.
    pub fn start(data: &Path) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("bulkhead-registry-{}", std::process::id()));
        fs::create_dir_all(folder.join("certs"))?;
        make_certificate(&folder)?;
        let passwords = run(Command::new("htpasswd").args(["-nbB", USER, PASSWORD]), STARTS_WITHIN)?.ok()?;
        fs::write(folder.join("htpasswd"), format!("{passwords}\n"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "version: 0.1\nlog: {{level: warn}}\n\
             storage: {{filesystem: {{rootdirectory: {1}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: 127.0.0.1:{port}, tls: {{certificate: {0}/server.pem, key: {0}/server.key}}}}\n\
             auth: {{htpasswd: {{realm: tests, path: {0}/htpasswd}}}}\n",
            folder.display(),
            data.display()
        );
        fs::write(folder.join("config.yml"), settings)?;
        let log = fs::File::create(folder.join("log"))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry")?;
        let registry = Self { folder, port, child };
        wait_for("the registry listens", STARTS_WITHIN, || TcpStream::connect(("127.0.0.1", port)).ok())
            .with_context(|| fs::read_to_string(registry.folder.join("log")).unwrap_or_default())?;
        Ok(registry)
    }

    /// `HOST:PORT`, as in image names.
    pub fn address(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The certificate of the private authority.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("certs/ca.crt")
    }

    /// A full image name.
    pub fn name(&self, name: &str) -> String {
        format!("{}/e2e/{name}", self.address())
    }

    pub fn push(&self, archive: &Path, name: &str) -> Result<()> {
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy"]);
        command.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        command.arg(format!("--dest-cert-dir={}", self.folder.join("certs").display()));
        command.arg(format!("docker-archive:{}", archive.display()));
        command.arg(format!("docker://{}", self.name(name)));
        run(&mut command, PUSH_WITHIN)?.ok().with_context(|| format!("push {name}")).map(drop)
    }

    /// `docker login`, as a user does it.
    pub fn log_in(&self, docker: &Docker) -> Result<()> {
        docker.ok(&["login", "--username", USER, "--password", PASSWORD, &self.address()]).map(drop)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// An authority and a certificate for `localhost` that it signed.
fn make_certificate(folder: &Path) -> Result<()> {
    let openssl = |words: &[&str]| -> Result<()> {
        run(Command::new("openssl").current_dir(folder).args(words), STARTS_WITHIN)?.ok().map(drop)
    };
    let (ca_key, ca) = ("ca.key", "certs/ca.crt");
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=test authority",
        "-keyout",
        ca_key,
        "-out",
        ca,
        "-addext",
        "basicConstraints=critical,CA:TRUE",
    ])?;
    openssl(&[
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    ])?;
    fs::write(
        folder.join("names"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n",
    )?;
    openssl(&[
        "x509",
        "-req",
        "-in",
        "server.csr",
        "-CA",
        ca,
        "-CAkey",
        ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        "names",
        "-out",
        "server.pem",
    ])
}
