//! From the kernel's hands to a system with devices.

use crate::failure::{Doing, Failure};
use crate::sys;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::path::Path;

/// Lines of `path [parameters]` in load order, made with the guest image.
const MODULE_LIST: &str = "/modules.list";

/// Mounts what the agent itself needs and puts the console on the standard descriptors.
pub fn mount_basics() -> Result<(), Failure> {
    // The initramfs can be no `pivot_root`: so the agent lives on a tmpfs of its own above it.
    let base = Path::new("/base");
    fs::create_dir_all(base).doing("make the agent's root")?;
    sys::mount("agent", base, "tmpfs", libc::MS_NODEV | libc::MS_NOSUID, "mode=0700")
        .doing("mount the agent's root")?;
    for (kind, name) in [("devtmpfs", "dev"), ("proc", "proc"), ("sysfs", "sys")] {
        let target = base.join(name);
        fs::create_dir_all(&target).doing(name)?;
        sys::mount(kind, &target, kind, 0, "").doing(format!("mount {kind}"))?;
    }
    let console =
        OpenOptions::new().read(true).write(true).open(base.join("dev/console")).doing("open the console")?;
    for number in 0..3 {
        sys::replace_fd(console.as_fd(), number).doing("use the console")?;
    }
    // Whoever runs out of memory, it is not the agent.
    fs::write(base.join("proc/self/oom_score_adj"), "-1000").doing("protect the agent")
}

/// Leaves the initramfs behind, which is freed but for the agent itself.
pub fn leave_initramfs() -> Result<(), Failure> {
    std::env::set_current_dir("/base").doing("enter the agent's root")?;
    sys::mount(".", Path::new("/"), "", libc::MS_MOVE, "").doing("move the agent's root")?;
    std::os::unix::fs::chroot(".").doing("change the root")?;
    std::env::set_current_dir("/").doing("enter the new root")
}

/// Has the kernel sleep while nobody wants anything of it: else it looks twice a second whether it could make room for huge
/// pages. (Linux: Documentation/admin-guide/sysctl/vm.rst)
pub fn quieten() -> Result<(), Failure> {
    match fs::write("/proc/sys/vm/compaction_proactiveness", "0") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .doing("quieten the kernel")
}

/// A module that does not load is told on the console; what it was needed for will fail by its own name.
pub fn load_modules() -> Result<(), Failure> {
    for line in fs::read_to_string(MODULE_LIST).doing("read the list of modules")?.lines() {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let loaded = File::open(path).and_then(|file| sys::load_module(&file, parameters));
        if let Err(error) = loaded.and_then(|()| fs::remove_file(path)) {
            eprintln!("bulkhead agent: module {path}: {error}");
        }
    }
    Ok(())
}

/// For the server to know: `6.1.0-56-cloud-amd64`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
