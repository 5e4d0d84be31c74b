//! A VCH's layer disks, as the image crate wants them.

use crate::{Engine, EngineError};
use async_trait::async_trait;
use bulkhead_image::store::StoreError as ImageStoreError;
use bulkhead_image::{LayerFacts, LayerStore, Staged};
use bulkhead_machine::{Disks, StagedLayer};
use bulkhead_model::{Digest, VchId};
use bulkhead_store::{Store, StoreError};
use std::fs::File;
use std::sync::Arc;

/// Layer disks of one VCH: the database knows the sizes, the datastore has the files. A layer counts as there only if
/// both agree.
pub(crate) struct VchLayers {
    pub(crate) vch: VchId,
    pub(crate) disks: Arc<dyn Disks>,
    pub(crate) store: Store,
}

struct StagedDisk(Box<dyn StagedLayer>);

#[async_trait]
impl LayerStore for VchLayers {
    async fn layer(&self, diff_id: &Digest) -> Result<Option<LayerFacts>, ImageStoreError> {
        if self.disks.layer(self.vch, diff_id).await?.is_none() {
            return Ok(None);
        }
        match self.store.layer(self.vch, diff_id).await {
            Ok(layer) => Ok(Some(LayerFacts { size_bytes: layer.size_bytes, disk_bytes: layer.disk_bytes })),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    async fn stage(&self) -> Result<Box<dyn Staged>, ImageStoreError> {
        Ok(Box::new(StagedDisk(self.disks.stage_layer(self.vch).await?)))
    }

    async fn open(&self, diff_id: &Digest) -> Result<File, ImageStoreError> {
        Ok(self.disks.open_layer(self.vch, diff_id).await?)
    }
}

#[async_trait]
impl Staged for StagedDisk {
    fn file(&self) -> Result<File, ImageStoreError> {
        Ok(self.0.file()?)
    }

    async fn commit(self: Box<Self>, diff_id: &Digest) -> Result<(), ImageStoreError> {
        self.0.commit(diff_id).await?;
        Ok(())
    }
}

impl Engine {
    pub(crate) fn layers_of(&self, vch: VchId) -> VchLayers {
        VchLayers { vch, disks: self.back_end().disks.clone(), store: self.store().clone() }
    }

    /// Deletes the disks of layers that nothing uses any more; picked up again after a crash.
    pub(crate) async fn clear_condemned(&self, vch: VchId) -> Result<(), EngineError> {
        let condemned = self.store().condemned_layers(vch).await?;
        for diff_id in &condemned {
            self.back_end().disks.delete_layer(vch, diff_id).await?;
        }
        if !condemned.is_empty() {
            self.store().forget_layers(vch, &condemned).await?;
        }
        Ok(())
    }

    /// Deletes disks that a broken pull left. At start only: while pulls are under way, such disks are theirs.
    pub(crate) async fn clear_unrecorded(&self, vch: VchId) -> Result<(), EngineError> {
        let recorded: std::collections::BTreeSet<_> =
            self.store().layers(vch).await?.into_iter().map(|layer| layer.diff_id).collect();
        for diff_id in self.back_end().disks.layers(vch).await? {
            if !recorded.contains(&diff_id) {
                tracing::info!(layer = %diff_id, "deletes a layer disk that belongs to no image");
                self.back_end().disks.delete_layer(vch, &diff_id).await?;
            }
        }
        Ok(())
    }
}
