//! Layers of each VCH, shared by its images.
//!
//! A layer disk goes in two steps, so that neither a crash nor a pull at the same time can lose or leak one: removing the
//! last image that uses it *condemns* the layer; once its disk is deleted, the row is forgotten. In between nothing can
//! come to use it.

use crate::Store;
use crate::error::StoreError;
use crate::row::{Row, parse_all, to_i64};
use bulkhead_model::{Digest, Image, Layer, VchId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

impl Store {
    /// A layer that the VCH has and may use; not one whose disk is being deleted.
    pub async fn layer(&self, vch: VchId, diff_id: &Digest) -> Result<Layer, StoreError> {
        self.read("layer", async {
            let row =
                sqlx::query("select * from layers where vch_id = $1 and diff_id = $2 and not condemned")
                    .bind(vch.0)
                    .bind(diff_id.as_str())
                    .fetch_optional(&self.pool)
                    .await?;
            decode_layer(&row.ok_or_else(|| StoreError::not_found("layer", diff_id))?)
        })
        .await
    }

    /// All layers of a VCH that may be used.
    pub async fn layers(&self, vch: VchId) -> Result<Vec<Layer>, StoreError> {
        self.read("layers", async {
            let rows =
                sqlx::query("select * from layers where vch_id = $1 and not condemned order by diff_id")
                    .bind(vch.0)
                    .fetch_all(&self.pool)
                    .await?;
            rows.iter().map(decode_layer).collect()
        })
        .await
    }

    /// Layers whose disks are still to be deleted: what a start has to finish.
    pub async fn condemned_layers(&self, vch: VchId) -> Result<Vec<Digest>, StoreError> {
        self.read("condemned layers", async {
            let rows =
                sqlx::query("select diff_id from layers where vch_id = $1 and condemned order by diff_id")
                    .bind(vch.0)
                    .fetch_all(&self.pool)
                    .await?;
            parse_all(&rows, "layers", "diff_id")
        })
        .await
    }

    /// Forgets condemned layers, once their disks are gone. Others are left alone.
    pub async fn forget_layers(&self, vch: VchId, diff_ids: &[Digest]) -> Result<(), StoreError> {
        let diff_ids: Vec<&str> = diff_ids.iter().map(Digest::as_str).collect();
        self.read("forget layers", async {
            sqlx::query("delete from layers where vch_id = $1 and diff_id = any ($2) and condemned")
                .bind(vch.0)
                .bind(diff_ids)
                .execute(&self.pool)
                .await?;
            Ok(())
        })
        .await
    }
}

pub(crate) async fn insert(tx: &mut PgConnection, vch: VchId, image: &Image) -> Result<(), StoreError> {
    for (position, layer) in image.layers.iter().enumerate() {
        // The update changes nothing; it makes the row come back, locked, whether it is new or not.
        let condemned: bool = sqlx::query_scalar(
            "insert into layers (vch_id, diff_id, size_bytes, disk_bytes) values ($1, $2, $3, $4)
             on conflict (vch_id, diff_id) do update set size_bytes = layers.size_bytes
             returning condemned",
        )
        .bind(vch.0)
        .bind(layer.diff_id.as_str())
        .bind(to_i64(layer.size_bytes)?)
        .bind(to_i64(layer.disk_bytes)?)
        .fetch_one(&mut *tx)
        .await?;
        if condemned {
            return Err(StoreError::LayerCondemned { diff_id: layer.diff_id.clone() });
        }
        let position = i32::try_from(position).map_err(|error| StoreError::Refused(error.into()))?;
        sqlx::query("insert into image_layers (vch_id, image_id, position, diff_id) values ($1, $2, $3, $4)")
            .bind(vch.0)
            .bind(image.id.as_str())
            .bind(position)
            .bind(layer.diff_id.as_str())
            .execute(&mut *tx)
            .await?;
    }
    Ok(())
}

/// Of these layers, condemns and gives those that no image and no container uses.
pub(crate) async fn condemn(
    tx: &mut PgConnection,
    vch: VchId,
    layers: &[Digest],
) -> Result<Vec<Digest>, StoreError> {
    let layers: Vec<&str> = layers.iter().map(Digest::as_str).collect();
    let rows = sqlx::query(
        "update layers set condemned = true
         where vch_id = $1 and diff_id = any ($2)
           and not exists (select from image_layers used
                           where used.vch_id = layers.vch_id and used.diff_id = layers.diff_id)
           and not exists (select from container_layers used
                           where used.vch_id = layers.vch_id and used.diff_id = layers.diff_id)
         returning diff_id",
    )
    .bind(vch.0)
    .bind(layers)
    .fetch_all(tx)
    .await?;
    parse_all(&rows, "layers", "diff_id")
}

pub(crate) fn decode_layer(row: &PgRow) -> Result<Layer, StoreError> {
    let row = Row::new(row, "layers", "diff_id");
    Ok(Layer {
        diff_id: row.parse("diff_id")?,
        size_bytes: row.unsigned("size_bytes")?,
        disk_bytes: row.unsigned("disk_bytes")?,
    })
}
