//! The image crate from outside: layers, archives, registries.

mod disks;
mod hostile;
mod tars;
mod written;

bulkhead_test_support::layer_child!();
