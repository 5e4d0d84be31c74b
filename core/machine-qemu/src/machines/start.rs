//! How a machine comes to life: as a clone where there is a template, else from its kernel on.

use super::{Inner, KILL_DEADLINE, QemuMachines, lock};
use crate::launch::{self, Launched};
use crate::templates::{Class, Template};
use crate::watch::Loading;
use bulkhead_machine::state::StartStep;
use bulkhead_machine::{MachineError, MachineSpec};
use bulkhead_model::{Boot, ContainerId};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// How long a clone may take to have all of its state.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);

/// Why a clone does not run.
enum NoLoad {
    /// Not for what it loaded: it would not run as a machine that boots either.
    Ended,
    /// What it was to load.
    Template(String),
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
                let prepared = self.0.templates.prepare(Class::of(spec), patience).await;
                prepared.map_err(MachineError::io("looking for a template"))
            }
        }
    }

    pub(super) async fn bring_up(&self, spec: &MachineSpec) -> Result<(), MachineError> {
        let act = self.act(&spec.id).await;
        let template = match spec.boot {
            Boot::Clone => self.0.templates.at_hand(Class::of(spec)),
            Boot::Cold => None,
        };
        let (launched, act) = self.launch(spec, template.clone(), act).await?;
        let Some(template) = template.filter(|_| launched) else { return Ok(()) };
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
        self.launch(spec, None, act).await.map(drop)
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
