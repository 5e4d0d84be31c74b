//! What is told of networks.

use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::network::{HOST_NETWORK, NO_NETWORK, predefined_id};
use bulkhead_model::{Container, Network, NetworkId};
use std::collections::BTreeMap;

pub(super) fn network_event(network: &Network, action: &str, container: Option<&str>) -> NewEvent {
    event(&network.id, &network.name, "bridge", action, container)
}

/// That a container comes onto all of its networks with the beginning of a run, or leaves them with its end.
pub(crate) fn run_events(container: &Container, action: &str) -> Vec<NewEvent> {
    let id = Some(container.id.as_str());
    let standing =
        |name: &str, driver: &str| vec![event(&predefined_id(container.vch, name), name, driver, action, id)];
    if container.spec.network.host {
        return standing(HOST_NETWORK, "host");
    }
    if container.endpoints.is_empty() {
        return standing(NO_NETWORK, "null");
    }
    let places = container.endpoints.iter();
    places.map(|place| event(&place.network, &place.wish.network, "bridge", action, id)).collect()
}

fn event(id: &NetworkId, name: &str, driver: &str, action: &str, container: Option<&str>) -> NewEvent {
    let mut attributes =
        BTreeMap::from([("name".to_owned(), name.to_owned()), ("type".to_owned(), driver.to_owned())]);
    attributes.extend(container.map(|id| ("container".to_owned(), id.to_owned())));
    NewEvent { kind: EventKind::Network, action: action.into(), actor: id.to_string(), attributes }
}
