//! What things are called on the host: short enough for the kernel, and told apart by ids.

use bulkhead_model::{EndpointId, NetworkId, ServerId, VchId};

/// The end of a VCH's uplink in its namespace.
pub(crate) const UPLINK: &str = "uplink";

/// Names of interfaces have at most 15 bytes.
const DIGITS: usize = 12;

fn digits(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}

pub(crate) fn namespace(vch: VchId) -> String {
    format!("bulkhead-{}", digits(&vch.0.simple().to_string()))
}

/// The host's end of a VCH's uplink.
pub(crate) fn uplink(vch: VchId) -> String {
    format!("bh{}", digits(&vch.0.simple().to_string()))
}

/// The server's table of rules in the host's namespace.
pub(crate) fn host_table(server: ServerId) -> String {
    format!("bulkhead_{}", digits(&server.0.simple().to_string()))
}

pub(crate) fn bridge(network: &NetworkId) -> String {
    format!("b{}", digits(network.as_str()))
}

pub(crate) fn port(endpoint: &EndpointId) -> String {
    format!("p{}", digits(endpoint.as_str()))
}
