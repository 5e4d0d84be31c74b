//! How full places are.

use crate::Store;
use crate::error::StoreError;
use crate::row::Row;
use bulkhead_model::placement::Placement;
use bulkhead_model::{ServerId, VchId};
use std::collections::BTreeMap;

/// A container that has a place, with what counts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    pub vch: VchId,
    pub placement: Placement,
    /// It has its memory and CPUs now.
    pub runs: bool,
    pub cpu_milli: u32,
    pub memory_bytes: u64,
    /// Of containers of the VCH that was asked for; of others, none.
    pub labels: BTreeMap<String, String>,
}

impl Store {
    /// All containers that a server drives, with labels of those of one VCH.
    pub async fn placed(&self, server: ServerId, vch: VchId) -> Result<Vec<Placed>, StoreError> {
        self.read("placed containers", async {
            let rows = sqlx::query(
                "select id, vch_id, host, datastore, memory_bytes,
                     status_name in ('starting', 'running') as runs,
                     coalesce((spec->'resources'->>'cpu_milli')::bigint, 0) as cpu_milli,
                     case when vch_id = $2 then spec->'labels' end as labels
                 from containers where server_id = $1 order by id",
            )
            .bind(server.0)
            .bind(vch.0)
            .fetch_all(&self.pool)
            .await?;
            rows.iter()
                .map(|row| {
                    let row = Row::new(row, "containers", "id");
                    Ok(Placed {
                        vch: row.vch("vch_id")?,
                        placement: Placement { host: row.parse("host")?, datastore: row.parse("datastore")? },
                        runs: row.get("runs")?,
                        cpu_milli: u32::try_from(row.unsigned("cpu_milli")?).unwrap_or(u32::MAX),
                        memory_bytes: row.unsigned("memory_bytes")?,
                        labels: row.json_or_null("labels")?.unwrap_or_default(),
                    })
                })
                .collect()
        })
        .await
    }
}
