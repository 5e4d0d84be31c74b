//! Images for tests, put together from what the machine has.

use anyhow::{Context as _, Result, ensure};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::Command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Layers as uncompressed archives, bottom first, and a config.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub layers: Vec<Vec<u8>>,
    /// The `config` part: `Cmd`, `Env` and so on.
    pub config: Value,
    pub packing: Packing,
    /// OCI media types, else Docker's.
    pub oci: bool,
}

/// What a registry keeps of an image.
#[derive(Debug, Clone)]
pub struct Built {
    pub manifest: Vec<u8>,
    pub manifest_type: &'static str,
    pub config: Vec<u8>,
    /// Digest and content, config included.
    pub blobs: Vec<(String, Vec<u8>)>,
}

impl Built {
    pub fn manifest_digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The image's id.
    pub fn id(&self) -> String {
        digest(&self.config)
    }
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl TestImage {
    /// With gzip and OCI media types.
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        Self { layers, config: json!({}), packing: Packing::Gzip, oci: true }
    }

    /// Sets one field of the config.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        if let Value::Object(fields) = &mut self.config {
            fields.insert(field.into(), value);
        }
        self
    }

    pub fn packed(mut self, packing: Packing, oci: bool) -> Self {
        (self.packing, self.oci) = (packing, oci);
        self
    }

    pub fn build(&self) -> Built {
        let diff_ids: Vec<String> = self.layers.iter().map(|layer| digest(layer)).collect();
        let history: Vec<Value> =
            (1..=self.layers.len()).map(|number| json!({ "created": "2024-01-01T00:00:00Z", "created_by": format!("layer {number}") })).collect();
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": history,
        });
        let config = config.to_string().into_bytes();
        let mut blobs = vec![(digest(&config), config.clone())];
        let mut layers = Vec::new();
        for layer in &self.layers {
            let blob = pack(layer, self.packing);
            layers
                .push(json!({ "mediaType": self.layer_type(), "digest": digest(&blob), "size": blob.len() }));
            blobs.push((digest(&blob), blob));
        }
        let (manifest_type, config_type) = if self.oci {
            ("application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.config.v1+json")
        } else {
            (
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
            )
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": { "mediaType": config_type, "digest": digest(&config), "size": config.len() },
            "layers": layers,
        });
        Built { manifest: manifest.to_string().into_bytes(), manifest_type, config, blobs }
    }

    fn layer_type(&self) -> &'static str {
        match (self.oci, self.packing) {
            (true, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
            (true, Packing::Gzip) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (true, Packing::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (false, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (false, Packing::Gzip) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (false, Packing::Zstd) => "application/vnd.docker.image.rootfs.diff.tar.zstd",
        }
    }
}

pub fn pack(layer: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => layer.to_vec(),
        Packing::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Level::new(1));
            encoder.write_all(layer).and_then(|()| encoder.finish()).unwrap_or_default()
        }
        Packing::Zstd => zstd::encode_all(layer, 1).unwrap_or_default(),
    }
}

/// Members of a layer, in order: a small archive is easier to read than to make with a program.
#[derive(Default)]
pub struct LayerTar {
    builder: Option<tar::Builder<Vec<u8>>>,
}

impl std::fmt::Debug for LayerTar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LayerTar").finish_non_exhaustive()
    }
}

impl LayerTar {
    pub fn new() -> Self {
        Self { builder: Some(tar::Builder::new(Vec::new())) }
    }

    pub fn folder(self, path: &str, mode: u32) -> Self {
        self.entry(path, tar::EntryType::Directory, mode, "", &[])
    }

    pub fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, mode, "", content)
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, 0o777, target, &[])
    }

    fn entry(mut self, path: &str, kind: tar::EntryType, mode: u32, target: &str, content: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_704_067_200);
        header.set_size(content.len() as u64);
        if let Some(builder) = &mut self.builder {
            let written = if target.is_empty() {
                builder.append_data(&mut header, path, content)
            } else {
                builder.append_link(&mut header, path, target)
            };
            // Writing to memory; a name that does not fit is a mistake in the test.
            assert!(written.is_ok(), "{path}: {written:?}");
        }
        self
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.builder.take().and_then(|builder| builder.into_inner().ok()).unwrap_or_default()
    }
}

/// A static busybox with all its commands, in one layer of about 2 MB. Its command is `sh`.
pub fn busybox_image() -> Result<TestImage> {
    Ok(TestImage::new(vec![busybox_layer()?]).with("Cmd", json!(["sh"])).with("Env", json!([PATH])))
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub fn busybox_layer() -> Result<Vec<u8>> {
    let busybox = std::fs::read("/bin/busybox").context("/bin/busybox (Debian package `busybox-static`)")?;
    let listed = Command::new("/bin/busybox").arg("--list").output()?;
    let mut tar = LayerTar::new();
    for (folder, mode) in [
        ("bin/", 0o755),
        ("dev/", 0o755),
        ("etc/", 0o755),
        ("home/", 0o755),
        ("proc/", 0o555),
        ("root/", 0o700),
        ("sys/", 0o555),
        ("tmp/", 0o1777),
        ("usr/", 0o755),
        ("var/", 0o755),
    ] {
        tar = tar.folder(folder, mode);
    }
    tar = tar
        .file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
        )
        .file("etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")
        .file("bin/busybox", 0o755, &busybox);
    for name in String::from_utf8_lossy(&listed.stdout).lines().filter(|name| *name != "busybox") {
        tar = tar.symlink(&format!("bin/{name}"), "busybox");
    }
    Ok(tar.finish())
}

