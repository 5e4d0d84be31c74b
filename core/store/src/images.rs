//! The image cache of each VCH: images, their layers, where they came from, what they are called.

use crate::error::StoreError;
use crate::layers::{self, decode_layer};
use crate::row::{Row, parse_all, to_json, to_micros};
use crate::transaction::work;
use crate::{Record, Store, containers, vchs};
use bulkhead_model::event::Event;
use bulkhead_model::{Digest, Image, Layer, Origin, Reference, VchId};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;

/// What the removal of an image leaves to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedImage {
    pub events: Vec<Event>,
    /// References that pointed at it.
    pub references: Vec<Reference>,
    /// Layers that nothing uses any more. Delete their disks, then call [`Store::forget_layers`].
    pub condemned: Vec<Digest>,
}

impl Store {
    /// Adds an image with its layers, origins and references. For one that is there already, the origins are added and the
    /// references are moved to it. [`StoreError::LayerCondemned`] if the disk of a layer is just being deleted.
    pub async fn put_image(
        &self,
        vch: VchId,
        image: &Image,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let put = work!(|tx| {
            vchs::lock(tx, vch).await?.check_stays()?;
            let done = sqlx::query(
                "insert into images (vch_id, id, config_json, config, added_at)
                 values ($1, $2, $3, $4::text::json, $5) on conflict do nothing",
            )
            .bind(vch.0)
            .bind(image.id.as_str())
            .bind(&image.config_json)
            .bind(to_json(&image.config)?)
            .bind(to_micros(image.added_at))
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() > 0 {
                layers::insert(tx, vch, image).await?;
            }
            for origin in &image.origins {
                insert_origin(tx, vch, &image.id, origin).await?;
            }
            for reference in &image.references {
                point(tx, vch, reference, &image.id).await?;
            }
            Ok(())
        });
        Ok(self.write(Some(vch), record, put).await?.1)
    }

    /// Points a reference at an image; gives the image that it pointed at before.
    pub async fn tag(
        &self,
        vch: VchId,
        reference: &Reference,
        image: &Digest,
        record: &Record,
    ) -> Result<(Option<Digest>, Vec<Event>), StoreError> {
        let tag = work!(|tx| {
            vchs::lock(tx, vch).await?;
            check_image(tx, vch, image).await?;
            point(tx, vch, reference, image).await
        });
        self.write(Some(vch), record, tag).await
    }

    /// Takes a reference away; gives the image that it pointed at.
    pub async fn untag(
        &self,
        vch: VchId,
        reference: &Reference,
        record: &Record,
    ) -> Result<(Digest, Vec<Event>), StoreError> {
        let untag = work!(|tx| {
            vchs::lock(tx, vch).await?;
            let row =
                sqlx::query("delete from image_references where vch_id = $1 and reference = $2 returning *")
                    .bind(vch.0)
                    .bind(reference.to_string())
                    .fetch_optional(tx)
                    .await?
                    .ok_or_else(|| StoreError::not_found("image", reference.familiar()))?;
            Row::new(&row, "image_references", "reference").parse("image_id")
        });
        self.write(Some(vch), record, untag).await
    }

    /// Records where an image's manifest was fetched from. The same origin again is no error.
    pub async fn add_origin(
        &self,
        vch: VchId,
        image: &Digest,
        origin: &Origin,
        record: &Record,
    ) -> Result<Vec<Event>, StoreError> {
        let add = work!(|tx| {
            vchs::lock(tx, vch).await?;
            check_image(tx, vch, image).await?;
            insert_origin(tx, vch, image, origin).await
        });
        Ok(self.write(Some(vch), record, add).await?.1)
    }

    /// All images of a VCH, newest first.
    pub async fn images(&self, vch: VchId) -> Result<Vec<Image>, StoreError> {
        self.read("images", self.load_images(vch, None)).await
    }

    pub async fn image(&self, vch: VchId, id: &Digest) -> Result<Image, StoreError> {
        self.read("image", async {
            let found = self.load_images(vch, Some(id)).await?;
            found.into_iter().next().ok_or_else(|| StoreError::not_found("image", id))
        })
        .await
    }

