//! How a machine comes to life: as a spare that waits, or a clone of its image's template, or of its class's, else from its
//! kernel on.

use super::{Inner, KILL_DEADLINE, QemuMachines, lock};
use crate::cgroups::{Share, Size};
use crate::drives::Drive;
use crate::launch::{self, Launched};
use crate::qmp::Talk;
use crate::record::{Cloned, Record};
use crate::spares::{self, Spare};
use crate::templates::{Class, Kind, Template};
use crate::watch::Loading;
use bulkhead_machine::state::{MachineState, StartStep};
use bulkhead_machine::{MachineError, MachineSpec};
use bulkhead_model::{Boot, ContainerId};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// How long a clone may take to have all of its state.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long a spare may take to get its disks.
const SPARE_DEADLINE: Duration = Duration::from_secs(10);

/// Why a clone does not run.
enum NoLoad {
    /// Not for what it loaded: it would not run as a machine that boots either.
    Ended,
    /// What it was to load.
    Template(String),
}

/// What a first start has that later ones have not.
struct FirstStart {
    /// No run has written a journal: a spare brings one of its own.
    takes_spare: bool,
    /// No machine has had the disk: how large it is to be.
    disk_bytes: Option<u64>,
}

impl QemuMachines {
    pub(super) async fn prepare_for(
        &self,
        spec: &MachineSpec,
        patience: Duration,
    ) -> Result<bool, MachineError> {
        match spec.boot {
            Boot::Cold => Ok(true),
            Boot::Clone => {
                let prepared = self.0.templates.prepare(&Class::of(spec).into(), patience).await;
                prepared.map_err(MachineError::io("looking for a template"))
            }
        }
    }

    pub(super) async fn bring_up(&self, spec: &MachineSpec) -> Result<(), MachineError> {
        let mut act = self.act(&spec.id).await;
        // Before anything is used up for it.
        self.0.shared.hosts.find(&spec.placement.host)?;
        let class = Class::of(spec);
        let FirstStart { takes_spare, disk_bytes } = self.first_start(spec).await?;
        let (mut spare, mut of_image) = (None, None);
        if spec.boot == Boot::Clone {
            self.0.calm.started();
            self.0.spares.asked(class);
            of_image = disk_bytes.and_then(|disk_bytes| self.0.images.ask(&Kind::of(spec, disk_bytes)));
            spare = takes_spare.then(|| self.0.spares.take(class)).flatten();
        }
        if let Some(bytes) = disk_bytes {
            (of_image, act) = self.bring_disk(spec, bytes, of_image.filter(|_| spare.is_none()), act).await?;
        }
        if let Some(spare) = spare
            && self.take_spare(spec, spare).await
        {
            return Ok(());
        }
        let of_class = (spec.boot == Boot::Clone).then(|| self.0.templates.at_hand(&class.into())).flatten();
        for template in of_image.into_iter().chain(of_class) {
            let (launched, kept) = self.launch(spec, Some(template.clone()), act).await?;
            act = kept;
            if !launched {
                return Ok(());
            }
            let why = match self.await_load(&spec.id).await {
                Ok(()) => {
                    for nic in spec.nics.iter().skip(1) {
                        self.plug_in(&spec.id, nic).await?;
                    }
                    return Ok(());
                }
                // As any machine that ends at once.
                Err(NoLoad::Ended) => return Ok(()),
                Err(NoLoad::Template(why)) => why,
            };
            // It never ran: nothing of it is worth anything.
            self.0.end(&spec.id, "it was not loaded");
            self.over(&spec.id, KILL_DEADLINE).await;
            let id = spec.id.clone();
            self.blocking("deleting the machine", move |inner| inner.delete(&id)).await?;
            self.0.templates.distrust(&template, &why).await;
        }
        self.launch(spec, None, act).await.map(drop)
    }

