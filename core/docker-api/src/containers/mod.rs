//! Containers.

pub mod attach;
pub mod create;
pub mod inspect;
pub mod kill;
pub mod list;
pub mod logs;
pub mod remove;
pub mod shape;
pub mod start;
pub mod stop;
pub mod wait;