    /// By digest where the reference has one: an image that was fetched from that registry, repository and digest (the newest
    /// of several). Else by name and tag, `latest` if none.
    pub async fn image_by_reference(&self, vch: VchId, reference: &Reference) -> Result<Image, StoreError> {
        let id: Option<String> = self
            .read("image by reference", async {
                let query = match &reference.digest {
                    Some(digest) => sqlx::query_scalar(
                        "select image_id from image_origins
                         join images on images.vch_id = image_origins.vch_id and images.id = image_id
                         where image_origins.vch_id = $1 and registry = $2 and repository = $3 and digest = $4
                         order by added_at desc, image_id limit 1",
                    )
                    .bind(vch.0)
                    .bind(&reference.registry)
                    .bind(&reference.repository)
                    .bind(digest.as_str()),
                    None => sqlx::query_scalar(
                        "select image_id from image_references where vch_id = $1 and reference = $2",
                    )
                    .bind(vch.0)
                    .bind(reference.clone().or_latest().to_string()),
                };
                Ok(query.fetch_optional(&self.pool).await?)
            })
            .await?;
        let missing = || StoreError::not_found("image", reference.clone().or_latest().familiar());
        let id = id.ok_or_else(missing)?;
        self.image(vch, &id.parse().map_err(|_| missing())?).await
    }

    /// By the hex digits of its id, or the first of them if they fit only one.
    pub async fn find_image(&self, vch: VchId, hex_prefix: &str) -> Result<Image, StoreError> {
        let hex = hex_prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !hex || !(1..=64).contains(&hex_prefix.len()) {
            return Err(StoreError::not_found("image", hex_prefix));
        }
        let ids: Vec<String> = self
            .read("image by id", async {
                let query = sqlx::query_scalar(
                    "select id from images where vch_id = $1 and id >= $2 and id < $2 || 'g' order by id limit 2",
                );
                Ok(query.bind(vch.0).bind(format!("sha256:{hex_prefix}")).fetch_all(&self.pool).await?)
            })
            .await?;
        let missing = || StoreError::not_found("image", hex_prefix);
        match ids.as_slice() {
            [] => Err(missing()),
            [id] => self.image(vch, &id.parse().map_err(|_| missing())?).await,
            _ => Err(StoreError::Ambiguous { kind: "image", text: hex_prefix.into() }),
        }
    }

    /// Removes an image with all that points at it. [`StoreError::ImageInUse`] while a container, running or not, has it.
    pub async fn delete_image(
        &self,
        vch: VchId,
        id: &Digest,
        record: &Record,
    ) -> Result<RemovedImage, StoreError> {
        let delete = work!(|tx| {
            // Keeps images and containers that would use the same layers out until it is known which are free.
            vchs::lock(tx, vch).await?;
            check_image(tx, vch, id).await?;
            let containers = containers::using_image(tx, vch, id).await?;
            if !containers.is_empty() {
                return Err(StoreError::ImageInUse { image: id.clone(), containers });
            }
            let rows =
                sqlx::query("delete from image_references where vch_id = $1 and image_id = $2 returning *")
                    .bind(vch.0)
                    .bind(id.as_str())
                    .fetch_all(&mut *tx)
                    .await?;
            let references = parse_all(&rows, "image_references", "reference")?;
            let rows =
                sqlx::query("delete from image_layers where vch_id = $1 and image_id = $2 returning diff_id")
                    .bind(vch.0)
                    .bind(id.as_str())
                    .fetch_all(&mut *tx)
                    .await?;
            let layers: Vec<Digest> = parse_all(&rows, "image_layers", "diff_id")?;
            sqlx::query("delete from images where vch_id = $1 and id = $2")
                .bind(vch.0)
                .bind(id.as_str())
                .execute(&mut *tx)
                .await?;
            Ok((references, layers::condemn(tx, vch, &layers).await?))
        });
        let ((references, condemned), events) = self.write(Some(vch), record, delete).await?;
        Ok(RemovedImage { events, references, condemned })
    }

