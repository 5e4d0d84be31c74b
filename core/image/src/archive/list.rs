//! What an archive says that it holds. Everything is checked here that can be before the first layer is converted.

use super::index::{Index, Section};
use crate::compression::Compression;
use crate::convert::Blob;
use crate::error::ImageError;
use crate::image_config;
use crate::registry::manifest::{CONFIG_BYTES_MAX, Document, IndexEntry, MANIFEST_BYTES_MAX, choose};
use crate::registry::{BlobDescriptor, LAYERS_MAX, Platform};
use bulkhead_model::{Digest, ImageConfig, Reference};
use serde::Deserialize;

const IMAGES_MAX: usize = 1000;
/// Bytes of all configs together: they stay in memory.
const CONFIGS_BYTES_MAX: usize = 64 << 20;
const REFERENCES_MAX: usize = 10_000;

/// Full name of an image, as containerd and Docker write it.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// By the specification a tag; `skopeo` and others put a whole name here.
const OCI_NAME: &str = "org.opencontainers.image.ref.name";
/// Marks manifests that describe another one, as builders add them.
const DESCRIBES_ANOTHER: &str = "vnd.docker.reference.type";

/// What an archive says of one image.
pub(super) struct Listed {
    pub id: Digest,
    pub config_json: String,
    pub config: ImageConfig,
    /// As many as the config has.
    pub layers: Vec<ListedLayer>,
    pub references: Vec<Reference>,
}

pub(super) struct ListedLayer {
    pub section: Section,
    /// What an OCI manifest says of it; Docker's says nothing.
    pub told: Option<(Blob, Compression)>,
}

/// All images, in the archive's order, each once. Blocking.
pub(super) fn list(index: &Index) -> Result<Vec<Listed>, ImageError> {
    let mut list = List { index, images: Vec::new(), config_bytes: 0, references: 0 };
    // Tools that write both mean the same by both; Docker itself reads the older one first.
    if let Some(section) = index.find("manifest.json")? {
        list.docker(&index.read_small("manifest.json", section, MANIFEST_BYTES_MAX)?)?;
    } else if let Some(section) = index.find("index.json")? {
        layout_version(index)?;
        list.oci(&index.read_small("index.json", section, MANIFEST_BYTES_MAX)?)?;
    } else {
        let why = "it has neither `manifest.json` nor `index.json`, so it holds no image; \
                   a plain file tree is taken in with `import`";
        return Err(ImageError::invalid("the archive", why));
    }
    Ok(list.images)
}

/// `oci-layout` (image-spec, image-layout.md) states the version; some writers leave it out.
fn layout_version(index: &Index) -> Result<(), ImageError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Layout {
        image_layout_version: String,
    }
    let Some(section) = index.find("oci-layout")? else { return Ok(()) };
    let text = index.read_small("oci-layout", section, MANIFEST_BYTES_MAX)?;
    let layout: Layout = serde_json::from_slice(&text)
        .map_err(|error| ImageError::invalid("`oci-layout` in the archive", error.to_string()))?;
    if layout.image_layout_version.starts_with("1.") {
        return Ok(());
    }
    let version: String = layout.image_layout_version.chars().filter(|c| !c.is_control()).take(40).collect();
    Err(ImageError::Unsupported {
        what: "the archive".into(),
        why: format!("its layout has version `{version}`, version 1 is read"),
    })
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

struct List<'a> {
    index: &'a Index,
    images: Vec<Listed>,
    config_bytes: usize,
    references: usize,
}

