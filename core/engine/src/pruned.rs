//! What every pruning ends with.

use crate::{Engine, EngineError};
use bulkhead_model::VchId;
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_store::Record;

impl Engine {
    /// Tells that things of that kind were pruned, and how many bytes came free.
    pub(crate) async fn tell_pruned(
        &self,
        vch: VchId,
        kind: EventKind,
        bytes: u64,
    ) -> Result<(), EngineError> {
        let event = NewEvent {
            kind,
            action: "prune".into(),
            actor: String::new(),
            attributes: [("reclaimed".to_owned(), bytes.to_string())].into(),
        };
        self.store().tell(vch, &Record::at(self.now()).event(event)).await?;
        self.0.feed.wake();
        Ok(())
    }
}
