//! Use cases of images in a VCH's cache.

use crate::admission::{Admitted, Ask};
use crate::{Engine, EngineError, Session};
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Digest, Image, Reference, Vch};
use bulkhead_policy::{ImageFacts, Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeMap;

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedImage {
    Untagged(String),
    Deleted(Digest),
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedImages {
    pub images: Vec<RemovedImage>,
    /// Of layers that no image has any more, unpacked.
    pub reclaimed_bytes: u64,
}

/// Of all layers, each counted once, unpacked.
fn layer_bytes(images: &[Image]) -> u64 {
    let layers = images.iter().flat_map(|image| &image.layers);
    let distinct: BTreeMap<_, _> = layers.map(|layer| (&layer.diff_id, layer.size_bytes)).collect();
    distinct.values().sum()
}

/// An event of an image: `name` and the image's labels. `actor` is its id or reference.
pub(crate) fn image_event(
    action: &str,
    actor: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
) -> NewEvent {
    let mut attributes = labels.clone();
    attributes.insert("name".into(), name.into());
    NewEvent { kind: EventKind::Image, action: action.into(), actor: actor.into(), attributes }
}

/// An event that is about the image and none of its names; so dockerd tells of all but tags and pulls.
pub(crate) fn bare_image_event(action: &str, id: &Digest, labels: &BTreeMap<String, String>) -> NewEvent {
    image_event(action, id.as_str(), id.as_str(), labels)
}

impl Engine {
    /// All images of the VCH.
    pub async fn images(&self, session: &Session) -> Result<Vec<Image>, EngineError> {
        self.authorize(session, Action::ImageList).await?;
        Ok(self.store().images(session.vch).await?)
    }

    pub async fn image(&self, session: &Session, text: &str) -> Result<Image, EngineError> {
        let (_, image, _) = self.admit_image(session, Action::ImageInspect, text).await?;
        Ok(image)
    }

    /// How many containers were made of each image.
    pub async fn image_users(&self, session: &Session) -> Result<BTreeMap<Digest, u64>, EngineError> {
        self.authorize(session, Action::ImageList).await?;
        let mut users = BTreeMap::new();
        for container in self.store().containers(session.vch).await? {
            *users.entry(container.image).or_default() += 1;
        }
        Ok(users)
    }

    /// Points a name at an image. It says nothing of where the image came from.
    pub async fn tag(&self, session: &Session, text: &str, reference: Reference) -> Result<(), EngineError> {
        if reference.digest.is_some() {
            let why = "a name cannot carry a digest".to_owned();
            return Err(EngineError::Invalid { what: "name", value: reference.familiar(), why });
        }
        let reference = reference.or_latest();
        let (vch, image, admitted) = self.admit_image(session, Action::ImageTag, text).await?;
        let record = Record::at(self.now()).audit(admitted.audit).event(image_event(
            "tag",
            image.id.as_str(),
            &reference.familiar(),
            &image.config.labels,
        ));
        self.store().tag(vch.id, &reference, &image.id, &record).await?;
        self.0.feed.wake();
        Ok(())
    }

    /// By name: takes the name away, and the image with its last name. By id: the image with its name.
    pub async fn remove_image(
        &self,
        session: &Session,
        text: &str,
        force: bool,
    ) -> Result<Vec<RemovedImage>, EngineError> {
        let (vch, image, admitted) = self.admit_image(session, Action::ImageRemove, text).await?;
        let by_name = text
            .parse::<Reference>()
            .ok()
            .map(Reference::or_latest)
            .filter(|reference| image.references.contains(reference));
        let mut removed = Vec::new();
        if let Some(name) = &by_name
            && image.references.len() > 1
        {
            let shown = name.familiar();
            let record = Record::at(self.now()).audit(admitted.audit).event(bare_image_event(
                "untag",
                &image.id,
                &image.config.labels,
            ));
            self.store().untag(vch.id, name, &record).await?;
            self.0.feed.wake();
            return Ok(vec![RemovedImage::Untagged(shown)]);
        }
        if by_name.is_none() && image.references.len() > 1 && !force {
            return Err(EngineError::ImageHasNames(image.id.short().into()));
        }
        let users = self.store().containers_using_image(vch.id, &image.id).await?;
        if let Some(by) = users.first() {
            match (&by_name, force) {
                // The name goes, the image stays for its containers.
                (Some(name), true) => {
                    let shown = name.familiar();
                    let record = Record::at(self.now()).audit(admitted.audit).event(bare_image_event(
                        "untag",
                        &image.id,
                        &image.config.labels,
                    ));
                    self.store().untag(vch.id, name, &record).await?;
                    self.0.feed.wake();
                    return Ok(vec![RemovedImage::Untagged(shown)]);
                }
                (Some(name), false) => {
                    let (name, image) = (name.familiar(), image.id.short().into());
                    return Err(EngineError::ImageNameInUse { name, image, by: by.clone() });
                }
                (None, _) => {
                    let mut running = false;
                    for user in &users {
                        let status =
                            self.store().container(vch.id, user).await.map(|container| container.status);
                        running |= matches!(status, Ok(Status::Starting { .. } | Status::Running { .. }));
                    }
                    return Err(EngineError::ImageInUse { image: text.into(), by: by.clone(), running });
                }
            }
        }
        let mut record = Record::at(self.now()).audit(admitted.audit);
        for name in &image.references {
            let shown = name.familiar();
            record = record.event(bare_image_event("untag", &image.id, &image.config.labels));
            removed.push(RemovedImage::Untagged(shown));
        }
        record = record.event(bare_image_event("delete", &image.id, &image.config.labels));
        match self.store().delete_image(vch.id, &image.id, &record).await {
            Err(StoreError::ImageInUse { containers, .. }) => {
                let by = containers.into_iter().next().ok_or(EngineError::Stopping)?;
                return Err(EngineError::ImageInUse { image: text.into(), by, running: false });
            }
            other => other?,
        };
        self.0.feed.wake();
        self.clear_condemned(vch.id).await?;
        removed.push(RemovedImage::Deleted(image.id));
        Ok(removed)
    }

    /// Removes the images that no container was made of and that are `wanted`, with all their names. Each is decided about
    /// as a removal of its own: what a policy protects is passed over.
    pub async fn prune_images(
        &self,
        session: &Session,
        wanted: impl Fn(&Image) -> bool + Send + Sync,
    ) -> Result<PrunedImages, EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, Action::ImagePrune).await?;
        let mut pruned = PrunedImages::default();
        let before = self.store().images(vch.id).await?;
        for image in before.iter().filter(|image| wanted(image)) {
            if !self.store().containers_using_image(vch.id, &image.id).await?.is_empty() {
                continue;
            }
            match self.remove_image(session, image.id.as_str(), true).await {
                Ok(removed) => pruned.images.extend(removed),
                // Protected, or a container was made of it, or somebody else removed it.
                Err(
                    error @ (EngineError::Denied { .. }
                    | EngineError::ImageInUse { .. }
                    | EngineError::NoSuchImage(_)),
                ) => {
                    tracing::info!(image = %image.id, %error, "not pruned");
                }
                Err(error) => return Err(error),
            }
        }
        let after = self.store().images(vch.id).await?;
        pruned.reclaimed_bytes = layer_bytes(&before).saturating_sub(layer_bytes(&after));
        self.tell_pruned(vch.id, EventKind::Image, pruned.reclaimed_bytes).await?;
        Ok(pruned)
    }

    pub(crate) async fn admit_image(
        &self,
        session: &Session,
        action: Action,
        text: &str,
    ) -> Result<(Vch, Image, Admitted), EngineError> {
        let vch = self.vch_of(session).await?;
        let image = self.find_image(session, text).await?;
        let admitted = self
            .admit(Ask {
                action,
                caller: &session.caller,
                endpoint: Some(&vch),
                subject: Subject::Image {
                    vch: &vch,
                    image: ImageFacts { asked: text, cached: Some(&image) },
                },
                usage_after: Usage::default(),
            })
            .await?;
        Ok((vch, image, admitted))
    }
}
