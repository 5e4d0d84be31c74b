//! Use cases of operators: virtual container hosts and decisions.

use crate::admission::{Admitted, Ask, random};
use crate::volumes::{self, VolumeStoreFacts};
use crate::{Engine, EngineError};
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::vch::VchName;
use bulkhead_model::{Action, Caller, Class, Decision, DecisionId, Vch, VchId, VchSettings};
use bulkhead_policy::{Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeMap;
use tokio::sync::watch;

/// A VCH to be made.
#[derive(Debug, Clone)]
pub struct NewVch {
    pub name: VchName,
    pub class: Class,
    pub tenant: String,
    pub settings: VchSettings,
}

/// What a VCH uses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VchUsage {
    pub containers: u64,
    pub running: u64,
    /// Of those that run, the ones that stand still.
    pub paused: u64,
    /// Memory of running containers together, in bytes.
    pub memory_bytes: u64,
    pub images: u64,
    pub volumes: u64,
    /// Sizes of all volumes together, in bytes.
    pub volumes_bytes: u64,
    pub volume_stores: Vec<VolumeStoreFacts>,
}

impl Engine {
    pub async fn vch_create(&self, caller: &Caller, new: NewVch) -> Result<Vch, EngineError> {
        if !self.0.policies.set().classes().any(|class| *class == new.class) {
            let known: Vec<_> = self.0.policies.set().classes().map(ToString::to_string).collect();
            let why = format!("there are no policies for it; there are {}", known.join(", "));
            return Err(EngineError::Invalid { what: "class", value: new.class.to_string(), why });
        }
        if new.tenant.is_empty() || new.tenant.len() > 64 || new.tenant.chars().any(char::is_control) {
            let why = "expected 1 to 64 printable characters".to_owned();
            return Err(EngineError::Invalid { what: "tenant", value: new.tenant, why });
        }
        let id = uuid::Builder::from_random_bytes(random()?).into_uuid();
        let vch = Vch {
            id: VchId(id),
            name: new.name,
            tenant: new.tenant,
            class: new.class,
            parent: None,
            settings: new.settings,
            created_at: self.now(),
            deleting: false,
        };
        let admitted = self.admit_operator(caller, Action::VchCreate, Subject::Vch(&vch)).await?;
        let record = Record::at(vch.created_at).audit(admitted.audit).event(vch_event(&vch, "create"));
        let created = async {
            self.open_stores(vch.id, &vch.settings).await?;
            match self.store().create_vch(&vch, &record).await {
                Err(StoreError::NameTaken { name, .. }) => Err(EngineError::VchNameInUse(name)),
                other => Ok(other?),
            }
        };
        if let Err(error) = created.await {
            // Where that is not known, folders that nobody uses may stay.
            if !matches!(error, EngineError::Store(StoreError::OutcomeUnknown(_))) {
                self.leave_stores(vch.id, &vch.settings, None).await;
            }
            return Err(error);
        }
        self.0.feed.wake();
        self.vchs_were_changed();
        self.networks_changed();
        Ok(vch)
    }

    pub async fn vchs(&self, caller: &Caller) -> Result<Vec<(Vch, VchUsage)>, EngineError> {
        self.admit_operator(caller, Action::VchList, Subject::Platform).await?;
        let mut all = Vec::new();
        for vch in self.store().vchs().await? {
            let usage = self.vch_usage(&vch).await?;
            all.push((vch, usage));
        }
        Ok(all)
    }

    pub async fn vch(&self, caller: &Caller, name: &str) -> Result<(Vch, VchUsage), EngineError> {
        let vch = self.vch_named(name).await?;
        self.admit_operator(caller, Action::VchInspect, Subject::Vch(&vch)).await?;
        let usage = self.vch_usage(&vch).await?;
        Ok((vch, usage))
    }

    /// Sets a VCH to something else; all of it holds from now on. `before`: what the caller saw of it.
    pub async fn vch_update(
        &self,
        caller: &Caller,
        before: &Vch,
        settings: VchSettings,
    ) -> Result<Vch, EngineError> {
        let vch = Vch { settings, ..before.clone() };
        let admitted = self.admit_operator(caller, Action::VchUpdate, Subject::Vch(&vch)).await?;
        let record = Record::at(self.now()).audit(admitted.audit).event(vch_event(&vch, "update"));
        self.open_stores(vch.id, &vch.settings).await?;
        let updated = self.store().update_settings(vch.id, &before.settings, &vch.settings, &record).await;
        match updated {
            Ok(_) => self.leave_stores(vch.id, &before.settings, Some(&vch.settings)).await,
            Err(StoreError::Conflict { .. }) => {
                return Err(EngineError::Conflict(format!("VCH {} changed meanwhile; try again", vch.name)));
            }
            Err(error) => {
                if !matches!(error, StoreError::OutcomeUnknown(_)) {
                    self.leave_stores(vch.id, &vch.settings, Some(&before.settings)).await;
                }
                return Err(error.into());
            }
        }
        self.0.feed.wake();
        self.vchs_were_changed();
        self.networks_changed();
        Ok(vch)
    }

