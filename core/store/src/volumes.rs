//! Volumes of each VCH, and which containers have them.
//!
//! A disk is made before its row and deleted after the volume was *condemned*, so that a crash never leaves a volume
//! without a disk; a disk without a row is what the next start deletes. A condemned volume's name is free at once, and
//! nothing can come to use its disk again.

mod claims;
mod stores;

use crate::error::StoreError;
use crate::row::{Row, parse_all, to_i64, to_json, to_micros};
use crate::servers::{self, Fence};
use crate::transaction::work;
use crate::vchs::LockedVch;
use crate::{Record, Store, vchs};
use bulkhead_model::event::Event;
use bulkhead_model::volume::VolumePlace;
use bulkhead_model::{Container, ContainerId, VchId, Volume, VolumeId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;
use uuid::Uuid;

pub(crate) use claims::check_free;
pub(crate) use stores::check_kept as check_stores_kept;

impl Store {
    /// A new volume, whose disk is there. Checks, in one transaction: the VCH stays, the name is free, its limits hold.
    pub async fn create_volume(
        &self,
        volume: &Volume,
        fence: Fence,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let create = work!(|tx| {
            let vch = vchs::lock(tx, volume.vch).await?;
            vch.check_stays()?;
            // Disks without a row are deleted at the start of a server, which must not be a newer one by now.
            servers::hold(tx, fence).await?;
            insert(tx, &vch, std::slice::from_ref(volume)).await
        });
        Ok(self.write(Some(volume.vch), record, create).await?.1)
    }

    pub async fn volume(&self, vch: VchId, name: &str) -> Result<Volume, StoreError> {
        self.read("volume", async {
            let row = sqlx::query("select * from volumes where vch_id = $1 and name = $2 and not condemned")
                .bind(vch.0)
                .bind(name)
                .fetch_optional(&self.pool)
                .await?;
            decode(&row.ok_or_else(|| StoreError::not_found("volume", name))?)
        })
        .await
    }

    /// The volumes of a VCH, by name.
    pub async fn volumes(&self, vch: VchId) -> Result<Vec<Volume>, StoreError> {
        self.read("volumes", async {
            let rows = sqlx::query("select * from volumes where vch_id = $1 and not condemned order by name")
                .bind(vch.0)
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// The containers that have each volume; volumes that none has are not in it.
    pub async fn volume_users(&self, vch: VchId) -> Result<BTreeMap<VolumeId, Vec<ContainerId>>, StoreError> {
        self.read("users of volumes", async {
            let rows = sqlx::query(
                "select volume_id, container_id from container_volumes where vch_id = $1 order by container_id",
            )
            .bind(vch.0)
            .fetch_all(&self.pool)
            .await?;
            let mut users: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for row in &rows {
                let row = Row::new(row, "container_volumes", "container_id");
                users.entry(VolumeId(row.get("volume_id")?)).or_default().push(row.parse("container_id")?);
            }
            Ok(users)
        })
        .await
    }

    /// A container that is about to be forgotten gives a volume up: of several at the same time, the last one to remove
    /// it can.
    pub async fn release_volume(&self, container: &ContainerId, id: VolumeId) -> Result<(), StoreError> {
        self.read("release a volume", async {
            sqlx::query("delete from container_volumes where volume_id = $1 and container_id = $2")
                .bind(id.0)
                .bind(container.as_str())
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }

    /// Condemns it, unless a container has it; its disk is to be deleted next.
    pub async fn remove_volume(
        &self,
        vch: VchId,
        id: VolumeId,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let remove = work!(|tx| {
            // Nothing comes to use it meanwhile.
            vchs::lock(tx, vch).await?;
            let users = sqlx::query(
                "select container_id from container_volumes where vch_id = $1 and volume_id = $2 order by container_id",
            )
            .bind(vch.0)
            .bind(id.0)
            .fetch_all(&mut *tx)
            .await?;
            if !users.is_empty() {
                let containers = parse_all(&users, "container_volumes", "container_id")?;
                return Err(StoreError::VolumeInUse { containers });
            }
            let done = sqlx::query(
                "update volumes set condemned = true where vch_id = $1 and id = $2 and not condemned",
            )
            .bind(vch.0)
            .bind(id.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 { Err(StoreError::not_found("volume", id)) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, remove).await?.1)
    }

    /// Its disk has become larger, or is about to.
    pub async fn grow_volume(
        &self,
        volume: &Volume,
        size_bytes: u64,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let grow = work!(|tx| {
            let vch = vchs::lock(tx, volume.vch).await?;
            vch.check_stays()?;
            let more = size_bytes.saturating_sub(volume.size_bytes);
            check_bytes(tx, &vch, volume.vch, more).await?;
            stores::check_bytes(tx, &vch, volume, more).await?;
            let done = sqlx::query(
                "update volumes set size_bytes = $2 where id = $1 and size_bytes = $3 and not condemned",
            )
            .bind(volume.id.0)
            .bind(to_i64(size_bytes)?)
            .bind(to_i64(volume.size_bytes)?)
            .execute(&mut *tx)
            .await?;
            match done.rows_affected() {
                0 => Err(StoreError::Conflict { kind: "volume", id: volume.name.to_string() }),
                _ => Ok(()),
            }
        });
        Ok(self.write(Some(volume.vch), record, grow).await?.1)
    }

    /// Says of volumes whether their file systems are complete and clean. Under the fence of the server that runs the
    /// machines which use them.
    pub async fn settle_volumes(
        &self,
        fence: Fence,
        ids: &[VolumeId],
        settled: bool,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        self.check_fence(fence).await?;
        self.read("settle volumes", async {
            sqlx::query("update volumes set settled = $2 where id = any ($1)")
                .bind(ids)
                .bind(settled)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }

    /// Volumes whose disks are still to be deleted: what a start has to finish.
    pub async fn condemned_volumes(&self, vch: VchId) -> Result<Vec<VolumePlace>, StoreError> {
        self.volume_places(vch, true).await
    }

    /// Where the disks of volumes are that stay.
    pub async fn kept_volumes(&self, vch: VchId) -> Result<Vec<VolumePlace>, StoreError> {
        self.volume_places(vch, false).await
    }

    async fn volume_places(&self, vch: VchId, condemned: bool) -> Result<Vec<VolumePlace>, StoreError> {
        self.read("volumes", async {
            let rows: Vec<(Uuid, Option<String>)> = sqlx::query_as(
                "select id, folder from volumes where vch_id = $1 and condemned = $2 order by id",
            )
            .bind(vch.0)
            .bind(condemned)
            .fetch_all(&self.pool)
            .await?;
            let place = |(id, folder): (_, Option<_>)| VolumePlace {
                id: VolumeId(id),
                folder: folder.map(Into::into),
            };
            Ok(rows.into_iter().map(place).collect())
        })
        .await
    }

    /// Forgets condemned volumes, once their disks are gone. Others are left alone.
    pub async fn forget_volumes(&self, vch: VchId, ids: &[VolumeId]) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        self.read("forget volumes", async {
            sqlx::query("delete from volumes where vch_id = $1 and id = any ($2) and condemned")
                .bind(vch.0)
                .bind(ids)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}

/// With the VCH locked.
pub(crate) async fn insert(
    tx: &mut PgConnection,
    locked: &LockedVch,
    volumes: &[Volume],
) -> Result<(), StoreError> {
    for volume in volumes {
        check_count(tx, locked, volume.vch).await?;
        stores::check_there(locked, volume)?;
        check_bytes(tx, locked, volume.vch, volume.size_bytes).await?;
        stores::check_bytes(tx, locked, volume, volume.size_bytes).await?;
        let holder: Option<Uuid> =
            sqlx::query_scalar("select id from volumes where vch_id = $1 and name = $2 and not condemned")
                .bind(volume.vch.0)
                .bind(volume.name.as_str())
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(holder) = holder {
            return Err(StoreError::NameTaken {
                kind: "volume",
                name: volume.name.to_string(),
                holder: holder.to_string(),
            });
        }
        sqlx::query(
            "insert into volumes
                 (id, vch_id, name, labels, options, size_bytes, owner, created_at, settled, anonymous, store, folder)
             values ($1, $2, $3, $4::text::json, $5::text::json, $6, $7, $8, $9, $10, $11, $12)",
        )
        .bind(volume.id.0)
        .bind(volume.vch.0)
        .bind(volume.name.as_str())
        .bind(to_json(&volume.labels)?)
        .bind(to_json(&volume.options)?)
        .bind(to_i64(volume.size_bytes)?)
        .bind(&volume.owner)
        .bind(to_micros(volume.created_at))
        .bind(volume.settled)
        .bind(volume.anonymous)
        .bind(volume.store.as_str())
        .bind(volume.folder.as_deref().map(stores::folder_text).transpose()?)
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
}

/// Writes down what volumes a container has, with the VCH locked. One that is not there any more is
/// [`StoreError::NotFound`].
pub(crate) async fn attach(tx: &mut PgConnection, container: &Container) -> Result<(), StoreError> {
    for volume in bulkhead_model::volume::uses(&container.spec.mounts) {
        let done = sqlx::query(
            "insert into container_volumes (vch_id, container_id, volume_id, writable)
             select vch_id, $2, id, $4 from volumes where vch_id = $1 and id = $3 and not condemned",
        )
        .bind(container.vch.0)
        .bind(container.id.as_str())
        .bind(volume.id.0)
        .bind(!volume.read_only)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::not_found("volume", volume.id));
        }
    }
    Ok(())
}

async fn check_count(tx: &mut PgConnection, locked: &LockedVch, vch: VchId) -> Result<(), StoreError> {
    // Those whose disks are still being deleted take space, too.
    let used: i64 = sqlx::query_scalar("select count(*) from volumes where vch_id = $1")
        .bind(vch.0)
        .fetch_one(tx)
        .await?;
    let (used, limit) = (used.unsigned_abs(), u64::from(locked.settings.volumes_max));
    if used < limit {
        return Ok(());
    }
    Err(StoreError::Limit { name: "volumes_max", unit: "volumes", limit, used, requested: 1 })
}

async fn check_bytes(
    tx: &mut PgConnection,
    locked: &LockedVch,
    vch: VchId,
    requested: u64,
) -> Result<(), StoreError> {
    let Some(limit) = locked.settings.volumes_bytes_max else { return Ok(()) };
    let used: i64 =
        sqlx::query_scalar("select coalesce(sum(size_bytes), 0)::bigint from volumes where vch_id = $1")
            .bind(vch.0)
            .fetch_one(tx)
            .await?;
    let used = used.unsigned_abs();
    if used.saturating_add(requested) <= limit {
        return Ok(());
    }
    Err(StoreError::Limit { name: "volumes_bytes_max", unit: "bytes", limit, used, requested })
}

fn decode(row: &PgRow) -> Result<Volume, StoreError> {
    let row = Row::new(row, "volumes", "name");
    let folder: Option<String> = row.get("folder")?;
    Ok(Volume {
        vch: row.vch("vch_id")?,
        id: VolumeId(row.get("id")?),
        name: row.parse("name")?,
        labels: row.json("labels")?,
        options: row.json("options")?,
        size_bytes: row.unsigned("size_bytes")?,
        owner: row.get("owner")?,
        created_at: row.get("created_at")?,
        settled: row.get("settled")?,
        anonymous: row.get("anonymous")?,
        store: row.parse("store")?,
        folder: folder.map(Into::into),
    })
}
