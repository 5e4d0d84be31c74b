//! What an image looks like to clients.

use crate::time;
use crate::version::ApiVersion;
use bulkhead_model::{ContainerId, Digest, Image, Layer, Reference};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// `alpine:3`, `localhost:5000/app:x`.
pub fn tags(image: &Image) -> Vec<String> {
    image.references.iter().filter(|name| name.tag.is_some()).map(Reference::familiar).collect()
}

/// Where it can be pulled from again, by digest.
pub fn digests(image: &Image) -> Vec<String> {
    let of = |origin: &bulkhead_model::Origin| {
        let reference = Reference {
            registry: origin.registry.clone(),
            repository: origin.repository.clone(),
            tag: None,
            digest: Some(origin.digest.clone()),
        };
        reference.familiar()
    };
    let mut digests: Vec<String> = image.origins.iter().map(of).collect();
    digests.dedup();
    digests
}

/// When it was built; when it came, where that is not known.
pub fn created(image: &Image) -> chrono::DateTime<chrono::Utc> {
    image.config.created.unwrap_or(image.added_at)
}

/// Which layers are in several images.
#[derive(Debug)]
pub struct SharedLayers(BTreeSet<Digest>);

impl SharedLayers {
    /// `images`: all of a VCH.
    pub fn of(images: &[Image]) -> Self {
        let mut seen = BTreeSet::new();
        let mut shared = BTreeSet::new();
        for layer in images.iter().flat_map(|image| &image.layers) {
            if !seen.insert(&layer.diff_id) {
                shared.insert(layer.diff_id.clone());
            }
        }
        Self(shared)
    }

    pub fn contains(&self, layer: &Layer) -> bool {
        self.0.contains(&layer.diff_id)
    }

    /// What an image has in common with others, unpacked.
    pub fn bytes_of(&self, image: &Image) -> u64 {
        image.layers.iter().filter(|layer| self.contains(layer)).map(|layer| layer.size_bytes).sum()
    }
}

/// As in `GET /images/json`.
pub fn summary(image: &Image, version: ApiVersion) -> Value {
    let (mut tags, mut digests) = (tags(image), digests(image));
    if !version.since(43) && tags.is_empty() {
        tags.push("<none>:<none>".into());
        if digests.is_empty() {
            digests.push("<none>@<none>".into());
        }
    }
    let mut summary = json!({
        "Id": image.id,
        "ParentId": "",
        "RepoTags": tags,
        "RepoDigests": digests,
        "Created": created(image).timestamp(),
        "Size": image.size_bytes(),
        "SharedSize": -1,
        "Labels": image.config.labels,
        "Containers": -1,
    });
    add_virtual_size(&mut summary, image, version);
    summary
}

fn add_virtual_size(value: &mut Value, image: &Image, version: ApiVersion) {
    if !version.since(44)
        && let Some(map) = value.as_object_mut()
    {
        map.insert("VirtualSize".into(), image.size_bytes().into());
    }
}

/// As in `GET /images/{name}/json`.
pub fn details(image: &Image, version: ApiVersion) -> Value {
    let mut shape = json!({
        "Id": image.id,
        "RepoTags": tags(image),
        "RepoDigests": digests(image),
        "Created": time::rfc3339(created(image)),
        "Config": config(image, version),
        "Architecture": image.config.architecture,
        "Os": image.config.os,
        "Size": image.size_bytes(),
        "RootFS": {
            "Type": "layers",
            "Layers": image.layers.iter().map(|layer| &layer.diff_id).collect::<Vec<_>>(),
        },
        "Metadata": { "LastTagTime": time::rfc3339(image.added_at) },
    });
    add_virtual_size(&mut shape, image, version);
    if let Some(map) = shape.as_object_mut() {
        let comment = image.config.history.last().map(|entry| entry.comment.clone()).unwrap_or_default();
        let (container, parent) = made_of(image);
        if !version.since(45) {
            map.insert("Container".into(), container.into());
        }
        let texts = [
            ("Parent", parent),
            ("DockerVersion", String::new()),
            ("Comment", comment),
            ("Author", image.config.author.clone()),
        ];
        // From 1.52 on, only what says something.
        for (name, text) in texts {
            if !version.since(52) || !text.is_empty() {
                map.insert(name.into(), text.into());
            }
        }
        if !version.since(52) {
            map.insert("GraphDriver".into(), json!({ "Name": "erofs", "Data": {} }));
        }
    }
    shape
}

/// The container that an image was committed of, and the image of that; both empty for what came from elsewhere, whatever
/// it says.
fn made_of(image: &Image) -> (String, String) {
    if !image.origins.is_empty() {
        return Default::default();
    }
    let original: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
    let text = |name| original.get(name).and_then(Value::as_str).unwrap_or_default();
    let container = text("container").parse::<ContainerId>().map(|id| id.to_string());
    let parent = text("parent").parse::<Digest>().map(|id| id.to_string());
    (container.unwrap_or_default(), parent.unwrap_or_default())
}

