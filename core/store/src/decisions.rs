//! Recorded decisions.

use crate::Store;
use crate::error::StoreError;
use crate::row::{Row, to_i64, to_json, to_micros};
use bulkhead_model::decision::{Decision, Verdict};
use bulkhead_model::{DecisionId, VchId};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;

/// Which decisions; what is not said does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DecisionFilter {
    pub vch: Option<VchId>,
    pub verdict: Option<Verdict>,
    pub action: Option<String>,
    pub caller: Option<String>,
    /// From this time on.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
    /// Those that come after this one where the newest are first: its time and id.
    pub after: Option<(DateTime<Utc>, DecisionId)>,
}

/// What it takes to decide again, as it is kept: reading thousands of inputs is somebody else's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedDecision {
    pub id: DecisionId,
    pub at: DateTime<Utc>,
    pub vch: VchId,
    pub action: String,
    pub caller: String,
    pub resource: String,
    pub verdict: Verdict,
    /// JSON of `Decision::reasons`.
    pub reasons: String,
    /// JSON of `Decision::inputs`.
    pub inputs: String,
}

const MATCHES: &str = "($1::uuid is null or vch_id = $1) and ($2::text is null or verdict = $2)
    and ($3::text is null or action = $3) and ($4::text is null or caller = $4)
    and ($5::timestamptz is null or at >= $5) and ($6::timestamptz is null or at < $6)
    and ($7::timestamptz is null or (at, id) < ($7, $8)) order by at desc, id desc limit $9";

impl Store {
    /// Those that match, newest first.
    pub async fn decisions_matching(
        &self,
        filter: &DecisionFilter,
        limit: u32,
    ) -> Result<Vec<Decision>, StoreError> {
        let query = format!("select * from decisions where {MATCHES}");
        self.read("decisions", async {
            self.matching(&query, filter, limit).await?.iter().map(decode).collect()
        })
        .await
    }

    /// As [`Store::decisions_matching`], of each only what it takes to decide again.
    pub async fn recorded_decisions(
        &self,
        filter: &DecisionFilter,
        limit: u32,
    ) -> Result<Vec<RecordedDecision>, StoreError> {
        let query = format!(
            "select id, at, vch_id, action, caller, resource, verdict, reasons::text as reasons,
                    inputs::text as inputs
             from decisions where {MATCHES}"
        );
        self.read("recorded decisions", async {
            self.matching(&query, filter, limit).await?.iter().map(decode_recorded).collect()
        })
        .await
    }

    async fn matching(
        &self,
        query: &str,
        filter: &DecisionFilter,
        limit: u32,
    ) -> Result<Vec<PgRow>, StoreError> {
        let (after, id) = match &filter.after {
            Some((at, id)) => (Some(to_micros(*at)), Some(id.as_str())),
            None => (None, None),
        };
        let rows = sqlx::query(sqlx::AssertSqlSafe(query.to_owned()))
            .bind(filter.vch.map(|vch| vch.0))
            .bind(filter.verdict.map(Verdict::as_str))
            .bind(filter.action.as_deref())
            .bind(filter.caller.as_deref())
            .bind(filter.since.map(to_micros))
            .bind(filter.until.map(to_micros))
            .bind(after)
            .bind(id)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows)
    }

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

fn verdict(row: &Row<'_>) -> Result<Verdict, StoreError> {
    match row.get("verdict")? {
        "allow" => Ok(Verdict::Allow),
        "deny" => Ok(Verdict::Deny),
        other => Err(row.corrupt("verdict", format!("unknown verdict `{other}`").into())),
    }
}

fn decode_recorded(row: &PgRow) -> Result<RecordedDecision, StoreError> {
    let row = Row::new(row, "decisions", "id");
    Ok(RecordedDecision {
        id: row.parse("id")?,
        at: row.get("at")?,
        vch: row.vch("vch_id")?,
        action: row.get("action")?,
        caller: row.get("caller")?,
        resource: row.get("resource")?,
        verdict: verdict(&row)?,
        reasons: row.get("reasons")?,
        inputs: row.get("inputs")?,
    })
}

fn decode(row: &PgRow) -> Result<Decision, StoreError> {
    let row = Row::new(row, "decisions", "id");
    let verdict = verdict(&row)?;
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
