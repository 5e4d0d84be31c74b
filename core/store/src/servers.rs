//! Servers and their epochs.

use crate::error::StoreError;
use crate::transaction::work;
use crate::{Record, Store};
use bulkhead_model::ServerId;
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Who may write the status of a container: one start of one server. A later start makes it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    pub server: ServerId,
    pub epoch: i64,
}

impl Fence {
    pub(crate) fn stale(self) -> StoreError {
        StoreError::Stale { server: self.server, epoch: self.epoch }
    }
}

impl Store {
    /// Begins a new epoch of a server and takes its containers over into it: from now on, earlier starts of this server
    /// that may still run (stopped by a debugger, cut off) get [`StoreError::Stale`].
    pub async fn claim_server(
        &self,
        server: ServerId,
        name: &str,
        at: DateTime<Utc>,
    ) -> Result<Fence, StoreError> {
        let record = Record::at(at);
        let claim = work!(|tx| {
            let epoch: i64 = sqlx::query_scalar(
                "insert into servers (id, name, epoch, claimed_at) values ($1, $2, 1, $3)
                 on conflict (id) do update
                 set name = excluded.name, epoch = servers.epoch + 1, claimed_at = excluded.claimed_at
                 returning epoch",
            )
            .bind(server.0)
            .bind(name)
            .bind(at)
            .fetch_one(&mut *tx)
            .await?;
            sqlx::query("update containers set epoch = $2 where server_id = $1")
                .bind(server.0)
                .bind(epoch)
                .execute(&mut *tx)
                .await?;
            Ok(Fence { server, epoch })
        });
        Ok(self.write(None, &record, claim).await?.0)
    }

    /// Whether this start of the server is still the newest; [`StoreError::Stale`] if not. For what is done outside of
    /// the database, which no condition on a row can hold back.
    pub async fn check_fence(&self, fence: Fence) -> Result<(), StoreError> {
        let current: Option<i32> = self
            .read("fence", async {
                let query = sqlx::query_scalar("select 1 from servers where id = $1 and epoch = $2");
                query
                    .bind(fence.server.0)
                    .bind(fence.epoch)
                    .fetch_optional(&self.pool)
                    .await
                    .map_err(Into::into)
            })
            .await?;
        current.map(|_| ()).ok_or_else(|| fence.stale())
    }
}

/// Holds the epoch until the transaction ends; for rows that do not exist yet.
pub(crate) async fn hold(tx: &mut PgConnection, fence: Fence) -> Result<(), StoreError> {
    let current: Option<i32> =
        sqlx::query_scalar("select 1 from servers where id = $1 and epoch = $2 for share")
            .bind(fence.server.0)
            .bind(fence.epoch)
            .fetch_optional(tx)
            .await?;
    current.map(|_| ()).ok_or_else(|| fence.stale())
}
