//! Networks: those of the VCH, and `none`, which is no network at all. What cannot be used (`host`) is not listed.

pub mod connect;
pub mod create;
pub mod inspect;
pub mod list;
pub mod remove;
mod shape;
