//! Whether KVM works here: a guest is booted with it, since nothing less proves it.
//!
//! `/dev/kvm` may exist, open and speak the right version while QEMU aborts on the first register that it sets (seen
//! under nested virtualization). The verdict costs seconds, so it is remembered for as long as everything that it
//! depends on stays the same.

use crate::plan::Accelerator;
use crate::{AcceleratorChoice, QemuBackEnd, QemuConfig, QemuError, find_qemu, qemu_version};
use bulkhead_machine::agent::AgentClient;
use bulkhead_machine::{BackEnd, Condition, MachineFacts, MachineSpec};
use bulkhead_model::{Boot, ContainerId, Placement, ServerId, VchId};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// From the start of QEMU to the agent's hello.
const BOOT_DEADLINE: Duration = Duration::from_secs(10);
/// The interface that has been stable since Linux 2.6.22 (KVM API documentation, section 4.1).
const API_VERSION: i32 = 12;
const DISK_BYTES: u64 = 64 << 20;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Verdict {
    /// Everything that it depends on.
    host: String,
    /// Why it does not work.
    refusal: Option<String>,
}

/// Which accelerator machines get.
pub(crate) async fn choose(
    config: &QemuConfig,
    qemu_binary: &Path,
    qemu_version: &str,
) -> Result<Accelerator, QemuError> {
    if config.accelerator == AcceleratorChoice::Tcg {
        return Ok(Accelerator::Tcg);
    }
    let host = host(&config.guest_dir, qemu_version);
    let file = config.data_dir.join("kvm.json");
    let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Verdict>(&text).ok());
    let refusal = match known.filter(|verdict| verdict.host == host) {
        Some(verdict) => verdict.refusal,
        None => {
            let refusal = try_out(Some(qemu_binary), &config.guest_dir).await.err();
            let verdict = serde_json::to_vec(&Verdict { host, refusal: refusal.clone() });
            if let Err(error) = verdict.map_err(std::io::Error::other).and_then(|text| fs::write(&file, text))
            {
                tracing::warn!(%error, "whether KVM works will have to be tried again");
            }
            refusal
        }
    };
    match (refusal, config.accelerator) {
        (None, _) => Ok(Accelerator::Kvm),
        (Some(why), AcceleratorChoice::Kvm) => Err(QemuError::NoKvm { why }),
        (Some(why), _) => {
            tracing::info!(%why, "KVM does not work here");
            Ok(Accelerator::Tcg)
        }
    }
}

/// Kernel, processor with its microcode, QEMU and guest: a change of any of them asks for a new trial.
fn host(guest_dir: &Path, qemu_version: &str) -> String {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read(Path::new("/proc/cpuinfo"));
    let cpu = cpu.lines().take_while(|line| !line.is_empty());
    let cpu: Vec<_> =
        cpu.filter(|line| line.starts_with("model name") || line.starts_with("microcode")).collect();
    let kernel = read(Path::new("/proc/version"));
    [kernel.trim(), &cpu.join("\n"), qemu_version, &read(&guest_dir.join("guest.json"))].join("\n")
}

/// Boots a guest with KVM, in a folder of its own. `Err` says why that does not work.
pub async fn probe_kvm(qemu_binary: Option<&Path>, guest_dir: &Path) -> Result<(), String> {
    try_out(qemu_binary, guest_dir).await
}

/// [`probe_kvm`] for callers without a runtime, or in the middle of one.
pub fn probe_kvm_blocking(qemu_binary: Option<&Path>, guest_dir: &Path) -> Result<(), String> {
    let try_it = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|error| error.to_string())?.block_on(try_out(qemu_binary, guest_dir))
    };
    std::thread::scope(|scope| scope.spawn(try_it).join())
        .unwrap_or_else(|_| Err("the trial broke off".into()))
}

async fn try_out(qemu_binary: Option<&Path>, guest_dir: &Path) -> Result<(), String> {
    device()?;
    boot(qemu_binary, guest_dir).await.map_err(|error| chain(error.as_ref()))
}

fn device() -> Result<(), String> {
    let kvm: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    // SAFETY: KVM_GET_API_VERSION takes no argument and returns a number.
    match unsafe { libc::ioctl(kvm.as_raw_fd(), 0xAE00, 0) } {
        API_VERSION => Ok(()),
        other => Err(format!("/dev/kvm speaks version {other}, not {API_VERSION}")),
    }
}

async fn boot(qemu_binary: Option<&Path>, guest_dir: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
    let folder = tempfile::Builder::new().prefix("bulkhead-kvm-").tempdir()?;
    let config = QemuConfig::new(folder.path(), guest_dir);
    // Above the user ids that machines have.
    let config = QemuConfig { uid_base: config.uid_base + config.uid_count, uid_count: 1, ..config };
    let qemu_binary = find_qemu(qemu_binary)?;
    let version = qemu_version(&qemu_binary).await?;
    let (server, vch) = ("b5c9dd6e-9ac4-4b28-a7ee-a4d52c5a9d4e", "0d29ff62-9f9c-4f7c-8ac1-9b3d6d9f6a55");
    let (server, vch): (ServerId, VchId) = (server.parse()?, vch.parse()?);
    let qemu = QemuBackEnd::open_with(config, server, qemu_binary, version, Accelerator::Kvm)?;
    let spec = MachineSpec {
        id: ContainerId::from_random(random()?),
        vch,
        placement: Placement::default(),
        server,
        cpu_milli: 1000,
        vcpus: 1,
        memory_bytes: 256 << 20,
        layers: Vec::new(),
        volumes: Vec::new(),
        token: random()?,
        run: 1,
        journal_bytes_max: 1 << 20,
        nics: Vec::new(),
        boot: Boot::Cold,
    };
    let back_end = qemu.back_end();
    let booted = hear(&back_end, &spec).await;
    // Whatever was heard, nothing may be left.
    back_end.machines.kill(&spec.id).await?;
    back_end.machines.delete(&spec.id).await?;
    qemu.close().await;
    booted
}

async fn hear(back_end: &BackEnd, spec: &MachineSpec) -> Result<(), Box<dyn Error + Send + Sync>> {
    back_end.disks.create_disk(spec.vch, spec.placement.disk_of(&spec.id), DISK_BYTES).await?;
    back_end.machines.start(spec).await?;
    let channel = back_end.machines.channel(&spec.id).await?;
    let heard = AgentClient::new(channel).hello(random()?, BOOT_DEADLINE).await;
    match (heard, back_end.machines.observe(&spec.id).await?) {
        (Ok(_), _) => Ok(()),
        // The end of QEMU explains more than the end of the connection.
        (Err(_), Some(MachineFacts { condition: Condition::Ended { reason }, .. })) => Err(reason.into()),
        (Err(error), _) => Err(error.into()),
    }
}

pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES], String> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn chain(error: &dyn Error) -> String {
    match error.source() {
        None => error.to_string(),
        Some(source) => format!("{error}: {}", chain(source)),
    }
}
