//! Virtual container hosts.

use crate::error::StoreError;
use crate::row::{Row, to_json, to_micros};
use crate::transaction::work;
use crate::volumes::check_stores_kept;
use crate::{Record, Store, networks};
use bulkhead_model::event::Event;
use bulkhead_model::vch::VchName;
use bulkhead_model::{Network, Vch, VchId, VchSettings};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

impl Store {
    /// A new VCH. Its parent, where it has one, must exist and stay.
    pub async fn create_vch(&self, vch: &Vch, record: &Record) -> Result<Vec<Event>, StoreError> {
        let create = work!(|tx| {
            let above = match vch.parent {
                None => "/".to_owned(),
                Some(parent) => {
                    // Deletion of the parent waits for this, or is seen here.
                    let parent = lock(tx, parent).await?;
                    parent.check_stays()?;
                    parent.pool_path
                }
            };
            let holder: Option<uuid::Uuid> = sqlx::query_scalar("select id from vchs where name = $1")
                .bind(vch.name.as_str())
                .fetch_optional(&mut *tx)
                .await?;
            if let Some(holder) = holder {
                return Err(name_taken(vch, &holder));
            }
            sqlx::query(
                "insert into vchs (id, name, tenant, class, parent_id, pool_path, settings, created_at, deleting)
                 values ($1, $2, $3, $4, $5, $6, $7::text::json, $8, $9)",
            )
            .bind(vch.id.0)
            .bind(vch.name.as_str())
            .bind(&vch.tenant)
            .bind(vch.class.as_str())
            .bind(vch.parent.map(|parent| parent.0))
            .bind(format!("{above}{}/", vch.id))
            .bind(to_json(&vch.settings)?)
            .bind(to_micros(vch.created_at))
            .bind(vch.deleting)
            .execute(&mut *tx)
            .await?;
            sqlx::query("insert into vch_event_seq (vch_id) values ($1)")
                .bind(vch.id.0)
                .execute(&mut *tx)
                .await?;
            networks::insert_network(tx, &Network::default_of(vch.id, vch.created_at)).await
        });
        match self.write(Some(vch.id), record, create).await {
            Ok(((), events)) => Ok(events),
            // Somebody else took the name between the look and the insert.
            Err(error) if error.constraint() == Some("vchs_name_key") => {
                let holder = self.vch_by_name(&vch.name).await?;
                Err(name_taken(vch, &holder.id))
            }
            Err(error) => Err(error),
        }
    }

