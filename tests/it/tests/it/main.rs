//! The engine on simulated machines and a real PostgreSQL: what its use cases do, and what survives what.
//! `cfg(test)` only tells the lints that helpers here are tests, too.

#[cfg(test)]
mod events;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fsck;
#[cfg(test)]
mod health;
#[cfg(test)]
mod journey;
#[cfg(test)]
mod life;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod names;
#[cfg(test)]
mod output;
#[cfg(test)]
mod placement;
#[cfg(test)]
mod plugins;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod volume_stores;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod world;

bulkhead_test_support::layer_child!();
