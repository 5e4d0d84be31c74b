//! Networks: those of the VCH, and two that stand for something: `none` for no network at all, `host` for a place on
//! the default one without ports of the host.

pub mod connect;
pub mod create;
pub mod inspect;
pub mod list;
pub mod remove;
mod shape;
