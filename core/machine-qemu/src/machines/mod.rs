//! Machines as QEMU processes.
//!
//! The truth is on the disk and in `/proc`; what is kept here is only who watches which machine. So a server that was
//! killed and started again finds every machine as it is.

mod changes;
mod start;

use crate::calm::Calm;
use crate::cgroups::Size;
use crate::channel::{AgentStream, Hangup};
use crate::cost;
use crate::hotplug::Change;
use crate::plan::{MEMORY_GROWTH_MIB, MEMORY_SLOTS};
use crate::process::Pidfd;
use crate::record::{MachineFolder, Record};
use crate::shared::Shared;
use crate::spares::Spares;
use crate::templates::{Class, Images, Templates};
use crate::watch::{self, Load, Loading, Watch};
use async_trait::async_trait;
use bulkhead_machine::networks::Nic;
use bulkhead_machine::places::Places;
use bulkhead_machine::state::MachineState;
use bulkhead_machine::templates::TemplateFacts;
use bulkhead_machine::{
    Capabilities, Channel, Condition, MachineCost, MachineError, MachineFacts, MachineSpec, Machines,
    MemoryFacts,
};
use bulkhead_model::{Boot, ContainerId, EndpointId, VolumeId};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::sync::{OwnedMutexGuard, broadcast, mpsc, watch as watched};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long a killed process may take to be gone. It is generous: a process in the middle of a disk write only ends
/// after it.
const KILL_DEADLINE: Duration = Duration::from_secs(20);
/// How long the end of a machine may take to be written down once its process is gone.
const END_DEADLINE: Duration = Duration::from_secs(5);
/// How long QEMU may take to stop its vCPUs or let them go on.
const FREEZE_DEADLINE: Duration = Duration::from_secs(10);
/// For QEMU to say whether they stand, to a server that has just started.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
const CHANGES_KEPT: usize = 1024;

#[derive(Debug, Clone)]
pub(crate) struct QemuMachines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    capabilities: Capabilities,
    runtime: Handle,
    tasks: TaskTracker,
    stop: CancellationToken,
    changes: broadcast::Sender<ContainerId>,
    live: Mutex<HashMap<ContainerId, Live>>,
    /// One act at a time on each machine.
    acts: Mutex<HashMap<ContainerId, Arc<tokio::sync::Mutex<()>>>>,
    templates: Arc<Templates>,
    images: Arc<Images>,
    spares: Arc<Spares>,
    calm: Arc<Calm>,
}

/// How much is made ahead of need, at most.
#[derive(Debug)]
pub(crate) struct Ahead {
    pub(crate) spares: usize,
    pub(crate) image_templates: usize,
}

/// A machine that is watched.
#[derive(Debug)]
struct Live {
    kill: mpsc::Sender<String>,
    freeze: mpsc::Sender<bool>,
    size: watched::Sender<Size>,
    /// Which volume's disk has become how large.
    grow: mpsc::Sender<(usize, u64)>,
    changes: mpsc::Sender<Change>,
    /// A clone is not there before it is done.
    loading: watched::Receiver<Loading>,
    /// Whether its vCPUs stand still, once that is known.
    frozen: watched::Receiver<Option<bool>>,
    /// Becomes true when its end was written down.
    over: watched::Receiver<bool>,
    hangup: Option<Hangup>,
    journal_bytes_max: u64,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded are maps that are whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl QemuMachines {
    /// Finds the machines of earlier servers and watches those that run. What never became a machine is removed.
    pub(crate) fn open(shared: Arc<Shared>, capabilities: Capabilities, ahead: &Ahead) -> io::Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let templates = Arc::new(Templates::open(shared.clone(), tasks.clone(), stop.clone())?);
        let calm = Arc::new(Calm::default());
        let spares = Spares::open(shared.clone(), templates.clone(), calm.clone(), ahead.spares)?;
        let images = Images::new(shared.clone(), templates.clone(), calm.clone(), ahead.image_templates);
        let (spares, images) = (Arc::new(spares), Arc::new(images));
        tasks.spawn(spares.clone().tend(stop.clone()));
        tasks.spawn(images.clone().tend(stop.clone()));
        let machines = Self(Arc::new(Inner {
            shared: shared.clone(),
            capabilities,
            runtime: Handle::current(),
            tasks,
            stop,
            templates,
            images,
            spares,
            calm,
            changes: broadcast::channel(CHANGES_KEPT).0,
            live: Mutex::default(),
            acts: Mutex::default(),
        }));
        for (id, folder) in MachineFolder::all(&shared.machines_folder())? {
            let (state, record) = folder.state()?;
            let became = record.filter(|record| record.cloned.is_none() || folder.is_loaded());
            let Some(record) = became else {
                discard(&shared, &id, &folder)?;
                continue;
            };
            shared.uids.note(record.uid);
            if matches!(state, MachineState::Running { .. })
                && let Some(pidfd) = Pidfd::open(&record.process)?
            {
                tracing::info!(container.id = %id, pid = record.process.pid, "machine found running");
                let log = File::open(format!("/proc/{}/fd/2", record.process.pid)).ok();
                machines.0.watch(record, pidfd, log, None)?;
            }
        }
        Ok(machines)
    }

