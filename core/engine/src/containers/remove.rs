//! Remove: the wish to be gone, and waiting until it is.

use crate::{Engine, EngineError, Session};
use bulkhead_model::lifecycle::Request;
use bulkhead_model::{Action, Container};

impl Engine {
    /// `force` ends what runs; `with_volumes` removes the volumes that were made for it alone.
    pub async fn remove(
        &self,
        session: &Session,
        text: &str,
        force: bool,
        with_volumes: bool,
    ) -> Result<(), EngineError> {
        let (_, container, admitted) = self.admit_container(session, Action::ContainerRemove, text).await?;
        self.drive_away(container, force, with_volumes, admitted.audit).await
    }

    pub(crate) async fn drive_away(
        &self,
        container: Container,
        force: bool,
        with_volumes: bool,
        audit: bulkhead_store::AuditEntry,
    ) -> Result<(), EngineError> {
        let (_, _, handle) = self
            .change(container, Request::Remove { force }, audit, |container| {
                container.desired.gone(with_volumes)
            })
            .await?;
        let mut seen = handle.seen();
        seen.wait_for(|seen| seen.gone).await.map_err(|_| EngineError::Stopping)?;
        Ok(())
    }
}
