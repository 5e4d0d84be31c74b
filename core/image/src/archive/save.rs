//! `save`: images into an archive that this and other engines load.

use super::list::blob_name;
use super::spool::{STALL, stalled};
use crate::convert::Converter;
use crate::error::ImageError;
use crate::image_config;
use crate::recipe;
use crate::store::LayerStore;
use bulkhead_model::{Digest, Reference};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};

/// The time that everything in an archive has: equal images give equal archives.
const MTIME: &[u8] = b"00000000000";

/// An image to save. Its layers must be in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveImage {
    pub config_json: String,
    /// Bottom first.
    pub diff_ids: Vec<Digest>,
    /// Names that it gets where it is loaded; none: only its id.
    pub references: Vec<Reference>,
}

/// Writes one archive with all images. Layers come out byte for byte as they were pulled, so ids stay.
pub async fn save(
    images: &[SaveImage],
    store: &dyn LayerStore,
    converter: &Converter,
    out: impl AsyncWrite + Unpin + Send,
) -> Result<(), ImageError> {
    let images = distinct(images)?;
    let out = Patient { out, waiting: false, stall: Box::pin(tokio::time::sleep(STALL)) };
    let mut writer = Writer { out, written: BTreeSet::new() };
    writer.folder("blobs/").await?;
    writer.folder("blobs/sha256/").await?;
    let mut docker = Vec::new();
    let mut index = Vec::new();
    for image in &images {
        let config = Digest::of(image.config_json.as_bytes());
        let mut layers = Vec::new();
        for diff_id in &image.diff_ids {
            let bytes = writer.layer(diff_id, store, converter).await?;
            let media_type = "application/vnd.oci.image.layer.v1.tar";
            layers.push(json!({ "mediaType": media_type, "digest": diff_id, "size": bytes }));
        }
        writer.blob(&config, image.config_json.as_bytes()).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": image.config_json.len(),
            },
            "layers": layers,
        });
        let manifest = text(&manifest)?;
        let manifest_digest = Digest::of(&manifest);
        writer.blob(&manifest_digest, &manifest).await?;
        index.extend(index_entries(image, &manifest_digest, manifest.len()));
        docker.push(json!({
            "Config": blob_name(&config),
            "RepoTags": image.references.iter().map(Reference::familiar).collect::<Vec<_>>(),
            "Layers": image.diff_ids.iter().map(blob_name).collect::<Vec<_>>(),
        }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index });
    writer.file("index.json", &text(&index)?).await?;
    writer.file("manifest.json", &text(&Value::Array(docker))?).await?;
    writer.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#).await?;
    writer.end().await
}

/// Each image once, with all its names. A name with a digest is none that an archive can give.
fn distinct(images: &[SaveImage]) -> Result<Vec<SaveImage>, ImageError> {
    let mut distinct: Vec<SaveImage> = Vec::new();
    for image in images {
        if image_config::parse(image.config_json.as_bytes())?.diff_ids != image.diff_ids {
            return Err(ImageError::invalid("an image to save", "its layers are not those of its config"));
        }
        let names = image.references.iter().filter(|name| name.tag.is_some());
        let names = names.map(|name| Reference { digest: None, ..name.clone() });
        match distinct.iter_mut().find(|known| known.config_json == image.config_json) {
            Some(known) => known.references.extend(names),
            None => distinct.push(SaveImage { references: names.collect(), ..image.clone() }),
        }
    }
    for image in &mut distinct {
        image.references.sort();
        image.references.dedup();
    }
    Ok(distinct)
}

/// One entry for each name, or one without.
fn index_entries(image: &SaveImage, digest: &Digest, bytes: usize) -> Vec<Value> {
    let entry = |annotations: Value| {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest,
            "size": bytes,
            "annotations": annotations,
        })
    };
    if image.references.is_empty() {
        return vec![entry(json!({}))];
    }
    let name = |reference: &Reference| {
        entry(json!({
            "io.containerd.image.name": reference.to_string(),
            "org.opencontainers.image.ref.name": reference.tag.as_deref().unwrap_or("latest"),
        }))
    };
    image.references.iter().map(name).collect()
}

fn text(value: &Value) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|error| ImageError::invalid("a manifest", error.to_string()))
}

struct Writer<W> {
    out: W,
    /// Blobs that are in already: images share layers.
    written: BTreeSet<Digest>,
}

impl<W: AsyncWrite + Unpin + Send> Writer<W> {
    async fn folder(&mut self, name: &str) -> Result<(), ImageError> {
        self.put(&header(name, b'5', 0o755, 0)).await
    }

