//! Versions of the policies, and drafts of them.

use crate::error::StoreError;
use crate::row::{Row, to_i64, to_json, to_micros};
use crate::transaction::work;
use crate::{Record, Store};
use bulkhead_model::{Digest, DraftName, PolicyDraft, PolicyOrigin, PolicyRevision};
use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;

/// Revisions that are kept however old they are.
const REVISIONS_KEPT: i64 = 100;

impl Store {
    /// Writes a revision down. Its number must be the one after the newest, else nothing is changed.
    pub async fn insert_policy_revision(
        &self,
        revision: &PolicyRevision,
        record: &Record,
    ) -> Result<(), StoreError> {
        let insert = work!(|tx| {
            let done = sqlx::query(
                "insert into policy_revisions
                     (number, digest, schema, files, origin, is_folder, at, by_caller, comment)
                 select $1, $2, $3, $4::text::json, $5::text::json, $6, $7, $8, $9
                 where $1 = (select coalesce(max(number), 0) + 1 from policy_revisions)
                 on conflict (number) do nothing",
            )
            .bind(to_i64(revision.number)?)
            .bind(revision.digest.as_str())
            .bind(&revision.schema)
            .bind(to_json(&revision.files)?)
            .bind(to_json(&revision.origin)?)
            .bind(revision.origin == PolicyOrigin::Folder)
            .bind(to_micros(revision.at))
            .bind(&revision.by)
            .bind(&revision.comment)
            .execute(tx)
            .await?;
            match done.rows_affected() {
                1 => Ok(()),
                _ => Err(StoreError::Conflict { kind: "policy revision", id: revision.number.to_string() }),
            }
        });
        self.write(None, record, insert).await?;
        Ok(())
    }

    /// The one in force; none before the first.
    pub async fn newest_policy_revision(&self) -> Result<Option<PolicyRevision>, StoreError> {
        self.one_revision("select * from policy_revisions order by number desc limit 1").await
    }

    /// The newest that came from the folder.
    pub async fn newest_folder_revision(&self) -> Result<Option<PolicyRevision>, StoreError> {
        self.one_revision("select * from policy_revisions where is_folder order by number desc limit 1").await
    }

    async fn one_revision(&self, query: &'static str) -> Result<Option<PolicyRevision>, StoreError> {
        self.read("policy revision", async {
            let row = sqlx::query(query).fetch_optional(&self.pool).await?;
            row.as_ref().map(decode_revision).transpose()
        })
        .await
    }

    pub async fn policy_revision(&self, number: u64) -> Result<PolicyRevision, StoreError> {
        self.read("policy revision", async {
            let row = sqlx::query("select * from policy_revisions where number = $1")
                .bind(to_i64(number)?)
                .fetch_optional(&self.pool)
                .await?
                .ok_or_else(|| StoreError::not_found("policy revision", number))?;
            decode_revision(&row)
        })
        .await
    }

    /// The newest whose policies have this digest.
    pub async fn policy_revision_of(&self, digest: &Digest) -> Result<PolicyRevision, StoreError> {
        self.read("policy revision", async {
            let row =
                sqlx::query("select * from policy_revisions where digest = $1 order by number desc limit 1")
                    .bind(digest.as_str())
                    .fetch_optional(&self.pool)
                    .await?
                    .ok_or_else(|| StoreError::not_found("policy revision", digest))?;
            decode_revision(&row)
        })
        .await
    }

