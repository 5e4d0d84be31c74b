//! A container comes onto its networks: addresses and ports for the run, made so on the host before its machine starts.

use crate::{Engine, EngineError};
use bulkhead_machine::networks::Nic;
use bulkhead_model::network::DEFAULT_NETWORK;
use bulkhead_model::{Container, Endpoint, Published};
use bulkhead_store::StoreError;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Tries to find a port that nothing else on the host uses.
const PORT_TRIES: u32 = 64;

/// The interfaces of a machine, the way out first.
pub(crate) fn nics(endpoints: &[Endpoint]) -> Vec<Nic> {
    let nic = |endpoint: &Endpoint| {
        let mac = endpoint.lease?.mac;
        Some(Nic { endpoint: endpoint.id.clone(), network: endpoint.network.clone(), mac })
    };
    endpoints.iter().filter_map(nic).collect()
}

impl Engine {
    /// The container with its addresses and ports, once they are so on the host. Repeated, it keeps what it has.
    pub(crate) async fn join_networks(&self, container: &Container) -> Result<Container, EngineError> {
        if container.endpoints.is_empty() {
            return Ok(container.clone());
        }
        if let Some(why) = self.back_end().networks.unavailable() {
            return Err(EngineError::Network(format!(
                "containers can have no networks on this host: {why} (`bulkhead doctor` knows more; --network none works)"
            )));
        }
        let (vch, id) = (container.vch, &container.id);
        let mut avoid = BTreeSet::new();
        for _ in 0..PORT_TRIES {
            let wishes = &container.spec.network.ports;
            self.store()
                .lease(self.0.fence, vch, id, wishes, &avoid)
                .await
                .map_err(|error| failed(container, error))?;
            let joined = self.store().container(vch, id).await?;
            // What it had before is in use by itself.
            let new = joined.published.iter().filter(|port| !container.published.contains(port));
            match self.used_elsewhere(new).await {
                None => {
                    self.keep_networks(Some(vch)).await?;
                    return Ok(joined);
                }
                Some(port) => {
                    self.store().release(self.0.fence, id).await?;
                    let chosen = wishes.iter().any(|wish| {
                        wish.protocol == port.protocol
                            && wish.host_ports.is_some_and(|range| {
                                range.first == range.last && range.first == port.host_port
                            })
                    });
                    if chosen || !avoid.insert((port.protocol, port.host_port)) {
                        return Err(EngineError::Network(in_use(container, &port)));
                    }
                }
            }
        }
        Err(EngineError::Network("every port of the host that was tried is in use".into()))
    }

    async fn used_elsewhere(&self, ports: impl Iterator<Item = &Published>) -> Option<Published> {
        for port in ports {
            if !self.back_end().networks.is_free(port).await {
                return Some(port.clone());
            }
        }
        None
    }
}

/// In the words of Docker's engine, by which people search.
pub(super) fn failed(container: &Container, error: StoreError) -> EngineError {
    let message = match error {
        StoreError::Publish(error) => format!("{}: {error}", connectivity(container)),
        StoreError::Lease(error) => error.to_string(),
        error @ StoreError::MacTaken { .. } => error.to_string(),
        StoreError::NotFound { kind: "network", text } => format!("network {text} not found"),
        other => return other.into(),
    };
    EngineError::Network(message)
}

fn in_use(container: &Container, port: &Published) -> String {
    let Published { host_address, host_port, protocol, .. } = port;
    let family = if host_address.is_ipv4() { 4 } else { 6 };
    let place = SocketAddr::new(*host_address, *host_port);
    format!("{}: listen {protocol}{family} {place}: bind: address already in use", connectivity(container))
}

fn connectivity(container: &Container) -> String {
    let endpoint = container.endpoints.first().map_or(DEFAULT_NETWORK, |endpoint| endpoint.id.as_str());
    format!("driver failed programming external connectivity on endpoint {} ({endpoint})", container.name)
}
