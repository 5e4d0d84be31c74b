//! Installed plugins, and where they are bound.

use crate::error::StoreError;
use crate::row::{Row, to_i64, to_json, to_micros};
use crate::transaction::work;
use crate::{Record, Store};
use bulkhead_model::Digest;
use bulkhead_model::plugin::{Binding, Plugin, PluginName, Scope};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

const PLUGIN: &str = "select digest, manifest, octet_length(component)::bigint as bytes, installed_at, installed_by \
                      from plugins";
const BINDING: &str = "select bindings.*, plugins.name as plugin from bindings join plugins using (digest)";

impl Store {
    /// Keeps a component. One that is there already stays as it was installed; `false` then.
    pub async fn create_plugin(
        &self,
        plugin: &Plugin,
        component: &[u8],
        record: &Record,
    ) -> Result<bool, StoreError> {
        let create = work!(|tx| {
            let done = sqlx::query(
                "insert into plugins (digest, name, manifest, component, installed_at, installed_by)
                 values ($1, $2, $3::text::json, $4, $5, $6)
                 on conflict (digest) do nothing",
            )
            .bind(plugin.digest.as_str())
            .bind(plugin.manifest.name.as_str())
            .bind(to_json(&plugin.manifest)?)
            .bind(component)
            .bind(to_micros(plugin.installed_at))
            .bind(&plugin.installed_by)
            .execute(tx)
            .await?;
            Ok(done.rows_affected() == 1)
        });
        Ok(self.write(None, record, create).await?.0)
    }

    /// All of them, by name, the newest of each name first.
    pub async fn plugins(&self) -> Result<Vec<Plugin>, StoreError> {
        self.read("plugins", async {
            let all = format!("{PLUGIN} order by name, installed_at desc, digest");
            let rows = sqlx::query(sqlx::AssertSqlSafe(all)).fetch_all(&self.pool).await?;
            rows.iter().map(decode_plugin).collect()
        })
        .await
    }

    /// The component's bytes.
    pub async fn component(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        self.read("component", async {
            sqlx::query_scalar("select component from plugins where digest = $1")
                .bind(digest.as_str())
                .fetch_optional(&self.pool)
                .await?
                .ok_or_else(|| StoreError::not_found("plugin", digest))
        })
        .await
    }

    /// Removes a plugin that nothing binds; the names of bindings that do are in the error.
    pub async fn delete_plugin(&self, digest: &Digest, record: &Record) -> Result<(), StoreError> {
        let delete = work!(|tx| {
            // A binding that is made meanwhile waits for this, or is seen here.
            sqlx::query("select 1 from plugins where digest = $1 for update")
                .bind(digest.as_str())
                .fetch_optional(&mut *tx)
                .await?
                .ok_or_else(|| StoreError::not_found("plugin", digest))?;
            let users: Vec<String> =
                sqlx::query_scalar("select name from bindings where digest = $1 order by name")
                    .bind(digest.as_str())
                    .fetch_all(&mut *tx)
                    .await?;
            if !users.is_empty() {
                return Err(StoreError::Conflict { kind: "plugin", id: users.join(", ") });
            }
            sqlx::query("delete from plugins where digest = $1").bind(digest.as_str()).execute(tx).await?;
            Ok(())
        });
        self.write(None, record, delete).await?;
        Ok(())
    }

    /// All of them, in the order in which they are asked.
    pub async fn bindings(&self) -> Result<Vec<Binding>, StoreError> {
        self.read("bindings", async {
            let all = format!("{BINDING} order by position, bindings.name");
            let rows = sqlx::query(sqlx::AssertSqlSafe(all)).fetch_all(&self.pool).await?;
            rows.iter().map(decode_binding).collect()
        })
        .await
    }

