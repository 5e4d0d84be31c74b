//! The event log of each VCH: numbered without gaps, in the order in which changes became visible.

use crate::error::StoreError;
use crate::row::{Row, to_json, to_micros};
use crate::{Record, Store};
use bulkhead_model::VchId;
use bulkhead_model::event::{Event, EventKind};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

impl Store {
    /// Events after number `since`, oldest first.
    pub async fn events(&self, vch: VchId, since: i64, limit: i64) -> Result<Vec<Event>, StoreError> {
        self.read("events", async {
            let rows =
                sqlx::query("select * from events where vch_id = $1 and seq > $2 order by seq limit $3")
                    .bind(vch.0)
                    .bind(since)
                    .bind(limit)
                    .fetch_all(&self.pool)
                    .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// Events of a time, both ends included, oldest first.
    pub async fn events_between(
        &self,
        vch: VchId,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        limit: i64,
    ) -> Result<Vec<Event>, StoreError> {
        self.read("events", async {
            let rows = sqlx::query(
                "select * from events where vch_id = $1 and at >= $2 and at <= $3 order by seq limit $4",
            )
            .bind(vch.0)
            .bind(from)
            .bind(until)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// The number of the newest event; 0 before the first.
    pub async fn last_event_seq(&self, vch: VchId) -> Result<i64, StoreError> {
        self.read("last event", async {
            sqlx::query_scalar("select last_seq from vch_event_seq where vch_id = $1")
                .bind(vch.0)
                .fetch_optional(&self.pool)
                .await?
                .ok_or_else(|| StoreError::not_found("VCH", vch))
        })
        .await
    }

    /// Forgets all but the newest `keep` events; says how many.
    pub async fn trim_events(&self, vch: VchId, keep: i64) -> Result<u64, StoreError> {
        self.read("trim events", async {
            let done = sqlx::query(
                "delete from events
                 where vch_id = $1 and seq <= (select last_seq from vch_event_seq where vch_id = $1) - $2",
            )
            .bind(vch.0)
            .bind(keep.max(0))
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

/// Numbers the events of a record and writes them. Must be the last thing a transaction does.
pub(crate) async fn append(
    tx: &mut PgConnection,
    vch: VchId,
    record: &Record,
) -> Result<Vec<Event>, StoreError> {
    let count = i64::try_from(record.events.len()).map_err(|error| StoreError::Refused(error.into()))?;
    if count == 0 {
        return Ok(Vec::new());
    }
    let taken: Option<(i64, DateTime<Utc>)> = sqlx::query_as(
        "update vch_event_seq set last_seq = last_seq + $2, last_at = greatest(last_at, $3)
         where vch_id = $1 returning last_seq, last_at",
    )
    .bind(vch.0)
    .bind(count)
    .bind(to_micros(record.at))
    .fetch_optional(&mut *tx)
    .await?;
    let (last, at) = taken.ok_or_else(|| StoreError::not_found("VCH", vch))?;
    let numbered = (last - count + 1..).zip(&record.events).map(|(seq, new)| Event {
        vch,
        seq,
        at,
        kind: new.kind,
        action: new.action.clone(),
        actor: new.actor.clone(),
        attributes: new.attributes.clone(),
    });
    let events: Vec<Event> = numbered.collect();
    for event in &events {
        sqlx::query(
            "insert into events (vch_id, seq, at, kind, action, actor, attributes)
             values ($1, $2, $3, $4, $5, $6, $7::text::json)",
        )
        .bind(vch.0)
        .bind(event.seq)
        .bind(event.at)
        .bind(event.kind.as_str())
        .bind(&event.action)
        .bind(&event.actor)
        .bind(to_json(&event.attributes)?)
        .execute(&mut *tx)
        .await?;
    }
    Ok(events)
}

fn decode(row: &PgRow) -> Result<Event, StoreError> {
    let row = Row::new(row, "events", "actor");
    let kind: &str = row.get("kind")?;
    let kind =
        EventKind::parse(kind).ok_or_else(|| row.corrupt("kind", format!("unknown kind `{kind}`").into()))?;
    Ok(Event {
        vch: row.vch("vch_id")?,
        seq: row.get("seq")?,
        at: row.get("at")?,
        kind,
        action: row.get("action")?,
        actor: row.get("actor")?,
        attributes: row.json("attributes")?,
    })
}
