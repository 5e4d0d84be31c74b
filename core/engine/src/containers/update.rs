//! Update: what of a container can change after it was made.
//!
//! The restart policy and the limits inside its machine always can; CPUs within what the machine was started with.
//! Memory comes to a machine that runs, and never leaves it: what is taken away from the container must not be in use,
//! and is its machine's until the next run. What was changed is what that run gets, too.
//!
//! ```text
//!   less memory:  the guest gives it up, or says that it is in use ─▶ the wish ─▶ the driver tells guest and host
//!   else:         the wish ─▶ the driver has memory plugged in, tells guest and host ─▶ if that fails, the old wish
//! ```

use super::{TRIES, as_told};
use crate::admission::{Admitted, Ask};
use crate::driver::limits;
use crate::guest::GuestError;
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::restart::due;
use bulkhead_model::{Action, Container, RestartPolicy, Vch};
use bulkhead_plugin as plugin;
use bulkhead_policy::{Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::time::Duration;

/// A guest may have to give back a lot that can be read again.
const SHRINK_DEADLINE: Duration = Duration::from_secs(30);

/// What is to be another; `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    pub restart: Option<RestartPolicy>,
    /// 0: as the VCH gives where nothing is asked for.
    pub cpu_milli: Option<u32>,
    pub memory_bytes: Option<u64>,
    /// 0: no limit.
    pub pids_max: Option<u32>,
    /// What inspect shows from now on.
    pub client_view: serde_json::Map<String, serde_json::Value>,
}

impl Engine {
    /// Makes the change that is asked for of the container as it is; what whoever asked should know of it.
    pub async fn update<E: From<EngineError>>(
        &self,
        session: &Session,
        text: &str,
        change: impl Fn(&Container) -> Result<Update, E>,
    ) -> Result<Vec<String>, E> {
        let vch = self.vch_of(session).await?;
        let id = self.find(session.vch, text).await?.id;
        for _ in 0..TRIES {
            let old = self.find(session.vch, id.as_str()).await?;
            let update = change(&old)?;
            let new = self.updated(&vch, &old, &update).await?;
            let Admitted { audit, warnings } = self.admit_update(session, &vch, &new).await?;
            let record = Record::at(self.now()).audit(audit).event(super::event(&new, "update", &[]));
            let shrinks = is_live(&old) && memory_bytes(&new) < memory_bytes(&old);
            if shrinks {
                self.limit_memory(&old, &new).await?;
            }
            let written = self.store().update_container(&old, &new, &record).await;
            if shrinks && written.is_err() {
                // As if it had never been asked for. Who cannot be told now is when it is greeted anew.
                let _ = self.limit_memory(&old, &old).await;
            }
            match written {
                Ok(_) => {
                    self.0.feed.wake();
                    self.carry_out(&old, &new).await?;
                    return Ok(warnings);
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NotFound { .. }) => {
                    return Err(EngineError::NoSuchContainer(text.into()).into());
                }
                Err(other) => return Err(EngineError::from(other).into()),
            }
        }
        Err(EngineError::Store(StoreError::Conflict { kind: "container", id: id.to_string() }).into())
    }

    /// What plugins may not change they can still refuse: else nothing that they lowered would stay so.
    async fn admit_update(
        &self,
        session: &Session,
        vch: &Vch,
        new: &Container,
    ) -> Result<Admitted, EngineError> {
        let image = self.image_of(new).await?;
        let (facts, container) = as_told(new, image.as_ref());
        let ask = Ask {
            action: Action::ContainerUpdate,
            caller: &session.caller,
            endpoint: Some(vch),
            subject: Subject::Container { vch, container: facts },
            usage_after: Usage::default(),
        };
        self.admit_with_plugins(ask, vch, plugin::Subject::ContainerUpdate(container)).await
    }

    /// The container as it would be.
    async fn updated(&self, vch: &Vch, old: &Container, update: &Update) -> Result<Container, EngineError> {
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
            new.ask.memory_bytes = Some(bytes);
            new.spec.resources.memory_bytes = bytes;
            self.check_memory(old, &new).await?;
        }
        if let Some(milli) = update.cpu_milli {
            new.ask.cpu_milli = (milli > 0).then_some(milli);
            new.spec.resources.cpu_milli = new.ask.cpu_milli.unwrap_or(vch.settings.default_cpu_milli);
            self.check_vcpus(old, new.spec.resources.vcpus()).await?;
        }
        if let Some(pids) = update.pids_max {
            let pids_max = (pids > 0).then_some(pids);
            (new.ask.process.pids_max, new.spec.process.pids_max) = (pids_max, pids_max);
        }
        self.check_size(&new.spec)?;
        if let Some(host) = new.client_view.get_mut("HostConfig").and_then(|host| host.as_object_mut()) {
            host.extend(update.client_view.clone());
        }
        Ok(new)
    }

    /// In the machine, if there is one. What it cannot have was never asked for.
    async fn carry_out(&self, old: &Container, new: &Container) -> Result<(), EngineError> {
        let driver = self.drive(new);
        driver.wake();
        if !matches!(new.status, Status::Running { .. }) || new.spec == old.spec {
            return Ok(());
        }
        let done = driver.limits().await;
        if done.is_err() {
            let record = Record::at(self.now());
            if let Err(error) = self.store().update_container(new, old, &record).await {
                // Somebody else changed it meanwhile: that stands.
                tracing::debug!(%error, "an update that could not be carried out is not taken back");
            }
            driver.wake();
        }
        done
    }

    async fn check_memory(&self, old: &Container, new: &Container) -> Result<(), EngineError> {
        if !is_live(old) {
            return Ok(());
        }
        let machine = self.back_end().machines.observe(&old.id).await?;
        match machine.filter(|machine| machine.memory.memory_bytes_max < memory_bytes(new)) {
            Some(machine) => Err(EngineError::Conflict(format!(
                "the machine of a running container cannot have more than {} MiB of memory: stop container {}, update \
                 it and start it again",
                machine.memory.memory_bytes_max >> 20,
                old.id.short()
            ))),
            None => Ok(()),
        }
    }

    async fn check_vcpus(&self, container: &Container, vcpus: u32) -> Result<(), EngineError> {
        if !is_live(container) {
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

    /// Tells the guest of a container that runs how much memory its processes may have from now on, and nothing else.
    async fn limit_memory(&self, container: &Container, wanted: &Container) -> Result<(), EngineError> {
        if !matches!(container.status, Status::Running { .. }) {
            // A guest that is not there yet is told with its start.
            return Ok(());
        }
        let machine = self.back_end().machines.observe(&container.id).await?;
        let vcpus = machine.map_or(0, |machine| machine.vcpus);
        let mut told = limits(&container.spec, vcpus);
        told.memory_bytes = limits(&wanted.spec, vcpus).memory_bytes;
        let (agent, _awake) = self.awake(container).await?;
        match agent.call(RequestBody::Limits(told), SHRINK_DEADLINE).await {
            Ok(_) => Ok(()),
            Err(GuestError::Refused(why)) => {
                Err(EngineError::Conflict(format!("Cannot update container {}: {why}", container.id)))
            }
            Err(error) => Err(crate::input::broken(&container.id, &error)),
        }
    }
}

fn is_live(container: &Container) -> bool {
    matches!(container.status, Status::Starting { .. } | Status::Running { .. })
}

/// What it is allowed, whatever its machine has.
fn memory_bytes(container: &Container) -> u64 {
    limits(&container.spec, 0).memory_bytes
}
