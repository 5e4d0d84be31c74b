//! Manifests and indexes, of OCI (image-spec, manifest.md and image-index.md) and of Docker
//! (distribution, docs/content/spec/manifest-v2-2.md). Whatever is ambiguous is refused.

use crate::compression::Compression;
use crate::error::ImageError;
use bulkhead_model::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::fmt;
use std::str::FromStr;

pub(crate) const MANIFEST_BYTES_MAX: usize = 4 << 20;
pub(crate) const CONFIG_BYTES_MAX: usize = 4 << 20;
/// What one machine can carry, and overlayfs stack.
pub(crate) const LAYERS_MAX: usize = 127;

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// What is asked for.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";
const CONFIGS: [&str; 2] =
    ["application/vnd.docker.container.image.v1+json", "application/vnd.oci.image.config.v1+json"];

/// What an image must run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// `None`: any.
    pub variant: Option<String>,
}

impl Default for Platform {
    fn default() -> Self {
        Self { os: "linux".into(), architecture: "amd64".into(), variant: None }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

impl FromStr for Platform {
    type Err = ImageError;
    /// `linux/amd64`, `linux/arm/v7`.
    fn from_str(text: &str) -> Result<Self, ImageError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => {
                return Err(ImageError::invalid(format!("platform `{text}`"), "it is not `os/architecture`"));
            }
        };
        Ok(Self { os: (*os).into(), architecture: (*architecture).into(), variant })
    }
}

