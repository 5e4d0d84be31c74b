//! Machines run under users of their own, which only root can start.

use super::Finding;
use crate::config::{BackEndKind, Config};

pub fn check(config: &Config) -> Finding {
    let uid = nix::unistd::geteuid();
    match (uid.is_root(), config.back_end) {
        (true, _) => Finding::ok("user", "root"),
        (false, BackEndKind::Sim) => {
            Finding::ok("user", format!("uid {uid}, which is enough for simulated machines"))
        }
        (false, BackEndKind::Qemu) => Finding::failed(
            "user",
            format!("uid {uid}"),
            "run the server, and this check, as root: sudo bulkhead doctor",
        ),
    }
}