    /// Of one VCH: the image `id`, or all. From one snapshot, so that the parts fit together.
    async fn load_images(&self, vch: VchId, id: Option<&Digest>) -> Result<Vec<Image>, StoreError> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("set transaction isolation level repeatable read, read only").execute(&mut *tx).await?;
        let id = id.map(Digest::as_str);
        let rows = sqlx::query(
            "select * from images where vch_id = $1 and ($2::text is null or id = $2) order by added_at desc, id",
        )
        .bind(vch.0)
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        let mut parts: BTreeMap<Digest, Parts> = BTreeMap::new();
        let layers = sqlx::query(
            "select image_id, layers.* from image_layers join layers using (vch_id, diff_id)
             where vch_id = $1 and ($2::text is null or image_id = $2) order by image_id, position",
        )
        .bind(vch.0)
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        for row in &layers {
            let image = Row::new(row, "image_layers", "image_id").parse("image_id")?;
            parts.entry(image).or_default().layers.push(decode_layer(row)?);
        }
        let origins = sqlx::query(
            "select * from image_origins where vch_id = $1 and ($2::text is null or image_id = $2)
             order by registry, repository, digest",
        )
        .bind(vch.0)
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        for row in &origins {
            let row = Row::new(row, "image_origins", "image_id");
            let origin = Origin {
                registry: row.get("registry")?,
                repository: row.get("repository")?,
                digest: row.parse("digest")?,
            };
            parts.entry(row.parse("image_id")?).or_default().origins.push(origin);
        }
        let references = sqlx::query(
            "select * from image_references where vch_id = $1 and ($2::text is null or image_id = $2)
             order by reference",
        )
        .bind(vch.0)
        .bind(id)
        .fetch_all(&mut *tx)
        .await?;
        for row in &references {
            let row = Row::new(row, "image_references", "reference");
            parts.entry(row.parse("image_id")?).or_default().references.push(row.parse("reference")?);
        }
        tx.commit().await?;
        rows.iter().map(|row| decode_image(row, &mut parts)).collect()
    }
}

#[derive(Default)]
struct Parts {
    layers: Vec<Layer>,
    origins: Vec<Origin>,
    references: Vec<Reference>,
}

async fn insert_origin(
    tx: &mut PgConnection,
    vch: VchId,
    image: &Digest,
    origin: &Origin,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into image_origins (vch_id, image_id, registry, repository, digest)
         values ($1, $2, $3, $4, $5) on conflict do nothing",
    )
    .bind(vch.0)
    .bind(image.as_str())
    .bind(&origin.registry)
    .bind(&origin.repository)
    .bind(origin.digest.as_str())
    .execute(tx)
    .await?;
    Ok(())
}

/// Under the lock of the VCH: nobody moves the reference between the look and the change.
async fn point(
    tx: &mut PgConnection,
    vch: VchId,
    reference: &Reference,
    image: &Digest,
) -> Result<Option<Digest>, StoreError> {
    let before = sqlx::query("select * from image_references where vch_id = $1 and reference = $2")
        .bind(vch.0)
        .bind(reference.to_string())
        .fetch_optional(&mut *tx)
        .await?;
    sqlx::query(
        "insert into image_references (vch_id, reference, image_id) values ($1, $2, $3)
         on conflict (vch_id, reference) do update set image_id = excluded.image_id",
    )
    .bind(vch.0)
    .bind(reference.to_string())
    .bind(image.as_str())
    .execute(tx)
    .await?;
    before.map(|row| Row::new(&row, "image_references", "reference").parse("image_id")).transpose()
}

async fn check_image(tx: &mut PgConnection, vch: VchId, id: &Digest) -> Result<(), StoreError> {
    let there: bool = sqlx::query_scalar("select exists (select from images where vch_id = $1 and id = $2)")
        .bind(vch.0)
        .bind(id.as_str())
        .fetch_one(tx)
        .await?;
    if there { Ok(()) } else { Err(StoreError::not_found("image", id)) }
}

fn decode_image(row: &PgRow, parts: &mut BTreeMap<Digest, Parts>) -> Result<Image, StoreError> {
    let row = Row::new(row, "images", "id");
    let id: Digest = row.parse("id")?;
    let Parts { layers, origins, references } = parts.remove(&id).unwrap_or_default();
    Ok(Image {
        id,
        layers,
        config_json: row.get("config_json")?,
        config: row.json("config")?,
        origins,
        references,
        added_at: row.get("added_at")?,
    })
}
