//! Use cases of images in a VCH's cache.

use crate::admission::{Admitted, Ask};
use crate::{Engine, EngineError, Session};
use bulkhead_image::archive::{self, ImportOptions, SaveImage};
use bulkhead_image::Progress;
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Digest, Image, Reference, Vch};
use bulkhead_policy::{ImageFacts, Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncRead, DuplexStream};

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedImage {
    Untagged(String),
    Deleted(Digest),
}

/// An image that came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    pub references: Vec<Reference>,
}

/// An archive being written; it ends early if something goes wrong, which the log tells.
pub type Saved = DuplexStream;

const PIPE_BYTES: usize = 256 << 10;

/// An event of an image: `actor` is its id or reference.
pub(crate) fn image_event(action: &str, actor: &str, name: &str) -> NewEvent {
    NewEvent {
        kind: EventKind::Image,
        action: action.into(),
        actor: actor.into(),
        attributes: BTreeMap::from([("name".to_owned(), name.to_owned())]),
    }
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
        let record = Record::at(self.now())
            .audit(admitted.audit)
            .event(image_event("tag", image.id.as_str(), &reference.familiar()));
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
            let record =
                Record::at(self.now()).audit(admitted.audit).event(image_event("untag", image.id.as_str(), &shown));
            self.store().untag(vch.id, name, &record).await?;
            self.0.feed.wake();
            return Ok(vec![RemovedImage::Untagged(shown)]);
        }
        if by_name.is_none() && image.references.len() > 1 && !force {
            return Err(EngineError::ImageHasNames(image.id.short().into()));
        }
        let users = self.store().containers_using_image(vch.id, &image.id).await?;
        if let Some(by) = users.first() {
            let mut running = false;
            for user in &users {
                let status = self.store().container(vch.id, user).await.map(|container| container.status);
                running |= matches!(status, Ok(Status::Starting { .. } | Status::Running { .. }));
            }
            match (&by_name, force && !running) {
                // The name goes, the image stays for its containers.
                (Some(name), true) => {
                    let shown = name.familiar();
                    let record = Record::at(self.now())
                        .audit(admitted.audit)
                        .event(image_event("untag", image.id.as_str(), &shown));
                    self.store().untag(vch.id, name, &record).await?;
                    self.0.feed.wake();
                    return Ok(vec![RemovedImage::Untagged(shown)]);
                }
                (_, _) => {
                    return Err(EngineError::ImageInUse { image: text.into(), by: by.clone(), running });
                }
            }
        }
        let mut record = Record::at(self.now()).audit(admitted.audit);
        for name in &image.references {
            let shown = name.familiar();
            record = record.event(image_event("untag", image.id.as_str(), &shown));
            removed.push(RemovedImage::Untagged(shown));
        }
        record = record.event(image_event("delete", image.id.as_str(), image.id.as_str()));
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

    /// Takes in the images of an archive. They have no origin: nobody knows where they came from.
    pub async fn load(
        &self,
        session: &Session,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<Loaded>, EngineError> {
        let vch = self.vch_of(session).await?;
        let admitted = self.admit_vch(session, &vch, Action::ImageLoad).await?;
        let layers = self.layers_of(vch.id);
        let quiet: Progress = Arc::new(|_| {});
        let work_dir = &self.0.settings.work_dir;
        let fetched = archive::load(archive, work_dir, &layers, &self.0.converter, &quiet).await?;
        let mut loaded = Vec::new();
        for image in fetched {
            let record = || Record::at(self.now()).audit(admitted.audit.clone());
            if image.references.is_empty() {
                self.keep(vch.id, &image, None, "load", record()).await?;
            }
            for reference in &image.references {
                self.keep(vch.id, &image, Some(reference), "load", record()).await?;
            }
            loaded.push(Loaded { id: image.id, references: image.references });
        }
        Ok(loaded)
    }

    /// Images as one archive, their shared layers once.
    pub async fn save(&self, session: &Session, texts: Vec<String>) -> Result<Saved, EngineError> {
        let mut images = Vec::new();
        for text in &texts {
            let (_, image, _) = self.admit_image(session, Action::ImageSave, text).await?;
            let named = text.parse::<Reference>().ok().map(Reference::or_latest);
            let references = image.references.iter().filter(|name| named.as_ref() == Some(name)).cloned().collect();
            images.push(SaveImage { config_json: image.config_json, layers: image.layers, references });
        }
        let (mut pipe, reader) = tokio::io::duplex(PIPE_BYTES);
        let engine = self.clone();
        let vch = session.vch;
        self.0.tasks.spawn(async move {
            let layers = engine.layers_of(vch);
            let saved = tokio::select! {
                saved = archive::save(&images, &layers, &engine.0.converter, &mut pipe) => saved,
                () = engine.0.stop.cancelled() => return,
            };
            if let Err(error) = saved {
                tracing::warn!(error = &error as &dyn std::error::Error, "save broke off");
            }
        });
        Ok(reader)
    }

    /// Makes an image of one layer out of a file tree in a tar archive.
    pub async fn import(
        &self,
        session: &Session,
        archive: impl AsyncRead + Send + Unpin + 'static,
        reference: Option<Reference>,
        message: String,
        changes: Vec<String>,
    ) -> Result<Digest, EngineError> {
        let vch = self.vch_of(session).await?;
        let admitted = self.admit_vch(session, &vch, Action::ImageLoad).await?;
        let layers = self.layers_of(vch.id);
        let options = ImportOptions { created: self.now(), changes, message, ..ImportOptions::default() };
        let image = archive::import(archive, options, &layers, &self.0.converter).await?;
        let reference = reference.map(Reference::or_latest);
        let record = Record::at(self.now()).audit(admitted.audit);
        self.keep(vch.id, &image, reference.as_ref(), "import", record).await?;
        Ok(image.id)
    }

    async fn admit_image(
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
                subject: Subject::Image { vch: &vch, image: ImageFacts { asked: text, cached: Some(&image) } },
                usage_after: Usage::default(),
            })
            .await?;
        Ok((vch, image, admitted))
    }
}