fn config(image: &Image, version: ApiVersion) -> Value {
    let config = &image.config;
    let set = |names: &[String]| -> Map<String, Value> {
        names.iter().map(|name| (name.clone(), json!({}))).collect()
    };
    let words = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    let mut shape = Map::new();
    let always = [
        ("User", json!(config.user)),
        ("Env", words(&config.env)),
        ("Cmd", words(&config.cmd)),
        ("Volumes", if config.volumes.is_empty() { Value::Null } else { set(&config.volumes).into() }),
        ("WorkingDir", json!(config.working_dir)),
        ("Entrypoint", words(&config.entrypoint)),
        ("OnBuild", Value::Null),
        ("Labels", json!(config.labels)),
    ];
    for (name, value) in always {
        let silent = value.is_null() || value == json!("") || value == json!({});
        if !version.since(52) || !silent {
            shape.insert(name.into(), value);
        }
    }
    if !config.exposed_ports.is_empty() {
        shape.insert("ExposedPorts".into(), set(&config.exposed_ports).into());
    }
    if let Some(signal) = &config.stop_signal {
        shape.insert("StopSignal".into(), json!(signal));
    }
    // What the engine itself does not use is shown as the image has it.
    let original: Value = serde_json::from_str(&image.config_json).unwrap_or_default();
    for name in ["Healthcheck", "OnBuild", "Shell", "ArgsEscaped"] {
        if let Some(value) =
            original.get("config").and_then(|config| config.get(name)).filter(|value| !value.is_null())
        {
            shape.insert(name.into(), value.clone());
        }
    }
    Value::Object(shape)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::version::NEWEST;
    use bulkhead_model::image::History;
    use bulkhead_model::{Clock, Digest, ImageConfig, Layer, Origin};

    pub fn image(name: Option<&str>) -> Image {
        let layer = |text: &str, size_bytes| Layer {
            diff_id: Digest::of(text.as_bytes()),
            size_bytes,
            disk_bytes: 1,
        };
        let step = |created_by: &str, empty_layer| History {
            created_by: created_by.into(),
            empty_layer,
            ..Default::default()
        };
        Image {
            id: Digest::of(name.unwrap_or("none").as_bytes()),
            layers: vec![layer("base", 100), layer("app", 20)],
            config_json: r#"{"config":{"Healthcheck":{"Test":["CMD","true"]},"Secret":"x"}}"#.into(),
            config: ImageConfig {
                architecture: "amd64".into(),
                os: "linux".into(),
                created: Some(Clock::fixed(1_700_000_000).now()),
                cmd: vec!["sh".into()],
                labels: [("team".to_owned(), "a".to_owned())].into(),
                history: vec![step("ADD base", false), step("CMD sh", true), step("COPY app", false)],
                ..Default::default()
            },
            origins: name
                .is_none_or(|name| name == "alpine")
                .then(|| Origin {
                    registry: "docker.io".into(),
                    repository: "library/alpine".into(),
                    digest: Digest::of(b"m"),
                })
                .into_iter()
                .collect(),
            references: name.map(|name| name.parse::<Reference>().unwrap().or_latest()).into_iter().collect(),
            added_at: Clock::fixed(1_700_000_100).now(),
        }
    }

    #[test]
    fn lists_are_never_null() {
        let shape = summary(&image(None), NEWEST);
        assert_eq!(shape["RepoTags"], json!([]));
        assert_eq!(shape["RepoDigests"], json!([format!("alpine@{}", Digest::of(b"m"))]));
        assert_eq!(shape["Size"], 120);
        assert!(shape.get("VirtualSize").is_none());
        let old = summary(&image(None), ApiVersion::new(1, 42));
        assert_eq!(old["RepoTags"], json!(["<none>:<none>"]));
        assert_eq!(old["VirtualSize"], 120);
    }

    #[test]
    fn details_show_the_config() {
        let shape = details(&image(Some("alpine")), ApiVersion::new(1, 51));
        assert_eq!(shape["RepoTags"], json!(["alpine:latest"]));
        assert_eq!(shape["Config"]["Cmd"], json!(["sh"]));
        assert_eq!(shape["Config"]["Entrypoint"], Value::Null);
        assert_eq!(shape["Config"]["Healthcheck"]["Test"], json!(["CMD", "true"]));
        assert!(shape["Config"].get("Secret").is_none());
        assert_eq!(shape["RootFS"]["Layers"].as_array().unwrap().len(), 2);
        assert_eq!(shape["Parent"], "");
        let (parent, container) = (Digest::of(b"parent"), "ab".repeat(32));
        let made = Image {
            config_json: json!({ "parent": parent, "container": container }).to_string(),
            ..image(Some("mine"))
        };
        let shape = details(&made, ApiVersion::new(1, 44));
        assert_eq!((&shape["Parent"], &shape["Container"]), (&json!(parent), &json!(container)));
        assert!(details(&made, ApiVersion::new(1, 45)).get("Container").is_none());
        let pulled = Image { origins: image(Some("alpine")).origins, ..made };
        assert_eq!(details(&pulled, ApiVersion::new(1, 44))["Parent"], "");
        let new = details(&image(Some("alpine")), NEWEST);
        assert!(new.get("Parent").is_none() && new["Config"].get("Entrypoint").is_none());
    }
}
