//! Containers: the desired state, which requests write, and the status, which the container's driver alone writes under its
//! fence.

use crate::error::StoreError;
use crate::row::{Row, to_i64, to_json, to_micros};
use crate::servers::{self, Fence};
use crate::transaction::work;
use crate::{Record, Store, vchs};
use bulkhead_model::event::Event;
use bulkhead_model::lifecycle::{Desired, Goal, Status};
use bulkhead_model::{Container, ContainerId, Digest, ServerId, VchId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

/// The channel on which a changed desired state is told, with the container's id: for drivers in other servers.
pub const CONTAINER_CHANNEL: &str = "bulkhead_container";

/// A container with its layers; to be followed by a condition.
macro_rules! select_container {
    ($rest:literal) => {
        concat!(
            "select containers.*, array(select diff_id from container_layers
                                        where container_id = containers.id order by position) as layers
             from containers ",
            $rest
        )
    };
}

/// The containers whose machines take memory: those that run, start, or were asked to and have not begun.
macro_rules! live {
    () => {
        "(status_name in ('starting', 'running')
          or goal = 'run' and (status_name = 'created' or status_name = 'exited' and status_run < desired_run))"
    };
}

impl Store {
    /// A new container, driven by `fence.server`. Checks, in one transaction: the VCH stays, the name is free, its limit of
    /// containers is not reached, image and layers exist.
    pub async fn create_container(
        &self,
        container: &Container,
        fence: Fence,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let create = work!(|tx| {
            // One creation at a time in a VCH: counting would be wrong otherwise.
            let vch = vchs::lock(tx, container.vch).await?;
            vch.check_stays()?;
            servers::hold(tx, fence).await?;
            check_name(tx, container).await?;
            check_count(tx, container.vch, vch.settings.containers_max).await?;
            insert(tx, container, fence).await?;
            notify(tx, &container.id).await
        });
        let outcome = self.write(Some(container.vch), record, create).await;
        outcome.map(|((), events)| events).map_err(|error| match error.constraint() {
            Some("containers_image_fkey") => StoreError::not_found("image", &container.image),
            Some("container_layers_layer_fkey") => {
                StoreError::not_found("layer", format!("of {}", container.image))
            }
            _ => error,
        })
    }

    pub async fn container(&self, vch: VchId, id: &ContainerId) -> Result<Container, StoreError> {
        self.read("container", async {
            let row = sqlx::query(select_container!("where vch_id = $1 and id = $2"))
                .bind(vch.0)
                .bind(id.as_str())
                .fetch_optional(&self.pool)
                .await?;
            decode(&row.ok_or_else(|| StoreError::not_found("container", id))?)
        })
        .await
    }