    async fn first_start(&self, spec: &MachineSpec) -> Result<FirstStart, MachineError> {
        let (vch, id, place) = (spec.vch, spec.id.clone(), spec.placement.clone());
        self.blocking("looking at the machine", move |inner| {
            let is_absent = matches!(inner.state(&id)?.0, MachineState::Absent);
            let takes_spare = is_absent && inner.shared.has_no_journal(&id);
            let disk_bytes = inner.shared.disks.untouched(vch, place.disk_of(&id))?;
            Ok(FirstStart { takes_spare, disk_bytes })
        })
        .await
    }

    /// Makes the container's disk: the one that the template was captured with, as the memory of its clones knows what is
    /// on it; else an empty one. Returns the template, if it can be cloned.
    async fn bring_disk(
        &self,
        spec: &MachineSpec,
        bytes: u64,
        mut template: Option<Arc<Template>>,
        act: OwnedMutexGuard<()>,
    ) -> Result<(Option<Arc<Template>>, OwnedMutexGuard<()>), MachineError> {
        let doing = "making the container's disk";
        let of_template = template.as_ref().map(|template| template.capture.disk()).transpose();
        let from = match of_template.unwrap_or_default() {
            Some(disk) => disk,
            None => {
                template = None;
                self.0.shared.disks.prepared(bytes).await?
            }
        };
        let (vch, id, place) = (spec.vch, spec.id.clone(), spec.placement.clone());
        self.blocking(doing, move |inner| {
            inner.shared.disks.fill(vch, place.disk_of(&id), &from)?;
            Ok((template, act))
        })
        .await
    }

    /// Whether the spare became this machine.
    async fn take_spare(&self, spec: &MachineSpec, spare: Spare) -> bool {
        match self.assume(spec, spare).await {
            Ok(()) => true,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(container.id = %spec.id, error, "a spare machine could not be used");
                false
            }
        }
    }

    /// Makes a spare this machine. On an error nothing of it is left.
    async fn assume(&self, spec: &MachineSpec, spare: Spare) -> Result<(), MachineError> {
        let (wanted, mut spare) = (spec.clone(), spare);
        let settled = self.blocking("settling in a spare machine", move |inner| {
            match inner.settle(&wanted, &mut spare) {
                Ok((record, drives)) => Ok((record, drives, spare)),
                Err(error) => {
                    inner.undo(&wanted.id, spare);
                    Err(error)
                }
            }
        });
        let (record, drives, spare) = settled.await?;
        let folder = self.0.folder(&spec.id);
        let plug = async {
            let mut talk = Talk::begin(&folder).await?;
            for (drive, file) in &drives {
                spares::plug(&mut talk, drive, file).await?;
            }
            folder.write_loaded()
        };
        let plugged = tokio::time::timeout(SPARE_DEADLINE, plug).await.map_err(io::Error::from).flatten();
        let id = spec.id.clone();
        let doing = "giving a spare machine its disks";
        self.blocking(doing, move |inner| match plugged {
            Ok(()) => {
                let (pid, uid, template) = (record.process.pid, record.uid, &spare.template.name);
                tracing::info!(container.id = %id, pid, uid, template, spare = true, "machine started");
                let (log, pidfd) = spare.machine.keep();
                let watched = pidfd.ok_or_else(|| io::ErrorKind::NotFound.into());
                let watched = watched.and_then(|pidfd| inner.watch(record, pidfd, Some(log), None));
                watched.map_err(MachineError::io("watching the machine"))
            }
            Err(error) => {
                inner.undo(&id, spare);
                Err(MachineError::io(doing)(error))
            }
        })
        .await?;
        for nic in spec.nics.iter().skip(1) {
            self.plug_in(&spec.id, nic).await?;
        }
        Ok(())
    }

    /// `false`: it runs already. No other act on the machine begins before this one is over, waited for or not.
    async fn launch(
        &self,
        spec: &MachineSpec,
        template: Option<Arc<Template>>,
        act: OwnedMutexGuard<()>,
    ) -> Result<(bool, OwnedMutexGuard<()>), MachineError> {
        let spec = spec.clone();
        let launch = move |inner: &Inner| Ok((inner.start(&spec, template.as_deref())?, act));
        self.blocking("starting the machine", launch).await
    }

    /// Until a clone has its state and runs.
    async fn await_load(&self, id: &ContainerId) -> Result<(), NoLoad> {
        let loading = lock(&self.0.live).get(id).map(|live| live.loading.clone());
        let Some(mut loading) = loading else { return Err(NoLoad::Ended) };
        let done = tokio::time::timeout(LOAD_DEADLINE, loading.wait_for(|at| *at == Loading::Done)).await;
        match done.map(|done| done.is_ok()) {
            Ok(true) => Ok(()),
            // The watching task ended, and the machine with it.
            Ok(false) if matches!(*loading.borrow(), Loading::Begun | Loading::Barred) => Err(NoLoad::Ended),
            Ok(false) => {
                let why = self.0.folder(id).end().ok().flatten();
                Err(NoLoad::Template(why.unwrap_or_else(|| "it ended at once".into())))
            }
            Err(_) => {
                Err(NoLoad::Template(format!("it was not loaded within {} s", LOAD_DEADLINE.as_secs())))
            }
        }
    }
}

