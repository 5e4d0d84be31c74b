//! Images for tests, put together from what the machine has.

use anyhow::{Context as _, Result};
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
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