    /// The containers of a VCH, newest first.
    pub async fn containers(&self, vch: VchId) -> Result<Vec<Container>, StoreError> {
        self.read("containers", async {
            let rows = sqlx::query(select_container!("where vch_id = $1 order by created_at desc, id"))
                .bind(vch.0)
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    /// The containers that a server drives, in all VCHs: what it adopts at start.
    pub async fn containers_of_server(&self, server: ServerId) -> Result<Vec<Container>, StoreError> {
        self.read("containers", async {
            let rows = sqlx::query(select_container!("where server_id = $1 order by created_at, id"))
                .bind(server.0)
                .fetch_all(&self.pool)
                .await?;
            rows.iter().map(decode).collect()
        })
        .await
    }

    pub async fn containers_using_image(
        &self,
        vch: VchId,
        image: &Digest,
    ) -> Result<Vec<ContainerId>, StoreError> {
        self.read("containers of an image", async {
            let mut connection = self.pool.acquire().await?;
            using_image(&mut connection, vch, image).await
        })
        .await
    }

    /// By full id, else by exact name, else by the beginning of an id that fits only one.
    pub async fn find_container(&self, vch: VchId, text: &str) -> Result<Container, StoreError> {
        self.read("container", async {
            let exact = sqlx::query(select_container!(
                "where vch_id = $1 and (id = $2 or name = $2) order by id = $2 desc limit 1"
            ))
            .bind(vch.0)
            .bind(text)
            .fetch_optional(&self.pool)
            .await?;
            if let Some(row) = exact {
                return decode(&row);
            }
            if !is_hex(text) {
                return Err(StoreError::not_found("container", text));
            }
            // The range of all that begins with it; `g` comes after every hex digit.
            let rows =
                sqlx::query(select_container!("where vch_id = $1 and id >= $2 and id < $2 || 'g' limit 2"))
                    .bind(vch.0)
                    .bind(text)
                    .fetch_all(&self.pool)
                    .await?;
            match rows.as_slice() {
                [] => Err(StoreError::not_found("container", text)),
                [row] => decode(row),
                _ => Err(StoreError::Ambiguous { kind: "container", text: text.into() }),
            }
        })
        .await
    }

    /// Changes what is desired, provided it still is `expect`; else [`StoreError::Conflict`]. A wish to run reserves the
    /// container's memory within the VCH's limit, and is refused once the VCH is being deleted.
    pub async fn set_desired(
        &self,
        vch: VchId,
        id: &ContainerId,
        expect: &Desired,
        new: &Desired,
        record: &Record,
    ) -> Result<(Container, Vec<Event>), StoreError> {
        let set = work!(|tx| {
            if new.goal == Goal::Run {
                reserve_memory(tx, vch, id).await?;
            }
            let row =
                sqlx::query(select_container!("where vch_id = $1 and id = $2 for update of containers"))
                    .bind(vch.0)
                    .bind(id.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
            let mut container = decode(&row.ok_or_else(|| StoreError::not_found("container", id))?)?;
            if container.desired != *expect {
                return Err(StoreError::Conflict { kind: "container", id: id.to_string() });
            }
            sqlx::query(
                "update containers set goal = $2, desired_run = $3, desired = $4::text::json where id = $1",
            )
            .bind(id.as_str())
            .bind(goal_name(&new.goal))
            .bind(i64::from(new.run))
            .bind(to_json(new)?)
            .execute(&mut *tx)
            .await?;
            notify(tx, id).await?;
            container.desired = new.clone();
            Ok(container)
        });
        self.write(Some(vch), record, set).await
    }

    /// Records what is. `desired` goes with it where an end also changes the wish, as removal at exit does.
    /// [`StoreError::Stale`] if the container is no longer this epoch's to write.
    pub async fn set_status(
        &self,
        fence: Fence,
        vch: VchId,
        id: &ContainerId,
        new: &Status,
        desired: Option<&Desired>,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let set = work!(|tx| {
            let (name, run) = status_columns(new);
            let done = sqlx::query(
                "update containers
                 set status_name = $4, status_run = $5, status = $6::text::json,
                     goal = coalesce($7, goal), desired_run = coalesce($8, desired_run),
                     desired = coalesce($9::text::json, desired)
                 where id = $1 and server_id = $2 and epoch = $3 and vch_id = $10",
            )
            .bind(id.as_str())
            .bind(fence.server.0)
            .bind(fence.epoch)
            .bind(name)
            .bind(i64::from(run))
            .bind(to_json(new)?)
            .bind(desired.map(|desired| goal_name(&desired.goal)))
            .bind(desired.map(|desired| i64::from(desired.run)))
            .bind(desired.map(to_json).transpose()?)
            .bind(vch.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 { Err(why_not(tx, fence, vch, id).await?) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, set).await?.1)
    }

    /// Deletes the row of a container that is gone; its name is free from then on.
    pub async fn forget_container(
        &self,
        fence: Fence,
        vch: VchId,
        id: &ContainerId,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let forget = work!(|tx| {
            let done = sqlx::query(
                "delete from containers where id = $1 and server_id = $2 and epoch = $3 and vch_id = $4",
            )
            .bind(id.as_str())
            .bind(fence.server.0)
            .bind(fence.epoch)
            .bind(vch.0)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 { Err(why_not(tx, fence, vch, id).await?) } else { Ok(()) }
        });
        Ok(self.write(Some(vch), record, forget).await?.1)
    }
}

async fn check_name(tx: &mut PgConnection, container: &Container) -> Result<(), StoreError> {
    let holder: Option<String> =
        sqlx::query_scalar("select id from containers where vch_id = $1 and name = $2")
            .bind(container.vch.0)
            .bind(&container.name)
            .fetch_optional(tx)
            .await?;
    match holder {
        None => Ok(()),
        Some(holder) => {
            Err(StoreError::NameTaken { kind: "container", name: container.name.clone(), holder })
        }
    }
}

async fn check_count(tx: &mut PgConnection, vch: VchId, limit: u32) -> Result<(), StoreError> {
    let used: i64 = sqlx::query_scalar("select count(*) from containers where vch_id = $1")
        .bind(vch.0)
        .fetch_one(tx)
        .await?;
    let (used, limit) = (used.unsigned_abs(), u64::from(limit));
    if used < limit {
        return Ok(());
    }
    Err(StoreError::Limit { name: "containers_max", unit: "containers", limit, used, requested: 1 })
}

/// Checks the VCH's memory limit as if the container ran already. The VCH stays locked, so that the next start counts it.
async fn reserve_memory(tx: &mut PgConnection, vch: VchId, id: &ContainerId) -> Result<(), StoreError> {
    let locked = vchs::lock(tx, vch).await?;
    locked.check_stays()?;
    let Some(limit) = locked.settings.memory_bytes_max else { return Ok(()) };
    let (requested, used): (i64, i64) = sqlx::query_as(concat!(
        "select coalesce(sum(memory_bytes) filter (where id = $2), 0)::bigint,
                coalesce(sum(memory_bytes) filter (where id <> $2), 0)::bigint
         from containers where vch_id = $1 and (id = $2 or ",
        live!(),
        ")"
    ))
    .bind(vch.0)
    .bind(id.as_str())
    .fetch_one(tx)
    .await?;
    let (requested, used) = (requested.unsigned_abs(), used.unsigned_abs());
    if used.saturating_add(requested) <= limit {
        return Ok(());
    }
    Err(StoreError::Limit { name: "memory_bytes_max", unit: "bytes", limit, used, requested })
}

async fn insert(tx: &mut PgConnection, container: &Container, fence: Fence) -> Result<(), StoreError> {
    let (status, status_run) = status_columns(&container.status);
    sqlx::query(
        "insert into containers
             (id, vch_id, name, server_id, epoch, image_id, image_name, owner, created_at, ask, spec, client_view,
              memory_bytes, goal, desired_run, desired, status_name, status_run, status)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::json, $11::text::json, $12::text::json,
                 $13, $14, $15, $16::text::json, $17, $18, $19::text::json)",
    )
    .bind(container.id.as_str())
    .bind(container.vch.0)
    .bind(&container.name)
    .bind(fence.server.0)
    .bind(fence.epoch)
    .bind(container.image.as_str())
    .bind(&container.image_name)
    .bind(&container.owner)
    .bind(to_micros(container.created_at))
    .bind(to_json(&container.ask)?)
    .bind(to_json(&container.spec)?)
    .bind(to_json(&container.client_view)?)
    .bind(to_i64(container.spec.resources.memory_bytes)?)
    .bind(goal_name(&container.desired.goal))
    .bind(i64::from(container.desired.run))
    .bind(to_json(&container.desired)?)
    .bind(status)
    .bind(i64::from(status_run))
    .bind(to_json(&container.status)?)
    .execute(&mut *tx)
    .await?;
    let layers: Vec<&str> = container.layers.iter().map(Digest::as_str).collect();
    sqlx::query(
        "insert into container_layers (vch_id, container_id, position, diff_id)
         select $1, $2, position - 1, diff_id from unnest($3::text[]) with ordinality as layer (diff_id, position)",
    )
    .bind(container.vch.0)
    .bind(container.id.as_str())
    .bind(layers)
    .execute(tx)
    .await?;
    Ok(())
}

async fn notify(tx: &mut PgConnection, id: &ContainerId) -> Result<(), StoreError> {
    sqlx::query("select pg_notify($1, $2)").bind(CONTAINER_CHANNEL).bind(id.as_str()).execute(tx).await?;
    Ok(())
}

pub(crate) async fn using_image(
    tx: &mut PgConnection,
    vch: VchId,
    image: &Digest,
) -> Result<Vec<ContainerId>, StoreError> {
    let rows =
        sqlx::query("select id from containers where vch_id = $1 and image_id = $2 order by created_at, id")
            .bind(vch.0)
            .bind(image.as_str())
            .fetch_all(tx)
            .await?;
    rows.iter().map(|row| Row::new(row, "containers", "id").parse("id")).collect()
}

/// A fenced write met no row: either there is none, or it is another's.
async fn why_not(
    tx: &mut PgConnection,
    fence: Fence,
    vch: VchId,
    id: &ContainerId,
) -> Result<StoreError, StoreError> {
    let there: bool =
        sqlx::query_scalar("select exists (select from containers where id = $1 and vch_id = $2)")
            .bind(id.as_str())
            .bind(vch.0)
            .fetch_one(tx)
            .await?;
    Ok(if there { fence.stale() } else { StoreError::not_found("container", id) })
}

fn is_hex(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn goal_name(goal: &Goal) -> &'static str {
    match goal {
        Goal::Rest => "rest",
        Goal::Run => "run",
        Goal::Stop { .. } => "stop",
        Goal::Gone => "gone",
    }
}

fn status_columns(status: &Status) -> (&'static str, u32) {
    match status {
        Status::Created => ("created", 0),
        Status::Starting { run } => ("starting", *run),
        Status::Running { run, .. } => ("running", *run),
        Status::Exited { run, .. } => ("exited", *run),
    }
}

fn decode(row: &PgRow) -> Result<Container, StoreError> {
    let row = Row::new(row, "containers", "id");
    let layers: Vec<String> = row.get("layers")?;
    let layers =
        layers.iter().map(|layer| layer.parse().map_err(|error| row.corrupt("layers", Box::new(error))));
    let layers = layers.collect::<Result<Vec<Digest>, StoreError>>()?;
    Ok(Container {
        id: row.parse("id")?,
        vch: row.vch("vch_id")?,
        name: row.get("name")?,
        ask: row.json("ask")?,
        spec: row.json("spec")?,
        image: row.parse("image_id")?,
        layers,
        image_name: row.get("image_name")?,
        client_view: row.json("client_view")?,
        owner: row.get("owner")?,
        created_at: row.get("created_at")?,
        desired: row.json("desired")?,
        status: row.json("status")?,
    })
}
