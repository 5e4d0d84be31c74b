//! Update: what of a container can change after it was made.
//!
//! The restart policy always can; CPUs within what the machine was started with; memory only while it does not run,
//! for it is the memory of its machine. What was changed is what the next run gets, too.

use super::TRIES;
use crate::{Engine, EngineError, Session};
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::restart::due;
use bulkhead_model::{Action, Container, RestartPolicy};
use bulkhead_store::{Record, StoreError};

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    pub restart: Option<RestartPolicy>,
    pub cpu_milli: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// What inspect shows from now on.
    pub client_view: serde_json::Map<String, serde_json::Value>,
}

impl Engine {
    pub async fn update(&self, session: &Session, text: &str, update: &Update) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        let id = self.find(session.vch, text).await?.id;
        for _ in 0..TRIES {
            let old = self.find(session.vch, id.as_str()).await?;
            let new = self.updated(&old, update).await?;
            let audit = self
                .admit_about(&new, Action::ContainerUpdate, &vch, &session.caller, Some(&vch))
                .await?
                .audit;
            let record = Record::at(self.now()).audit(audit).event(super::event(&new, "update", &[]));
            match self.store().update_container(&old, &new, &record).await {
                Ok(_) => {
                    self.0.feed.wake();
                    self.drive(&new).wake();
                    return Ok(());
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => return Err(EngineError::NoSuchContainer(text.into())),
                Err(other) => return Err(other.into()),
            }
        }
        Err(EngineError::Store(StoreError::Conflict { kind: "container", id: id.to_string() }))
    }

    /// The container as it would be.
    async fn updated(&self, old: &Container, update: &Update) -> Result<Container, EngineError> {
        let mut new = old.clone();
        if old.desired.goal == Goal::Gone {
            return Err(EngineError::BeingRemoved(old.id.clone()));
        }
        if let Some(policy) = update.restart {
            if old.spec.auto_remove && policy != RestartPolicy::No {
                return Err(EngineError::Conflict(
                    "Restart policy cannot be updated because AutoRemove is enabled for the container".into(),
                ));
            }
            new.ask.restart = policy;
            // It is about ends that are to come: what has ended is not started by it.
            let ended = matches!(old.status, Status::Exited { .. });
            new.desired.restarts.cancelled |= ended && due(&old.desired, &old.status).is_none();
            new.desired.restarts.policy = policy;
        }
        if let Some(bytes) = update.memory_bytes.filter(|bytes| *bytes != old.spec.resources.memory_bytes) {
            bulkhead_model::container::check_memory(bytes)?;
            if matches!(old.status, Status::Starting { .. } | Status::Running { .. }) {
                return Err(EngineError::Conflict(format!(
                    "the memory of a running container cannot be changed, it is the memory of its machine: stop \
                     container {}, update it and start it again",
                    old.id.short()
                )));
            }
            new.ask.memory_bytes = Some(bytes);
            new.spec.resources.memory_bytes = bytes;
        }
        if let Some(milli) = update.cpu_milli {
            new.ask.cpu_milli = Some(milli);
            new.spec.resources.cpu_milli = milli;
            self.check_vcpus(old, new.spec.resources.vcpus()).await?;
        }
        self.check_size(&new.spec)?;
        if let Some(host) = new.client_view.get_mut("HostConfig").and_then(|host| host.as_object_mut()) {
            host.extend(update.client_view.clone());
        }
        Ok(new)
    }

    async fn check_vcpus(&self, container: &Container, vcpus: u32) -> Result<(), EngineError> {
        if !matches!(container.status, Status::Starting { .. } | Status::Running { .. }) {
            return Ok(());
        }
        let machine = self.back_end().machines.observe(&container.id).await?;
        match machine.filter(|machine| machine.vcpus < vcpus) {
            Some(machine) => Err(EngineError::Conflict(format!(
                "a running container cannot have more CPUs than its machine was started with, {} here: stop container \
                 {}, update it and start it again",
                machine.vcpus,
                container.id.short()
            ))),
            None => Ok(()),
        }
    }
}
