//! Networks are made and taken away.

use super::events::network_event;
use super::find::matches_name;
use super::ipv6::NewPool6;
use crate::admission::{Admitted, Ask, random};
use crate::{Engine, EngineError, Session};
use bulkhead_model::ipv6::Subnet6;
use bulkhead_model::network::{DEFAULT_NETWORK, HOST_NETWORK, NO_NETWORK, NetworkSpec, Subnet, pools};
use bulkhead_model::{Action, Network, NetworkId, Vch, VchId};
use bulkhead_policy::{Subject, Usage};
use bulkhead_store::{Record, StoreError};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Tries to find a subnet before it is given up; each loses only to another creation in the VCH.
const TRIES: u32 = 8;
/// Smaller ones have no room for a gateway and a container.
const PREFIX_MAX: u8 = 30;
/// Larger ones are mistakes.
const PREFIX_MIN: u8 = 8;
/// What names networks in Docker that cannot be made.
const PREDEFINED: [&str; 4] = [DEFAULT_NETWORK, NO_NETWORK, HOST_NETWORK, "default"];

/// A network to be made.
#[derive(Debug, Clone, Default)]
pub struct NewNetwork {
    pub name: String,
    /// `None`: one that is free.
    pub subnet: Option<Subnet>,
    pub gateway: Option<Ipv4Addr>,
    pub range: Option<Subnet>,
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// `None`: no IPv6.
    pub six: Option<NewPool6>,
    pub internal: bool,
    pub attachable: bool,
    pub labels: BTreeMap<String, String>,
    pub options: BTreeMap<String, String>,
}

