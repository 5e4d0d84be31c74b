//! Use cases of volumes.
//!
//! ```text
//!   create   disk ──▶ row          a crash between them leaves a disk that the next start deletes
//!   remove   condemned ──▶ disk deleted ──▶ row forgotten          picked up again after a crash
//! ```

mod plan;
pub(crate) mod stores;

pub(crate) use plan::Planned;
pub use stores::VolumeStoreFacts;
pub(crate) use stores::facts as store_facts;

use crate::admission::{Admitted, Ask, random};
use crate::{Engine, EngineError, Session};
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_machine::MachineError;
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::volume::{VOLUME_BYTES_MAX, VOLUME_BYTES_MIN, VolumeAsk, VolumePlace, uses};
use bulkhead_model::{Action, ContainerId, Vch, VchId, Volume, VolumeId, VolumeName};
use bulkhead_policy::{Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// A volume and who has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeFacts {
    pub volume: Volume,
    /// Whether they run or not.
    pub containers: Vec<ContainerId>,
}

/// Volumes that were removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrunedVolumes {
    pub names: Vec<VolumeName>,
    /// Of their disks, on the datastore.
    pub reclaimed_bytes: u64,
}

/// For a guest to take what a disk has grown by.
const GROW_DEADLINE: Duration = Duration::from_secs(30);
/// Another may make or remove a volume of the same name meanwhile; each try loses only to that.
pub(crate) const TRIES: u32 = 4;

/// An event of a volume.
pub(crate) fn volume_event(name: &VolumeName, action: &str, special: &[(&str, &str)]) -> NewEvent {
    let local = [("driver", "local")];
    let attributes = local.iter().chain(special).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NewEvent {
        kind: EventKind::Volume,
        action: action.into(),
        actor: name.to_string(),
        attributes: attributes.collect(),
    }
}

impl Engine {
    /// All volumes of the VCH, by name.
    pub async fn volumes(&self, session: &Session) -> Result<Vec<VolumeFacts>, EngineError> {
        self.authorize(session, Action::VolumeList).await?;
        let mut users = self.store().volume_users(session.vch).await?;
        let volumes = self.store().volumes(session.vch).await?.into_iter();
        Ok(volumes
            .map(|volume| {
                let containers = users.remove(&volume.id).unwrap_or_default();
                VolumeFacts { volume, containers }
            })
            .collect())
    }

    pub async fn volume(&self, session: &Session, name: &str) -> Result<Volume, EngineError> {
        let vch = self.vch_of(session).await?;
        let volume = self.find_volume(vch.id, name).await?;
        self.admit_volume(session, &vch, Action::VolumeInspect, &volume, Usage::default()).await?;
        Ok(volume)
    }

