//! The one table of back ends.

use crate::config::{Accelerator, BackEndKind, Config, DatastoreSection, HostSection};
use anyhow::{Context as _, Result};
use bulkhead_machine::places::Places;
use bulkhead_machine::sim::Sim;
use bulkhead_machine::{BackEnd, Capabilities};
use bulkhead_machine_qemu::{AcceleratorChoice, Datastore, HostSlice, QemuBackEnd, QemuConfig};
use bulkhead_model::ServerId;

#[derive(Debug)]
pub struct OpenBackEnd {
    pub back_end: BackEnd,
    qemu: Option<QemuBackEnd>,
}

impl OpenBackEnd {
    pub async fn open(config: &Config, server: ServerId) -> Result<Self> {
        match config.back_end {
            BackEndKind::Qemu => {
                let qemu = QemuBackEnd::open(qemu_config(config), server).await;
                let qemu =
                    qemu.context("the QEMU back end does not start (`bulkhead doctor` may know more)")?;
                Ok(Self { back_end: qemu.back_end(), qemu: Some(qemu) })
            }
            BackEndKind::Sim => {
                let back_end =
                    Sim::with(Places::simulated(config.sim.hosts, config.sim.datastores)).back_end();
                Ok(Self { back_end, qemu: None })
            }
        }
    }

    /// Machines run on.
    pub async fn close(&self) {
        if let Some(qemu) = &self.qemu {
            qemu.close().await;
        }
    }
}

/// As the back end wants it.
pub fn qemu_config(config: &Config) -> QemuConfig {
    QemuConfig {
        qemu_binary: config.qemu.binary.clone(),
        accelerator: match config.qemu.accelerator {
            Accelerator::Auto => AcceleratorChoice::Auto,
            Accelerator::Kvm => AcceleratorChoice::Kvm,
            Accelerator::Tcg => AcceleratorChoice::Tcg,
        },
        uid_base: config.qemu.uid_base,
        hosts: config.hosts.iter().map(host).collect(),
        datastores: config.datastores.iter().map(datastore).collect(),
        uplinks: config.network.uplinks,
        spares: config.qemu.spares,
        image_templates: config.qemu.image_templates,
        ..QemuConfig::new(&config.data_dir, &config.guest_dir)
    }
}

fn host(host: &HostSection) -> HostSlice {
    HostSlice {
        name: host.name.clone(),
        // A list that is none was refused with the configuration.
        cpus: host.cpu_numbers().unwrap_or_default(),
        memory_bytes: host.memory_mib.map(|mib| mib.saturating_mul(1 << 20)),
        labels: host.labels.clone(),
    }
}

fn datastore(datastore: &DatastoreSection) -> Datastore {
    Datastore {
        name: datastore.name.clone(),
        folder: datastore.path.clone(),
        labels: datastore.labels.clone(),
    }
}

/// Once, and so that nobody overlooks it.
pub fn announce(capabilities: &Capabilities) {
    let Capabilities { back_end, accelerator, version, guest_kernel, limits, .. } = capabilities;
    tracing::info!(back_end, accelerator, version, guest_kernel, limits, "the back end is open");
    match (back_end.as_str(), capabilities.hardware_isolation) {
        ("sim", _) => tracing::warn!("machines are simulated: containers seem to run, but nothing does"),
        (_, false) => tracing::warn!(
            accelerator,
            "machines are emulated: KVM does not work here, so they are slow, and hardware does not separate them from this host"
        ),
        (_, true) => {}
    }
    if limits == "none" && back_end != "sim" {
        tracing::warn!(
            "no cgroup controller can be used: CPU and memory of machines are not limited on this host"
        );
    }
}
