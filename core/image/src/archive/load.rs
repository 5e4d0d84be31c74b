//! `load`: images out of an archive.

use super::index::Index;
use super::list::{Listed, ListedLayer, list};
use super::spool::Upload;
use crate::convert::{ConvertSpec, Converter};
use crate::error::ImageError;
use crate::progress::{Progress, PullProgress, Stage};
use crate::pull::Fetched;
use crate::store::{LayerStore, Staged};
use bulkhead_model::{Digest, Layer};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::io::AsyncRead;

const PROGRESS_BYTES: u64 = 4 << 20;
/// Layers kept back until the whole archive has proven good; each holds a file open.
const STAGED_MAX: usize = 100;

/// Loads every image of an archive, bare or compressed with gzip or zstd. `work_dir` takes the archive while it is read,
/// in a file without a name, up to the size that the converter's limits allow a layer.
///
/// An archive is taken as a whole: nothing of one that is refused stays in the store, unless it brought more than a hundred
/// new layers, of which complete ones may then stay.
pub async fn load(
    reader: impl AsyncRead + Send,
    work_dir: &Path,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Vec<Fetched>, ImageError> {
    let limits = converter.limits().clone();
    let upload = Upload::receive(reader, work_dir, limits.uncompressed_bytes).await?;
    let archive = upload.inflate(work_dir, converter).await?;
    let read = tokio::task::spawn_blocking(move || {
        let index = Index::read(archive, &limits)?;
        let listed = list(&index)?;
        Ok::<_, ImageError>((index, listed))
    });
    let (index, listed) =
        read.await.map_err(|error| ImageError::io("reading the archive")(error.into()))??;
    let mut load = Load { index, store, converter, progress, layers: BTreeMap::new(), staged: Vec::new() };
    let mut images = Vec::with_capacity(listed.len());
    for image in listed {
        images.push(load.image(image).await?);
    }
    load.commit().await?;
    Ok(images)
}

struct Load<'a> {
    index: Index,
    store: &'a dyn LayerStore,
    converter: &'a Converter,
    progress: &'a Progress,
    /// Of this archive: images share layers.
    layers: BTreeMap<Digest, Layer>,
    staged: Vec<(Digest, Box<dyn Staged>)>,
}

impl Load<'_> {
    async fn image(&mut self, listed: Listed) -> Result<Fetched, ImageError> {
        let Listed { id, config_json, config, layers: listed, references } = listed;
        let mut layers = Vec::with_capacity(listed.len());
        for (layer, diff_id) in listed.iter().zip(&config.diff_ids) {
            let loaded = match self.layers.get(diff_id) {
                Some(known) => known.clone(),
                None => self.layer(layer, diff_id).await?,
            };
            self.layers.insert(diff_id.clone(), loaded.clone());
            layers.push(loaded);
        }
        Ok(Fetched { id, config_json, config, layers, origin: None, references })
    }

    async fn layer(&mut self, layer: &ListedLayer, diff_id: &Digest) -> Result<Layer, ImageError> {
        let tell = |stage| (self.progress)(PullProgress { layer: diff_id.short().into(), stage });
        if let Some(facts) = self.store.layer(diff_id).await.map_err(ImageError::Store)? {
            tell(Stage::AlreadyExists);
            let (size_bytes, disk_bytes) = (facts.size_bytes, facts.disk_bytes);
            return Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes });
        }
        if self.staged.len() >= STAGED_MAX {
            self.commit().await?;
        }
        let total = layer.section.bytes;
        let (blob, compression) = layer.told.clone().unzip();
        let spec = ConvertSpec { compression, blob, diff_id: Some(diff_id.clone()) };
        let mut told = 0;
        let passed = |current: u64| {
            if current == total || current >= told + PROGRESS_BYTES {
                told = current;
                tell(Stage::Extracting { current, total });
            }
        };
        let staged = self.store.stage().await.map_err(ImageError::Store)?;
        let target = staged.file().map_err(ImageError::Store)?;
        let input = self.index.stream(layer.section);
        let converted = self.converter.convert(&spec, input, target, passed).await?;
        tell(Stage::PullComplete);
        self.staged.push((diff_id.clone(), staged));
        let (size_bytes, disk_bytes) = (converted.size_bytes, converted.disk_bytes);
        Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes })
    }

    async fn commit(&mut self) -> Result<(), ImageError> {
        for (diff_id, staged) in self.staged.drain(..) {
            staged.commit(&diff_id).await.map_err(ImageError::Store)?;
        }
        Ok(())
    }
}
