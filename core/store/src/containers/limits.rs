//! What a VCH allows: names once, so many containers, so much memory, a volume in one machine.

use crate::error::StoreError;
use crate::vchs::{self, LockedVch};
use crate::volumes;
use bulkhead_model::{Container, ContainerId, VchId};
use sqlx::PgConnection;

/// The containers whose machines take memory: those that run, start, or were asked to and have not begun.
macro_rules! live {
    () => {
        "(status_name in ('starting', 'running')
          or goal = 'run' and (status_name = 'created' or status_name = 'exited' and status_run < desired_run))"
    };
}
pub(crate) use live;

pub(super) async fn check_name(tx: &mut PgConnection, container: &Container) -> Result<(), StoreError> {
    check_name_free(tx, container.vch, &container.name).await
}

pub(super) async fn check_name_free(tx: &mut PgConnection, vch: VchId, name: &str) -> Result<(), StoreError> {
    let holder: Option<String> =
        sqlx::query_scalar("select id from containers where vch_id = $1 and name = $2")
            .bind(vch.0)
            .bind(name)
            .fetch_optional(tx)
            .await?;
    match holder {
        None => Ok(()),
        Some(holder) => Err(StoreError::NameTaken { kind: "container", name: name.into(), holder }),
    }
}

pub(super) async fn check_count(tx: &mut PgConnection, vch: VchId, limit: u32) -> Result<(), StoreError> {
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

/// Checks, as if the container ran already, that its volumes are free and the VCH's memory limit holds. The VCH stays
/// locked, so that the next start counts it.
pub(super) async fn reserve(tx: &mut PgConnection, vch: VchId, id: &ContainerId) -> Result<(), StoreError> {
    let locked = vchs::lock(tx, vch).await?;
    locked.check_stays()?;
    volumes::check_free(tx, vch, id).await?;
    memory_is_there(tx, &locked, vch, id).await
}

/// Checks that the VCH has room for all that run and this one, with the memory that its row says by now.
pub(super) async fn memory_is_there(
    tx: &mut PgConnection,
    locked: &LockedVch,
    vch: VchId,
    id: &ContainerId,
) -> Result<(), StoreError> {
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
