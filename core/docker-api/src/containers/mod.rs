//! Containers.

pub mod archive;
pub mod attach;
pub mod changes;
pub mod create;
pub mod export;
pub mod inspect;
pub mod kill;
pub mod list;
pub mod logs;
pub mod pause;
pub mod prune;
mod ps;
pub mod remove;
pub mod rename;
pub mod resize;
pub mod restart;
pub mod shape;
pub mod start;
pub mod stats;
pub mod stop;
pub mod top;
pub mod update;
pub mod wait;
