//! The QEMU back end on real machines: what every back end must do, and what only this one can show.
//!
//! Needs root, QEMU, `mkfs.erofs` and a guest image: `cargo xtask guest-image`, or `BULKHEAD_GUEST_DIR`.

#![cfg(test)]

mod confinement;
mod faults;
mod fixture;
mod images;
mod kvm;
mod spares;
mod templates;

/// Everything that holds for machines holds for clones as for machines that booted.
mod cloned {
    use crate::fixture::Qemu;
    use bulkhead_machine::conformance;

    conformance!(Qemu::new());
}

mod booted {
    use crate::fixture::Qemu;
    use bulkhead_machine::conformance;

    conformance!(Qemu::booting());
}
