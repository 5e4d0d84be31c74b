//! The audit trail: one row for each call that changed something, or was refused to.

use crate::error::StoreError;
use crate::row::{Row, to_micros};
use crate::transaction::work;
use crate::{Record, Store};
use bulkhead_model::{DecisionId, VchId};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;

/// Who did what to which object, with what outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// `Caller::name`.
    pub caller: String,
    /// `Action::name`.
    pub action: String,
    /// As the policies saw it: `Container::"…"`.
    pub resource: String,
    pub decision: Option<DecisionId>,
    /// `done`, `refused`, or a short reason.
    pub outcome: String,
}

/// An entry as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Grows with each entry; may skip numbers.
    pub id: i64,
    pub at: DateTime<Utc>,
    pub vch: Option<VchId>,
    pub entry: AuditEntry,
}

impl Store {
    /// An entry without a change beside it: a call that was refused, or that changes nothing in the database.
    pub async fn insert_audit(
        &self,
        vch: Option<VchId>,
        at: DateTime<Utc>,
        entry: &AuditEntry,
    ) -> Result<(), StoreError> {
        // Not as the record of a write: that would look for the VCH's event counter, and the VCH may be unknown.
        let record = Record::at(at);
        self.write(None, &record, work!(|tx| { insert(tx, vch, at, entry).await })).await?;
        Ok(())
    }

    /// The newest entries of a VCH (of none: of the whole server), newest first.
    pub async fn audit(&self, vch: Option<VchId>, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        self.read("audit", async {
            let rows = sqlx::query(
                "select * from audit where ($1::uuid is null or vch_id = $1) order by id desc limit $2",
            )
            .bind(vch.map(|vch| vch.0))
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// Forgets entries from before `before`; says how many.
    pub async fn trim_audit(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.read("trim audit", async {
            let done =
                sqlx::query("delete from audit where at < $1").bind(before).execute(&self.pool).await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

fn decode(row: &sqlx::postgres::PgRow) -> Result<AuditRow, StoreError> {
    let row = Row::new(row, "audit", "resource");
    let decision: Option<String> = row.get("decision_id")?;
    let decision = match decision {
        Some(_) => Some(row.parse("decision_id")?),
        None => None,
    };
    let vch: Option<uuid::Uuid> = row.get("vch_id")?;
    Ok(AuditRow {
        id: row.get("id")?,
        at: row.get("at")?,
        vch: vch.map(VchId),
        entry: AuditEntry {
            caller: row.get("caller")?,
            action: row.get("action")?,
            resource: row.get("resource")?,
            decision,
            outcome: row.get("outcome")?,
        },
    })
}

pub(crate) async fn insert(
    tx: &mut PgConnection,
    vch: Option<VchId>,
    at: DateTime<Utc>,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into audit (at, vch_id, caller, action, resource, decision_id, outcome)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(to_micros(at))
    .bind(vch.map(|vch| vch.0))
    .bind(&entry.caller)
    .bind(&entry.action)
    .bind(&entry.resource)
    .bind(entry.decision.as_ref().map(DecisionId::as_str))
    .bind(&entry.outcome)
    .execute(tx)
    .await?;
    Ok(())
}