    /// Stops watching; machines run on.
    pub(crate) async fn close(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Watches the networks as long as machines are watched.
    pub(crate) fn look_after(&self, networks: &crate::networks::QemuNetworks) {
        networks.watch(&self.0.tasks, self.0.stop.clone());
    }

    pub(crate) fn end(&self, id: &ContainerId, reason: &str) {
        self.0.end(id, reason);
    }

    /// Hard cap of a running machine's journal, in bytes beyond what was released.
    pub(crate) fn journal_bytes_max(&self, id: &ContainerId) -> Option<u64> {
        lock(&self.0.live).get(id).map(|live| live.journal_bytes_max)
    }

    async fn act(&self, id: &ContainerId) -> OwnedMutexGuard<()> {
        let act = {
            let mut acts = lock(&self.0.acts);
            acts.retain(|_, act| Arc::strong_count(act) > 1);
            acts.entry(id.clone()).or_default().clone()
        };
        act.lock_owned().await
    }

    /// Work on files. It goes on to its end even if nobody waits for it any more.
    async fn blocking<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce(&Inner) -> Result<T, MachineError> + Send + 'static,
    ) -> Result<T, MachineError> {
        let inner = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(io::Error::other).map_err(MachineError::io(doing))?
    }

    async fn is_frozen(&self, id: &ContainerId) -> bool {
        let frozen = lock(&self.0.live).get(id).map(|live| live.frozen.clone());
        let Some(mut frozen) = frozen else { return false };
        let known = tokio::time::timeout(STATUS_DEADLINE, frozen.wait_for(Option::is_some)).await;
        matches!(known, Ok(Ok(state)) if *state == Some(true))
    }

    async fn freeze(&self, id: &ContainerId, wanted: bool) -> Result<(), MachineError> {
        let _act = self.act(id).await;
        if !matches!(self.observe(id).await?, Some(MachineFacts { condition: Condition::Running { .. }, .. }))
        {
            return Err(MachineError::NoSuchMachine(id.clone()));
        }
        let live = lock(&self.0.live).get(id).map(|live| (live.freeze.clone(), live.frozen.clone()));
        let Some((freeze, mut frozen)) = live else { return Err(MachineError::NoSuchMachine(id.clone())) };
        let done = async {
            // The watching task ends with the machine.
            freeze.send(wanted).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            let settled = frozen.wait_for(|frozen| *frozen == Some(wanted)).await;
            settled.map(|_| ()).map_err(|_| io::ErrorKind::BrokenPipe)
        };
        let doing = if wanted { "pausing the machine" } else { "resuming the machine" };
        let done = tokio::time::timeout(FREEZE_DEADLINE, done).await.unwrap_or(Err(io::ErrorKind::TimedOut));
        done.map_err(|kind| MachineError::io(doing)(kind.into()))?;
        let _ = self.0.changes.send(id.clone());
        Ok(())
    }

    /// What is known of a machine that runs.
    async fn running(&self, id: &ContainerId) -> Result<Record, MachineError> {
        let id = id.clone();
        self.blocking("looking at the machine", move |inner| match inner.state(&id)? {
            (MachineState::Running { .. }, Some(record)) => Ok(record),
            _ => Err(MachineError::NoSuchMachine(id)),
        })
        .await
    }

