//! What there is of networks on the host, whoever it belongs to.

use super::namespace::{Namespace, output};
use super::{QemuNetworks, links, names};
use crate::inventory::found;
use bulkhead_machine::inventory::{Found, Kind};
use bulkhead_model::VchId;
use serde_json::Value;
use std::io;

impl QemuNetworks {
    pub(crate) fn found(&self) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        for vch in self.0.vchs()? {
            let namespace = Namespace::named(names::namespace(vch));
            if !namespace.exists() {
                continue;
            }
            all.push(found(Kind::Namespace, &vch.0.simple().to_string(), namespace.name()));
            for name in links::names(&namespace)? {
                match name.split_at_checked(1) {
                    Some(("b", digits)) => all.push(found(Kind::Bridge, digits, &name)),
                    Some(("p", digits)) => all.push(found(Kind::Tap, digits, &name)),
                    _ => {}
                }
            }
            // A namespace whose rules were flushed has no such set.
            let set = ["-j", "list", "set", "bridge", "bulkhead", "stations"];
            let listed = namespace.enter(|| output("nft", set)).unwrap_or_default();
            let listed: Value = serde_json::from_slice(&listed).unwrap_or_default();
            for port in members(&listed) {
                all.push(found(Kind::Rule, port.get(1..).unwrap_or_default(), &format!("stations: {port}")));
            }
        }
        let table = names::host_table(self.0.server);
        let listed = output("nft", ["-j", "list", "set", "ip", &table, "uplinks"]).unwrap_or_default();
        let listed: Value = serde_json::from_slice(&listed).unwrap_or_default();
        for uplink in members(&listed) {
            all.push(found(Kind::Uplink, uplink.get(2..).unwrap_or_default(), &format!("uplinks: {uplink}")));
        }
        Ok(all)
    }
}

impl super::Inner {
    /// Those that have, or had, a namespace of this server.
    pub(super) fn vchs(&self) -> io::Result<Vec<VchId>> {
        match std::fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            entries => {
                let mut all = Vec::new();
                for entry in entries? {
                    all.extend(entry?.file_name().to_str().and_then(|name| name.parse::<VchId>().ok()));
                }
                Ok(all)
            }
        }
    }
}

/// Of a set in what `nft -j list set` prints: the names of interfaces.
fn members(listed: &Value) -> Vec<String> {
    let sets = listed.get("nftables").and_then(Value::as_array).into_iter().flatten();
    let elements = sets.filter_map(|one| one.pointer("/set/elem")?.as_array()).flatten();
    let name = |element: &Value| match element {
        Value::String(name) => Some(name.clone()),
        other => other.pointer("/concat/0")?.as_str().map(str::to_owned),
    };
    elements.filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_from_what_nft_says() {
        let listed = serde_json::json!({"nftables": [
            {"metainfo": {}},
            {"set": {"name": "stations", "elem": [{"concat": ["p0", "02:42:ac:11:00:02"]}, "bh1"]}},
        ]});
        assert_eq!(members(&listed), ["p0", "bh1"]);
        assert!(members(&Value::Null).is_empty());
    }
}
