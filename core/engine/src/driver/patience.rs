//! Calls to the agent that may take minutes, as the copy of a large folder into a volume, and are not waited for once
//! something else is wanted.

use super::Driver;
use super::acts::GREET_SLICE;
use crate::EngineError;
use crate::guest::{Agent, GuestError};
use bulkhead_guest_protocol::message::{ReplyBody, RequestBody};
use bulkhead_model::Container;
use std::time::Duration;

/// Whether a container, as it is now, is still to have what is being done: an error, if not.
pub(super) type Wanted = fn(&Driver, &Container) -> Result<(), EngineError>;

impl Driver {
    /// The outer error: it is not wanted any more, and the agent may still be at it.
    pub(super) async fn call_while(
        &self,
        wanted: Wanted,
        agent: &Agent,
        body: RequestBody,
        deadline: Duration,
    ) -> Result<Result<ReplyBody, GuestError>, EngineError> {
        let call = agent.call(body, deadline);
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                reply = &mut call => return Ok(reply),
                _ = tokio::time::timeout(GREET_SLICE, self.handle.wake.notified()) => {}
            }
            wanted(self, &self.engine.store().container(self.vch, &self.id).await?)?;
        }
    }
}