    /// Makes a binding, or puts another in its place. `before`: the revision that the caller read, none where it is to be
    /// new; where it is something else by now, nothing is changed.
    pub async fn put_binding(
        &self,
        binding: &Binding,
        before: Option<u64>,
        record: &Record,
    ) -> Result<(), StoreError> {
        let put = work!(|tx| {
            let (class, vch) = match &binding.scope {
                Scope::Everywhere => (None, None),
                Scope::Class(class) => (Some(class.as_str()), None),
                Scope::Vch(id) => (None, Some(id.0)),
            };
            check_there(tx, binding).await?;
            let text = match before {
                None => {
                    "insert into bindings
                         (name, digest, class, vch_id, position, mode, on_failure, settings, revision, changed_at,
                          changed_by)
                     values ($1, $2, $3, $4, $5, $6, $7, $8::text::json, $9, $10, $11)
                     on conflict (name) do nothing"
                }
                Some(_) => {
                    "update bindings
                     set digest = $2, class = $3, vch_id = $4, position = $5, mode = $6, on_failure = $7,
                         settings = $8::text::json, revision = $9, changed_at = $10, changed_by = $11
                     where name = $1 and revision = $12"
                }
            };
            let mut query = sqlx::query(text)
                .bind(binding.name.as_str())
                .bind(binding.digest.as_str())
                .bind(class)
                .bind(vch)
                .bind(binding.position)
                .bind(binding.mode.as_str())
                .bind(binding.on_failure.as_str())
                .bind(to_json(&binding.settings)?)
                .bind(to_i64(binding.revision)?)
                .bind(to_micros(binding.changed_at))
                .bind(&binding.changed_by);
            if let Some(before) = before {
                query = query.bind(to_i64(before)?);
            }
            match query.execute(tx).await?.rows_affected() {
                0 => Err(StoreError::Conflict { kind: "binding", id: binding.name.to_string() }),
                _ => Ok(()),
            }
        });
        self.write(None, record, put).await?;
        Ok(())
    }

    pub async fn delete_binding(&self, name: &PluginName, record: &Record) -> Result<(), StoreError> {
        let delete = work!(|tx| {
            let done =
                sqlx::query("delete from bindings where name = $1").bind(name.as_str()).execute(tx).await?;
            match done.rows_affected() {
                0 => Err(StoreError::not_found("binding", name)),
                _ => Ok(()),
            }
        });
        self.write(None, record, delete).await?;
        Ok(())
    }
}

/// What it refers to stays until this is committed.
async fn check_there(tx: &mut PgConnection, binding: &Binding) -> Result<(), StoreError> {
    sqlx::query("select 1 from plugins where digest = $1 for share")
        .bind(binding.digest.as_str())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or_else(|| StoreError::not_found("plugin", &binding.digest))?;
    if let Scope::Vch(id) = &binding.scope {
        sqlx::query("select 1 from vchs where id = $1 for share")
            .bind(id.0)
            .fetch_optional(tx)
            .await?
            .ok_or_else(|| StoreError::not_found("VCH", id))?;
    }
    Ok(())
}

fn decode_plugin(row: &PgRow) -> Result<Plugin, StoreError> {
    let row = Row::new(row, "plugins", "digest");
    Ok(Plugin {
        digest: row.parse("digest")?,
        manifest: row.json("manifest")?,
        bytes: row.unsigned("bytes")?,
        installed_at: row.get("installed_at")?,
        installed_by: row.get("installed_by")?,
    })
}

fn decode_binding(row: &PgRow) -> Result<Binding, StoreError> {
    let row = Row::new(row, "bindings", "name");
    let class: Option<&str> = row.get("class")?;
    let vch: Option<uuid::Uuid> = row.get("vch_id")?;
    let scope = match (class, vch) {
        (Some(class), _) => {
            let class = class.parse();
            Scope::Class(class.map_err(|error| row.corrupt("class", Box::new(error)))?)
        }
        (None, Some(id)) => Scope::Vch(bulkhead_model::VchId(id)),
        (None, None) => Scope::Everywhere,
    };
    Ok(Binding {
        name: row.parse("name")?,
        plugin: row.parse("plugin")?,
        digest: row.parse("digest")?,
        scope,
        position: row.get("position")?,
        mode: row.parse("mode")?,
        on_failure: row.parse("on_failure")?,
        settings: row.json("settings")?,
        revision: row.unsigned("revision")?,
        changed_at: row.get("changed_at")?,
        changed_by: row.get("changed_by")?,
    })
}
