//! Fetching an image: layers side by side, each streamed from the registry through the converter into the store.

use crate::convert::{Blob, ConvertSpec, Converter};
use crate::error::ImageError;
use crate::progress::{Progress, PullProgress, Stage};
use crate::registry::{Credentials, Platform, Registries, Resolved, ResolvedLayer};
use crate::store::LayerStore;
use bulkhead_model::{Digest, ImageConfig, Layer, Origin, Reference};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, HashSet};

/// Progress is told every so many bytes.
const PROGRESS_BYTES: u64 = 512 << 10;

/// An image whose layers are in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Fetched {
    pub id: Digest,
    pub config_json: String,
    pub config: ImageConfig,
    /// Bottom first.
    pub layers: Vec<Layer>,
    /// Where it was pulled from; `None` for what was loaded or imported.
    pub origin: Option<Origin>,
    /// Names that it is to have.
    pub references: Vec<Reference>,
}

/// Resolves and fetches.
pub async fn pull(
    registries: &Registries,
    reference: &Reference,
    credentials: &Credentials,
    platform: &Platform,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Fetched, ImageError> {
    let resolved = registries.resolve(reference, credentials, platform).await?;
    fetch(&resolved, store, converter, progress).await
}

/// Fetches the layers that the store lacks. A failure leaves the layers that were complete, and nothing else.
pub async fn fetch(
    resolved: &Resolved,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Fetched, ImageError> {
    let mut seen = HashSet::new();
    // An image may have the same layer several times, above all the empty one.
    let distinct: Vec<&ResolvedLayer> =
        resolved.layers.iter().filter(|layer| seen.insert(layer.diff_id.clone())).collect();
    for layer in &distinct {
        tell(progress, layer, Stage::PullingFsLayer);
    }
    for layer in distinct.iter().skip(converter.parallel()) {
        tell(progress, layer, Stage::Waiting);
    }
    // Boxed where the lifetimes are known: a closure that returns a borrowing future is not general enough for callers
    // that spawn this.
    let downloads: Vec<BoxFuture<'_, Result<(Digest, Layer), ImageError>>> = distinct
        .into_iter()
        .map(|layer| {
            async move {
                let fetched = fetch_layer(resolved, layer, store, converter, progress).await?;
                Ok((layer.diff_id.clone(), fetched))
            }
            .boxed()
        })
        .collect();
    let fetched: BTreeMap<Digest, Layer> =
        futures_util::stream::iter(downloads).buffer_unordered(converter.parallel()).try_collect().await?;
    let layers = resolved.layers.iter().filter_map(|layer| fetched.get(&layer.diff_id).cloned()).collect();
    Ok(Fetched {
        id: resolved.id.clone(),
        config_json: resolved.config_json.clone(),
        config: resolved.config.clone(),
        layers,
        origin: Some(resolved.origin.clone()),
        references: vec![resolved.reference.clone()],
    })
}

async fn fetch_layer(
    resolved: &Resolved,
    layer: &ResolvedLayer,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Layer, ImageError> {
    let diff_id = &layer.diff_id;
    if let Some(facts) = store.layer(diff_id).await.map_err(ImageError::Store)? {
        tell(progress, layer, Stage::AlreadyExists);
        let (size_bytes, disk_bytes) = (facts.size_bytes, facts.disk_bytes);
        return Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes });
    }
    let mut passed_over = 0;
    loop {
        match fetch_anew(resolved, layer, passed_over, store, converter, progress).await {
            // A mirror that keeps something else under that digest.
            Err(error) if error.is_content() && passed_over + 1 < resolved.sources() => {
                tracing::warn!(%error, layer = %layer.blob.digest, "a mirror's layer is not what it should be");
                passed_over += 1;
            }
            result => return result,
        }
    }
}

async fn fetch_anew(
    resolved: &Resolved,
    layer: &ResolvedLayer,
    passed_over: usize,
    store: &dyn LayerStore,
    converter: &Converter,
    progress: &Progress,
) -> Result<Layer, ImageError> {
    let diff_id = &layer.diff_id;
    let total = layer.blob.bytes;
    let staged = store.stage().await.map_err(ImageError::Store)?;
    let spec = ConvertSpec {
        compression: Some(layer.compression),
        blob: Some(Blob { digest: layer.blob.digest.clone(), bytes: total }),
        diff_id: Some(diff_id.clone()),
    };
    let mut told = 0;
    let passed = |current: u64| {
        if current == total || current >= told + PROGRESS_BYTES {
            told = current;
            tell(progress, layer, Stage::Downloading { current, total });
        }
        if current == total {
            tell(progress, layer, Stage::VerifyingChecksum);
            tell(progress, layer, Stage::DownloadComplete);
            tell(progress, layer, Stage::Extracting { current, total });
        }
    };
    let file = staged.file().map_err(ImageError::Store)?;
    let converted = converter.convert(&spec, resolved.blob(layer, passed_over), file, passed).await?;
    staged.commit(diff_id).await.map_err(ImageError::Store)?;
    tell(progress, layer, Stage::PullComplete);
    let (size_bytes, disk_bytes) = (converted.size_bytes, converted.disk_bytes);
    Ok(Layer { diff_id: diff_id.clone(), size_bytes, disk_bytes })
}

fn tell(progress: &Progress, layer: &ResolvedLayer, stage: Stage) {
    progress(PullProgress { layer: layer.blob.digest.short().into(), stage });
}