    /// Removes a VCH with its images. With containers or volumes in it only by `force`, which ends and removes them.
    pub async fn vch_remove(&self, caller: &Caller, name: &str, force: bool) -> Result<(), EngineError> {
        let vch = self.vch_named(name).await?;
        let admitted = self.admit_operator(caller, Action::VchDelete, Subject::Vch(&vch)).await?;
        let containers = self.store().containers(vch.id).await?.len();
        let volumes = self.store().volumes(vch.id).await?.len();
        if containers + volumes > 0 && !force {
            let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
            let (containers, volumes) = (count(containers), count(volumes));
            return Err(EngineError::VchNotEmpty { name: vch.name.to_string(), containers, volumes });
        }
        // From here on nothing new comes into it; a crash is picked up by the next start.
        let record = Record::at(self.now()).audit(admitted.audit).event(vch_event(&vch, "delete"));
        self.store().mark_vch_deleting(vch.id, &record).await?;
        self.vchs_were_changed();
        let engine = self.clone();
        let removal = self.0.tasks.spawn(async move { engine.finish_vch_removal(&vch).await });
        removal.await.map_err(|_| EngineError::Stopping)?
    }

    pub(crate) async fn finish_vch_removal(&self, vch: &Vch) -> Result<(), EngineError> {
        let caller = Caller::system();
        let audit = |action: Action| bulkhead_store::AuditEntry {
            caller: caller.name.clone(),
            action: action.name().into(),
            resource: format!("Vch::\"{}\"", vch.name),
            decision: None,
            outcome: "done".into(),
        };
        let containers = self.store().containers(vch.id).await?;
        let removals = containers
            .into_iter()
            .map(|container| self.drive_away(container, true, false, audit(Action::ContainerRemove)));
        futures_util::future::try_join_all(removals).await?;
        for image in self.store().images(vch.id).await? {
            let record = Record::at(self.now());
            self.store().delete_image(vch.id, &image.id, &record).await?;
        }
        self.clear_condemned(vch.id).await?;
        for volume in self.store().volumes(vch.id).await? {
            let record = Record::at(self.now()).audit(audit(Action::VolumeRemove));
            self.store().remove_volume(vch.id, volume.id, &record).await?;
        }
        self.clear_condemned_volumes(vch.id).await?;
        self.give_up_volumes(vch.id).await?;
        self.back_end().disks.forget_vch(vch.id).await?;
        self.leave_stores(vch.id, &vch.settings, None).await;
        self.store().delete_vch(vch.id, &Record::at(self.now()).audit(audit(Action::VchDelete))).await?;
        self.keep_networks(None).await?;
        self.vchs_were_changed();
        Ok(())
    }

    /// Counts up when VCHs come, go or change: listeners look again.
    pub fn vchs_changed(&self) -> watch::Receiver<u64> {
        self.0.vchs_changed.subscribe()
    }

    /// For listeners: which VCHs there are, with no decision asked for.
    pub async fn all_vchs(&self) -> Result<Vec<Vch>, EngineError> {
        Ok(self.store().vchs().await?)
    }

    pub async fn decision(&self, caller: &Caller, id: &str) -> Result<Decision, EngineError> {
        let missing = || EngineError::NoSuchDecision(id.into());
        let id: DecisionId = id.parse().map_err(|_| missing())?;
        let decision = match self.store().decision(&id).await {
            Err(StoreError::NotFound { .. }) => return Err(missing()),
            other => other?,
        };
        let vch = self.store().vch(decision.vch).await.ok();
        let subject = vch.as_ref().map_or(Subject::Platform, Subject::Vch);
        self.admit_operator(caller, Action::DecisionRead, subject).await?;
        Ok(decision)
    }

    pub(crate) async fn vch_named(&self, name: &str) -> Result<Vch, EngineError> {
        let missing = || EngineError::NoSuchVch(name.chars().take(80).collect());
        let parsed: VchName = name.parse().map_err(|_| missing())?;
        match self.store().vch_by_name(&parsed).await {
            Err(StoreError::NotFound { .. }) => Err(missing()),
            other => Ok(other?),
        }
    }

    pub(crate) async fn admit_operator(
        &self,
        caller: &Caller,
        action: Action,
        subject: Subject<'_>,
    ) -> Result<Admitted, EngineError> {
        self.admit(Ask { action, caller, endpoint: None, subject, usage_after: Usage::default() }).await
    }

    pub(crate) async fn vch_usage(&self, vch: &Vch) -> Result<VchUsage, EngineError> {
        let containers = self.store().containers(vch.id).await?;
        let images = self.store().images(vch.id).await?.len();
        let volumes = self.store().volumes(vch.id).await?;
        let live = containers
            .iter()
            .filter(|container| matches!(container.status, Status::Starting { .. } | Status::Running { .. }));
        let (mut running, mut paused, mut memory_bytes) = (0, 0, 0);
        for container in live {
            running += 1;
            paused += u64::from(matches!(container.status, Status::Running { paused: true, .. }));
            memory_bytes += container.spec.resources.memory_bytes;
        }
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Ok(VchUsage {
            containers: count(containers.len()),
            running,
            paused,
            memory_bytes,
            images: count(images),
            volumes: count(volumes.len()),
            volumes_bytes: volumes.iter().map(|volume| volume.size_bytes).sum(),
            volume_stores: volumes::store_facts(&vch.settings, &volumes),
        })
    }

    fn vchs_were_changed(&self) {
        self.0.vchs_changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn vch_event(vch: &Vch, action: &str) -> NewEvent {
    let attributes = BTreeMap::from([
        ("class".to_owned(), vch.class.to_string()),
        ("name".to_owned(), vch.name.to_string()),
        ("tenant".to_owned(), vch.tenant.clone()),
    ]);
    NewEvent { kind: EventKind::Vch, action: action.into(), actor: vch.id.to_string(), attributes }
}
