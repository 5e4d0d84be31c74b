//! Pull: resolve at the registry, decide, fetch what is missing, record with its origin.

use crate::admission::{Admitted, Ask};
use crate::images::{bare_image_event, image_event};
use crate::{Engine, EngineError, Session};
use bulkhead_image::pull::{Fetched, fetch};
use bulkhead_image::registry::{Credentials, Described, Platform};
use bulkhead_image::{ImageError, Progress, PullProgress};
use bulkhead_model::{Action, Digest, Image, Reference, VchId};
use bulkhead_policy::{ImageFacts, Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{mpsc, oneshot};

/// Steps that a slow client may be behind; further ones are left out, the end never is.
const PROGRESS_STEPS: usize = 4096;
/// A layer that is being deleted is waited for so many times.
const TRIES: u32 = 8;

/// Pulls of the same layers into the same VCH take turns, so that a layer is fetched once.
#[derive(Debug, Default)]
pub(crate) struct Pulls(Mutex<HashMap<(VchId, String), Turn>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Pulls {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn turn(&self, vch: VchId, key: String) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        turns.entry((vch, key)).or_default().clone()
    }
}

/// A pull under way. Dropping it leaves the pull to end by itself.
#[derive(Debug)]
pub struct Pull {
    pub progress: mpsc::Receiver<PullProgress>,
    outcome: oneshot::Receiver<Result<PullOutcome, EngineError>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullOutcome {
    pub image: Digest,
    /// Of the manifest or index that was asked for.
    pub digest: Digest,
    /// Whether the VCH had it not before, under this name.
    pub newer: bool,
}

impl Pull {
    pub async fn outcome(self) -> Result<PullOutcome, EngineError> {
        // Its receiver is open until here, so that the sender never waits for a reader that is gone.
        drop(self.progress);
        self.outcome.await.map_err(|_| EngineError::Stopping)?
    }
}

impl Engine {
    /// Fetches an image. What can be known before the first byte (a refusal, a missing image, a wrong password) is
    /// the answer of this call; what happens later comes with the outcome.
    pub async fn pull(
        &self,
        session: &Session,
        reference: Reference,
        platform: Option<String>,
        credentials: Credentials,
    ) -> Result<Pull, EngineError> {
        let vch = self.vch_of(session).await?;
        let reference = reference.or_latest();
        let admitted = self.admit_pull(session, &reference).await?;
        let platform = match platform.as_deref() {
            None | Some("") => Platform::default(),
            Some(text) => text.parse().map_err(EngineError::Image)?,
        };
        let resolved = self.0.registries.resolve(&reference, &credentials, &platform).await?;
        let digest = resolved.origin.digest.clone();

        let (steps, progress) = mpsc::channel(PROGRESS_STEPS);
        let (done, outcome) = oneshot::channel();
        let report: Progress = Arc::new(move |step| {
            let _ = steps.try_send(step);
        });
        let engine = self.clone();
        let turn = self.0.pulls.turn(vch.id, resolved.origin.digest.to_string());
        self.0.tasks.spawn(async move {
            let work = async {
                let _turn = turn.lock().await;
                let layers = engine.layers_of(vch.id);
                let mut last = None;
                for _ in 0..TRIES {
                    let fetched = fetch(&resolved, &layers, &engine.0.converter, &report).await?;
                    let record = Record::at(engine.now()).audit(admitted.audit.clone());
                    match engine.keep(vch.id, &fetched, Some(&reference), "pull", record).await {
                        Ok(newer) => return Ok(PullOutcome { image: fetched.id, digest, newer }),
                        Err(EngineError::Store(error @ StoreError::LayerCondemned { .. })) => {
                            engine.clear_condemned(vch.id).await?;
                            last = Some(error);
                        }
                        Err(other) => return Err(other),
                    }
                }
                Err(last.map_or(EngineError::Stopping, EngineError::Store))
            };
            let result = tokio::select! {
                result = work => result,
                () = engine.0.stop.cancelled() => Err(EngineError::Stopping),
            };
            if let Err(error) = &result {
                tracing::warn!(error = error as &dyn std::error::Error, image = %reference, "pull failed");
            }
            // Nobody waits any more: the image is there all the same.
            let _ = done.send(result);
        });
        Ok(Pull { progress, outcome })
    }

    /// Records an image whose layers are on the datastore, and names it. Whether the name is new or has moved.
    pub(crate) async fn keep(
        &self,
        vch: VchId,
        fetched: &Fetched,
        reference: Option<&Reference>,
        action: &str,
        record: Record,
    ) -> Result<bool, EngineError> {
        let image = Image {
            id: fetched.id.clone(),
            layers: fetched.layers.clone(),
            config_json: fetched.config_json.clone(),
            config: fetched.config.clone(),
            origins: fetched.origin.iter().cloned().collect(),
            references: Vec::new(),
            added_at: self.now(),
        };
        let known = self.store().image(vch, &image.id).await.is_ok();
        let labels = &image.config.labels;
        let tagged = reference.filter(|reference| reference.tag.is_some());
        let record = match (action, reference, tagged) {
            ("pull", Some(reference), _) => {
                let shown = reference.familiar();
                record.event(image_event(action, &shown, &shown, labels))
            }
            // As dockerd does it: it has its name when it is told of, and one that is loaded gets it silently.
            ("create" | "import", _, Some(name)) => {
                let tag = image_event("tag", image.id.as_str(), &name.familiar(), labels);
                let events = [vec![tag], record.events].concat();
                Record { events, ..record }.event(bare_image_event(action, &image.id, labels))
            }
            (_, _, _) => record.event(bare_image_event(action, &image.id, labels)),
        };
        self.store().put_image(vch, &image, &record).await?;
        if let Some(origin) = &fetched.origin {
            self.store().add_origin(vch, &image.id, origin, &Record::at(self.now())).await?;
        }
        let mut newer = !known;
        if let Some(reference) = tagged {
            let name = Reference { digest: None, ..reference.clone() };
            let (before, _) = self.store().tag(vch, &name, &image.id, &Record::at(self.now())).await?;
            newer |= before.as_ref() != Some(&image.id);
        }
        self.0.feed.wake();
        Ok(newer)
    }

    /// What a registry has by a name. It is as much of a registry's as a pull is, and decided about as one.
    pub async fn describe(
        &self,
        session: &Session,
        reference: Reference,
        credentials: Credentials,
    ) -> Result<Described, EngineError> {
        let reference = reference.or_latest();
        let admitted = self.admit_pull(session, &reference).await?;
        let record = Record::at(self.now()).audit(admitted.audit);
        self.store().tell(session.vch, &record).await?;
        Ok(self.0.registries.describe(&reference, &credentials).await?)
    }

    /// The tags of a repository, to be pulled one by one; each is decided about by itself, too.
    pub async fn tags(
        &self,
        session: &Session,
        repository: &Reference,
        credentials: &Credentials,
    ) -> Result<Vec<String>, EngineError> {
        let admitted = self.admit_pull(session, repository).await?;
        let record = Record::at(self.now()).audit(admitted.audit);
        self.store().tell(session.vch, &record).await?;
        Ok(self.0.registries.tags(repository, credentials).await?)
    }

    async fn admit_pull(&self, session: &Session, reference: &Reference) -> Result<Admitted, EngineError> {
        let vch = self.vch_of(session).await?;
        let asked = reference.to_string();
        let subject = Subject::Image { vch: &vch, image: ImageFacts { asked: &asked, cached: None } };
        let usage_after = Usage::default();
        let (action, caller) = (Action::ImagePull, &session.caller);
        let ask = Ask { action, caller, endpoint: Some(&vch), subject, usage_after };
        self.admit_with_plugins(ask, &vch, bulkhead_plugin::Subject::ImagePull(reference)).await
    }

    /// Whether a registry accepts these credentials.
    pub async fn login(
        &self,
        session: &Session,
        registry: &str,
        credentials: Credentials,
    ) -> Result<(), EngineError> {
        self.authorize(session, Action::RegistryLogin).await?;
        Ok(self.0.registries.login(registry, &credentials).await.map_err(|error: ImageError| error)?)
    }
}
