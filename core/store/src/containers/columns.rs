//! A container and its columns.

use crate::error::StoreError;
use crate::networks;
use crate::row::{Row, to_i64, to_json, to_micros};
use crate::servers::Fence;
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::{Container, Digest, Placement};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

pub(super) async fn insert(
    tx: &mut PgConnection,
    container: &Container,
    fence: Fence,
) -> Result<(), StoreError> {
    let (status, status_run) = status_columns(&container.status);
    sqlx::query(
        "insert into containers
             (id, vch_id, name, server_id, epoch, image_id, image_name, owner, created_at, ask, spec, client_view,
              memory_bytes, goal, desired_run, desired, status_name, status_run, status, host, datastore)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::json, $11::text::json, $12::text::json,
                 $13, $14, $15, $16::text::json, $17, $18, $19::text::json, $20, $21)",
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
    .bind(container.placement.host.as_str())
    .bind(container.placement.datastore.as_str())
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
    .execute(&mut *tx)
    .await?;
    for endpoint in &container.endpoints {
        networks::insert_endpoint(tx, container.vch, endpoint).await?;
    }
    Ok(())
}

/// What an update may change.
pub(super) async fn update(tx: &mut PgConnection, container: &Container) -> Result<(), StoreError> {
    sqlx::query(
        "update containers
         set ask = $2::text::json, spec = $3::text::json, client_view = $4::text::json, memory_bytes = $5,
             desired = $6::text::json
         where id = $1",
    )
    .bind(container.id.as_str())
    .bind(to_json(&container.ask)?)
    .bind(to_json(&container.spec)?)
    .bind(to_json(&container.client_view)?)
    .bind(to_i64(container.spec.resources.memory_bytes)?)
    .bind(to_json(&container.desired)?)
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) fn goal_name(goal: &Goal) -> &'static str {
    match goal {
        Goal::Rest => "rest",
        Goal::Run => "run",
        Goal::Stop { .. } => "stop",
        Goal::Gone => "gone",
    }
}

pub(super) fn status_columns(status: &Status) -> (&'static str, u32) {
    match status {
        Status::Created => ("created", 0),
        Status::Starting { run } => ("starting", *run),
        Status::Running { run, .. } => ("running", *run),
        Status::Exited { run, .. } => ("exited", *run),
    }
}

pub(super) fn decode(row: &PgRow) -> Result<Container, StoreError> {
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
        placement: Placement { host: row.parse("host")?, datastore: row.parse("datastore")? },
        layers,
        image_name: row.get("image_name")?,
        client_view: row.json("client_view")?,
        owner: row.get("owner")?,
        created_at: row.get("created_at")?,
        desired: row.json("desired")?,
        status: row.json("status")?,
        health: row.json_or_null("health")?,
        endpoints: row.json("endpoints")?,
        published: row.json("published")?,
    })
}
