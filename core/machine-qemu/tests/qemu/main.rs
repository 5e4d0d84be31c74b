//! The QEMU back end on real machines: what every back end must do, and what only this one can show.
//!
//! Needs root, QEMU, `mkfs.erofs` and a guest image: `cargo xtask guest-image`, or `BULKHEAD_GUEST_DIR`.

#![cfg(test)]

mod confinement;
mod faults;
mod fixture;
mod kvm;

use bulkhead_machine::conformance;
use fixture::Qemu;

conformance!(Qemu::new());