    /// Waits until the end of a machine whose process is gone, or was killed, is written down.
    async fn over(&self, id: &ContainerId, deadline: Duration) -> bool {
        let over = lock(&self.0.live).get(id).map(|live| live.over.clone());
        match over {
            None => true,
            Some(mut over) => {
                // An error means that the watching task is gone, which says the same.
                tokio::time::timeout(deadline, over.wait_for(|over| *over)).await.is_ok()
            }
        }
    }
}

impl Inner {
    fn folder(&self, id: &ContainerId) -> MachineFolder {
        MachineFolder::of(&self.shared.machines_folder(), id)
    }

    fn state(&self, id: &ContainerId) -> Result<(MachineState, Option<Record>), MachineError> {
        self.folder(id).state().map_err(MachineError::io("looking at the machine"))
    }

    /// `state`: the number of its descriptor with the state that it has to load.
    fn watch(&self, record: Record, pidfd: Pidfd, log: Option<File>, state: Option<RawFd>) -> io::Result<()> {
        let _context = self.runtime.enter();
        let (id, journal_bytes_max) = (record.spec.id.clone(), record.spec.journal_bytes_max);
        let started = id.clone();
        let (kill, kill_requests) = mpsc::channel(1);
        let (freeze, freeze_requests) = mpsc::channel(1);
        let (grow, grow_requests) = mpsc::channel(1);
        let (plug, plug_changes) = mpsc::channel(1);
        let (frozen, is_frozen) = watched::channel(None);
        let memory_bytes = record.spec.memory_bytes.max(record.granted_bytes);
        let (size, is_size) = watched::channel(Size { cpu_milli: record.spec.cpu_milli, memory_bytes });
        let (at, loading) = watched::channel(Loading::Begun);
        let (over, is_over) = watched::channel(false);
        // SAFETY: it owns its descriptor, which stays open and the same as long as it lives.
        let pidfd = unsafe { AsyncFd::register(pidfd) }?;
        let watch = Watch {
            shared: self.shared.clone(),
            record,
            pidfd,
            log,
            kill: kill_requests,
            freeze: freeze_requests,
            size: is_size,
            grow: grow_requests,
            frozen,
            changes: plug_changes,
            load: state.map(|descriptor| Load { descriptor, at }),
            resumed: false,
        };
        let live = Live {
            kill,
            freeze,
            size,
            grow,
            changes: plug,
            loading,
            frozen: is_frozen,
            over: is_over,
            hangup: None,
            journal_bytes_max,
        };
        lock(&self.live).insert(id.clone(), live);
        let (stop, changes) = (self.stop.clone(), self.changes.clone());
        self.tasks.spawn_on(
            async move {
                if watch.run(stop).await {
                    over.send_replace(true);
                    // Nobody may be listening.
                    let _ = changes.send(id);
                }
            },
            &self.runtime,
        );
        let _ = self.changes.send(started);
        Ok(())
    }

    fn end(&self, id: &ContainerId, reason: &str) {
        if let Some(live) = lock(&self.live).get(id) {
            // Full: it is being ended already.
            let _ = live.kill.try_send(reason.into());
        }
    }

    fn delete(&self, id: &ContainerId) -> Result<(), MachineError> {
        let (state, record) = self.state(id)?;
        if let Err(error) = state.delete() {
            return Err(MachineError::io("deleting the machine")(io::Error::other(error)));
        }
        self.folder(id).remove().map_err(MachineError::io("removing the machine's folder"))?;
        self.shared.cgroups.leave(id);
        if let Some(record) = record {
            self.shared.uids.give_back(record.uid);
        }
        if lock(&self.live).remove(id).is_some() {
            let _ = self.changes.send(id.clone());
        }
        Ok(())
    }
}

/// Removes what never became a machine.
fn discard(shared: &Shared, id: &ContainerId, folder: &MachineFolder) -> io::Result<()> {
    if let Some(record) = folder.record()?
        && let Some(pidfd) = Pidfd::open(&record.process)?
    {
        pidfd.kill()?;
    }
    shared.cgroups.leave(id);
    folder.remove()
}

