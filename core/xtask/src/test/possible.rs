//! What this machine cannot show, whatever the code does. Nothing else may be left out of a run.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;

/// `_IO(0xAE, 0x01)` (linux/kvm.h).
const KVM_CREATE_VM: libc::c_ulong = 0xAE01;

/// Each thing with its reason.
pub fn not_possible_here() -> Vec<String> {
    let mut reasons = Vec::new();
    if let Err(reason) = kvm() {
        reasons.push(format!("KVM ({reason}): all machines ran emulated"));
    }
    if !cgroup_v2() {
        reasons.push(
            "cgroup v2 (this kernel's controllers are with v1): limits of real machines ran on what is there"
                .to_owned(),
        );
    }
    reasons
}

/// A device file proves nothing: nested hosts often have one that makes no machine.
fn kvm() -> Result<(), String> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm: {error}"))?;
    // SAFETY: makes an empty machine and returns a descriptor of it, or an error; no memory is passed.
    let machine = unsafe { libc::ioctl(device.as_raw_fd(), KVM_CREATE_VM, 0) };
    if machine < 0 {
        return Err(format!("it makes no machine: {}", std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and is known to nobody else.
    unsafe { libc::close(machine) };
    Ok(())
}

fn cgroup_v2() -> bool {
    [Path::new("/sys/fs/cgroup"), Path::new("/sys/fs/cgroup/unified")].iter().any(|folder| {
        std::fs::read_to_string(folder.join("cgroup.controllers")).is_ok_and(|text| {
            ["cpu", "memory"].iter().all(|one| text.split_whitespace().any(|word| word == *one))
        })
    })
}
