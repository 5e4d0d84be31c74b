//! Images as archives: `load`, `save`, `import`, `commit`.
//!
//! An archive is read by known names only, out of one bounded temporary file without a name; nothing in it is ever unpacked
//! to a path. Both layouts are understood, Docker's (`manifest.json`) and OCI's (`index.json`, image-spec, image-layout.md);
//! both are written, in one archive. What is loaded has no origin: only a pull proves where an image came from.

mod changes;
mod commit;
mod import;
mod index;
mod list;
mod load;
mod save;
mod spool;
mod words;

pub use commit::{CommitOptions, commit};
pub use import::{ImportOptions, import};
pub use load::load;
pub use save::{SaveImage, save};