fn facts(state: MachineState, record: Option<Record>, paused: bool) -> Option<MachineFacts> {
    let record = record?;
    let condition = match state {
        MachineState::Absent => return None,
        MachineState::Running { since, .. } => {
            Condition::Running { pid: Some(record.process.pid), since, paused }
        }
        MachineState::Ended { reason, .. } => Condition::Ended { reason },
    };
    let (plugged_bytes, memory_bytes) = (record.plugged_bytes(), record.usable_bytes());
    let memory_bytes_max = match record.modules.len() < MEMORY_SLOTS {
        true => record.spec.memory_bytes.saturating_add(MEMORY_GROWTH_MIB << 20),
        false => memory_bytes,
    };
    let nics = record.ports.into_values().map(|nic| nic.endpoint).collect();
    let template = record.cloned.map(|cloned| cloned.template);
    let boot = if template.is_some() { Boot::Clone } else { Boot::Cold };
    let MachineSpec { id, vch, placement, server, run, vcpus, token, .. } = record.spec;
    let memory = MemoryFacts { memory_bytes, plugged_bytes, memory_bytes_max };
    Some(MachineFacts {
        id,
        vch,
        placement,
        server,
        run,
        vcpus,
        memory,
        token,
        boot,
        template,
        nics,
        condition,
    })
}

#[async_trait]
impl Machines for QemuMachines {
    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    async fn places(&self) -> Result<Places, MachineError> {
        let capabilities = self.0.capabilities.clone();
        self.blocking("looking at hosts and datastores", move |inner| {
            let hosts = inner.shared.hosts.facts(&capabilities);
            Ok(Places { hosts, datastores: inner.shared.disks.datastores() })
        })
        .await
    }

    async fn prepare(&self, spec: &MachineSpec, patience: Duration) -> Result<bool, MachineError> {
        self.prepare_for(spec, patience).await
    }

    async fn start(&self, spec: &MachineSpec) -> Result<(), MachineError> {
        self.bring_up(spec).await
    }

    async fn observe(&self, id: &ContainerId) -> Result<Option<MachineFacts>, MachineError> {
        let look = |id: ContainerId| self.blocking("looking at the machine", move |inner| inner.state(&id));
        let (mut state, mut record) = look(id.clone()).await?;
        // The process is gone: whoever watched it is about to write down why.
        if matches!(state, MachineState::Ended { .. }) && self.over(id, END_DEADLINE).await {
            (state, record) = look(id.clone()).await?;
        }
        let paused = matches!(state, MachineState::Running { .. }) && self.is_frozen(id).await;
        let mut found = facts(state, record, paused);
        if let Some(found) = &mut found {
            found.nics.retain(|endpoint| !self.0.shared.networks.is_lost(endpoint));
        }
        Ok(found)
    }

    async fn list(&self) -> Result<Vec<MachineFacts>, MachineError> {
        let all = self
            .blocking("listing machines", |inner| {
                MachineFolder::all(&inner.shared.machines_folder())
                    .map_err(MachineError::io("listing machines"))
            })
            .await?;
        let mut found = Vec::new();
        for (id, _) in all {
            found.extend(self.observe(&id).await?.filter(|facts| facts.server == self.0.shared.server));
        }
        Ok(found)
    }

    async fn cost(&self, id: &ContainerId) -> Result<Option<MachineCost>, MachineError> {
        let id = id.clone();
        self.blocking("measuring the machine", move |inner| match inner.state(&id)? {
            (MachineState::Running { .. }, Some(record)) => {
                cost::of(record.process.pid).map_err(MachineError::io("measuring the machine"))
            }
            _ => Ok(None),
        })
        .await
    }

    async fn kill(&self, id: &ContainerId) -> Result<(), MachineError> {
        let _act = self.act(id).await;
        if !matches!(self.observe(id).await?, Some(MachineFacts { condition: Condition::Running { .. }, .. }))
        {
            return Ok(());
        }
        self.0.end(id, "killed");
        self.over(id, KILL_DEADLINE).await;
        match self.observe(id).await? {
            Some(MachineFacts { condition: Condition::Running { .. }, .. }) => {
                Err(MachineError::io("killing the machine")(io::ErrorKind::TimedOut.into()))
            }
            _ => Ok(()),
        }
    }

