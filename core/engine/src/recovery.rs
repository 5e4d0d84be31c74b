//! What the engine does when it starts, and what it does all the time besides.

use crate::{Engine, EngineError};
use bulkhead_model::restart::at_server_start;
use bulkhead_model::{Container, Network};
use bulkhead_store::{Record, StoreError};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// Housekeeping: old decisions and events.
const TIDY_EVERY: Duration = Duration::from_secs(600);
const EVENTS_KEPT: i64 = 10_000;

impl Engine {
    /// Drivers for all containers of this server; machines without one are ended: their rows are gone, so nobody
    /// could reach them.
    pub(crate) async fn recover(&self) -> Result<(), EngineError> {
        for vch in self.store().vchs().await? {
            self.store().ensure_default_network(&Network::default_of(vch.id, vch.created_at)).await?;
        }
        // Before any machine is started anew: after a boot of the host there is nothing of networks.
        if let Err(error) = self.keep_networks(None).await {
            tracing::error!(error = &error as &dyn std::error::Error, "networks are not as they should be");
        }
        let containers = self.store().containers_of_server(self.0.fence.server).await?;
        let known: std::collections::HashSet<_> =
            containers.iter().map(|container| container.id.clone()).collect();
        for container in &containers {
            self.revive(container).await?;
        }
        for machine in self.back_end().machines.list().await? {
            if machine.server == self.0.fence.server && !known.contains(&machine.id) {
                tracing::warn!(container.id = %machine.id, "ends a machine that belongs to no container");
                self.back_end().machines.kill(&machine.id).await?;
                self.back_end().machines.delete(&machine.id).await?;
                let disk = machine.placement.disk_of(&machine.id);
                self.back_end().disks.delete_disk(machine.vch, disk).await?;
                self.back_end().journals.delete(&machine.id).await?;
            }
        }
        for vch in self.store().vchs().await? {
            self.clear_condemned(vch.id).await?;
            self.clear_unrecorded(vch.id).await?;
            self.clear_condemned_volumes(vch.id).await?;
            self.clear_unrecorded_volumes(&vch).await?;
            if vch.deleting {
                let engine = self.clone();
                self.0.tasks.spawn(async move {
                    if let Err(error) = engine.finish_vch_removal(&vch).await {
                        tracing::error!(error = &error as &dyn std::error::Error, vch.name = %vch.name, "could not finish removing a VCH");
                    }
                });
            }
        }
        tracing::info!(containers = containers.len(), "containers have their drivers");
        let engine = self.clone();
        self.0.tasks.spawn(async move { engine.watch_clock().await });
        let engine = self.clone();
        self.0.tasks.spawn(async move { engine.watch_machines().await });
        let engine = self.clone();
        self.0.tasks.spawn(async move { engine.watch_networks().await });
        let engine = self.clone();
        self.0.tasks.spawn(async move { engine.tidy().await });
        Ok(())
    }

    /// Its driver; and a wish for a run, where the restart policy makes one out of the server's start.
    async fn revive(&self, container: &Container) -> Result<(), EngineError> {
        if let Some(desired) = at_server_start(&container.desired, &container.status) {
            let record = Record::at(self.now());
            let store = self.store();
            // The driver decides, with the policies, whether it comes to a start.
            match store.set_desired(container.vch, &container.id, &container.desired, &desired, &record).await
            {
                Ok((container, _)) => {
                    self.drive(&container);
                    return Ok(());
                }
                Err(
                    StoreError::Limit { .. }
                    | StoreError::VchDeleting { .. }
                    | StoreError::VolumeHeld { .. }
                    | StoreError::Conflict { .. },
                ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.drive(container);
        Ok(())
    }

    /// Wakes the driver of a machine that changed.
    async fn watch_machines(self) {
        let mut changes = self.back_end().machines.changes();
        loop {
            let changed = tokio::select! {
                () = self.0.stop.cancelled() => return,
                changed = changes.recv() => changed,
            };
            match changed {
                Ok(id) => {
                    if let Some(handle) = self.0.drivers.get(&id) {
                        handle.wake();
                    }
                }
                // Some were missed: everybody looks.
                Err(RecvError::Lagged(_)) => self.0.drivers.all().iter().for_each(|handle| handle.wake()),
                Err(RecvError::Closed) => return,
            }
        }
    }

    async fn tidy(self) {
        let mut ticks = tokio::time::interval(TIDY_EVERY);
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.tidy_once().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "housekeeping failed");
            }
        }
    }

    async fn tidy_once(&self) -> Result<(), EngineError> {
        let days = chrono::TimeDelta::days(i64::from(self.0.settings.decision_days));
        self.store().trim_decisions(self.now() - days).await?;
        self.store().trim_policy_revisions(self.now() - days).await?;
        for vch in self.store().vchs().await? {
            self.store().trim_events(vch.id, EVENTS_KEPT).await?;
        }
        Ok(())
    }
}
