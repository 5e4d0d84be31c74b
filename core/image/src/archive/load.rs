//! `load`: images out of an archive.

use super::index::{Index, Section};
use crate::convert::{Blob, ConvertSpec, Converter, chunks};
use crate::error::ImageError;
use crate::image_config;
use crate::progress::{Progress, PullProgress, Stage};
use crate::pull::Fetched;
use crate::registry::manifest::{CONFIG_BYTES_MAX, Document, MANIFEST_BYTES_MAX, choose};
use crate::registry::{BlobDescriptor, Platform};
use crate::store::LayerStore;
use bulkhead_model::{Digest, Layer, Reference};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt};

const IMAGES_MAX: usize = 1000;
const PROGRESS_BYTES: u64 = 4 << 20;

/// What an archive says of one image.
struct Listed {
    config: Vec<u8>,
    layers: Vec<ListedLayer>,
    references: Vec<Reference>,
}

struct ListedLayer {
    section: Section,
    blob: Option<BlobDescriptor>,
}

/// Loads every image of an archive, compressed or not. `work_dir` takes the archive while it is read, in a file without a name.
pub async fn load(
    reader: impl AsyncRead + Send,
    work_dir: &Path,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Vec<Fetched>, ImageError> {
    let spool = tempfile::tempfile_in(work_dir).map_err(ImageError::io("making room for the archive"))?;
    let target = spool.try_clone().map_err(ImageError::io("making room for the archive"))?;
    converter.inflate(chunks(reader), target).await?;
    let limits = converter.limits().clone();
    let read = tokio::task::spawn_blocking(move || {
        let index = Index::read(spool, &limits)?;
        let listed = list(&index)?;
        Ok::<_, ImageError>((index, listed))
    });
    let (index, listed) =
        read.await.map_err(|error| ImageError::io("reading the archive")(error.into()))??;
    let index = Arc::new(index);
    let mut images = Vec::with_capacity(listed.len());
    for image in listed {
        images.push(load_image(&index, image, store, converter, progress).await?);
    }
    Ok(images)
}

async fn load_image(
    index: &Index,
    listed: Listed,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Fetched, ImageError> {
    let id = Digest::of(&listed.config);
    let config = image_config::parse(&listed.config)?;
    if config.diff_ids.len() != listed.layers.len() {
        let why =
            format!("its config names {} layers, the archive {}", config.diff_ids.len(), listed.layers.len());
        return Err(ImageError::invalid(format!("image {}", id.short()), why));
    }
    let mut layers = Vec::with_capacity(listed.layers.len());
    for (layer, diff_id) in listed.layers.iter().zip(&config.diff_ids) {
        layers.push(load_layer(index, layer, diff_id, store, converter, progress).await?);
    }
    let config_json = String::from_utf8(listed.config)
        .map_err(|_| ImageError::invalid("the image config", "it is not UTF-8"))?;
    Ok(Fetched { id, config_json, config, layers, origin: None, references: listed.references })
}

async fn load_layer(
    index: &Index,
    layer: &ListedLayer,
    diff_id: &Digest,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Layer, ImageError> {
    let tell = |stage| progress(PullProgress { layer: diff_id.short().into(), stage });
    if let Some(facts) = store.layer(diff_id).await.map_err(ImageError::Store)? {
        tell(Stage::AlreadyExists);
        let (size_bytes, disk_bytes) = (facts.size_bytes, facts.disk_bytes);
        return Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes });
    }
    // One layer after the other, so the descriptors may share their position.
    let mut file = index.file.try_clone().map_err(ImageError::io("reading the archive"))?;
    file.seek(SeekFrom::Start(layer.section.offset)).map_err(ImageError::io("reading the archive"))?;
    let total = layer.section.bytes;
    let input = tokio::fs::File::from_std(file).take(total);
    let spec = ConvertSpec {
        compression: None,
        blob: layer.blob.as_ref().map(|blob| Blob { digest: blob.digest.clone(), bytes: blob.bytes }),
        diff_id: Some(diff_id.clone()),
    };
    let mut told = 0;
    let passed = |current: u64| {
        if current == total || current >= told + PROGRESS_BYTES {
            told = current;
            tell(Stage::Extracting { current, total });
        }
    };
    let staged = store.stage().await.map_err(ImageError::Store)?;
    let target = staged.file().map_err(ImageError::Store)?;
    let converted = converter.convert(&spec, chunks(input), target, passed).await?;
    staged.commit(diff_id).await.map_err(ImageError::Store)?;
    tell(Stage::PullComplete);
    let (size_bytes, disk_bytes) = (converted.size_bytes, converted.disk_bytes);
    Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes })
}

