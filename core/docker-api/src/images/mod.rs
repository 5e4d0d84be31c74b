//! Images.

pub mod commit;
pub mod create;
pub mod distribution;
pub mod history;
pub mod import;
pub mod inspect;
pub mod list;
pub mod load;
pub mod prune;
pub mod pull;
pub mod remove;
pub mod save;
pub mod shape;
pub mod tag;