/// What a manifest says of a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobDescriptor {
    pub media_type: String,
    pub digest: Digest,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Document {
    Manifest { config: BlobDescriptor, layers: Vec<(BlobDescriptor, Compression)> },
    Index(Vec<IndexEntry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub blob: BlobDescriptor,
    pub platform: Option<PlatformText>,
    /// Reference of an image, in an archive.
    pub annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct PlatformText {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: String,
}

impl From<&PlatformText> for Platform {
    fn from(text: &PlatformText) -> Self {
        let variant = Some(text.variant.clone()).filter(|variant| !variant.is_empty());
        Self { os: text.os.clone(), architecture: text.architecture.clone(), variant }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: u64,
    media_type: Option<String>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
    manifests: Option<Vec<RawDescriptor>>,
    fs_layers: Option<IgnoredAny>,
    blobs: Option<IgnoredAny>,
}

/// `urls` is left out on purpose: blobs come from the registry that the image was asked of.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: String,
    size: u64,
    platform: Option<PlatformText>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Document {
    /// `told` is the media type by which it came: of the HTTP answer, or of the descriptor that points at it.
    pub fn parse(bytes: &[u8], told: Option<&str>) -> Result<Self, ImageError> {
        Ok(Self::parse_typed(bytes, told)?.0)
    }

    /// With its media type.
    pub fn parse_typed(bytes: &[u8], told: Option<&str>) -> Result<(Self, String), ImageError> {
        let wrong = |why: String| ImageError::invalid("the manifest", why);
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(ImageError::Limit {
                what: "the manifest".into(),
                limit: format!("{MANIFEST_BYTES_MAX} bytes"),
            });
        }
        let told = told.map(|text| text.split(';').next().unwrap_or_default().trim());
        // Registries that do not know say something general.
        let told = told.filter(|text| {
            !matches!(*text, "" | "application/json" | "text/plain" | "application/octet-stream")
        });
        if told.is_some_and(|text| text.starts_with("application/vnd.docker.distribution.manifest.v1+")) {
            return Err(schema1());
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        if raw.schema_version == 1 || raw.fs_layers.is_some() {
            return Err(schema1());
        }
        if raw.schema_version != 2 {
            return Err(wrong(format!("its schema version is {}", raw.schema_version)));
        }
        let media_type = match (told, raw.media_type.as_deref()) {
            (Some(told), Some(stated)) if told != stated => {
                return Err(wrong(format!("it came as `{told}`, but calls itself `{stated}`")));
            }
            (Some(one), _) | (None, Some(one)) => one,
            (None, None) if raw.manifests.is_some() => OCI_INDEX,
            (None, None) => OCI_MANIFEST,
        };
        if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) || raw.blobs.is_some() {
            return Err(wrong("it is a manifest and an index at once".into()));
        }
        let document = match (media_type, raw.config, raw.layers, raw.manifests) {
            (DOCKER_MANIFEST | OCI_MANIFEST, Some(config), Some(layers), None) => manifest(config, layers),
            (DOCKER_LIST | OCI_INDEX, None, None, Some(entries)) => {
                Ok(Self::Index(entries.into_iter().map(entry).collect::<Result<_, _>>()?))
            }
            (DOCKER_MANIFEST | OCI_MANIFEST | DOCKER_LIST | OCI_INDEX, ..) => {
                Err(wrong(format!("what it contains does not fit its type `{media_type}`")))
            }
            (other, ..) => Err(ImageError::Unsupported {
                what: "the manifest".into(),
                why: format!("its media type is `{}`", printable(other)),
            }),
        };
        Ok((document?, media_type.to_owned()))
    }
}

fn schema1() -> ImageError {
    ImageError::Unsupported {
        what: "the manifest".into(),
        why: "it has the old format, schema version 1: push the image again with a current client".into(),
    }
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Document, ImageError> {
    if !CONFIGS.contains(&config.media_type.as_str()) {
        return Err(ImageError::Unsupported {
            what: "the manifest".into(),
            why: format!("it is no container image, its config is `{}`", printable(&config.media_type)),
        });
    }
    if layers.len() > LAYERS_MAX {
        return Err(ImageError::Limit { what: "the number of layers".into(), limit: LAYERS_MAX.to_string() });
    }
    let config = descriptor(config)?;
    if config.bytes > CONFIG_BYTES_MAX as u64 {
        return Err(ImageError::Limit {
            what: "the image config".into(),
            limit: format!("{CONFIG_BYTES_MAX} bytes"),
        });
    }
    let layers = layers
        .into_iter()
        .map(|layer| {
            let compression = layer_compression(&layer.media_type)?;
            Ok((descriptor(layer)?, compression))
        })
        .collect::<Result<_, ImageError>>()?;
    Ok(Document::Manifest { config, layers })
}

fn entry(raw: RawDescriptor) -> Result<IndexEntry, ImageError> {
    let platform = raw.platform.clone();
    let annotations = raw.annotations.clone();
    Ok(IndexEntry { blob: descriptor(raw)?, platform, annotations })
}

fn descriptor(raw: RawDescriptor) -> Result<BlobDescriptor, ImageError> {
    let digest =
        raw.digest.parse().map_err(|error| ImageError::invalid("the manifest", format!("{error}")))?;
    Ok(BlobDescriptor { media_type: raw.media_type, digest, bytes: raw.size })
}

fn layer_compression(media_type: &str) -> Result<Compression, ImageError> {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.oci.image.layer.v1.tar+gzip" => Ok(Compression::Gzip),
        "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.oci.image.layer.v1.tar+zstd" => Ok(Compression::Zstd),
        "application/vnd.docker.image.rootfs.diff.tar" | "application/vnd.oci.image.layer.v1.tar" => {
            Ok(Compression::None)
        }
        foreign if foreign.contains("foreign") || foreign.contains("nondistributable") => {
            Err(ImageError::Unsupported {
                what: "a layer".into(),
                why: "it is to be fetched from another place than the registry".into(),
            })
        }
        other => Err(ImageError::Unsupported {
            what: "a layer".into(),
            why: format!("its media type is `{}`", printable(other)),
        }),
    }
}

/// The manifest for a platform. Without variant asked, one without comes first.
pub(crate) fn choose<'a>(entries: &'a [IndexEntry], platform: &Platform) -> Option<&'a IndexEntry> {
    let fits = |entry: &&IndexEntry| {
        entry.platform.as_ref().is_some_and(|text| {
            text.os == platform.os
                && text.architecture == platform.architecture
                && platform.variant.as_ref().is_none_or(|variant| *variant == text.variant)
        })
    };
    let plain = |entry: &&IndexEntry| entry.platform.as_ref().is_some_and(|text| text.variant.is_empty());
    entries.iter().filter(fits).find(plain).or_else(|| entries.iter().find(fits))
}

/// A stranger's text, fit for a message.
fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(120).collect()
}