fn list(index: &Index) -> Result<Vec<Listed>, ImageError> {
    let images = match index.read_small("manifest.json", MANIFEST_BYTES_MAX)? {
        Some(manifest) => list_docker(index, &manifest)?,
        None => match index.read_small("index.json", MANIFEST_BYTES_MAX)? {
            Some(document) => list_oci(index, &document)?,
            None => {
                let why = "it has neither `manifest.json` nor `index.json`: it holds no image (a plain tree goes in with `import`)";
                return Err(ImageError::invalid("the archive", why));
            }
        },
    };
    if images.len() > IMAGES_MAX {
        return Err(ImageError::Limit {
            what: "the images of an archive".into(),
            limit: IMAGES_MAX.to_string(),
        });
    }
    Ok(images)
}

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

fn list_docker(index: &Index, manifest: &[u8]) -> Result<Vec<Listed>, ImageError> {
    let images: Vec<DockerImage> = serde_json::from_slice(manifest)
        .map_err(|error| ImageError::invalid("`manifest.json` in the archive", error.to_string()))?;
    images
        .into_iter()
        .map(|image| {
            let layers = image.layers.unwrap_or_default();
            let layers = layers.iter().map(|name| {
                let section = index.find(name).ok_or_else(|| missing(name))?;
                Ok(ListedLayer { section, blob: None })
            });
            let references = image.repo_tags.unwrap_or_default();
            let references = references.iter().map(|name| reference(name));
            let config = index.read_small(&image.config, CONFIG_BYTES_MAX)?;
            Ok(Listed {
                layers: layers.collect::<Result<_, ImageError>>()?,
                references: references.collect::<Result<_, _>>()?,
                config: config.ok_or_else(|| missing(&image.config))?,
            })
        })
        .collect()
}

fn list_oci(index: &Index, document: &[u8]) -> Result<Vec<Listed>, ImageError> {
    let Document::Index(entries) = Document::parse(document, None)? else {
        return Err(ImageError::invalid("`index.json` in the archive", "it is no index"));
    };
    // The same image under several names stands there several times.
    let mut images: BTreeMap<Digest, Listed> = BTreeMap::new();
    for entry in entries {
        let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .into_iter()
            .find_map(|key| entry.annotations.get(key))
            // A bare tag names no repository.
            .filter(|name| name.contains([':', '/']));
        let references: Vec<Reference> = name.map(|name| reference(name)).transpose()?.into_iter().collect();
        if let Some(known) = images.get_mut(&entry.blob.digest) {
            known.references.extend(references);
            continue;
        }
        let (config, layers) = match blob_document(index, &entry.blob)? {
            Document::Manifest { config, layers } => (config, layers),
            Document::Index(inner) => {
                let platform = Platform::default();
                let chosen = choose(&inner, &platform).ok_or_else(|| ImageError::Platform {
                    reference: name.cloned().unwrap_or_else(|| entry.blob.digest.to_string()),
                    platform: platform.to_string(),
                })?;
                match blob_document(index, &chosen.blob)? {
                    Document::Manifest { config, layers } => (config, layers),
                    Document::Index(_) => {
                        let why = "one level is read".into();
                        return Err(ImageError::Unsupported { what: "an index within an index".into(), why });
                    }
                }
            }
        };
        let layers = layers.into_iter().map(|(blob, _)| {
            let name = blob_name(&blob.digest);
            let section = index.find(&name).ok_or_else(|| missing(&name))?;
            Ok(ListedLayer { section, blob: Some(blob) })
        });
        let layers = layers.collect::<Result<_, ImageError>>()?;
        let config = read_blob(index, &config, CONFIG_BYTES_MAX)?;
        images.insert(entry.blob.digest, Listed { config, layers, references });
    }
    Ok(images.into_values().collect())
}

fn blob_document(index: &Index, blob: &BlobDescriptor) -> Result<Document, ImageError> {
    Document::parse(&read_blob(index, blob, MANIFEST_BYTES_MAX)?, Some(&blob.media_type))
}

fn read_blob(index: &Index, blob: &BlobDescriptor, max: usize) -> Result<Vec<u8>, ImageError> {
    let name = blob_name(&blob.digest);
    let bytes = index.read_small(&name, max)?.ok_or_else(|| missing(&name))?;
    let found = Digest::of(&bytes);
    if found != blob.digest {
        return Err(ImageError::Digest {
            what: format!("`{name}` in the archive"),
            expected: blob.digest.clone(),
            found,
        });
    }
    Ok(bytes)
}

pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn missing(name: &str) -> ImageError {
    let name: String = name.chars().filter(|letter| !letter.is_control()).take(200).collect();
    ImageError::invalid("the archive", format!("`{name}` is missing"))
}

fn reference(name: &str) -> Result<Reference, ImageError> {
    let reference: Reference =
        name.parse().map_err(|error| ImageError::invalid("a name in the archive", format!("{error}")))?;
    Ok(reference.or_latest())
}
