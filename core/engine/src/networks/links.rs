//! Links: more names for other containers, which one container alone knows.
//!
//! On the default network a link is to a container that is there when it is made, and follows it through renames. On
//! any other it is to a name, whoever has it.

use crate::{Engine, EngineError, Session};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::network::EndpointWish;
use bulkhead_model::{Container, ContainerId, Endpoint, Network, VchId};

impl Engine {
    /// Makes links on the default network be to containers, of which all must be there.
    pub(super) async fn find_links(
        &self,
        vch: VchId,
        network: &Network,
        wish: &mut EndpointWish,
    ) -> Result<(), EngineError> {
        for link in wish.links.iter_mut().filter(|_| network.is_default()) {
            let found = self.find(vch, &link.target).await;
            let found = found.map_err(|error| {
                EngineError::BadNetwork(format!("could not get container for {}: {error}", link.target))
            })?;
            link.target = found.id.to_string();
        }
        Ok(())
    }

    /// Whom a container is linked to on the default network, by name, with the name that it has for it.
    pub async fn linked(
        &self,
        session: &Session,
        container: &Container,
    ) -> Result<Vec<(String, String)>, EngineError> {
        let mut all = Vec::new();
        for (target, alias) in links(container) {
            match self.container(session, target.as_str()).await {
                Ok(other) => all.push((other.name, alias)),
                // It is no more, and the link leads nowhere.
                Err(EngineError::NoSuchContainer(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// A container starts only beside those that it is linked to.
    pub(crate) async fn check_links(&self, container: &Container) -> Result<(), EngineError> {
        for (target, alias) in links(container) {
            let other = match self.store().container(container.vch, &target).await {
                Ok(other) if matches!(other.status, Status::Running { .. }) => continue,
                Ok(other) => other.name,
                Err(bulkhead_store::StoreError::NotFound { .. }) => target.short().to_owned(),
                Err(error) => return Err(error.into()),
            };
            let own = &container.name;
            return Err(EngineError::Network(format!(
                "Cannot link to a non running container: /{other} AS /{own}/{alias}"
            )));
        }
        Ok(())
    }
}

/// Those on the default network: the only ones whose targets are ids.
fn links(container: &Container) -> impl Iterator<Item = (ContainerId, String)> {
    let on_default = |place: &&Endpoint| place.wish.network == bulkhead_model::network::DEFAULT_NETWORK;
    let of = container.endpoints.iter().filter(on_default).flat_map(|place| &place.wish.links);
    of.filter_map(|link| Some((link.target.parse().ok()?, link.alias.clone())))
}
