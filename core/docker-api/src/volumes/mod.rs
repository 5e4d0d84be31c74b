//! Volumes: there are none yet, and that is what is answered.

pub mod inspect;
pub mod list;
