//! What tests of several crates share.
//!
//! Everything here waits for conditions with a deadline; nothing sleeps for a guessed time.

mod docker;
pub mod images;
mod layer_child;
pub mod plugins;
pub mod postgres;
mod process;
pub mod registry;
mod server;
mod terminal;
mod wait;

pub use docker::Docker;
pub use process::{Output, run, run_with_input};
pub use server::{BOOT, BackEnd, Server, ServerOptions, binary};
pub use terminal::Terminal;
pub use wait::wait_for;
