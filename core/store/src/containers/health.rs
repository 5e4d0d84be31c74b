//! What checks of containers were answered.

use super::why_not;
use crate::error::StoreError;
use crate::row::to_json;
use crate::servers::Fence;
use crate::transaction::work;
use crate::{Record, Store};
use bulkhead_model::event::Event;
use bulkhead_model::health::RunHealth;
use bulkhead_model::{ContainerId, VchId};

impl Store {
    /// Records how a container is doing. [`StoreError::Stale`] if it is no longer this epoch's to write.
    pub async fn set_health(
        &self,
        fence: Fence,
        vch: VchId,
        id: &ContainerId,
        health: &RunHealth,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let set = work!(|tx| {
            let done = sqlx::query(
                "update containers set health = $4::text::json
                 where id = $1 and server_id = $2 and epoch = $3 and vch_id = $5",
            )
            .bind(id.as_str())
            .bind(fence.server.0)
            .bind(fence.epoch)
            .bind(to_json(health)?)
            .bind(vch.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 { Err(why_not(tx, fence, vch, id).await?) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, set).await?.1)
    }
}