impl Inner {
    /// Everything about a spare that makes it this machine, but for its disks.
    fn settle(
        &self,
        spec: &MachineSpec,
        spare: &mut Spare,
    ) -> Result<(Record, Vec<(Drive, File)>), MachineError> {
        launch::check(spec)?;
        let drives = launch::drives(&self.shared, spec)?;
        if let Some(nic) = spec.nics.first() {
            let joined = self.shared.networks.join(spec.vch, nic, &spare.machine.parked);
            joined.map_err(MachineError::io("joining a network"))?;
        }
        let size = Size { cpu_milli: spec.cpu_milli, memory_bytes: spec.memory_bytes };
        let entered =
            self.shared.cgroups.enter(&spec.id, Share::booting(spec, size), spare.machine.process.pid);
        entered.map_err(MachineError::io("limiting the hypervisor process"))?;
        self.shared.cgroups.leave(&spare.machine.id);
        self.shared.hosts.pin(&spec.placement.host, spare.machine.process.pid)?;
        let cloned = Cloned { template: spare.template.name.clone(), memory: spare.memory };
        let nics = spec.nics.len().min(1);
        let record = Record::new(spec, spare.machine.process.clone(), spare.machine.uid, nics, Some(cloned));
        let folder = self.folder(&spec.id);
        let moved = spare.become_machine(&record, folder, &self.shared.journal_path(&spec.id));
        moved.map_err(MachineError::io("writing the machine down"))?;
        Ok((record, drives))
    }

    /// Ends what was to be this machine.
    fn undo(&self, id: &ContainerId, spare: Spare) {
        self.spares.discard(spare);
        self.shared.cgroups.leave(id);
    }

    /// `true`: it was launched, and is to be waited for.
    fn start(&self, spec: &MachineSpec, template: Option<&Template>) -> Result<bool, MachineError> {
        let (state, _) = self.state(&spec.id)?;
        let step = state
            .start(spec.run)
            .map_err(|error| MachineError::Start { id: spec.id.clone(), why: error.to_string() })?;
        match step {
            StartStep::Nothing => Ok(false),
            StartStep::Launch => {
                let taken = self.shared.uids.take();
                let uid = taken.map_err(|why| MachineError::Start { id: spec.id.clone(), why })?;
                let launched = launch::launch(&self.shared, spec, uid, template);
                if launched.is_err() {
                    self.shared.uids.give_back(uid);
                }
                let Launched { record, pidfd, log, state } = launched?;
                let (pid, template) = (record.process.pid, template.map(|template| &template.name));
                tracing::info!(container.id = %spec.id, pid, uid, template, "machine started");
                self.watch(record, pidfd, Some(log), state)
                    .map_err(MachineError::io("watching the machine"))?;
                Ok(true)
            }
        }
    }
}
