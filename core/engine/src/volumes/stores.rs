//! Volume stores: where a VCH's volumes can be, how much of it they may take, and how that changes while it is used.
//!
//! ```text
//!   a store comes   folder made ready ──▶ settings
//!   a store goes    settings ──▶ folder cleared and left          refused while it has volumes
//! ```
//!
//! A volume whose disk was made in a store that went meanwhile is not written down: its maker looks again.

use crate::{Engine, EngineError};
use bulkhead_machine::MachineError;
use bulkhead_model::volume::VolumeAsk;
use bulkhead_model::{Vch, VchId, VchSettings, Volume, VolumeStoreName};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A volume store and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeStoreFacts {
    pub name: VolumeStoreName,
    pub volumes: u64,
    /// Sizes of its volumes together.
    pub volumes_bytes: u64,
    /// Most that they may be.
    pub bytes_max: Option<u64>,
}

/// The folders of the host that settings give to volumes.
pub(crate) fn folders(settings: &VchSettings) -> BTreeSet<&Path> {
    settings.volume_stores.values().filter_map(|store| store.folder.as_deref()).collect()
}

/// The store that a new volume will be in, and the store's folder.
pub(super) fn of(vch: &Vch, ask: &VolumeAsk) -> Result<(VolumeStoreName, Option<PathBuf>), EngineError> {
    let name = ask.store.clone().unwrap_or_default();
    match vch.settings.volume_stores.get(&name) {
        Some(store) => Ok((name, store.folder.clone())),
        None => {
            let known: Vec<_> = vch.settings.volume_stores.keys().map(VolumeStoreName::as_str).collect();
            let why = match (&known[..], &ask.store) {
                ([], _) => "this VCH has no place for volumes".to_owned(),
                (_, Some(_)) => format!("this VCH has the volume stores {}", known.join(", ")),
                (_, None) => format!(
                    "a volume that names no store would be in it, and this VCH has the volume stores {}: name one with \
                     the option VolumeStore",
                    known.join(", ")
                ),
            };
            Err(EngineError::Invalid { what: "volume store", value: name.to_string(), why })
        }
    }
}

/// A volume that is there is asked for where it is.
pub(super) fn check_same(volume: &Volume, ask: &VolumeAsk) -> Result<(), EngineError> {
    match &ask.store {
        Some(store) if *store != volume.store => Err(EngineError::Conflict(format!(
            "volume {} is there, in the volume store {}: it cannot move to {store}",
            volume.name, volume.store
        ))),
        _ => Ok(()),
    }
}

/// The volume stores of a VCH, by name, with what is in them.
pub(crate) fn facts(settings: &VchSettings, volumes: &[Volume]) -> Vec<VolumeStoreFacts> {
    let stores = settings.volume_stores.iter();
    stores
        .map(|(name, store)| {
            let inside: Vec<_> = volumes.iter().filter(|volume| volume.store == *name).collect();
            VolumeStoreFacts {
                name: name.clone(),
                volumes: u64::try_from(inside.len()).unwrap_or(u64::MAX),
                volumes_bytes: inside.iter().map(|volume| volume.size_bytes).sum(),
                bytes_max: store.bytes_max,
            }
        })
        .collect()
}

impl Engine {
    /// Makes the folders ready that settings give to volumes.
    pub(crate) async fn open_stores(&self, vch: VchId, settings: &VchSettings) -> Result<(), EngineError> {
        for folder in folders(settings) {
            match self.back_end().disks.open_folder(vch, folder).await {
                Err(MachineError::BadFolder { folder, why }) => {
                    let value = folder.display().to_string();
                    return Err(EngineError::Invalid { what: "folder for volumes", value, why });
                }
                other => other?,
            }
        }
        Ok(())
    }

    /// Leaves the folders of stores that went from `before`. What cannot be left now only takes an empty folder's space.
    pub(crate) async fn leave_stores(&self, vch: VchId, before: &VchSettings, now: Option<&VchSettings>) {
        let kept = now.map(folders).unwrap_or_default();
        for folder in folders(before).difference(&kept) {
            if let Err(error) = self.leave_folder(vch, folder).await {
                tracing::warn!(folder = %folder.display(), %error, "the folder of a volume store that went stays");
            }
        }
    }

    /// No volume comes to be in it any more.
    async fn leave_folder(&self, vch: VchId, folder: &Path) -> Result<(), EngineError> {
        self.clear_folder(vch, Some(folder)).await?;
        Ok(self.back_end().disks.leave_folder(vch, folder).await?)
    }
}
