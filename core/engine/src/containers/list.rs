//! Reading containers.

use super::ContainerUsage;
use crate::{Engine, EngineError, Session};
use bulkhead_model::{Action, Container};

impl Engine {
    /// All of the VCH, newest first.
    pub async fn containers(&self, session: &Session) -> Result<Vec<Container>, EngineError> {
        self.authorize(session, Action::ContainerList).await?;
        Ok(self.store().containers(session.vch).await?)
    }

    pub async fn container(&self, session: &Session, text: &str) -> Result<Container, EngineError> {
        let (_, container, _) = self.admit_container(session, Action::ContainerInspect, text).await?;
        Ok(container)
    }

    pub async fn container_usage(
        &self,
        session: &Session,
        text: &str,
    ) -> Result<ContainerUsage, EngineError> {
        let container = self.container(session, text).await?;
        let disk_bytes =
            self.back_end().disks.disk_used(session.vch, container.disk_place()).await.unwrap_or(0);
        let image_bytes = match self.store().image(session.vch, &container.image).await {
            Ok(image) => image.layers.iter().map(|layer| layer.size_bytes).sum(),
            Err(bulkhead_store::StoreError::NotFound { .. }) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(ContainerUsage { disk_bytes, image_bytes })
    }
}
