//! A container comes onto one more network or leaves one, running or not.

use super::events::network_event;
use super::find::check;
use super::join::failed;
use crate::admission::random;
use crate::driver::Handle;
use crate::{Engine, EngineError, Session};
use bulkhead_model::lifecycle::{Goal, Status};
use bulkhead_model::network::{EndpointWish, HOST_NETWORK, NETWORKS_PER_CONTAINER_MAX};
use bulkhead_model::{Action, Container, Endpoint, EndpointId, Network};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeSet;

const NOT_TO_HOST: &str = "container cannot be disconnected from host network or connected to host network";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";

fn not_connected(container: &Container, network: &Network) -> EngineError {
    EngineError::Network(format!("container {} is not connected to network {}", container.id, network.name))
}

impl Engine {
    pub async fn network_connect(
        &self,
        session: &Session,
        text: &str,
        container: &str,
        mut wish: EndpointWish,
    ) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        if text == HOST_NETWORK {
            return Err(EngineError::BadNetwork(NOT_TO_HOST.into()));
        }
        let network = self.find_network(vch.id, text).await?;
        let container = self.find(vch.id, container).await?;
        let admitted =
            self.admit_network(session, &vch, &network, Action::NetworkConnect, &container.name).await?;
        if container.spec.network.host {
            return Err(EngineError::BadNetwork(SHARED.into()));
        }
        check(&network, &wish)?;
        self.find_links(vch.id, &network, &mut wish).await?;
        if container.desired.goal == Goal::Gone {
            return Err(EngineError::BeingRemoved(container.id));
        }
        let already = || {
            EngineError::NetworkForbidden(format!(
                "endpoint with name {} already exists in network {}",
                container.name, network.name
            ))
        };
        if container.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(already());
        }
        if container.endpoints.len() >= NETWORKS_PER_CONTAINER_MAX {
            let text = format!("a container can be on {NETWORKS_PER_CONTAINER_MAX} networks at most");
            return Err(EngineError::BadNetwork(text));
        }
        wish.network.clone_from(&network.name);
        let (id, of, on) = (EndpointId::from_random(random()?), container.id.clone(), network.id.clone());
        let endpoint = Endpoint { id, container: of, network: on, wish, lease: None };
        let mut record = Record::at(self.now()).audit(admitted.audit);
        // At any other time it comes onto its networks with its next run.
        if matches!(container.status, Status::Running { .. }) {
            record = record.event(network_event(&network, "connect", Some(container.id.as_str())));
        }
        match self.store().add_endpoint(vch.id, &endpoint, &record).await {
            Ok(_) => {}
            Err(StoreError::Conflict { .. }) => return Err(already()),
            Err(StoreError::NotFound { .. }) => return Err(EngineError::NoSuchNetwork(network.name)),
            Err(error) => return Err(error.into()),
        }
        self.0.feed.wake();
        let brought = self.bring_onto(&container).await;
        if brought.is_err() {
            // As if it had never been asked for.
            self.leave(&container, &network, Record::at(self.now())).await?;
        }
        brought
    }

    /// Onto networks that it has no address on yet, if it runs.
    async fn bring_onto(&self, container: &Container) -> Result<(), EngineError> {
        if !matches!(container.status, Status::Running { .. }) {
            return Ok(());
        }
        self.store()
            .lease(self.0.fence, container.vch, &container.id, &[], &BTreeSet::new())
            .await
            .map_err(|error| failed(container, error))?;
        self.keep_networks(Some(container.vch)).await?;
        self.drive(container).networks().await
    }

    pub async fn network_disconnect(
        &self,
        session: &Session,
        text: &str,
        container: &str,
        force: bool,
    ) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        if text == HOST_NETWORK {
            return Err(EngineError::BadNetwork(NOT_TO_HOST.into()));
        }
        let network = self.find_network(vch.id, text).await?;
        let container = match self.find(vch.id, container).await {
            // Whatever was left of it on the network went with it.
            Err(EngineError::NoSuchContainer(_)) if force => return Ok(()),
            found => found?,
        };
        let admitted =
            self.admit_network(session, &vch, &network, Action::NetworkDisconnect, &container.name).await?;
        if container.spec.network.host {
            // As far as anybody is told, it is on another network.
            return Err(not_connected(&container, &network));
        }
        let event = network_event(&network, "disconnect", Some(container.id.as_str()));
        let record = Record::at(self.now()).audit(admitted.audit).event(event);
        self.leave(&container, &network, record).await
    }

    /// Its address is nobody's at once, and nothing from it passes any more; then its interface goes.
    async fn leave(
        &self,
        container: &Container,
        network: &Network,
        record: Record,
    ) -> Result<(), EngineError> {
        match self.store().remove_endpoint(container.vch, &container.id, &network.id, &record).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => return Err(not_connected(container, network)),
            Err(error) => return Err(error.into()),
        }
        self.0.feed.wake();
        self.keep_networks(Some(container.vch)).await?;
        match container.status {
            Status::Running { .. } => self.drive(container).networks().await,
            Status::Created | Status::Starting { .. } | Status::Exited { .. } => Ok(()),
        }
    }
}

impl Handle {
    /// Gives the machine the interfaces that the container has places for, and tells the guest.
    async fn networks(&self) -> Result<(), EngineError> {
        let (done, answer) = tokio::sync::oneshot::channel();
        self.command(crate::driver::Command::Networks { done }).await?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }
}
