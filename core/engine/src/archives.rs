//! Images in archives: load, save, import.

use crate::images::bare_image_event;
use crate::{Engine, EngineError, Session};
use bulkhead_image::Progress;
use bulkhead_image::archive::{self, ImportOptions, SaveImage};
use bulkhead_image::registry::Platform;
use bulkhead_model::{Action, Digest, Reference};
use bulkhead_store::Record;
use std::sync::Arc;
use tokio::io::{AsyncRead, DuplexStream};

/// An image that came out of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    pub references: Vec<Reference>,
}

/// An archive being written; it ends early if something goes wrong, which the log tells.
pub type Saved = DuplexStream;

const PIPE_BYTES: usize = 256 << 10;

impl Engine {
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
        let (mut images, mut events) = (Vec::new(), Vec::new());
        for text in &texts {
            let (_, image, _) = self.admit_image(session, Action::ImageSave, text).await?;
            events.push(bare_image_event("save", &image.id, &image.config.labels));
            let named = text.parse::<Reference>().ok().map(Reference::or_latest);
            let references =
                image.references.iter().filter(|name| named.as_ref() == Some(name)).cloned().collect();
            images.push(SaveImage {
                config_json: image.config_json,
                diff_ids: image.layers.into_iter().map(|layer| layer.diff_id).collect(),
                references,
            });
        }
        self.tell(session.vch, Record { events, ..Record::at(self.now()) }).await?;
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
        let options = ImportOptions {
            created: self.now(),
            platform: Platform::default(),
            work_dir: self.0.settings.work_dir.clone(),
            changes,
            message,
        };
        let image = archive::import(archive, &options, &layers, &self.0.converter).await?;
        let reference = reference.map(Reference::or_latest);
        let record = Record::at(self.now()).audit(admitted.audit);
        self.keep(vch.id, &image, reference.as_ref(), "import", record).await?;
        Ok(image.id)
    }
}