/// A Debian base image from packages.
pub fn debian_image() -> Result<TestImage> {
    let layer = debian_tree("base", &[])?;
    Ok(TestImage::new(vec![layer]).with("Cmd", json!(["bash"])).with("Env", json!([PATH])))
}

/// nginx on the Debian base: two layers and a third with its settings.
pub fn nginx_image() -> Result<TestImage> {
    let base = debian_tree("base", &[])?;
    let packages = difference(&base, &debian_tree("nginx", &["nginx-light"])?)?;
    let settings = LayerTar::new()
        .file("var/www/html/index.html", 0o644, b"<h1>served from a container VM</h1>\n")
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr")
        .finish();
    Ok(TestImage::new(vec![base, packages, settings])
        .with("Cmd", json!(["nginx", "-g", "daemon off;"]))
        .with("Env", json!([PATH]))
        .with("ExposedPorts", json!({ "80/tcp": {} }))
        .with("StopSignal", json!("SIGQUIT")))
}

/// A Python application in many layers: base, Python, and one for each of its modules.
pub fn python_image(modules: usize) -> Result<TestImage> {
    let base = debian_tree("base", &[])?;
    let python = difference(&base, &debian_tree("python", &["python3-minimal"])?)?;
    let mut layers = vec![base, python];
    let mut main = String::from("import sys\nsys.path.insert(0, '/app')\ntotal = 0\n");
    for number in 1..=modules {
        main += &format!("import part{number}\ntotal += part{number}.value\n");
        let name = format!("app/part{number}.py");
        layers.push(
            LayerTar::new()
                .folder("app/", 0o755)
                .file(&name, 0o644, format!("value = {number}\n").as_bytes())
                .finish(),
        );
    }
    main += "print('the sum of all layers is', total, flush=True)\n";
    layers.push(LayerTar::new().folder("app/", 0o755).file("app/main.py", 0o755, main.as_bytes()).finish());
    Ok(TestImage::new(layers)
        .with("Entrypoint", json!(["python3", "/app/main.py"]))
        .with("WorkingDir", json!("/app"))
        .with("Env", json!([PATH, "PYTHONDONTWRITEBYTECODE=1"])))
}

/// A tree from Debian packages as an archive. Made once, then kept under `target/test-images`.
fn debian_tree(name: &str, packages: &[&str]) -> Result<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/test-images");
    std::fs::create_dir_all(&folder)?;
    let kept = folder.join(format!("debian-12-{name}.tar"));
    // Tests run side by side: one makes it, the others wait.
    let lock = std::fs::File::create(folder.join(format!("{name}.lock")))?;
    lock.lock()?;
    if !kept.exists() {
        let fresh = folder.join(format!("debian-12-{name}.new.tar"));
        let output = Command::new("mmdebstrap")
            .args(["--variant=minbase", "--quiet", "--mode=auto"])
            .arg(format!("--include={}", packages.join(",")))
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"])
            .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
            .args(["--customize-hook=rm -rf \"$1\"/var/lib/apt/lists/* \"$1\"/var/cache/apt/*.bin \"$1\"/var/log/*.log"])
            .arg("bookworm")
            .arg(&fresh)
            .args(debian_mirror())
            .env("SOURCE_DATE_EPOCH", "1704067200")
            .output()
            .context("mmdebstrap (Debian package `mmdebstrap`)")?;
        ensure!(output.status.success(), "mmdebstrap: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::rename(fresh, &kept)?;
    }
    Ok(std::fs::read(kept)?)
}

/// The mirror that this machine installs its own packages from.
fn debian_mirror() -> Option<String> {
    for file in ["/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"] {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let found = text.split_whitespace().find(|word| word.starts_with("http"));
        if let Some(url) = found {
            return Some(url.to_owned());
        }
    }
    None
}

/// The members of `full` that `base` lacks or has otherwise: the layer that an installation would have left.
fn difference(base: &[u8], full: &[u8]) -> Result<Vec<u8>> {
    let mut known = std::collections::BTreeMap::new();
    for entry in tar::Archive::new(base).entries()? {
        let (path, same, ..) = member(entry?)?;
        known.insert(path, same);
    }
    let mut builder = tar::Builder::new(Vec::new());
    for entry in tar::Archive::new(full).entries()? {
        let entry = entry?;
        let mut header = entry.header().clone();
        let target = entry.link_name()?.map(std::borrow::Cow::into_owned);
        let (path, same, content) = member(entry)?;
        let known = known.get(&path);
        let name = String::from_utf8_lossy(&path).trim_start_matches("./").to_owned();
        if name.is_empty() || known == Some(&same) || (header.entry_type().is_dir() && known.is_some()) {
            continue;
        }
        match target {
            Some(target) => builder.append_link(&mut header, &name, target)?,
            None => builder.append_data(&mut header, &name, content.as_slice())?,
        }
    }
    Ok(builder.into_inner()?)
}

/// Path, what makes it the same as another, content. Times are left out: two installations of a package differ in them.
fn member(mut entry: tar::Entry<'_, &[u8]>) -> Result<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    let path = entry.path_bytes().into_owned();
    let mut header = entry.header().clone();
    header.set_mtime(0);
    header.set_cksum();
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    let same = [header.as_bytes().as_slice(), &Sha256::digest(&content)].concat();
    Ok((path, same, content))
}
