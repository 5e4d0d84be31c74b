//! The journals of a [`Sim`].

use super::{Sim, Verb};
use crate::{Extent, JournalChunk, Journals, MachineError};
use async_trait::async_trait;
use bulkhead_model::ContainerId;
use std::time::Duration;

#[async_trait]
impl Journals for Sim {
    async fn extent(&self, id: &ContainerId) -> Result<Extent, MachineError> {
        Ok(self.extent_now(id))
    }

    async fn read(&self, id: &ContainerId, offset: u64, max: usize) -> Result<JournalChunk, MachineError> {
        self.enter(Verb::ReadJournal)?;
        let world = self.lock();
        let Some(journal) = world.journals.get(id) else {
            return Ok(JournalChunk { offset, data: bytes::Bytes::new() });
        };
        let offset = offset.max(journal.start);
        let skip = usize::try_from(offset - journal.start).unwrap_or(usize::MAX);
        let data: Vec<u8> = journal.data.iter().skip(skip).take(max).copied().collect();
        Ok(JournalChunk { offset, data: data.into() })
    }

    async fn release(&self, id: &ContainerId, offset: u64) -> Result<(), MachineError> {
        self.enter(Verb::ReleaseJournal)?;
        let mut world = self.lock();
        if let Some(journal) = world.journals.get_mut(id) {
            let count = usize::try_from(offset.saturating_sub(journal.start)).unwrap_or(usize::MAX);
            let count = count.min(journal.data.len());
            journal.data.drain(..count);
            journal.start += u64::try_from(count).unwrap_or(0);
        }
        Ok(())
    }

    async fn grown(&self, id: &ContainerId, beyond: u64) {
        let Some(grown) = self.lock().journals.get(id).map(|journal| journal.grown.clone()) else {
            return tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let notified = grown.notified();
        tokio::pin!(notified);
        // Registered before the look, so that nothing written in between is missed.
        notified.as_mut().enable();
        if self.extent_now(id).end <= beyond {
            let _ = tokio::time::timeout(Duration::from_secs(1), notified).await;
        }
    }

    async fn delete(&self, id: &ContainerId) -> Result<(), MachineError> {
        self.enter(Verb::DeleteJournal)?;
        self.lock().journals.remove(id);
        Ok(())
    }
}

impl Sim {
    fn extent_now(&self, id: &ContainerId) -> Extent {
        let world = self.lock();
        world.journals.get(id).map_or_else(Extent::default, |journal| Extent {
            start: journal.start,
            end: journal.start + u64::try_from(journal.data.len()).unwrap_or(0),
        })
    }

    /// Appends what a guest wrote; returns the new end.
    pub(super) fn append(&self, id: &ContainerId, bytes: &[u8]) -> u64 {
        let mut world = self.lock();
        let journal = world.journals.entry(id.clone()).or_default();
        journal.data.extend(bytes);
        let end = journal.start + u64::try_from(journal.data.len()).unwrap_or(0);
        journal.grown.notify_waiters();
        end
    }
}
