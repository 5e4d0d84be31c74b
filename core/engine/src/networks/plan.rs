//! From rows to what the back end is told: a pure function.

use bulkhead_machine::networks::{Port, PublishedPort, Segment, VchNetworks};
use bulkhead_model::{ContainerId, Endpoint, Network, VchId};
use bulkhead_store::NetworkFacts;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

pub(super) fn plan(facts: &NetworkFacts) -> Vec<VchNetworks> {
    let mut vchs: BTreeMap<VchId, VchNetworks> = BTreeMap::new();
    let mut by_id = HashMap::new();
    let mut order: Vec<&Network> = facts.networks.iter().collect();
    order.sort_by_key(|network| (network.vch, network.id.clone()));
    for network in order {
        let (segments, published) = (Vec::new(), Vec::new());
        let vch = network.vch;
        let of = vchs.entry(vch).or_insert_with(|| VchNetworks { vch, segments, published });
        by_id.insert(&network.id, (vch, of.segments.len()));
        of.segments.push(Segment {
            network: network.id.clone(),
            subnet: network.spec.subnet,
            gateway: network.spec.gateway,
            six: network.spec.six.as_ref().map(|pool| (pool.subnet, pool.gateway)),
            internal: network.spec.internal,
            ports: Vec::new(),
        });
    }
    // The way out of a container is the way in to its ports.
    let mut ways: HashMap<&ContainerId, (&Endpoint, &Network)> = HashMap::new();
    let networks: HashMap<_, _> = facts.networks.iter().map(|network| (&network.id, network)).collect();
    for endpoint in &facts.endpoints {
        let (Some(lease), Some((vch, at))) = (endpoint.lease, by_id.get(&endpoint.network)) else { continue };
        let Some(of) = vchs.get_mut(vch) else { continue };
        if let Some(segment) = of.segments.get_mut(*at) {
            let (mac, address, address6) = (lease.mac, lease.address, lease.six.map(|six| six.address));
            segment.ports.push(Port { endpoint: endpoint.id.clone(), mac, address, address6 });
        }
        let Some(network) = networks.get(&endpoint.network).filter(|network| !network.spec.internal) else {
            continue;
        };
        let rank =
            |endpoint: &Endpoint, network: &Network| (-endpoint.wish.gateway_priority, network.name.clone());
        let better =
            ways.get(&endpoint.container).is_none_or(|(other, of)| rank(endpoint, network) < rank(other, of));
        if better {
            ways.insert(&endpoint.container, (endpoint, network));
        }
    }
    for (container, published) in &facts.published {
        let Some((endpoint, network)) = ways.get(container) else { continue };
        let Some((lease, of)) = endpoint.lease.zip(vchs.get_mut(&network.vch)) else { continue };
        let same_family = |address: &IpAddr| address.is_ipv4() == published.host_address.is_ipv4();
        let Some(target) = lease.addresses().find(same_family) else { continue };
        of.published.push(PublishedPort { published: published.clone(), target });
    }
    for of in vchs.values_mut() {
        of.published.sort_by(|one, other| one.published.cmp(&other.published));
    }
    vchs.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::network::{EndpointWish, Lease, MacAddress};
    use bulkhead_model::ports::Protocol;
    use bulkhead_model::{EndpointId, Published};
    use std::net::Ipv4Addr;

    fn network(vch: VchId, name: &str, internal: bool) -> Network {
        let mut network = Network::default_of(vch, chrono::DateTime::UNIX_EPOCH);
        network.name = name.into();
        network.id = bulkhead_model::network::predefined_id(vch, name);
        network.spec.internal = internal;
        network
    }

    fn place(network: &Network, last: u8, priority: i64) -> Endpoint {
        let address = Ipv4Addr::new(172, 17, 0, last);
        let gateway = Some(network.spec.gateway);
        Endpoint {
            id: EndpointId::from_random([last; 32]),
            container: ContainerId::from_random([1; 32]),
            network: network.id.clone(),
            wish: EndpointWish { gateway_priority: priority, ..EndpointWish::default() },
            lease: Some(Lease { address, prefix: 16, mac: MacAddress::of(address), gateway, six: None }),
        }
    }

    fn target(places: Vec<Endpoint>, networks: Vec<Network>) -> Option<IpAddr> {
        let published = Published {
            container_port: 80,
            protocol: Protocol::Tcp,
            host_address: Ipv4Addr::UNSPECIFIED.into(),
            host_port: 8080,
            inner_port: 8080,
        };
        let published = vec![(ContainerId::from_random([1; 32]), published)];
        let plans = plan(&NetworkFacts { networks, endpoints: places, published, ..NetworkFacts::default() });
        plans.first()?.published.first().map(|port| port.target)
    }

    #[test]
    fn ports_lead_to_the_way_out() {
        let vch = VchId(uuid::Uuid::nil());
        let (a, b, inside) = (network(vch, "a", false), network(vch, "b", false), network(vch, "0", true));
        let last = |places: Vec<Endpoint>| {
            let target = target(places, vec![a.clone(), b.clone(), inside.clone()])?;
            target.to_string().rsplit('.').next()?.parse::<u8>().ok()
        };
        assert_eq!(last(vec![place(&inside, 2, 0), place(&b, 3, 0), place(&a, 4, 0)]), Some(4));
        assert_eq!(last(vec![place(&b, 3, 1), place(&a, 4, 0)]), Some(3));
        assert_eq!(last(vec![place(&inside, 2, 9)]), None);
    }

    #[test]
    fn each_vch_has_its_own() {
        let (one, other) = (VchId(uuid::Uuid::from_u128(1)), VchId(uuid::Uuid::from_u128(2)));
        let networks = vec![network(one, "bridge", false), network(other, "bridge", false)];
        let endpoints = vec![place(&networks[1], 2, 0)];
        let plans = plan(&NetworkFacts { networks, endpoints, ..NetworkFacts::default() });
        assert_eq!((plans[0].vch, plans[0].segments[0].ports.len()), (one, 0));
        assert_eq!((plans[1].vch, plans[1].segments[0].ports.len()), (other, 1));
    }
}
