//! What the machines boot: the distribution's cloud kernel as it is, and an initramfs with the agent and the few
//! modules that it needs, in load order.
//!
//! ```text
//!   target/guest/ vmlinuz  initrd  guest.json
//! ```
//!
//! Everything is made in memory and compared first: a run that changes nothing touches nothing, and equal inputs give
//! equal bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::say::{self, Step};
use crate::{layout, root, server, setup};

mod cpio;

/// In this order if nothing else demands another. There is no balloon: a machine cloned from a snapshot would give back
/// pages of the snapshot. The network driver is for later; it is small.
const MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_console",
    "virtio_scsi",
    "sd_mod",
    "erofs",
    "overlay",
    "pvpanic_pci",
    "virtio_net",
];

/// Loaded when a container asks for what they drive.
const MODULES_LATER: [&str; 2] = ["fuse", "tun"];

/// The agent asks for each disk by its place; without this the kernel looks through all places at boot.
const PARAMETERS: [(&str, &str); 1] = [("scsi_mod", "scan=manual")];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A finished image.
#[derive(Debug)]
pub struct GuestImage {
    /// Release of the kernel.
    pub kernel: String,
    pub initrd_bytes: usize,
    pub agent_bytes: usize,
    /// False: what was there is what would have been made.
    pub changed: bool,
}

/// `cargo xtask guest-image`.
pub fn run(words: &[String]) -> Result<std::process::ExitCode> {
    if let Some(word) = words.first() {
        bail!("`guest-image` takes no arguments, and `{word}` is one");
    }
    let step = Step::start("guest image");
    let image = build(&layout::target().join("guest"))?;
    step.done(&format!(
        "kernel {}, initrd {} kB with an agent of {} kB{}",
        image.kernel,
        image.initrd_bytes / 1000,
        image.agent_bytes / 1000,
        if image.changed { "" } else { ", as it was" }
    ));
    Ok(std::process::ExitCode::SUCCESS)
}

/// Makes the image in the folder `out`, or finds that it is there.
pub fn build(out: &Path) -> Result<GuestImage> {
    let agent = build_agent()?;
    let root = match setup::kernel_root() {
        Some(root) => root,
        None => {
            setup::unpack_kernel()?;
            setup::kernel_root().with_context(|| format!("`{}` holds no kernel", setup::KERNEL_PACKAGE))?
        }
    };
    let release = newest_release(&root)?;
    let vmlinuz = read(&root.join("boot").join(format!("vmlinuz-{release}")))?;
    let folder = root.join("lib/modules").join(&release);
    let (dependencies, builtin) =
        (read_text(&folder.join("modules.dep"))?, read_text(&folder.join("modules.builtin"))?);
    let modules = load_order(&MODULES, &dependencies, &builtin)?;
    let mut later = load_order(&MODULES_LATER, &dependencies, &builtin)?;
    later.retain(|path| !modules.contains(path));
    let initrd = initramfs(&agent, &folder, &modules, &later)?;
    let description = json!({
        "kernel": release,
        "agent": env!("CARGO_PKG_VERSION"),
        "vmlinuz_sha256": digest(&vmlinuz),
        "initrd_sha256": digest(&initrd),
        "modules": modules,
    });
    let mut description = serde_json::to_vec_pretty(&description)?;
    description.push(b'\n');
    fs::create_dir_all(out).with_context(|| format!("create `{}`", out.display()))?;
    // The description last: where it is, the files that it names are.
    let mut changed = false;
    for (name, bytes) in [("vmlinuz", &vmlinuz), ("initrd", &initrd), ("guest.json", &description)] {
        changed |= replace(&out.join(name), bytes)?;
    }
    Ok(GuestImage { kernel: release, initrd_bytes: initrd.len(), agent_bytes: agent.len(), changed })
}

/// A static program: there is no C library in the initramfs. Its own target folder keeps its flags away from the rest.
fn build_agent() -> Result<Vec<u8>> {
    let target = layout::target().join("agent");
    let mut cargo =
        server::cargo(&["build", "--quiet", "--profile", "agent", "--package", "bulkhead-guest-agent"]);
    // Named although it is the host's own: else the flags would reach build scripts too.
    cargo.args(["--target", TARGET]);
    cargo.env("CARGO_TARGET_DIR", &target);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static");
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    root::run(&mut cargo).context("the guest agent did not build")?;
    read(&target.join(TARGET).join("agent/bulkhead-guest-agent"))
}

