//! Use cases of containers, a file each.

pub(crate) mod create;
mod kill;
mod list;
mod names;
mod pause;
pub(crate) mod prune;
mod remove;
mod rename;
mod restart;
mod start;
mod stop;
pub(crate) mod update;

use crate::admission::{Admitted, Ask};
use crate::driver::Handle;
use crate::{Engine, EngineError, Session};
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::{Answer, Denied, Desired, Request, accept};
use bulkhead_model::restart::due;
use bulkhead_model::{Action, Caller, Container, ContainerSpec, Image, Vch};
use bulkhead_plugin as plugin;
use bulkhead_policy::{ContainerFacts, ImageFacts, Subject, Usage};
use bulkhead_store::{AuditEntry, Record, StoreError};
use std::sync::Arc;

/// Whether a request changed anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    Done,
    AlreadySo,
}

/// What a container takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Of its own disk, on the datastore.
    pub disk_bytes: u64,
    /// Of what its image's layers hold, shared with others of that image.
    pub image_bytes: u64,
}

/// Tries of a compare-and-set before it is given up; each loses only to another request on the same container.
const TRIES: u32 = 16;

/// An event of a container: its image, name and labels, and what is special to the action.
pub(crate) fn event(container: &Container, action: &str, special: &[(&str, &str)]) -> NewEvent {
    let mut attributes = container.spec.labels.clone();
    attributes.insert("image".into(), container.image_name.clone());
    attributes.insert("name".into(), container.name.clone());
    attributes.extend(special.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    NewEvent {
        kind: EventKind::Container,
        action: action.into(),
        actor: container.id.to_string(),
        attributes,
    }
}

/// A container as policies see it, and as plugins do.
pub(crate) fn as_told<'a>(
    container: &'a Container,
    image: Option<&'a Image>,
) -> (ContainerFacts<'a>, plugin::Container<'a>) {
    let Container { id, name, owner, spec, ask, .. } = container;
    let facts =
        ContainerFacts { id, name, owner, spec, image: ImageFacts { asked: &ask.image, cached: image } };
    let restart = container.desired.restarts.policy;
    (facts, plugin::Container { name, spec, asked: &ask.image, image, restart })
}

impl Engine {
    /// Finds the container and asks the policies about it.
    pub(crate) async fn admit_container(
        &self,
        session: &Session,
        action: Action,
        text: &str,
    ) -> Result<(Vch, Container, Admitted), EngineError> {
        self.admit_container_as(session, action, text, |_| ()).await
    }

    /// As if it was made otherwise.
    pub(crate) async fn admit_container_as(
        &self,
        session: &Session,
        action: Action,
        text: &str,
        otherwise: impl FnOnce(&mut ContainerSpec),
    ) -> Result<(Vch, Container, Admitted), EngineError> {
        let vch = self.vch_of(session).await?;
        let container = self.find(session.vch, text).await?;
        let mut as_made = container.clone();
        otherwise(&mut as_made.spec);
        let admitted = self.admit_about(&as_made, action, &vch, &session.caller, Some(&vch)).await?;
        Ok((vch, container, admitted))
    }

    /// Asks the policies about a container as it is given.
    pub(crate) async fn admit_about(
        &self,
        container: &Container,
        action: Action,
        vch: &Vch,
        caller: &Caller,
        endpoint: Option<&Vch>,
    ) -> Result<Admitted, EngineError> {
        let image = self.image_of(container).await?;
        let (container, _) = as_told(container, image.as_ref());
        let subject = Subject::Container { vch, container };
        self.admit(Ask { action, caller, endpoint, subject, usage_after: Usage::default() }).await
    }

    /// What a container was made of; `None`: it is gone.
    pub(crate) async fn image_of(&self, container: &Container) -> Result<Option<Image>, EngineError> {
        match self.store().image(container.vch, &container.image).await {
            Ok(image) => Ok(Some(image)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other.into()),
        }
    }

    /// Changes what is desired, if the container's state allows it; wakes its driver.
    /// `wish` makes the new desire out of the container as it is.
    pub(crate) async fn change(
        &self,
        mut container: Container,
        request: Request,
        audit: AuditEntry,
        wish: impl Fn(&Container) -> Desired,
    ) -> Result<(Changed, Container, Arc<Handle>), EngineError> {
        for _ in 0..TRIES {
            let handle = self.drive(&container);
            match accept(&container.desired, &container.status, request) {
                Answer::AlreadySo => return Ok((Changed::AlreadySo, container, handle)),
                Answer::Denied(denied) => return Err(denial(denied, &container)),
                Answer::Accepted => {}
            }
            let desired = wish(&container);
            let mut record = Record::at(self.now()).audit(audit.clone());
            // Nothing runs whose end its driver could tell: what ends is the wait for the next run.
            let between = due(&container.desired, &container.status).is_some();
            if between && request == Request::Stop {
                record = record.event(event(&container, "stop", &[]));
            }
            let set = self
                .store()
                .set_desired(container.vch, &container.id, &container.desired, &desired, &record)
                .await;
            match set {
                Ok((changed, events)) => {
                    if !events.is_empty() {
                        self.0.feed.wake();
                    }
                    handle.wake();
                    return Ok((Changed::Done, changed, handle));
                }
                Err(StoreError::Conflict { .. }) => {
                    container = self.reread(&container).await?;
                }
                Err(StoreError::NotFound { .. }) => {
                    return Err(EngineError::NoSuchContainer(container.id.to_string()));
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(EngineError::Store(StoreError::Conflict { kind: "container", id: container.id.to_string() }))
    }

    async fn reread(&self, container: &Container) -> Result<Container, EngineError> {
        match self.store().container(container.vch, &container.id).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchContainer(container.id.to_string())),
            other => Ok(other?),
        }
    }
}

fn denial(denied: Denied, container: &Container) -> EngineError {
    match denied {
        Denied::IsRunning => EngineError::IsRunning(container.id.clone()),
        Denied::NotRunning => EngineError::NotRunning(container.id.clone()),
        Denied::BeingRemoved => EngineError::BeingRemoved(container.id.clone()),
        Denied::IsPaused => EngineError::IsPaused(container.id.clone()),
        Denied::NotPaused => EngineError::NotPaused(container.id.clone()),
        Denied::IsRestarting => EngineError::IsRestarting(container.id.clone()),
    }
}
