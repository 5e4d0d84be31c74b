//! Reading networks, and from what a user typed to the one that is meant.

use crate::{Engine, EngineError, Session};
use bulkhead_model::network::EndpointWish;
use bulkhead_model::{Action, Container, Endpoint, EndpointId, Network, VchId};

impl Engine {
    /// All of the VCH, by name. `none` is none of them.
    pub async fn networks(&self, session: &Session) -> Result<Vec<Network>, EngineError> {
        self.authorize(session, Action::NetworkList).await?;
        Ok(self.store().networks(session.vch).await?)
    }

    pub async fn network(&self, session: &Session, text: &str) -> Result<Network, EngineError> {
        self.authorize(session, Action::NetworkList).await?;
        self.find_network(session.vch, text).await
    }

    /// By full id, else by name, else by the beginning of an id that fits only one.
    pub(crate) async fn find_network(&self, vch: VchId, text: &str) -> Result<Network, EngineError> {
        pick(self.store().networks(vch).await?, text)
    }

    /// Puts a container that is being made onto the networks that it asks for.
    pub(crate) async fn place(&self, container: &mut Container) -> Result<(), EngineError> {
        let wishes = container.spec.network.endpoints.clone();
        if wishes.is_empty() {
            return Ok(());
        }
        let networks = self.store().networks(container.vch).await?;
        for mut wish in wishes {
            let network = pick(networks.clone(), &wish.network)?;
            check(&network, &wish)?;
            Box::pin(self.find_links(container.vch, &network, &mut wish)).await?;
            if container.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
                let why = "it is named twice".to_owned();
                return Err(EngineError::Invalid { what: "network", value: network.name, why });
            }
            wish.network = network.name;
            container.endpoints.push(Endpoint {
                id: EndpointId::from_random(crate::admission::random()?),
                container: container.id.clone(),
                network: network.id,
                wish,
                lease: None,
            });
        }
        Ok(())
    }
}

const NO_OWN_SUBNET: &str =
    "user specified IP address is supported only when connecting to networks with user configured subnets";

/// What can be known of a wish before anybody starts.
pub(super) fn check(network: &Network, wish: &EndpointWish) -> Result<(), EngineError> {
    let refuse = |why: &str| Err(EngineError::BadNetwork(why.into()));
    if network.is_default() && wish.address.is_some() {
        return refuse("user-specified IP address is supported on user-defined networks only");
    }
    if network.is_default() && !wish.aliases.is_empty() {
        return refuse("network-scoped alias is supported only for containers in user defined networks");
    }
    if let Some(address) = wish.address6 {
        match &network.spec.six {
            Some(_) if network.is_default() => {
                return refuse("user-specified IP address is supported on user-defined networks only");
            }
            Some(pool) if !pool.subnet_asked => return refuse(NO_OWN_SUBNET),
            Some(pool) if pool.subnet.contains(address) => {}
            _ => return refuse(&format!("no configured subnet contains IP address {address}")),
        }
    }
    match wish.address {
        Some(_) if !network.spec.subnet_asked => refuse(NO_OWN_SUBNET),
        Some(address) if !network.spec.subnet.contains(address) => {
            refuse(&format!("no configured subnet contains IP address {address}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Printable, and fit for a path of the API.
pub(super) fn matches_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && name.trim() == name
        && !name.chars().any(|letter| letter.is_control() || letter == '/')
}

fn pick(networks: Vec<Network>, text: &str) -> Result<Network, EngineError> {
    let missing = || EngineError::NoSuchNetwork(text.chars().take(200).collect());
    let exact = networks.iter().find(|network| network.id.as_str() == text || network.name == text);
    if let Some(network) = exact {
        return Ok(network.clone());
    }
    let mut begun =
        networks.into_iter().filter(|network| !text.is_empty() && network.id.as_str().starts_with(text));
    match (begun.next(), begun.next()) {
        (Some(network), None) => Ok(network),
        (Some(_), Some(_)) => Err(EngineError::AmbiguousNetwork(text.chars().take(64).collect())),
        (None, _) => Err(missing()),
    }
}