    /// Bytes that its disk takes. `None`: what its volume store lies on is not there now.
    pub async fn volume_used(&self, volume: &Volume) -> Result<Option<u64>, EngineError> {
        match self.back_end().disks.volume_used(volume.vch, &volume.place()).await {
            Err(MachineError::NoFolder { .. }) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// Makes a volume, or finds the one of that name. One that is there is made as large as is asked for.
    pub async fn create_volume(&self, session: &Session, ask: &VolumeAsk) -> Result<Volume, EngineError> {
        for _ in 1..TRIES {
            match self.create_volume_once(session, ask).await {
                Err(EngineError::Store(StoreError::NameTaken { .. } | StoreError::Conflict { .. })) => {}
                other => return other,
            }
        }
        self.create_volume_once(session, ask).await
    }

    async fn create_volume_once(&self, session: &Session, ask: &VolumeAsk) -> Result<Volume, EngineError> {
        let vch = &self.vch_of(session).await?;
        if let Some(name) = &ask.name {
            match self.find_volume(vch.id, name.as_str()).await {
                Ok(found) => {
                    stores::check_same(&found, ask)?;
                    return self.grown(session, vch, found, ask.size_bytes).await;
                }
                Err(EngineError::NoSuchVolume(_)) => {}
                Err(other) => return Err(other),
            }
        }
        let volume = self.new_volume(session, vch, ask)?;
        let usage = self.volumes_after(&volume, std::slice::from_ref(&volume)).await?;
        let admitted = self.admit_volume(session, vch, Action::VolumeCreate, &volume, usage).await?;
        self.back_end().disks.create_volume(vch.id, &volume.place(), volume.size_bytes).await?;
        let record = Record::at(volume.created_at).audit(admitted.audit).event(volume_event(
            &volume.name,
            "create",
            &[],
        ));
        if let Err(error) = self.store().create_volume(&volume, self.0.fence, &record).await {
            let error = error.into();
            self.give_up_disks(&error, std::slice::from_ref(&volume)).await;
            return Err(error);
        }
        self.0.feed.wake();
        Ok(volume)
    }

    /// The volume as it would be.
    pub(crate) fn new_volume(
        &self,
        session: &Session,
        vch: &Vch,
        ask: &VolumeAsk,
    ) -> Result<Volume, EngineError> {
        let size_bytes = ask.size_bytes.unwrap_or(vch.settings.volume_bytes);
        check_size(size_bytes)?;
        let (store, folder) = stores::of(vch, ask)?;
        Ok(Volume {
            vch: vch.id,
            id: VolumeId(uuid::Builder::from_random_bytes(random()?).into_uuid()),
            name: match &ask.name {
                Some(name) => name.clone(),
                None => VolumeName::from_random(random()?),
            },
            labels: ask.labels.clone(),
            options: ask.options.clone(),
            size_bytes,
            owner: session.caller.name.clone(),
            anonymous: ask.name.is_none(),
            created_at: self.now(),
            settled: false,
            store,
            folder,
        })
    }

    async fn grown(
        &self,
        session: &Session,
        vch: &Vch,
        volume: Volume,
        size_bytes: Option<u64>,
    ) -> Result<Volume, EngineError> {
        let size_bytes = size_bytes.unwrap_or(volume.size_bytes);
        let larger = Volume { size_bytes, ..volume.clone() };
        if size_bytes < volume.size_bytes {
            return Err(EngineError::Conflict(format!(
                "volume {} has a disk of {} bytes, which can be made larger but not smaller: {size_bytes} bytes were \
                 asked for",
                volume.name, volume.size_bytes
            )));
        }
        check_size(size_bytes)?;
        let usage = self.volumes_after(&volume, &[]).await?;
        let more = size_bytes - volume.size_bytes;
        let usage = Usage {
            volumes_bytes: usage.volumes_bytes.saturating_add(more),
            store_bytes: usage.store_bytes.saturating_add(more),
            ..usage
        };
        let admitted = self.admit_volume(session, vch, Action::VolumeCreate, &larger, usage).await?;
        if size_bytes > volume.size_bytes {
            let record = Record::at(self.now()).audit(admitted.audit);
            self.store().grow_volume(&volume, size_bytes, &record).await?;
            // Before a machine gets it, this is done again.
            self.back_end().disks.grow_volume(vch.id, &volume.place(), size_bytes).await?;
        }
        self.show_growth(&larger).await?;
        Ok(larger)
    }

    /// To the containers that run with it; all others see it when they start.
    async fn show_growth(&self, volume: &Volume) -> Result<(), EngineError> {
        let mut users = self.store().volume_users(volume.vch).await?;
        for id in users.remove(&volume.id).unwrap_or_default() {
            let Ok(container) = self.store().container(volume.vch, &id).await else { continue };
            let uses = uses(&container.spec.mounts);
            let place = uses.iter().position(|found| found.id == volume.id && !found.read_only);
            let (Some(place), Status::Running { .. }) = (place, &container.status) else { continue };
            let (disk, bytes) = (u32::try_from(place).unwrap_or(u32::MAX), volume.size_bytes);
            self.back_end().machines.volume_grown(&id, volume.id, bytes).await?;
            let agent = self.agent(&container).await?;
            let grown = agent.call(RequestBody::GrowVolume { disk, bytes }, GROW_DEADLINE).await;
            grown.map_err(|error| {
                EngineError::Conflict(format!(
                    "volume {} has {bytes} bytes now, but container {} will see them only when it is started again: \
                     {error}",
                    volume.name,
                    id.short()
                ))
            })?;
        }
        Ok(())
    }

    /// Refused while a container has it, whether it runs or not. `force`: fine if it is not there.
    pub async fn remove_volume(&self, session: &Session, name: &str, force: bool) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        let volume = match self.find_volume(vch.id, name).await {
            Err(EngineError::NoSuchVolume(_)) if force => return Ok(()),
            other => other?,
        };
        self.remove_one_volume(session, &vch, &volume).await
    }

    /// Removes the volumes that no container has and that are `wanted`. Each is decided about as a removal of its own:
    /// what a policy protects is passed over.
    pub async fn prune_volumes(
        &self,
        session: &Session,
        wanted: impl Fn(&Volume) -> bool + Send + Sync,
    ) -> Result<PrunedVolumes, EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, Action::VolumePrune).await?;
        let users = self.store().volume_users(vch.id).await?;
        let mut pruned = PrunedVolumes::default();
        for volume in self.store().volumes(vch.id).await? {
            if users.contains_key(&volume.id) || !wanted(&volume) {
                continue;
            }
            let used = self.volume_used(&volume).await.ok().flatten().unwrap_or(0);
            match self.remove_one_volume(session, &vch, &volume).await {
                Ok(()) => {
                    pruned.names.push(volume.name);
                    pruned.reclaimed_bytes = pruned.reclaimed_bytes.saturating_add(used);
                }
                // Protected, in use or gone by now, or not to be reached.
                Err(
                    error @ (EngineError::Denied { .. }
                    | EngineError::VolumeInUse { .. }
                    | EngineError::NoSuchVolume(_)
                    | EngineError::Machine(MachineError::NoFolder { .. })),
                ) => tracing::info!(volume.name = %volume.name, %error, "not pruned"),
                Err(error) => return Err(error),
            }
        }
        self.tell_pruned(vch.id, EventKind::Volume, pruned.reclaimed_bytes).await?;
        Ok(pruned)
    }

    async fn remove_one_volume(
        &self,
        session: &Session,
        vch: &Vch,
        volume: &Volume,
    ) -> Result<(), EngineError> {
        let Admitted { audit, .. } =
            self.admit_volume(session, vch, Action::VolumeRemove, volume, Usage::default()).await?;
        // What cannot be deleted now is not removed.
        self.back_end().disks.volume_used(vch.id, &volume.place()).await?;
        let record = Record::at(self.now()).audit(audit).event(volume_event(&volume.name, "destroy", &[]));
        match self.store().remove_volume(vch.id, volume.id, &record).await {
            Err(StoreError::VolumeInUse { containers }) => {
                return Err(EngineError::VolumeInUse { name: volume.name.to_string(), containers });
            }
            Err(StoreError::NotFound { .. }) => {
                return Err(EngineError::NoSuchVolume(volume.name.to_string()));
            }
            other => other?,
        };
        self.0.feed.wake();
        self.clear_condemned_volumes(vch.id).await
    }

    pub(crate) async fn find_volume(&self, vch: VchId, name: &str) -> Result<Volume, EngineError> {
        match self.store().volume(vch, name).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchVolume(name.into())),
            other => Ok(other?),
        }
    }

    pub(crate) async fn admit_volume(
        &self,
        session: &Session,
        vch: &Vch,
        action: Action,
        volume: &Volume,
        usage_after: Usage,
    ) -> Result<Admitted, EngineError> {
        let subject = Subject::Volume { vch, volume };
        let ask = Ask { action, caller: &session.caller, endpoint: Some(vch), subject, usage_after };
        match action {
            Action::VolumeCreate => {
                self.admit_with_plugins(ask, vch, bulkhead_plugin::Subject::VolumeCreate(volume)).await
            }
            _ => self.admit(ask).await,
        }
    }

    /// What the VCH, and the volume store of one of them, would use with these, too.
    pub(crate) async fn volumes_after(&self, one: &Volume, new: &[Volume]) -> Result<Usage, EngineError> {
        let there = self.store().volumes(one.vch).await?;
        let all = there.iter().chain(new);
        let volumes_bytes = all.clone().map(|volume| volume.size_bytes).sum();
        let beside = all.filter(|volume| volume.store == one.store);
        let store_bytes = beside.map(|volume| volume.size_bytes).sum();
        let volumes = u32::try_from(there.len() + new.len()).unwrap_or(u32::MAX);
        Ok(Usage { volumes, volumes_bytes, store_bytes, ..Usage::default() })
    }

    pub(crate) async fn create_disks(&self, volumes: &[Volume]) -> Result<(), EngineError> {
        for volume in volumes {
            self.back_end().disks.create_volume(volume.vch, &volume.place(), volume.size_bytes).await?;
        }
        Ok(())
    }

    /// Deletes disks that were made for rows that did not come to be. Where that is not known, the next start looks.
    pub(crate) async fn give_up_disks(&self, error: &EngineError, volumes: &[Volume]) {
        if matches!(error, EngineError::Store(StoreError::OutcomeUnknown(_))) {
            return;
        }
        for volume in volumes {
            if let Err(error) = self.back_end().disks.delete_volume(volume.vch, &volume.place()).await {
                tracing::warn!(volume.name = %volume.name, %error, "the disk of a volume that was not made stays");
            }
        }
    }

    /// Deletes the disks of volumes that were removed; picked up again after a crash.
    pub(crate) async fn clear_condemned_volumes(&self, vch: VchId) -> Result<(), EngineError> {
        let mut deleted = Vec::new();
        for volume in self.store().condemned_volumes(vch).await? {
            match self.back_end().disks.delete_volume(vch, &volume).await {
                // Later: it keeps no other waiting.
                Err(MachineError::NoFolder { folder }) => {
                    tracing::warn!(volume.id = %volume.id, folder = %folder.display(), "the disk of a volume that was removed is out of reach");
                }
                other => {
                    other?;
                    deleted.push(volume.id);
                }
            }
        }
        if !deleted.is_empty() {
            self.store().forget_volumes(vch, &deleted).await?;
        }
        Ok(())
    }

    /// Forgets volumes that were removed and whose disks are out of reach, with their VCH: an operator may have lost for
    /// good what they lie on.
    pub(crate) async fn give_up_volumes(&self, vch: VchId) -> Result<(), EngineError> {
        let lost = self.store().condemned_volumes(vch).await?;
        for volume in &lost {
            tracing::warn!(volume.id = %volume.id, folder = ?volume.folder, "the disk of a volume stays where it is");
        }
        let ids: Vec<_> = lost.iter().map(|volume| volume.id).collect();
        Ok(self.store().forget_volumes(vch, &ids).await?)
    }

    /// Deletes disks whose volumes did not come to be. At start only: while volumes are being made, such disks are
    /// theirs.
    pub(crate) async fn clear_unrecorded_volumes(&self, vch: &Vch) -> Result<(), EngineError> {
        self.clear_folder(vch.id, None).await?;
        for folder in stores::folders(&vch.settings) {
            self.clear_folder(vch.id, Some(folder)).await?;
        }
        Ok(())
    }

    /// Deletes the disks in a folder for volumes that belong to no volume.
    async fn clear_folder(&self, vch: VchId, folder: Option<&Path>) -> Result<(), EngineError> {
        let disks = &self.back_end().disks;
        let kept: BTreeSet<_> = self.store().kept_volumes(vch).await?.into_iter().map(|at| at.id).collect();
        for id in disks.volumes(vch, folder).await? {
            if !kept.contains(&id) {
                tracing::info!(volume.id = %id, "deletes a disk that belongs to no volume");
                disks.delete_volume(vch, &VolumePlace { id, folder: folder.map(Path::to_owned) }).await?;
            }
        }
        Ok(())
    }
}

fn check_size(bytes: u64) -> Result<(), EngineError> {
    if (VOLUME_BYTES_MIN..=VOLUME_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let why = format!("a volume has {VOLUME_BYTES_MIN} to {VOLUME_BYTES_MAX} bytes");
    Err(EngineError::Invalid { what: "volume size", value: bytes.to_string(), why })
}
