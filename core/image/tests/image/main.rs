//! The image crate from outside: layers, archives, registries.

#[cfg(test)]
mod archives;
#[cfg(test)]
mod describe;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod mirrors;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod pulls;
#[cfg(test)]
mod real;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod tars;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod written;

bulkhead_test_support::layer_child!();
