//! The Docker API over a real socket: the engine on simulated machines and a real PostgreSQL below it, the stock
//! docker CLI and bare HTTP above.

#[cfg(test)]
mod cli;
#[cfg(test)]
mod endpoint;
#[cfg(test)]
mod exec;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod health;
#[cfg(test)]
mod http;
#[cfg(test)]
mod ipv6;
#[cfg(test)]
mod life;
#[cfg(test)]
mod links;
#[cfg(test)]
mod networks;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod volumes;
#[cfg(test)]
mod watch;
#[cfg(test)]
mod websocket;
#[cfg(test)]
#[path = "../it/world.rs"]
#[expect(dead_code, reason = "shared with the tests of the engine, which use more of it")]
mod world;

bulkhead_test_support::layer_child!();
