//! Volumes. All are of the driver `local`: disks on the VCH's datastore.

pub mod create;
pub mod inspect;
pub mod list;
pub mod options;
pub mod prune;
pub mod remove;
pub mod shape;