    async fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        self.put(&header(name, b'0', 0o644, bytes.len() as u64)).await?;
        self.put(bytes).await?;
        self.pad(bytes.len() as u64).await
    }

    async fn blob(&mut self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        if self.written.insert(digest.clone()) { self.file(&blob_name(digest), bytes).await } else { Ok(()) }
    }

    /// The length of the layer's archive.
    async fn layer(
        &mut self,
        diff_id: &Digest,
        store: &dyn LayerStore,
        converter: &Converter,
    ) -> Result<u64, ImageError> {
        let disk = store.open(diff_id).await.map_err(ImageError::Store)?;
        let bytes = recipe::archive_bytes(&disk);
        let bytes = bytes.map_err(ImageError::io(format!("reading layer {}", diff_id.short())))?;
        if !self.written.insert(diff_id.clone()) {
            return Ok(bytes);
        }
        self.put(&header(&blob_name(diff_id), b'0', 0o644, bytes)).await?;
        // The header has told the length: a disk that gives more or less must not move what follows.
        let mut exact = Exact { out: &mut self.out, left: bytes };
        let found = converter.restore(disk, &mut exact).await?;
        let left = exact.left;
        if left != 0 || found != *diff_id {
            let what = format!("the disk of layer {}", diff_id.short());
            return Err(ImageError::Digest { what, expected: diff_id.clone(), found });
        }
        self.pad(bytes).await?;
        Ok(bytes)
    }

    async fn end(mut self) -> Result<(), ImageError> {
        self.put(&[0; 1024]).await?;
        self.out.flush().await.map_err(ImageError::io("writing the archive"))
    }

    async fn pad(&mut self, bytes: u64) -> Result<(), ImageError> {
        let zeros = [0; 512];
        let missing = usize::try_from(bytes.next_multiple_of(512) - bytes).unwrap_or_default();
        self.put(zeros.get(..missing).unwrap_or_default()).await
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        self.out.write_all(bytes).await.map_err(ImageError::io("writing the archive"))
    }
}

/// Passes on so many bytes and no more.
struct Exact<W> {
    out: W,
    left: u64,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Exact<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return Poll::Ready(Err(std::io::Error::other("the layer is longer than it was")));
        }
        let polled = Pin::new(&mut self.out).poll_write(cx, bytes);
        if let Poll::Ready(Ok(written)) = &polled {
            self.left -= *written as u64;
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.out).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.out).poll_shutdown(cx)
    }
}

/// Gives up on a client that takes nothing for a long time: a layer that is being restored has a process of its own.
struct Patient<W> {
    out: W,
    /// Since `stall` was set.
    waiting: bool,
    stall: Pin<Box<Sleep>>,
}

impl<W> Patient<W> {
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<std::io::Result<T>>,
    ) -> Poll<std::io::Result<T>> {
        if polled.is_ready() {
            self.waiting = false;
            return polled;
        }
        // The clock runs only while the client is waited for.
        if !self.waiting {
            self.waiting = true;
            self.stall.as_mut().reset(Instant::now() + STALL);
        }
        self.stall.as_mut().poll(cx).map(|()| {
            let why = stalled("sending the archive").to_string();
            Err(std::io::Error::new(std::io::ErrorKind::TimedOut, why))
        })
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Patient<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.out).poll_write(cx, bytes);
        self.watch(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.out).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let polled = Pin::new(&mut self.out).poll_shutdown(cx);
        self.watch(cx, polled)
    }
}

/// A ustar header for a short name, owned by root.
fn header(name: &str, kind: u8, mode: u32, bytes: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(512);
    let mut field = |text: &[u8], length: usize| {
        let end = block.len() + length;
        block.extend_from_slice(text);
        block.resize(end, 0);
    };
    field(name.as_bytes(), 100);
    field(format!("{mode:07o}").as_bytes(), 8);
    field(b"0000000", 8);
    field(b"0000000", 8);
    match bytes {
        0..=0o77_777_777_777 => field(format!("{bytes:011o}").as_bytes(), 12),
        // More than eleven octal digits: GNU's binary form.
        _ => field(&[&[0x80, 0, 0, 0][..], &bytes.to_be_bytes()[..]].concat(), 12),
    }
    field(MTIME, 12);
    field(b"        ", 8);
    field(&[kind], 1);
    field(b"", 100);
    field(b"ustar\x0000", 8);
    field(b"", 247);
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block.splice(148..156, format!("{sum:06o}\0 ").into_bytes());
    block
}
