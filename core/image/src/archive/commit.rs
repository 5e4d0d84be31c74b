//! `commit`: what a container changed becomes a layer on top of its image's.

use super::changes;
use super::spool::Upload;
use crate::convert::{ConvertSpec, Converter};
use crate::error::ImageError;
use crate::image_config;
use crate::pull::Fetched;
use crate::store::LayerStore;
use bulkhead_model::{Digest, Layer};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use tokio::io::AsyncRead;

#[derive(Debug, Clone)]
pub struct CommitOptions {
    /// Of the container.
    pub container: String,
    /// The image that it was made of.
    pub base: Digest,
    pub base_config_json: String,
    /// Bottom first.
    pub base_layers: Vec<Layer>,
    /// Fields of the config's `config` part that are the container's own; null: it has none of the base's.
    pub config: Map<String, Value>,
    pub created: DateTime<Utc>,
    /// What ran in the container, shown in the image's history.
    pub created_by: String,
    pub comment: String,
    pub author: String,
    /// Dockerfile instructions: `CMD`, `ENV` and others that set something in the config.
    pub changes: Vec<String>,
    /// Takes the layer while it is read, in a file without a name.
    pub work_dir: PathBuf,
}

impl CommitOptions {
    /// Whether there can be such an image: a wrong change must not cost the reading of a container.
    pub fn check(&self) -> Result<(), ImageError> {
        image_config::parse(self.config_json(&Digest::of(b""))?.as_bytes()).map(drop)
    }

    /// The base's config, with what is the container's own, one more layer, and one more line of history.
    fn config_json(&self, diff_id: &Digest) -> Result<String, ImageError> {
        let wrong = |why: String| ImageError::invalid("the image config", why);
        let mut document: Map<String, Value> =
            serde_json::from_str(&self.base_config_json).map_err(|error| wrong(error.to_string()))?;
        let created = self.created.to_rfc3339_opts(SecondsFormat::Nanos, true);
        let mut config = match document.remove("config") {
            Some(Value::Object(config)) => config,
            _ => Map::new(),
        };
        config.extend(self.config.clone());
        config.retain(|_, value| !value.is_null());
        for line in &self.changes {
            changes::apply(&mut config, line)?;
        }
        let Some(Value::Array(diff_ids)) =
            document.get_mut("rootfs").and_then(|rootfs| rootfs.get_mut("diff_ids"))
        else {
            return Err(wrong("it has no layers".into()));
        };
        diff_ids.push(json!(diff_id));
        let mut line = json!({ "created": created, "created_by": self.created_by, "comment": self.comment });
        if let (false, Value::Object(line)) = (self.author.is_empty(), &mut line) {
            line.insert("author".into(), json!(self.author));
        }
        match document.entry("history").or_insert_with(|| json!([])) {
            Value::Array(history) => history.push(line),
            other => *other = json!([line]),
        }
        document.insert("config".into(), Value::Object(config));
        document.insert("created".into(), json!(created));
        document.insert("author".into(), json!(self.author));
        // As dockerd writes them.
        document.insert("container".into(), json!(self.container));
        document.insert("parent".into(), json!(self.base));
        serde_json::to_string(&document).map_err(|error| wrong(error.to_string()))
    }
}

/// Makes an image of a container's changes, in a layer's archive.
pub async fn commit(
    layer: impl AsyncRead + Send,
    options: &CommitOptions,
    store: &dyn LayerStore,
    converter: &Converter,
) -> Result<Fetched, ImageError> {
    let upload = Upload::receive(layer, &options.work_dir, converter.limits().uncompressed_bytes).await?;
    let staged = store.stage().await.map_err(ImageError::Store)?;
    let file = staged.file().map_err(ImageError::Store)?;
    let converted = converter.convert(&ConvertSpec::default(), upload.stream(), file, |_| {}).await?;
    let config_json = options.config_json(&converted.diff_id)?;
    let config = image_config::parse(config_json.as_bytes())?;
    staged.commit(&converted.diff_id).await.map_err(ImageError::Store)?;
    let mut layers = options.base_layers.clone();
    layers.push(Layer {
        diff_id: converted.diff_id,
        size_bytes: converted.size_bytes,
        disk_bytes: converted.disk_bytes,
    });
    let id = Digest::of(config_json.as_bytes());
    Ok(Fetched { id, config_json, config, layers, origin: None, references: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CommitOptions {
        CommitOptions {
            container: "c0ffee".into(),
            base: Digest::of(b"base image"),
            base_config_json: json!({
                "architecture": "amd64", "os": "linux", "author": "somebody",
                "config": { "Cmd": ["old"], "Env": ["A=1"], "Healthcheck": { "Test": ["NONE"] }, "Shell": ["x"] },
                "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"base")] },
                "history": [{ "created_by": "base" }],
            })
            .to_string(),
            base_layers: Vec::new(),
            config: Map::from_iter([("Cmd".to_owned(), json!(["sh"])), ("Shell".to_owned(), Value::Null)]),
            created: DateTime::default(),
            created_by: "sh -c x".into(),
            comment: "why".into(),
            author: "me".into(),
            changes: vec!["ENV B=2".into(), "USER web".into()],
            work_dir: std::env::temp_dir(),
        }
    }

    #[test]
    fn a_config_grows_out_of_its_base() {
        let made: Value = serde_json::from_str(&options().config_json(&Digest::of(b"new")).unwrap()).unwrap();
        let config = json!({
            "Cmd": ["sh"], "Env": ["A=1", "B=2"], "User": "web", "Healthcheck": { "Test": ["NONE"] },
        });
        assert_eq!(made["config"], config);
        assert_eq!(
            (&made["container"], &made["parent"]),
            (&json!("c0ffee"), &json!(Digest::of(b"base image")))
        );
        assert_eq!(made["rootfs"]["diff_ids"], json!([Digest::of(b"base"), Digest::of(b"new")]));
        assert_eq!(made["history"][0]["created_by"], "base");
        let line = json!({
            "created": "1970-01-01T00:00:00.000000000Z", "created_by": "sh -c x", "comment": "why", "author": "me",
        });
        assert_eq!(made["history"][1], line);
    }

    #[test]
    fn a_wrong_change_is_found_before_anything_is_read() {
        let wrong = CommitOptions { changes: vec!["RUN x".into()], ..options() };
        assert!(wrong.check().unwrap_err().to_string().contains("RUN"));
        options().check().unwrap();
    }
}
