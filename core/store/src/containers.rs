//! Containers: the desired state, which requests write, and the status, which the container's driver alone writes under its
//! fence.

mod columns;
mod health;
mod limits;
mod placed;

use crate::error::StoreError;
use crate::row::{parse_all, to_json};
use crate::servers::{self, Fence};
use crate::transaction::work;
use crate::{Record, Store, networks, vchs, volumes};
use bulkhead_model::event::Event;
use bulkhead_model::lifecycle::{Desired, Goal, Status};
use bulkhead_model::{Container, ContainerId, Digest, ServerId, VchId, Volume};
pub(crate) use limits::live;
pub use placed::Placed;

use columns::{decode, goal_name, insert, status_columns};
use limits::{check_count, check_name, memory_is_there, reserve};
use sqlx::PgConnection;

/// The channel on which a changed desired state is told, with the container's id: for drivers in other servers.
pub const CONTAINER_CHANNEL: &str = "bulkhead_container";

/// A container with its layers; to be followed by a condition.
macro_rules! select_container {
    ($rest:literal) => {
        concat!(
            "select containers.*,
                 array(select diff_id from container_layers
                       where container_id = containers.id order by position) as layers,
                 (select coalesce(json_agg(json_build_object(
                             'id', place.id, 'container', place.container_id, 'network', place.network_id,
                             'wish', place.wish, 'lease', place.lease)
                         order by coalesce((networks.spec->>'internal')::boolean, true),
                             -coalesce((place.wish->>'gateway_priority')::bigint, 0), networks.name), '[]')
                  from endpoints as place left join networks on networks.id = place.network_id
                  where place.container_id = containers.id) as endpoints,
                 (select coalesce(json_agg(json_build_object(
                             'container_port', container_port, 'protocol', protocol,
                             'host_address', host_address, 'host_port', host_port, 'inner_port', inner_port)
                         order by container_port, protocol, host_address, host_port), '[]')
                  from published_ports where container_id = containers.id) as published
             from containers ",
            $rest
        )
    };
}

impl Store {
    /// A new container, driven by `fence.server`, with volumes that are made with it. Checks, in one transaction: the VCH
    /// stays, names are free, its limits are not reached, image, layers and other volumes exist.
    pub async fn create_container(
        &self,
        container: &Container,
        new_volumes: &[Volume],
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
            volumes::insert(tx, &vch, new_volumes).await?;
            insert(tx, container, fence).await?;
            volumes::attach(tx, container).await?;
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

    /// How many containers a VCH has, and the bytes of memory of those that run or start.
    pub async fn container_usage(&self, vch: VchId) -> Result<(u64, u64), StoreError> {
        self.read("containers", async {
            let (count, bytes): (i64, i64) = sqlx::query_as(
                "select count(*),
                        coalesce(sum(memory_bytes) filter (where status_name in ('starting', 'running')), 0)::bigint
                 from containers where vch_id = $1",
            )
            .bind(vch.0)
            .fetch_one(&self.pool)
            .await?;
            Ok((count.unsigned_abs(), bytes.unsigned_abs()))
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

    /// Changes what is desired, provided it still is `expect`; else [`StoreError::Conflict`]. A wish for a new run
    /// reserves the container's volumes, and its memory within the VCH's limit; it is refused once the VCH is being
    /// deleted.
    pub async fn set_desired(
        &self,
        vch: VchId,
        id: &ContainerId,
        expect: &Desired,
        new: &Desired,
        record: &Record,
    ) -> Result<(Container, Vec<Event>), StoreError> {
        let set = work!(|tx| {
            if new.goal == Goal::Run && (expect.goal != Goal::Run || expect.run != new.run) {
                reserve(tx, vch, id).await?;
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

    /// Gives it another name, if that is free.
    pub async fn rename_container(
        &self,
        vch: VchId,
        id: &ContainerId,
        name: &str,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let rename = work!(|tx| {
            // As creations do: nobody takes the name between the look and the update.
            vchs::lock(tx, vch).await?;
            limits::check_name_free(tx, vch, name).await?;
            let done = sqlx::query("update containers set name = $3 where vch_id = $1 and id = $2")
                .bind(vch.0)
                .bind(id.as_str())
                .bind(name)
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::not_found("container", id));
            }
            notify(tx, id).await
        });
        Ok(self.write(Some(vch), record, rename).await?.1)
    }

    /// Changes what it is made of, provided nothing of that changed since `old` was read; else
    /// [`StoreError::Conflict`].
    pub async fn update_container(
        &self,
        old: &Container,
        new: &Container,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let (vch, id) = (old.vch, &old.id);
        let grows = new.spec.resources.memory_bytes > old.spec.resources.memory_bytes;
        let update = work!(|tx| {
            let locked = if grows { Some(vchs::lock(tx, vch).await?) } else { None };
            let row =
                sqlx::query(select_container!("where vch_id = $1 and id = $2 for update of containers"))
                    .bind(vch.0)
                    .bind(id.as_str())
                    .fetch_optional(&mut *tx)
                    .await?;
            let found = decode(&row.ok_or_else(|| StoreError::not_found("container", id))?)?;
            let same = found.desired == old.desired
                && found.spec == old.spec
                && found.ask == old.ask
                && found.client_view == old.client_view;
            if !same {
                return Err(StoreError::Conflict { kind: "container", id: id.to_string() });
            }
            columns::update(tx, new).await?;
            if let (Some(locked), Status::Starting { .. } | Status::Running { .. }) = (&locked, &found.status)
            {
                memory_is_there(tx, locked, vch, id).await?;
            }
            notify(tx, id).await
        });
        Ok(self.write(Some(vch), record, update).await?.1)
    }

    /// Writes events that come with no change of a row.
    pub async fn tell(&self, vch: VchId, record: &Record) -> Result<Vec<Event>, StoreError> {
        let nothing = work!(|tx| {
            let _ = tx;
            Ok(())
        });
        Ok(self.write(Some(vch), record, nothing).await?.1)
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
            if done.rows_affected() == 0 {
                return Err(why_not(tx, fence, vch, id).await?);
            }
            match new {
                Status::Exited { .. } => networks::give_back(tx, id).await,
                Status::Created | Status::Starting { .. } | Status::Running { .. } => Ok(()),
            }
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
    parse_all(&rows, "containers", "id")
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
