//! The image crate from outside: layers, archives, registries.

mod archives;
mod disks;
mod faults;
mod fuzz;
mod hostile;
mod pulls;
mod sandbox;
mod tars;
mod written;

bulkhead_test_support::layer_child!();
