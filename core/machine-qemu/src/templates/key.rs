//! What has to be equal in a machine and in what it is cloned from.

use crate::plan::{self, Accelerator, LaunchPlan, Origin};
use crate::shared::Shared;
use bulkhead_machine::MachineSpec;
use bulkhead_model::{ContainerId, Digest, VchId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The least memory of a machine, in MiB.
const MEMORY_MIB_MIN: u64 = 256;
/// For the guest's kernel, beside what its container may take.
const RESERVE_MIB: u64 = 96;
const NAME_DIGITS: usize = 16;

/// The size of a machine. There are few: a template is made for each, and memory that nobody touches costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    pub(crate) vcpus: u32,
    pub(crate) memory_mib: u64,
}

impl Class {
    pub(crate) fn of(spec: &MachineSpec) -> Self {
        Self::holding(spec.vcpus, spec.memory_bytes)
    }

    /// The smallest whose container may take so much memory.
    pub(crate) fn holding(vcpus: u32, memory_bytes: u64) -> Self {
        let mib = memory_bytes.div_ceil(1 << 20);
        // The kernel's own books grow with the memory.
        let needed = mib.saturating_add(RESERVE_MIB + mib / 32).max(MEMORY_MIB_MIN);
        Self { vcpus, memory_mib: needed.checked_next_power_of_two().unwrap_or(needed) }
    }

    /// What the container of such a machine may take.
    pub(crate) fn usable_bytes(self) -> u64 {
        let shared = self.memory_mib.saturating_sub(RESERVE_MIB);
        let most = shared - shared / 33;
        // The other way round, as `holding` has it, is rounded elsewhere.
        let most = if most + most / 32 > shared { most - 1 } else { most };
        most << 20
    }
}

/// What a template is for: machines of a class, or only those of them that have an image's disks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    pub(crate) class: Class,
    pub(crate) image: Option<Image>,
}

impl Kind {
    /// What the first start of a container is looked for, by its machine and the size of its disk.
    pub(crate) fn of(spec: &MachineSpec, disk_bytes: u64) -> Self {
        let image = Image { vch: spec.vch, layers: spec.layers.clone(), disk_bytes };
        Self { class: Class::of(spec), image: Some(image) }
    }
}

impl From<Class> for Kind {
    fn from(class: Class) -> Self {
        Self { class, image: None }
    }
}

/// An image's layers, bottom first, under a writable disk that is new. Layers are a VCH's own, and so is this.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Image {
    pub(crate) vch: VchId,
    pub(crate) layers: Vec<Digest>,
    /// Size of the writable disk.
    pub(crate) disk_bytes: u64,
}

/// Everything about this host and installation that a template depends on, as a short name.
pub(crate) fn of_host(shared: &Shared) -> io::Result<String> {
    let mut hash = Sha256::new();
    // A change in how machines are put together.
    for argument in plan::command_line(&plan_of(shared)) {
        hash.update(argument.as_encoded_bytes());
        hash.update([0]);
    }
    // A package that is upgraded replaces its files.
    for file in [&shared.qemu_binary, &shared.guest.kernel, &shared.guest.initrd] {
        hash.update(identity(file)?);
    }
    if shared.accelerator == Accelerator::Kvm {
        // A state of the host's own processor is for that one only.
        hash.update(fs::read_to_string("/proc/version")?);
        let cpu = fs::read_to_string("/proc/cpuinfo")?;
        for line in cpu.lines().take_while(|line| !line.is_empty()) {
            if ["model name", "microcode", "flags"].iter().any(|name| line.starts_with(name)) {
                hash.update(line);
            }
        }
    }
    Ok(short(hash))
}

/// Name of a template. An image's is gone with a layer of it, and is another one once that layer was written anew.
pub(crate) fn name(shared: &Shared, kind: &Kind) -> io::Result<String> {
    let Class { vcpus, memory_mib } = kind.class;
    let of_class = format!("{}-{vcpus}x{memory_mib}", of_host(shared)?);
    match &kind.image {
        None => Ok(of_class),
        Some(image) => Ok(format!("{of_class}-{}", of_image(shared, image)?)),
    }
}

fn of_image(shared: &Shared, image: &Image) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(image.disk_bytes.to_le_bytes());
    for layer in &image.layers {
        // The path has the VCH and the digest in it.
        hash.update(identity(&shared.disks.layer_path(image.vch, layer))?);
    }
    // Of an image without layers there is nothing but its VCH.
    hash.update(image.vch.to_string());
    Ok(short(hash))
}

fn short(hash: Sha256) -> String {
    hex::encode(hash.finalize()).get(..NAME_DIGITS).unwrap_or_default().to_owned()
}

/// A name that [`name`] made, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    pub(crate) host: &'a str,
    pub(crate) class: Class,
    pub(crate) of_image: bool,
}

pub(crate) fn parse(name: &str) -> Option<Named<'_>> {
    let mut parts = name.split('-');
    let (host, class, image) = (parts.next()?, parts.next()?, parts.next());
    let (vcpus, memory_mib) = class.split_once('x')?;
    let class = Class { vcpus: vcpus.parse().ok()?, memory_mib: memory_mib.parse().ok()? };
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_name = parts.next().is_none() && [Some(host), image].into_iter().flatten().all(is_hex);
    is_name.then_some(Named { host, class, of_image: image.is_some() })
}

fn identity(path: &Path) -> io::Result<String> {
    let found = fs::metadata(path)?;
    let (size, seconds, nanoseconds) = (found.len(), found.mtime(), found.mtime_nsec());
    Ok(format!("{} {} {size} {seconds}.{nanoseconds}\n", path.display(), found.ino()))
}

/// A machine of which all is the same but its class.
fn plan_of(shared: &Shared) -> LaunchPlan {
    LaunchPlan {
        qemu_binary: shared.qemu_binary.clone(),
        accelerator: shared.accelerator,
        id: ContainerId::from_random([0; 32]),
        vcpus: 1,
        memory_mib: MEMORY_MIB_MIN,
        origin: Origin::Boot,
        memory: 0,
        state: None,
        drives: Vec::new(),
        journal: 0,
        agent_socket: 0,
        qmp_socket: 0,
        nics: vec![(crate::launch::PARKED, 0)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_was_asked_for() {
        let class = |mib: u64| Class::holding(1, mib << 20).memory_mib;
        assert_eq!((class(6), class(156), class(157), class(256), class(1024)), (256, 256, 512, 512, 2048));
        for mib in [6, 156, 157, 256, 1024, 5000] {
            assert!(Class::holding(1, mib << 20).usable_bytes() >= mib << 20, "{mib}");
        }
        assert_eq!(Class::holding(1, (156 << 20) + 1).memory_mib, 512);
        assert!(Class::holding(1, u64::MAX).memory_mib >= u64::MAX >> 20);
    }

    #[test]
    fn names_are_read_back() {
        let class = Class { vcpus: 2, memory_mib: 512 };
        let named = |of_image| Some(Named { host: "0123abcd", class, of_image });
        assert_eq!(parse("0123abcd-2x512"), named(false));
        assert_eq!(parse("0123abcd-2x512-4567ef"), named(true));
        for other in ["0123abcd", ".draft", "0123abcd-2x512-", "0123abcd-2x512-../..", "0-1x1-2-3", "/-1x1"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