fn newest_release(root: &Path) -> Result<String> {
    let boot = root.join("boot");
    let mut releases: Vec<String> = fs::read_dir(&boot)
        .with_context(|| format!("read `{}`", boot.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .filter(|release| {
            release.ends_with("-cloud-amd64") && root.join("lib/modules").join(release).is_dir()
        })
        .collect();
    releases.sort_by_key(|release| version_key(release));
    releases.pop().with_context(|| format!("there is no cloud kernel below `{}`", root.display()))
}

/// `6.1.0-9` before `6.1.0-56`.
fn version_key(release: &str) -> Vec<u64> {
    release.split(|letter: char| !letter.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Paths of the modules below the release's folder, each after what it depends on. What is built in is left out.
fn load_order(wanted: &[&str], dependencies: &str, builtin: &str) -> Result<Vec<String>> {
    let known: BTreeMap<String, (&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (module_name(path), (path, needs.split_whitespace().collect())))
        .collect();
    let mut order: Vec<String> = Vec::new();
    for name in wanted {
        let Some((path, needs)) = known.get(*name) else {
            if builtin.lines().any(|path| module_name(path) == *name) {
                continue;
            }
            bail!("the kernel has no module `{name}`");
        };
        // The file names all of them, the one to be loaded first at the end.
        for path in needs.iter().rev().chain([path]) {
            if !path.ends_with(".ko") {
                bail!("the module `{path}` is compressed, which is not supported yet");
            }
            if !order.iter().any(|loaded| loaded == path) {
                order.push((*path).to_owned());
            }
        }
    }
    Ok(order)
}

fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

fn initramfs(agent: &[u8], folder: &Path, modules: &[String], later: &[String]) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    let mut list = String::new();
    archive.folder("modules")?;
    archive.program("init", agent)?;
    for path in modules {
        let name = module_name(path);
        archive.file(&format!("modules/{name}.ko"), &read(&folder.join(path))?)?;
        let parameters = PARAMETERS.iter().find(|(module, _)| *module == name);
        list += &match parameters {
            Some((_, text)) => format!("/modules/{name}.ko {text}\n"),
            None => format!("/modules/{name}.ko\n"),
        };
    }
    archive.file("modules.list", list.as_bytes())?;
    let mut list = String::new();
    for path in later {
        let name = module_name(path);
        archive.file(&format!("modules/{name}.ko"), &read(&folder.join(path))?)?;
        list += &format!("/modules/{name}.ko\n");
    }
    archive.file("modules.later", list.as_bytes())?;
    archive.finish()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read `{}`", path.display()))
}

fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read `{}`", path.display()))
}

/// Whole or not at all: a machine may be starting from the old file right now.
fn replace(path: &Path, bytes: &[u8]) -> Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let fresh = PathBuf::from(format!("{}.{}.new", path.display(), std::process::id()));
    fs::write(&fresh, bytes)
        .and_then(|()| fs::File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, path))
        .with_context(|| format!("write `{}`", path.display()))?;
    say::note(&format!("wrote {}", path.display()));
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_come_after_what_they_need() {
        let mut dependencies = String::new();
        for name in MODULES {
            dependencies += &match name {
                "virtio_scsi" => "k/virtio_scsi.ko: k/scsi_mod.ko k/scsi-common.ko k/virtio.ko\n".to_owned(),
                "virtio_console" => "k/virtio_console.ko: k/virtio.ko\n".to_owned(),
                "overlay" => String::new(),
                other => format!("k/{other}.ko:\n"),
            };
        }
        let order = load_order(&MODULES, &dependencies, "kernel/fs/overlay.ko\n").unwrap();
        assert_eq!(order[..3], ["k/virtio_pci.ko", "k/virtio.ko", "k/virtio_console.ko"]);
        assert_eq!(order[3..6], ["k/scsi-common.ko", "k/scsi_mod.ko", "k/virtio_scsi.ko"]);
        assert!(!order.iter().any(|path| path.contains("overlay")));
        assert!(load_order(&MODULES, "", "").unwrap_err().to_string().contains("virtio_pci"));
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(version_key("6.1.0-9-cloud-amd64") < version_key("6.1.0-56-cloud-amd64"));
        assert!(version_key("6.1.0-56-cloud-amd64") < version_key("6.12.1-1-cloud-amd64"));
    }
}
