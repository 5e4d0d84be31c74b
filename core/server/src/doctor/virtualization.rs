//! KVM where it really works: a machine is booted with it, since the device file alone says nothing.

use super::Finding;
use crate::config::{Accelerator, BackEndKind, Config};

pub fn check(config: &Config) -> Finding {
    if config.back_end == BackEndKind::Sim {
        return Finding::ok("virtualization", "not needed for simulated machines");
    }
    let kvm = if config.qemu.accelerator == Accelerator::Tcg {
        Err("turned off by [qemu] accelerator".to_owned())
    } else {
        bulkhead_machine_qemu::probe_kvm_blocking(config.qemu.binary.as_deref(), &config.guest_dir)
    };
    match (kvm, config.qemu.accelerator) {
        (Ok(()), _) => Finding::ok("virtualization", "KVM boots a machine"),
        (Err(why), Accelerator::Kvm) => Finding::failed(
            "virtualization",
            format!("KVM does not work: {why}"),
            "enable virtualization in the firmware (or nested virtualization of the cloud machine), load kvm_intel or kvm_amd, or set [qemu] accelerator to \"auto\"",
        ),
        (Err(why), Accelerator::Auto | Accelerator::Tcg) => Finding::warning(
            "virtualization",
            format!("machines are emulated (TCG), slow and not separated by hardware: {why}"),
            "enable virtualization in the firmware (or nested virtualization of the cloud machine) and load kvm_intel or kvm_amd",
        ),
    }
}