impl Engine {
    pub async fn network_create(&self, session: &Session, new: NewNetwork) -> Result<Network, EngineError> {
        let vch = self.vch_of(session).await?;
        if PREDEFINED.contains(&new.name.as_str()) {
            let text = format!("operation is not permitted on predefined {} network", new.name);
            return Err(EngineError::NetworkForbidden(text));
        }
        if !matches_name(&new.name) {
            let text = format!("invalid network name: {:?}", new.name.chars().take(80).collect::<String>());
            return Err(EngineError::BadNetwork(text));
        }
        if let Some(why) = self.back_end().networks.unavailable() {
            return Err(EngineError::Network(format!("there can be no networks on this host: {why}")));
        }
        let id = NetworkId::from_random(random()?);
        for _ in 0..TRIES {
            let there = self.store().networks(vch.id).await?;
            let spec = self.network_spec(vch.id, &new, &there)?;
            let (name, created_at) = (new.name.clone(), self.now());
            let network = Network { id: id.clone(), vch: vch.id, name, spec, created_at };
            let audit = self.admit_network(session, &vch, &network, Action::NetworkCreate, "").await?.audit;
            let record = Record::at(created_at).audit(audit).event(network_event(&network, "create", None));
            match self.store().create_network(&network, &record).await {
                Ok(_) => {
                    self.0.feed.wake();
                    self.keep_networks(Some(vch.id)).await?;
                    return Ok(network);
                }
                Err(StoreError::Conflict { .. }) => {}
                Err(StoreError::NameTaken { name, .. }) => return Err(EngineError::NetworkNameInUse(name)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(overlap())
    }

    fn network_spec(
        &self,
        vch: VchId,
        new: &NewNetwork,
        there: &[Network],
    ) -> Result<NetworkSpec, EngineError> {
        let refuse = |text: String| Err(EngineError::BadNetwork(text));
        let own = self.back_end().networks.reserved();
        let free = |subnet: Subnet| {
            !subnet.overlaps(own) && !there.iter().any(|other| other.spec.subnet.overlaps(subnet))
        };
        let subnet = match new.subnet {
            Some(subnet) if !(PREFIX_MIN..=PREFIX_MAX).contains(&subnet.prefix()) => {
                return refuse(format!(
                    "subnet {subnet}: expected a prefix from {PREFIX_MIN} to {PREFIX_MAX}"
                ));
            }
            Some(subnet) if free(subnet) => subnet,
            Some(_) => return Err(overlap()),
            None => pools().find(|subnet| free(*subnet)).ok_or_else(|| {
                EngineError::NetworkForbidden(
                    "could not find an available, non-overlapping IPv4 address pool".into(),
                )
            })?,
        };
        let gateway = new.gateway.unwrap_or_else(|| Ipv4Addr::from(subnet.first() + 1));
        let inside = |address: Ipv4Addr| {
            subnet.contains(address)
                && u32::from(address) != subnet.first()
                && u32::from(address) != subnet.last()
        };
        if !inside(gateway) {
            return refuse(format!("no matching subnet for gateway {gateway}"));
        }
        if let Some(range) = new.range
            && !(subnet.contains(range.address()) && range.prefix() >= subnet.prefix())
        {
            return refuse(format!("no matching subnet for range {range}"));
        }
        if let Some(address) = new.reserved.values().find(|address| !inside(**address)) {
            return refuse(format!("no matching subnet for aux-address {address}"));
        }
        let six = match &new.six {
            Some(asked) => {
                let pools = there.iter().filter_map(|other| Some(other.spec.six.as_ref()?.subnet));
                let taken: Vec<_> = pools.chain([Subnet6::UPLINKS]).collect();
                Some(asked.resolve(vch, &taken)?)
            }
            None => None,
        };
        Ok(NetworkSpec {
            subnet,
            gateway,
            range: new.range,
            reserved: new.reserved.clone(),
            internal: new.internal,
            attachable: new.attachable,
            labels: new.labels.clone(),
            options: new.options.clone(),
            subnet_asked: new.subnet.is_some(),
            six,
        })
    }

    pub async fn network_remove(&self, session: &Session, text: &str) -> Result<(), EngineError> {
        let vch = self.vch_of(session).await?;
        if [NO_NETWORK, HOST_NETWORK].contains(&text) {
            return Err(predefined(text));
        }
        let network = self.find_network(vch.id, text).await?;
        self.remove_one_network(session, &vch, &network).await
    }

    async fn remove_one_network(
        &self,
        session: &Session,
        vch: &Vch,
        network: &Network,
    ) -> Result<(), EngineError> {
        if network.is_default() {
            return Err(predefined(&network.name));
        }
        let audit = self.admit_network(session, vch, network, Action::NetworkRemove, "").await?.audit;
        let record = Record::at(self.now()).audit(audit).event(network_event(network, "destroy", None));
        match self.store().delete_network(vch.id, &network.id, &record).await {
            Ok(_) => {}
            Err(StoreError::NetworkInUse { .. }) => {
                return Err(EngineError::NetworkForbidden(format!(
                    "error while removing network: network {} id {} has active endpoints",
                    network.name, network.id
                )));
            }
            Err(StoreError::NotFound { .. }) => return Err(EngineError::NoSuchNetwork(network.name.clone())),
            Err(error) => return Err(error.into()),
        }
        self.0.feed.wake();
        self.keep_networks(None).await
    }

    /// Removes the networks on which nobody runs and that are `wanted`; each is decided about as a removal of its own.
    /// Their names.
    pub async fn network_prune(
        &self,
        session: &Session,
        wanted: impl Fn(&Network) -> bool + Send + Sync,
    ) -> Result<Vec<String>, EngineError> {
        let vch = self.vch_of(session).await?;
        self.admit_vch(session, &vch, Action::NetworkPrune).await?;
        let mut pruned = Vec::new();
        for network in self.store().networks(vch.id).await? {
            if network.is_default() || !wanted(&network) {
                continue;
            }
            match self.remove_one_network(session, &vch, &network).await {
                Ok(()) => pruned.push(network.name),
                // Protected, in use, or gone by now.
                Err(
                    error @ (EngineError::Denied { .. }
                    | EngineError::NetworkForbidden(_)
                    | EngineError::NoSuchNetwork(_)),
                ) => tracing::info!(network.name, %error, "not pruned"),
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    pub(super) async fn admit_network(
        &self,
        session: &Session,
        vch: &Vch,
        network: &Network,
        action: Action,
        container: &str,
    ) -> Result<Admitted, EngineError> {
        let ask = Ask {
            action,
            caller: &session.caller,
            endpoint: Some(vch),
            subject: Subject::Network { vch, network, container },
            usage_after: Usage::default(),
        };
        match action {
            Action::NetworkCreate => {
                self.admit_with_plugins(ask, vch, bulkhead_plugin::Subject::NetworkCreate(network)).await
            }
            _ => self.admit(ask).await,
        }
    }
}

pub(super) fn overlap() -> EngineError {
    EngineError::NetworkForbidden("Pool overlaps with other one on this address space".into())
}

fn predefined(name: &str) -> EngineError {
    EngineError::NetworkForbidden(format!("{name} is a pre-defined network and cannot be removed"))
}
