//! Processes beside a container's own.

pub mod create;
pub mod inspect;
pub mod resize;
pub mod start;
