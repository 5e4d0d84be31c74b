//! What a machine gets, or gives up, while it runs.

use super::{Inner, QemuMachines, lock};
use crate::cgroups::Size;
use crate::hotplug::{Change, Modules, What};
use crate::plan::SPARE_PORTS;
use crate::record::Record;
use crate::templates::Class;
use bulkhead_machine::MachineError;
use bulkhead_machine::networks::Nic;
use bulkhead_model::{ContainerId, EndpointId};
use std::io;
use std::time::Duration;
use tokio::sync::oneshot;

/// For QEMU to take something in, and for the guest to see an interface go.
const PLUG_DEADLINE: Duration = Duration::from_secs(20);

impl QemuMachines {
    /// On the first port that is free; no other act on the machine goes on.
    pub(super) async fn plug_in(&self, id: &ContainerId, nic: &Nic) -> Result<(), MachineError> {
        let mut record = self.running(id).await?;
        if let Some((port, _)) = record.ports.iter().find(|(_, one)| one.endpoint == nic.endpoint) {
            let port = *port;
            if !self.0.shared.networks.is_lost(&nic.endpoint) {
                return Ok(());
            }
            // It has no other end any more.
            self.change(id, What::Unplug { port }).await?;
            self.rewrite(id, move |record| drop(record.ports.remove(&port))).await?;
            record.ports.remove(&port);
        }
        // The interface that nobody claimed stays on its port.
        let first = if record.cloned.is_some() && record.spec.nics.is_empty() { 2 } else { 1 };
        let port = (first..=SPARE_PORTS).find(|port| !record.ports.contains_key(port));
        let port = port.ok_or_else(|| {
            MachineError::io("plugging an interface in")(io::ErrorKind::QuotaExceeded.into())
        })?;
        let (vch, wanted) = (record.spec.vch, nic.clone());
        let open = move |inner: &Inner| {
            inner.shared.networks.open_tap(vch, &wanted).map_err(MachineError::io("joining a network"))
        };
        let tap = self.blocking("joining a network", open).await?;
        self.change(id, What::Plug { port, mac: nic.mac, tap }).await?;
        let nic = nic.clone();
        self.rewrite(id, move |record| drop(record.ports.insert(port, nic))).await
    }

    async fn change(&self, id: &ContainerId, what: What) -> Result<Modules, MachineError> {
        let doing = match what {
            What::Plug { .. } | What::Unplug { .. } => "changing an interface of a running machine",
            What::Grow { .. } => "giving a running machine more memory",
        };
        let changes = lock(&self.0.live).get(id).map(|live| live.changes.clone());
        let changes = changes.ok_or_else(|| MachineError::NoSuchMachine(id.clone()))?;
        let (done, outcome) = oneshot::channel();
        let change = async {
            changes.send(Change { what, done }).await.map_err(io::Error::other)?;
            outcome.await.map_err(io::Error::other)?
        };
        let changed = tokio::time::timeout(PLUG_DEADLINE, change).await;
        changed.map_err(io::Error::from).flatten().map_err(MachineError::io(doing))
    }

    async fn rewrite(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut Record) + Send + 'static,
    ) -> Result<(), MachineError> {
        let folder = self.0.folder(id);
        let write = move || {
            let mut record = folder.record()?.ok_or(io::ErrorKind::NotFound)?;
            change(&mut record);
            folder.write_record(&record)
        };
        let doing = "writing down what the machine has";
        self.blocking(doing, move |_| write().map_err(MachineError::io(doing))).await
    }

    pub(super) fn resize(
        &self,
        id: &ContainerId,
        change: impl FnOnce(&mut Size),
    ) -> Result<(), MachineError> {
        // The watching task ends with the machine.
        match lock(&self.0.live).get(id).filter(|live| !live.size.is_closed()) {
            Some(live) => {
                live.size.send_modify(change);
                Ok(())
            }
            None => Err(MachineError::NoSuchMachine(id.clone())),
        }
    }

    pub(super) async fn take_out(&self, id: &ContainerId, endpoint: &EndpointId) -> Result<(), MachineError> {
        let _act = self.act(id).await;
        let record = match self.running(id).await {
            Err(MachineError::NoSuchMachine(_)) => return Ok(()),
            record => record?,
        };
        let Some(port) =
            record.ports.iter().find(|(_, one)| one.endpoint == *endpoint).map(|(port, _)| *port)
        else {
            return Ok(());
        };
        self.change(id, What::Unplug { port }).await?;
        self.rewrite(id, move |record| drop(record.ports.remove(&port))).await
    }

    pub(super) async fn give_memory(&self, id: &ContainerId, bytes: u64) -> Result<(), MachineError> {
        let _act = self.act(id).await;
        let record = self.running(id).await?;
        // The host grants it first: its guest may use it at once.
        self.rewrite(id, move |record| record.granted_bytes = record.granted_bytes.max(bytes)).await?;
        self.resize(id, |size| size.memory_bytes = size.memory_bytes.max(bytes))?;
        if bytes <= record.usable_bytes() {
            return Ok(());
        }
        let missing = bytes.saturating_sub(Class::of(&record.spec).usable_bytes());
        // The guest's kernel takes its part of it.
        let modules = self.change(id, What::Grow { bytes: missing.saturating_add(missing / 30) }).await?;
        self.rewrite(id, move |record| record.modules = modules).await
    }
}
