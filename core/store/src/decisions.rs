//! Recorded decisions.

use crate::Store;
use crate::error::StoreError;
use crate::row::{Row, to_i64, to_json, to_micros};
use bulkhead_model::decision::{Decision, Verdict};
use bulkhead_model::{DecisionId, VchId};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;

impl Store {
    /// Writes a decision down; the same one again is no error.
    pub async fn insert_decision(&self, decision: &Decision) -> Result<(), StoreError> {
        self.read("insert decision", async {
            sqlx::query(
                "insert into decisions
                     (id, vch_id, at, action, caller, resource, verdict, reasons, policy_set, inputs, took_us,
                      plugins, placement)
                 values ($1, $2, $3, $4, $5, $6, $7, $8::text::json, $9, $10::text::json, $11, $12::text::json,
                         $13::text::json)
                 on conflict (id) do nothing",
            )
            .bind(decision.id.as_str())
            .bind(decision.vch.0)
            .bind(to_micros(decision.at))
            .bind(&decision.action)
            .bind(&decision.caller)
            .bind(&decision.resource)
            .bind(decision.verdict.as_str())
            .bind(to_json(&decision.reasons)?)
            .bind(&decision.policy_set)
            .bind(to_json(&decision.inputs)?)
            .bind(to_i64(decision.took_us)?)
            .bind(to_json(&decision.plugins)?)
            .bind(decision.placement.as_ref().map(to_json).transpose()?)
            .execute(&self.pool)
            .await?;
            Ok(())
        })
        .await
    }

    pub async fn decision(&self, id: &DecisionId) -> Result<Decision, StoreError> {
        self.read("decision", async {
            let row = sqlx::query("select * from decisions where id = $1")
                .bind(id.as_str())
                .fetch_optional(&self.pool)
                .await?
                .ok_or_else(|| StoreError::not_found("decision", id))?;
            decode(&row)
        })
        .await
    }

    /// The newest decisions of a VCH, newest first.
    pub async fn decisions(&self, vch: VchId, limit: i64) -> Result<Vec<Decision>, StoreError> {
        self.read("decisions", async {
            let rows =
                sqlx::query("select * from decisions where vch_id = $1 order by at desc, id desc limit $2")
                    .bind(vch.0)
                    .bind(limit)
                    .fetch_all(&self.pool)
                    .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// Forgets decisions from before `before`; says how many.
    pub async fn trim_decisions(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.read("trim decisions", async {
            let done =
                sqlx::query("delete from decisions where at < $1").bind(before).execute(&self.pool).await?;
            Ok(done.rows_affected())
        })
        .await
    }
}

fn decode(row: &PgRow) -> Result<Decision, StoreError> {
    let row = Row::new(row, "decisions", "id");
    let verdict = match row.get("verdict")? {
        "allow" => Verdict::Allow,
        "deny" => Verdict::Deny,
        other => return Err(row.corrupt("verdict", format!("unknown verdict `{other}`").into())),
    };
    Ok(Decision {
        id: row.parse("id")?,
        vch: row.vch("vch_id")?,
        at: row.get("at")?,
        action: row.get("action")?,
        caller: row.get("caller")?,
        resource: row.get("resource")?,
        verdict,
        reasons: row.json("reasons")?,
        policy_set: row.get("policy_set")?,
        inputs: row.json("inputs")?,
        plugins: row.json("plugins")?,
        placement: row.json_or_null("placement")?,
        took_us: row.unsigned("took_us")?,
    })
}
