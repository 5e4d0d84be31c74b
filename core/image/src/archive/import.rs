//! `import`: a tree in an archive becomes an image of one layer.

use super::changes;
use super::spool::Upload;
use crate::convert::{ConvertSpec, Converter};
use crate::error::ImageError;
use crate::image_config;
use crate::pull::Fetched;
use crate::registry::Platform;
use crate::store::LayerStore;
use bulkhead_model::{Digest, Layer};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tokio::io::AsyncRead;

#[derive(Debug, Clone)]
pub struct ImportOptions {
    pub created: DateTime<Utc>,
    pub platform: Platform,
    /// Shown in the image's history.
    pub message: String,
    /// Dockerfile instructions: `CMD`, `ENV` and others that set something in the config.
    pub changes: Vec<String>,
    /// Takes the archive while it is read, in a file without a name.
    pub work_dir: PathBuf,
}

impl Default for ImportOptions {
    /// Dated 1970, for this platform, with nothing set, by way of the system's temporary folder.
    fn default() -> Self {
        Self {
            created: DateTime::default(),
            platform: Platform::default(),
            message: String::new(),
            changes: Vec::new(),
            work_dir: std::env::temp_dir(),
        }
    }
}

/// Makes an image of a tree in an archive, bare or compressed with gzip or zstd.
pub async fn import(
    reader: impl AsyncRead + Send,
    options: &ImportOptions,
    store: &dyn LayerStore,
    converter: &Converter,
) -> Result<Fetched, ImageError> {
    // Before anything is read: a wrong change must not cost an upload.
    let mut config = Map::new();
    for line in &options.changes {
        changes::apply(&mut config, line)?;
    }
    image_config::parse(config_json(options, &config, &Digest::of(b""))?.as_bytes())?;
    let upload = Upload::receive(reader, &options.work_dir, converter.limits().uncompressed_bytes).await?;
    let staged = store.stage().await.map_err(ImageError::Store)?;
    let file = staged.file().map_err(ImageError::Store)?;
    let converted = converter.convert(&ConvertSpec::default(), upload.stream(), file, |_| {}).await?;
    let config_json = config_json(options, &config, &converted.diff_id)?;
    let parsed = image_config::parse(config_json.as_bytes())?;
    staged.commit(&converted.diff_id).await.map_err(ImageError::Store)?;
    let layer = Layer {
        diff_id: converted.diff_id,
        size_bytes: converted.size_bytes,
        disk_bytes: converted.disk_bytes,
    };
    Ok(Fetched {
        id: Digest::of(config_json.as_bytes()),
        config_json,
        config: parsed,
        layers: vec![layer],
        origin: None,
        references: Vec::new(),
    })
}

fn config_json(
    options: &ImportOptions,
    config: &Map<String, Value>,
    diff_id: &Digest,
) -> Result<String, ImageError> {
    let created = options.created.to_rfc3339_opts(SecondsFormat::Nanos, true);
    let mut document = json!({
        "architecture": options.platform.architecture,
        "config": config,
        "created": created,
        "history": [{ "created": created, "comment": options.message }],
        "os": options.platform.os,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
    });
    if let (Some(variant), Value::Object(fields)) = (&options.platform.variant, &mut document) {
        fields.insert("variant".into(), json!(variant));
    }
    serde_json::to_string(&document)
        .map_err(|error| ImageError::invalid("the image config", error.to_string()))
}
