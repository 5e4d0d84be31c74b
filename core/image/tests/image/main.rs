//! The image crate from outside: layers, archives, registries.

#[cfg(test)]
mod archives;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod tars;
#[cfg(test)]
mod written;

bulkhead_test_support::layer_child!();
