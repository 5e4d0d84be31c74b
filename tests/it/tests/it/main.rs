//! The engine on simulated machines and a real PostgreSQL: what its use cases do, and what survives what.
//! `cfg(test)` only tells the lints that helpers here are tests, too.

#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod world;

bulkhead_test_support::layer_child!();
