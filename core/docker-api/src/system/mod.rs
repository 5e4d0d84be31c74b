//! The VCH as a whole.

pub mod auth;
pub mod credentials;
pub mod disk_usage;
pub mod events;
pub mod info;
pub mod ping;
pub mod plugins;
pub mod version;
