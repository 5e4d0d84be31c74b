//! Who may use a volume now.

use crate::containers::live;
use crate::error::StoreError;
use crate::row::Row;
use bulkhead_model::{ContainerId, VchId};
use sqlx::PgConnection;

/// Whether a container may run as far as its volumes are concerned: each is one machine's at a time, unless all of
/// them only read it. The VCH is locked.
pub(crate) async fn check_free(
    tx: &mut PgConnection,
    vch: VchId,
    id: &ContainerId,
) -> Result<(), StoreError> {
    let held = sqlx::query(concat!(
        "select volumes.name as volume, other.container_id
         from container_volumes mine
         join container_volumes other
           on other.vch_id = mine.vch_id and other.volume_id = mine.volume_id
              and other.container_id <> mine.container_id and (mine.writable or other.writable)
         join containers on containers.id = other.container_id
         join volumes on volumes.id = mine.volume_id
         where mine.vch_id = $1 and mine.container_id = $2 and ",
        live!(),
        " order by volumes.name, other.container_id limit 1"
    ))
    .bind(vch.0)
    .bind(id.as_str())
    .fetch_optional(tx)
    .await?;
    let Some(held) = held else { return Ok(()) };
    let row = Row::new(&held, "container_volumes", "container_id");
    Err(StoreError::VolumeHeld { name: row.get("volume")?, by: row.parse("container_id")? })
}
