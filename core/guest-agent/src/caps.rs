//! Capabilities of the container's process.

use crate::failure::{Doing, Failure};
use crate::sys;

/// What Docker leaves to a container that is not privileged; numbers of capabilities(7).
const DEFAULT: [u32; 14] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    13, // NET_RAW
    18, // SYS_CHROOT
    27, // MKNOD
    29, // AUDIT_WRITE
    31, // SETFCAP
];

/// Bounds what this process can have after its next exec; it keeps the rest until then.
pub fn restrict() -> Result<(), Failure> {
    for capability in (0..64).filter(|number| !DEFAULT.contains(number)) {
        if !sys::drop_bounding(capability).doing("drop capabilities")? {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::DEFAULT;

    #[test]
    fn the_set_is_dockers() {
        let mask = DEFAULT.iter().fold(0_u64, |mask, number| mask | 1 << number);
        assert_eq!(mask, 0xa804_25fb);
    }
}