    /// All VCHs, by name.
    pub async fn vchs(&self) -> Result<Vec<Vch>, StoreError> {
        self.read("VCHs", async {
            let rows = sqlx::query("select * from vchs order by name").fetch_all(&self.pool).await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    pub async fn vch(&self, id: VchId) -> Result<Vch, StoreError> {
        self.read("VCH", async {
            let row =
                sqlx::query("select * from vchs where id = $1").bind(id.0).fetch_optional(&self.pool).await?;
            decode(&row.ok_or_else(|| StoreError::not_found("VCH", id))?)
        })
        .await
    }

    pub async fn vch_by_name(&self, name: &VchName) -> Result<Vch, StoreError> {
        self.read("VCH", async {
            let row = sqlx::query("select * from vchs where name = $1")
                .bind(name.as_str())
                .fetch_optional(&self.pool)
                .await?;
            decode(&row.ok_or_else(|| StoreError::not_found("VCH", name.as_str()))?)
        })
        .await
    }

    /// A VCH and all below it, topmost first.
    pub async fn vch_subtree(&self, id: VchId) -> Result<Vec<Vch>, StoreError> {
        self.read("VCHs", async {
            let rows = sqlx::query(
                "select vchs.* from vchs, (select pool_path from vchs where id = $1) as top
                 where starts_with(vchs.pool_path, top.pool_path)
                 order by vchs.pool_path",
            )
            .bind(id.0)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// `before`: what they were when the caller read them; if they are something else by now, nothing is changed. A
    /// volume store that has volumes must stay, in its folder.
    pub async fn update_settings(
        &self,
        id: VchId,
        before: &VchSettings,
        settings: &VchSettings,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let update = work!(|tx| {
            let vch = lock(tx, id).await?;
            vch.check_stays()?;
            if vch.settings != *before {
                return Err(StoreError::Conflict { kind: "VCH", id: vch.name });
            }
            check_stores_kept(tx, id, settings).await?;
            sqlx::query("update vchs set settings = $2::text::json where id = $1")
                .bind(id.0)
                .bind(to_json(settings)?)
                .execute(tx)
                .await?;
            Ok(())
        });
        Ok(self.write(Some(id), record, update).await?.1)
    }

    /// From now on nothing new comes into it. Refused while it has child VCHs. Repeating it is no error.
    pub async fn mark_vch_deleting(&self, id: VchId, record: &Record) -> Result<Vec<Event>, StoreError> {
        let mark = work!(|tx| {
            let vch = lock(tx, id).await?;
            let children = children(tx, id).await?;
            if children > 0 {
                return Err(not_empty(vch.name, (0, 0, 0), children));
            }
            sqlx::query("update vchs set deleting = true where id = $1").bind(id.0).execute(tx).await?;
            Ok(())
        });
        Ok(self.write(Some(id), record, mark).await?.1)
    }

    /// Forgets a VCH with its images and events. Refused while anything of it exists outside the database: containers, layer
    /// disks, child VCHs. The events of `record` are not kept, as there is no log left to keep them in; its audit entry is.
    pub async fn delete_vch(&self, id: VchId, record: &Record) -> Result<(), StoreError> {
        let delete = work!(|tx| {
            let vch = lock(tx, id).await?;
            let held: (i64, i64, i64) = sqlx::query_as(
                "select (select count(*) from containers where vch_id = $1),
                        (select count(*) from layers where vch_id = $1),
                        (select count(*) from volumes where vch_id = $1)",
            )
            .bind(id.0)
            .fetch_one(&mut *tx)
            .await?;
            let children = children(tx, id).await?;
            if held != (0, 0, 0) || children > 0 {
                return Err(not_empty(vch.name, held, children));
            }
            sqlx::query("delete from images where vch_id = $1").bind(id.0).execute(&mut *tx).await?;
            sqlx::query("delete from vchs where id = $1").bind(id.0).execute(&mut *tx).await?;
            if let Some(entry) = &record.audit {
                crate::audit::insert(tx, Some(id), record.at, entry).await?;
            }
            Ok(())
        });
        self.write(None, &Record::at(record.at), delete).await?;
        Ok(())
    }
}

/// What creation inside a VCH has to know, read under the lock that serialises it.
pub(crate) struct LockedVch {
    pub name: String,
    pub pool_path: String,
    pub settings: VchSettings,
    deleting: bool,
}

impl LockedVch {
    pub(crate) fn check_stays(&self) -> Result<(), StoreError> {
        if self.deleting { Err(StoreError::VchDeleting { name: self.name.clone() }) } else { Ok(()) }
    }
}

/// Locks the VCH's row until the transaction ends. Always taken before rows of containers and images, so that two
/// transactions cannot wait for each other. `no key`: rows that only refer to the VCH are not kept waiting.
pub(crate) async fn lock(tx: &mut PgConnection, id: VchId) -> Result<LockedVch, StoreError> {
    let row = sqlx::query("select * from vchs where id = $1 for no key update")
        .bind(id.0)
        .fetch_optional(tx)
        .await?;
    let row = row.ok_or_else(|| StoreError::not_found("VCH", id))?;
    let row = Row::new(&row, "vchs", "name");
    Ok(LockedVch {
        name: row.get("name")?,
        pool_path: row.get("pool_path")?,
        settings: row.json("settings")?,
        deleting: row.get("deleting")?,
    })
}

async fn children(tx: &mut PgConnection, id: VchId) -> Result<i64, StoreError> {
    let count =
        sqlx::query_scalar("select count(*) from vchs where parent_id = $1").bind(id.0).fetch_one(tx).await?;
    Ok(count)
}

/// `held`: containers, layers, volumes.
fn not_empty(name: String, held: (i64, i64, i64), children: i64) -> StoreError {
    let (containers, layers, volumes) = held;
    StoreError::VchNotEmpty { name, containers, layers, volumes, children }
}

fn name_taken(vch: &Vch, holder: &impl ToString) -> StoreError {
    StoreError::NameTaken { kind: "VCH", name: vch.name.as_str().to_owned(), holder: holder.to_string() }
}

fn decode(row: &PgRow) -> Result<Vch, StoreError> {
    let row = Row::new(row, "vchs", "name");
    let parent: Option<uuid::Uuid> = row.get("parent_id")?;
    Ok(Vch {
        id: row.vch("id")?,
        name: row.parse("name")?,
        tenant: row.get("tenant")?,
        class: row.parse("class")?,
        parent: parent.map(VchId),
        settings: row.json("settings")?,
        created_at: row.get("created_at")?,
        deleting: row.get("deleting")?,
    })
}
