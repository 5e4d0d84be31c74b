//! A container's volumes before its machine starts: free, as large as they should be, and complete where they can only
//! be read.
//!
//! A machine that cannot write a volume can neither fill it nor replay its journal. So that is done before, in a machine
//! of the container's own that runs no process: the volume is *settled*. Whoever gets it writable unsettles it.

use super::{Driver, run_of};
use crate::EngineError;
use crate::volumes::volume_event;
use bulkhead_guest_protocol::message::RequestBody;
use bulkhead_guest_protocol::volumes as guest;
use bulkhead_machine::{Condition, MachineError, VolumeDisk};
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::volume::{VolumeUse, uses};
use bulkhead_model::{Container, ContainerId, Mount, Volume, VolumeId};
use bulkhead_store::StoreError;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

/// For the last machine of a volume to power itself off.
const HELD_MAX: Duration = Duration::from_secs(90);
pub(super) const HELD_LOOK: Duration = Duration::from_millis(50);

/// Settling is no run of the container.
const SETTLING_RUN: u32 = 0;

/// Held from the look whether volumes are free until the machine that gets them has started.
pub(super) type Gate = OwnedMutexGuard<()>;

/// Whether a machine may start now.
pub(super) enum Readiness {
    Ready,
    /// What can only be read has to be settled first.
    Unsettled,
    /// Look again, at what is wanted too.
    NotYet,
    /// It will not be.
    Held(EngineError),
}

impl Driver {
    /// To be asked with the gate held.
    pub(super) async fn ready_volumes(&mut self, container: &Container) -> Result<Readiness, EngineError> {
        let wanted = uses(&container.spec.mounts);
        let volumes = self.volumes_of(container).await?;
        if let Some((name, by)) = self.held(container, &volumes).await? {
            let by_when = *self.held_until.get_or_insert_with(|| Instant::now() + HELD_MAX);
            if Instant::now() > by_when {
                self.held_until = None;
                return Ok(Readiness::Held(EngineError::VolumeHeld { name, by }));
            }
            return Ok(Readiness::NotYet);
        }
        self.held_until = None;
        for volume in &volumes {
            let (at, bytes) = (volume.place(), volume.size_bytes);
            // What is not there, or lies on what is not mounted, will not be there at the next try either.
            if let Err(error) = self.engine.back_end().disks.grow_volume(self.vch, &at, bytes).await {
                return Ok(Readiness::Held(error.into()));
            }
        }
        let unsettled =
            |wish: &VolumeUse| volumes.iter().any(|volume| volume.id == wish.id && !volume.settled);
        let due = wanted.iter().any(|wish| wish.read_only && unsettled(wish));
        if due {
            return Ok(Readiness::Unsettled);
        }
        self.unsettle(&self.run_disks(container).await?).await?;
        Ok(Readiness::Ready)
    }