    /// The newest ones before number `before`, newest first, without their files and schemas.
    pub async fn policy_revisions(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<PolicyRevision>, StoreError> {
        self.read("policy revisions", async {
            let before = before.map(to_i64).transpose()?;
            let rows = sqlx::query(
                "select number, digest, '' as schema, '{}'::json as files, origin, at, by_caller, comment
                 from policy_revisions where $1::bigint is null or number < $1
                 order by number desc limit $2",
            )
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(decode_revision).collect()
        })
        .await
    }

    /// Forgets revisions that were not in force since `before`, apart from the newest hundred, those that decisions name
    /// and the folder's newest; says how many.
    pub async fn trim_policy_revisions(&self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        self.read("trim policy revisions", async {
            let done = sqlx::query(
                "delete from policy_revisions as old
                 where number <= (select max(number) from policy_revisions) - $2
                   and exists (select 1 from policy_revisions as next
                               where next.number = old.number + 1 and next.at < $1)
                   and number <> (select coalesce(max(number), 0) from policy_revisions where is_folder)
                   and not exists (select 1 from decisions where policy_set = old.digest)",
            )
            .bind(before)
            .bind(REVISIONS_KEPT)
            .execute(&self.pool)
            .await?;
            Ok(done.rows_affected())
        })
        .await
    }

    /// By name.
    pub async fn policy_drafts(&self) -> Result<Vec<PolicyDraft>, StoreError> {
        self.read("policy drafts", async {
            let rows = sqlx::query("select * from policy_drafts order by name").fetch_all(&self.pool).await?;
            rows.iter().map(decode_draft).collect()
        })
        .await
    }

    pub async fn policy_draft(&self, name: &DraftName) -> Result<PolicyDraft, StoreError> {
        self.read("policy draft", async {
            let row = sqlx::query("select * from policy_drafts where name = $1")
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await?
                .ok_or_else(|| StoreError::not_found("draft", name))?;
            decode_draft(&row)
        })
        .await
    }

    /// Makes a draft, or puts another in its place. Its revision is the one after what the caller read; where it is
    /// something else by now, nothing is changed.
    pub async fn put_policy_draft(&self, draft: &PolicyDraft, record: &Record) -> Result<(), StoreError> {
        let put = work!(|tx| {
            let text = if draft.revision == 1 {
                "insert into policy_drafts (name, revision, base, files, changed_at, changed_by)
                 values ($1, $2, $3, $4::text::json, $5, $6) on conflict (name) do nothing"
            } else {
                "update policy_drafts set revision = $2, base = $3, files = $4::text::json, changed_at = $5,
                        changed_by = $6
                 where name = $1 and revision = $2 - 1"
            };
            let done = sqlx::query(text)
                .bind(draft.name.as_str())
                .bind(to_i64(draft.revision)?)
                .bind(to_i64(draft.base)?)
                .bind(to_json(&draft.files)?)
                .bind(to_micros(draft.changed_at))
                .bind(&draft.changed_by)
                .execute(tx)
                .await?;
            match done.rows_affected() {
                1 => Ok(()),
                _ => Err(StoreError::Conflict { kind: "draft", id: draft.name.to_string() }),
            }
        });
        self.write(None, record, put).await?;
        Ok(())
    }

    pub async fn delete_policy_draft(&self, name: &DraftName, record: &Record) -> Result<(), StoreError> {
        let delete = work!(|tx| {
            let done = sqlx::query("delete from policy_drafts where name = $1")
                .bind(name.as_str())
                .execute(tx)
                .await?;
            match done.rows_affected() {
                0 => Err(StoreError::not_found("draft", name)),
                _ => Ok(()),
            }
        });
        self.write(None, record, delete).await?;
        Ok(())
    }
}

fn decode_revision(row: &PgRow) -> Result<PolicyRevision, StoreError> {
    let row = Row::new(row, "policy_revisions", "digest");
    Ok(PolicyRevision {
        number: row.unsigned("number")?,
        digest: row.parse("digest")?,
        schema: row.get("schema")?,
        files: row.json("files")?,
        origin: row.json("origin")?,
        at: row.get("at")?,
        by: row.get("by_caller")?,
        comment: row.get("comment")?,
    })
}

fn decode_draft(row: &PgRow) -> Result<PolicyDraft, StoreError> {
    let row = Row::new(row, "policy_drafts", "name");
    Ok(PolicyDraft {
        name: row.parse("name")?,
        revision: row.unsigned("revision")?,
        base: row.unsigned("base")?,
        files: row.json("files")?,
        changed_at: row.get("changed_at")?,
        changed_by: row.get("changed_by")?,
    })
}
