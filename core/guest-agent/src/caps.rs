//! Capabilities of the container's processes.

use crate::failure::{Doing, Failure};
use crate::sys;

/// Bounds what this process can have after its next exec to `set`, bit by number as in capabilities(7); it keeps the
/// rest until then.
pub fn restrict(set: u64) -> Result<(), Failure> {
    for capability in (0..u64::BITS).filter(|number| set & (1 << number) == 0) {
        if !sys::drop_bounding(capability).doing("drop capabilities")? {
            break;
        }
    }
    Ok(())
}
