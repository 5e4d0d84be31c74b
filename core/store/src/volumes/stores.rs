//! Volume stores: which there are is among the settings of the VCH; what is in them is counted here.

use crate::error::StoreError;
use crate::vchs::LockedVch;
use bulkhead_model::vch::VolumeStoreName;
use bulkhead_model::{VchId, VchSettings, Volume};
use sqlx::PgConnection;
use std::path::Path;

/// The store is still as it was when the volume's disk was made.
pub(super) fn check_there(locked: &LockedVch, volume: &Volume) -> Result<(), StoreError> {
    match locked.settings.volume_stores.get(&volume.store) {
        Some(store) if store.folder == volume.folder => Ok(()),
        _ => Err(StoreError::Conflict { kind: "volume store", id: volume.store.to_string() }),
    }
}

/// Whether the store of a volume has room for so many bytes more. The VCH is locked.
pub(super) async fn check_bytes(
    tx: &mut PgConnection,
    locked: &LockedVch,
    volume: &Volume,
    requested: u64,
) -> Result<(), StoreError> {
    let store = locked.settings.volume_stores.get(&volume.store);
    let Some(limit) = store.and_then(|store| store.bytes_max) else { return Ok(()) };
    // Those whose disks are still being deleted take space, too.
    let used: i64 = sqlx::query_scalar(
        "select coalesce(sum(size_bytes), 0)::bigint from volumes where vch_id = $1 and store = $2",
    )
    .bind(volume.vch.0)
    .bind(volume.store.as_str())
    .fetch_one(tx)
    .await?;
    let used = used.unsigned_abs();
    if used.saturating_add(requested) <= limit {
        return Ok(());
    }
    Err(StoreError::VolumeStoreFull { store: volume.store.to_string(), limit, used, requested })
}

/// Whether with these settings each volume would still be in a store of its name, where its disk is. The VCH is locked.
pub(crate) async fn check_kept(
    tx: &mut PgConnection,
    vch: VchId,
    settings: &VchSettings,
) -> Result<(), StoreError> {
    let held: Vec<(String, Option<String>, i64)> = sqlx::query_as(
        "select store, folder, count(*) from volumes where vch_id = $1 group by store, folder order by store, folder",
    )
    .bind(vch.0)
    .fetch_all(tx)
    .await?;
    for (name, folder, volumes) in held {
        let store = name.parse().ok().and_then(|name: VolumeStoreName| settings.volume_stores.get(&name));
        if store.is_none_or(|store| store.folder.as_deref() != folder.as_deref().map(Path::new)) {
            return Err(StoreError::VolumeStoreInUse { store: name, volumes });
        }
    }
    Ok(())
}

/// A folder as the database has it.
pub(super) fn folder_text(folder: &Path) -> Result<&str, StoreError> {
    folder.to_str().ok_or_else(|| StoreError::Refused("a folder's name is not UTF-8".into()))
}