    /// Those that can be written may be anything from now on.
    async fn unsettle(&self, disks: &[VolumeDisk]) -> Result<(), EngineError> {
        let ids: Vec<VolumeId> = disks.iter().filter(|disk| !disk.read_only).map(|disk| disk.at.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        Ok(self.engine.store().settle_volumes(self.engine.0.fence, &ids, false).await?)
    }

    pub(super) async fn settle(&mut self, container: &Container, gate: Gate) -> Result<(), EngineError> {
        let disks = self.bench_disks(container).await?;
        self.unsettle(&disks).await?;
        let settled = self.settle_in_machine(container, gate).await;
        self.clear_away(false).await?;
        match settled {
            Ok(()) => {
                let ids: Vec<VolumeId> =
                    disks.iter().filter(|disk| !disk.read_only).map(|disk| disk.at.id).collect();
                Ok(self.engine.store().settle_volumes(self.engine.0.fence, &ids, true).await?)
            }
            // Somebody wants something else of it.
            Err(EngineError::Conflict(_)) => Ok(()),
            Err(error) => {
                self.fail(128, &format!("volumes could not be prepared: {error}"), container);
                Ok(())
            }
        }
    }

    async fn settle_in_machine(&mut self, container: &Container, gate: Gate) -> Result<(), EngineError> {
        let link = self.set_up(container, SETTLING_RUN, gate, Self::check_starts).await?;
        let deadline = Self::start_deadline(container);
        let release = RequestBody::ReleaseVolumes;
        let released = self.call_while(Self::check_starts, link.agent(), release, deadline).await?;
        released.map_err(|error| self.broken(&error))?;
        Ok(())
    }

    pub(super) fn check_starts(&self, container: &Container) -> Result<(), EngineError> {
        match (&container.desired.goal, &container.status) {
            (Goal::Run, Status::Starting { .. }) => Ok(()),
            _ => Err(EngineError::Conflict(format!("container {} is not to start", self.id.short()))),
        }
    }

    /// The disks for a machine that runs the container's process.
    pub(super) async fn run_disks(&self, container: &Container) -> Result<Vec<VolumeDisk>, EngineError> {
        let volumes = self.volumes_of(container).await?;
        let disk = |wish: VolumeUse| {
            let volume = volumes.iter().find(|volume| volume.id == wish.id);
            let at = volume.ok_or(MachineError::NoSuchVolume(wish.id))?.place();
            Ok(VolumeDisk { at, read_only: wish.read_only })
        };
        uses(&container.spec.mounts).into_iter().map(disk).collect()
    }

    /// The disks for a machine without a process: what is not settled can be written, or it could not even be read.
    pub(super) async fn bench_disks(&self, container: &Container) -> Result<Vec<VolumeDisk>, EngineError> {
        let volumes = self.volumes_of(container).await?;
        let mut disks = self.run_disks(container).await?;
        for disk in &mut disks {
            disk.read_only &= volumes.iter().any(|volume| volume.id == disk.at.id && volume.settled);
        }
        Ok(disks)
    }

    /// Once the volumes are free for a machine without a process.
    pub(super) async fn free_volumes(&self, container: &Container) -> Result<Gate, EngineError> {
        let until = Instant::now() + HELD_MAX;
        loop {
            let gate = self.gate().await;
            let volumes = self.volumes_of(container).await?;
            let Some((name, by)) = self.held(container, &volumes).await? else {
                self.unsettle(&self.bench_disks(container).await?).await?;
                return Ok(gate);
            };
            drop(gate);
            let other = self.engine.store().container(self.vch, &by).await;
            let runs = other
                .is_ok_and(|other| matches!(other.status, Status::Starting { .. } | Status::Running { .. }));
            if runs || Instant::now() > until {
                return Err(EngineError::VolumeHeld { name, by });
            }
            tokio::time::sleep(HELD_LOOK).await;
        }
    }

    pub(super) async fn gate(&self) -> Gate {
        self.engine.0.volume_gate.clone().lock_owned().await
    }

    async fn volumes_of(&self, container: &Container) -> Result<Vec<Volume>, EngineError> {
        let mounts = &container.spec.mounts;
        if mounts.is_empty() {
            return Ok(Vec::new());
        }
        let all = self.engine.store().volumes(self.vch).await?;
        Ok(all.into_iter().filter(|volume| mounts.iter().any(|mount| mount.volume == volume.id)).collect())
    }

    /// A volume that is in the machine of another container and cannot be shared with it.
    async fn held(
        &self,
        container: &Container,
        volumes: &[Volume],
    ) -> Result<Option<(String, ContainerId)>, EngineError> {
        let users = self.engine.store().volume_users(self.vch).await?;
        let mine = uses(&container.spec.mounts);
        for volume in volumes {
            let others = users.get(&volume.id).into_iter().flatten().filter(|id| **id != self.id);
            for other in others {
                let Some(machine) = self.engine.back_end().machines.observe(other).await? else { continue };
                if !matches!(machine.condition, Condition::Running { .. }) {
                    continue;
                }
                let reads = |wish: &VolumeUse| wish.id == volume.id && wish.read_only;
                let only_read = match self.engine.store().container(self.vch, other).await {
                    Ok(other) => uses(&other.spec.mounts).iter().any(reads),
                    Err(_) => false,
                };
                if !(volume.settled && only_read && mine.iter().any(reads)) {
                    return Ok(Some((volume.name.to_string(), other.clone())));
                }
            }
        }
        Ok(None)
    }

    /// Removes the volumes that were made for it, where that is wished and no other container has them.
    pub(super) async fn leave_volumes(&self, container: &Container) -> Result<(), EngineError> {
        if !container.desired.with_volumes {
            return Ok(());
        }
        let (store, vch) = (self.engine.store(), self.vch);
        for mount in container.spec.mounts.iter().filter(|mount| mount.anonymous) {
            store.release_volume(&self.id, mount.volume).await?;
            let record = self.record().event(volume_event(&mount.name, "destroy", &[]));
            match store.remove_volume(vch, mount.volume, &record).await {
                // Gone already, if this is a repetition.
                Ok(_) | Err(StoreError::VolumeInUse { .. } | StoreError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.engine.clear_condemned_volumes(vch).await
    }

    /// A machine of this container that is not of the run that starts: it was to settle its volumes, and its server is
    /// no more.
    pub(super) async fn clear_left_over(&self, container: &Container, run: u32) -> Result<bool, EngineError> {
        let foreign = matches!(container.status, Status::Starting { .. }) && run != run_of(&container.status);
        if foreign {
            self.clear_away(false).await?;
        }
        Ok(foreign)
    }
}

/// What the agent is told of them: of each disk, whether it can only be read.
pub(super) fn told(mounts: &[Mount], disks: &[VolumeUse]) -> guest::Volumes {
    let place = |mount: &Mount| disks.iter().position(|disk| disk.id == mount.volume);
    guest::Volumes {
        disks: disks.iter().map(|disk| guest::VolumeDisk { read_only: disk.read_only }).collect(),
        mounts: mounts
            .iter()
            .map(|mount| guest::VolumeMount {
                disk: place(mount).and_then(|at| u32::try_from(at).ok()).unwrap_or(u32::MAX),
                target: mount.target.clone(),
                read_only: mount.read_only,
                fills: mount.fills,
                subpath: mount.subpath.clone(),
            })
            .collect(),
    }
}
