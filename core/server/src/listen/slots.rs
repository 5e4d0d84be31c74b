//! How many connections a listener has, together and by peer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(super) struct Slots {
    all: Arc<Semaphore>,
    by_peer: Arc<Mutex<HashMap<String, usize>>>,
    per_peer_max: usize,
}

/// The place of one connection; free again when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    peer: String,
    by_peer: Arc<Mutex<HashMap<String, usize>>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub fn new(max: usize, per_peer_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(max)), by_peer: Arc::default(), per_peer_max }
    }

    /// Waits for a place.
    pub async fn free(&self) -> Option<OwnedSemaphorePermit> {
        // Never closed, so always a permit.
        self.all.clone().acquire_owned().await.ok()
    }

    /// `None`: this peer has as many as it may.
    pub fn admit(&self, permit: Option<OwnedSemaphorePermit>, peer: String) -> Option<Slot> {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_peer.entry(peer.clone()).or_default();
        if *count >= self.per_peer_max {
            return None;
        }
        *count += 1;
        Some(Slot { peer, by_peer: self.by_peer.clone(), _permit: permit })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_peer = self.by_peer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_peer.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_peer_gets_so_many_and_gives_them_back() {
        let slots = Slots::new(3, 2);
        let first = slots.admit(slots.free().await, "uid:1".into()).unwrap();
        let _second = slots.admit(slots.free().await, "uid:1".into()).unwrap();
        assert!(slots.admit(slots.free().await, "uid:1".into()).is_none());
        let _other = slots.admit(slots.free().await, "uid:2".into()).unwrap();
        assert_eq!(slots.all.available_permits(), 0);
        drop(first);
        assert_eq!(slots.all.available_permits(), 1);
        assert!(slots.admit(slots.free().await, "uid:1".into()).is_some());
    }
}