    async fn pause(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.freeze(id, true).await
    }

    async fn resume(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.freeze(id, false).await
    }

    async fn set_cpu_share(&self, id: &ContainerId, cpu_milli: u32) -> Result<(), MachineError> {
        self.resize(id, |size| size.cpu_milli = cpu_milli)
    }

    async fn grow_memory(&self, id: &ContainerId, bytes: u64) -> Result<(), MachineError> {
        self.give_memory(id, bytes).await
    }

    async fn volume_grown(&self, id: &ContainerId, volume: VolumeId, bytes: u64) -> Result<(), MachineError> {
        let looked = id.clone();
        let (_, record) = self.blocking("looking at the machine", move |inner| inner.state(&looked)).await?;
        let place =
            record.and_then(|record| record.spec.volumes.iter().position(|disk| disk.at.id == volume));
        let grow = lock(&self.0.live).get(id).map(|live| live.grow.clone());
        let (Some(place), Some(grow)) = (place, grow) else { return Ok(()) };
        let told = tokio::time::timeout(FREEZE_DEADLINE, grow.send((place, bytes))).await;
        // One that has ended needs to know no more.
        told.map(drop).map_err(|_| MachineError::io("growing a volume")(io::ErrorKind::TimedOut.into()))
    }

    async fn plug(&self, id: &ContainerId, nic: &Nic) -> Result<(), MachineError> {
        let _act = self.act(id).await;
        self.plug_in(id, nic).await
    }

    async fn unplug(&self, id: &ContainerId, endpoint: &EndpointId) -> Result<(), MachineError> {
        self.take_out(id, endpoint).await
    }

    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError> {
        let act = self.act(id).await;
        // Else the reason of its end could be written into a folder that is being removed.
        self.observe(id).await?;
        let id = id.clone();
        self.blocking("deleting the machine", move |inner| {
            let _act = act;
            inner.delete(&id)
        })
        .await
    }

    async fn channel(&self, id: &ContainerId) -> Result<Box<dyn Channel>, MachineError> {
        match self.observe(id).await? {
            None => return Err(MachineError::NoSuchMachine(id.clone())),
            Some(MachineFacts { condition: Condition::Ended { reason }, .. }) => {
                return Err(MachineError::Channel {
                    id: id.clone(),
                    why: format!("the machine ended: {reason}"),
                });
            }
            Some(_) => {}
        }
        // The last stream ends before the new one is connected.
        drop(lock(&self.0.live).get_mut(id).and_then(|live| live.hangup.take()));
        let refused = |error: io::Error| MachineError::Channel { id: id.clone(), why: error.to_string() };
        let stream = watch::connect(&self.0.folder(id), "agent.sock").await.map_err(refused)?;
        let (stream, hangup) = AgentStream::new(stream).map_err(refused)?;
        if let Some(live) = lock(&self.0.live).get_mut(id) {
            live.hangup = Some(hangup);
        }
        Ok(Box::new(stream))
    }

    async fn templates(&self) -> Result<Vec<TemplateFacts>, MachineError> {
        let mut all = self.0.templates.list().await.map_err(MachineError::io("listing templates"))?;
        for template in &mut all {
            template.spares = self.0.spares.count(&template.name);
        }
        Ok(all)
    }

    async fn build_template(&self, vcpus: u32, memory_bytes: u64) -> Result<String, MachineError> {
        let made = self.0.templates.make(Class::holding(vcpus, memory_bytes)).await;
        made.map_err(MachineError::io("making a template"))?.map_err(MachineError::Template)
    }

    async fn remove_template(&self, name: &str) -> Result<bool, MachineError> {
        self.0.images.forget(name);
        let removed = self.0.templates.remove(name).await.map_err(MachineError::io("removing a template"));
        self.0.spares.look();
        removed
    }

    fn changes(&self) -> broadcast::Receiver<ContainerId> {
        self.0.changes.subscribe()
    }
}
