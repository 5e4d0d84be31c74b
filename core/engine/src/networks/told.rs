//! What a guest is told of its networks.

use crate::Engine;
use bulkhead_guest_protocol::network::{Interface, Interface6, Network, Resolver};
use bulkhead_model::network::Lease;
use bulkhead_model::{Container, Endpoint};

impl Engine {
    /// As of now. The container has its addresses.
    pub(crate) async fn network_of(&self, container: &Container) -> Network {
        let interfaces: Vec<_> = container.endpoints.iter().filter_map(interface).collect();
        if interfaces.is_empty() {
            return Network::default();
        }
        let options = &container.spec.network;
        let names = self.0.keeper.names_at(&container.endpoints);
        let host = self.back_end().networks.host_address(container.vch).await.map(Into::into);
        let address = |(name, address): &(String, Option<_>)| Some((name.clone(), address.or(host)?));
        Network {
            interfaces,
            hosts: options.hosts.iter().filter_map(address).collect(),
            resolver: Resolver {
                names,
                upstream: if options.dns.is_empty() {
                    self.0.settings.dns.clone()
                } else {
                    options.dns.clone()
                },
                search: options.dns_search.clone(),
                options: options.dns_options.clone(),
            },
        }
    }
}

fn interface(endpoint: &Endpoint) -> Option<Interface> {
    let lease = endpoint.lease?;
    let six =
        lease.six.map(|six| Interface6 { address: six.address, prefix: six.prefix, gateway: six.gateway });
    let Lease { address, prefix, mac, gateway, .. } = lease;
    Some(Interface { mac: mac.0, address, prefix, gateway, six })
}