impl List<'_> {
    fn docker(&mut self, manifest: &[u8]) -> Result<(), ImageError> {
        let images: Vec<DockerImage> = serde_json::from_slice(manifest)
            .map_err(|error| ImageError::invalid("`manifest.json` in the archive", error.to_string()))?;
        few(images.len())?;
        for image in images {
            let names = image.layers.unwrap_or_default();
            few_layers(names.len())?;
            let layers = names
                .iter()
                .map(|name| Ok(ListedLayer { section: self.index.need(name)?, told: None }))
                .collect::<Result<_, ImageError>>()?;
            let references = image.repo_tags.unwrap_or_default();
            let references =
                references.iter().map(|name| reference(name)).collect::<Result<_, ImageError>>()?;
            let section = self.index.need(&image.config)?;
            let config = self.index.read_small(&image.config, section, CONFIG_BYTES_MAX)?;
            self.add(config, layers, references)?;
        }
        Ok(())
    }

    fn oci(&mut self, document: &[u8]) -> Result<(), ImageError> {
        let Document::Index(entries) = Document::parse(document, None)? else {
            return Err(ImageError::invalid("`index.json` in the archive", "it is no index"));
        };
        few(entries.len())?;
        for entry in &entries {
            if entry.annotations.contains_key(DESCRIBES_ANOTHER) {
                continue;
            }
            let references = entry_reference(entry)?.into_iter().collect();
            let (config, layers) = self.manifest(entry)?;
            few_layers(layers.len())?;
            let layers = layers
                .into_iter()
                .map(|(blob, compression)| {
                    let section = self.index.need(&blob_name(&blob.digest))?;
                    let told = Some((Blob { digest: blob.digest, bytes: blob.bytes }, compression));
                    Ok(ListedLayer { section, told })
                })
                .collect::<Result<_, ImageError>>()?;
            let config = self.read_blob(&config, CONFIG_BYTES_MAX)?;
            self.add(config, layers, references)?;
        }
        Ok(())
    }

    /// The manifest that an entry means on this platform.
    fn manifest(
        &self,
        entry: &IndexEntry,
    ) -> Result<(BlobDescriptor, Vec<(BlobDescriptor, Compression)>), ImageError> {
        let inner = match self.document(&entry.blob)? {
            Document::Manifest { config, layers } => return Ok((config, layers)),
            Document::Index(inner) => inner,
        };
        let platform = Platform::default();
        let chosen = choose(&inner, &platform).ok_or_else(|| ImageError::Platform {
            reference: entry.blob.digest.to_string(),
            platform: platform.to_string(),
        })?;
        match self.document(&chosen.blob)? {
            Document::Manifest { config, layers } => Ok((config, layers)),
            Document::Index(_) => Err(ImageError::Unsupported {
                what: "an index within an index".into(),
                why: "one level is read".into(),
            }),
        }
    }

    fn document(&self, blob: &BlobDescriptor) -> Result<Document, ImageError> {
        Document::parse(&self.read_blob(blob, MANIFEST_BYTES_MAX)?, Some(&blob.media_type))
    }

    fn read_blob(&self, blob: &BlobDescriptor, max: usize) -> Result<Vec<u8>, ImageError> {
        let name = blob_name(&blob.digest);
        let bytes = self.index.read_small(&name, self.index.need(&name)?, max)?;
        let what = || format!("`{name}` in the archive");
        if bytes.len() as u64 != blob.bytes {
            let (expected, found) = (blob.bytes, bytes.len() as u64);
            return Err(ImageError::Size { what: what(), expected, found });
        }
        let found = Digest::of(&bytes);
        if found != blob.digest {
            return Err(ImageError::Digest { what: what(), expected: blob.digest.clone(), found });
        }
        Ok(bytes)
    }

    /// An image under a second name is still one image.
    fn add(
        &mut self,
        config: Vec<u8>,
        layers: Vec<ListedLayer>,
        references: Vec<Reference>,
    ) -> Result<(), ImageError> {
        self.references += references.len();
        if self.references > REFERENCES_MAX {
            let (what, limit) = ("the names in the archive".into(), REFERENCES_MAX.to_string());
            return Err(ImageError::Limit { what, limit });
        }
        let id = Digest::of(&config);
        if let Some(known) = self.images.iter_mut().find(|known| known.id == id) {
            for reference in references {
                if !known.references.contains(&reference) {
                    known.references.push(reference);
                }
            }
            return Ok(());
        }
        self.config_bytes += config.len();
        if self.config_bytes > CONFIGS_BYTES_MAX {
            let (what, limit) = ("the configs in the archive".into(), format!("{CONFIGS_BYTES_MAX} bytes"));
            return Err(ImageError::Limit { what, limit });
        }
        let parsed = image_config::parse(&config)?;
        if parsed.diff_ids.len() != layers.len() {
            let why =
                format!("its config names {} layers, the archive {}", parsed.diff_ids.len(), layers.len());
            return Err(ImageError::invalid(format!("image {}", id.short()), why));
        }
        let config_json = String::from_utf8(config)
            .map_err(|_| ImageError::invalid("the image config", "it is not UTF-8"))?;
        self.images.push(Listed { id, config_json, config: parsed, layers, references });
        Ok(())
    }
}

fn few(images: usize) -> Result<(), ImageError> {
    if images > IMAGES_MAX {
        let (what, limit) = ("the number of images in the archive".into(), IMAGES_MAX.to_string());
        return Err(ImageError::Limit { what, limit });
    }
    Ok(())
}

fn few_layers(layers: usize) -> Result<(), ImageError> {
    if layers > LAYERS_MAX {
        return Err(ImageError::Limit { what: "the number of layers".into(), limit: LAYERS_MAX.to_string() });
    }
    Ok(())
}

/// The name that an entry of `index.json` gives. A bare tag, or what is only a label for people, names no repository:
/// such an image has its id.
fn entry_reference(entry: &IndexEntry) -> Result<Option<Reference>, ImageError> {
    if let Some(name) = entry.annotations.get(CONTAINERD_NAME) {
        return reference(name).map(Some);
    }
    let name = entry.annotations.get(OCI_NAME).filter(|name| name.contains([':', '/']));
    Ok(name.and_then(|name| reference(name).ok()))
}

fn reference(name: &str) -> Result<Reference, ImageError> {
    let reference: Reference =
        name.parse().map_err(|error| ImageError::invalid("a name in the archive", format!("{error}")))?;
    Ok(reference.or_latest())
}

/// Where an OCI layout has a blob.
pub(super) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
