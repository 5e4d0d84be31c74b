//! What can be set of a VCH, when it is made and later.

use super::super::size;
use bulkhead_model::ports::PortRange;
use bulkhead_model::{Boot, VolumeStoreName};
use clap::Args;
use serde_json::{Map, Value, json};
use std::net::IpAddr;

#[derive(Debug, Args)]
pub struct Settings {
    /// Memory of a container that asks for none
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    default_memory: Option<u64>,
    /// CPUs of a container that asks for none
    #[arg(long, value_name = "N", value_parser = size::cpu_milli)]
    default_cpus: Option<u32>,
    /// Size of each container's own disk; takes only what is written
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    disk: Option<u64>,
    /// Log space of each container
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    log_size: Option<u64>,
    /// Most containers, running or not
    #[arg(long, value_name = "N")]
    containers_max: Option<u32>,
    /// Most memory of running containers together
    #[arg(long, value_name = "SIZE|none", value_parser = limit)]
    memory_max: Option<Limit>,
    /// Size of a volume that is made without one; takes only what is written
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    volume_size: Option<u64>,
    /// Most volumes
    #[arg(long, value_name = "N")]
    volumes_max: Option<u32>,
    /// Most that the sizes of all volumes may add up to
    #[arg(long, value_name = "SIZE|none", value_parser = limit)]
    volumes_size_max: Option<Limit>,
    /// A place for volumes, and how much their sizes may add up to there; in the server's data folder, unless FOLDER is
    /// given. Volumes that name no store are in `default`. May be given several times
    #[arg(long, value_name = "NAME[=FOLDER][,size=SIZE]", value_parser = store)]
    volume_store: Vec<StoreChange>,
    /// A user who may use the unix socket, besides root; may be given several times
    #[arg(long, value_name = "UID")]
    socket_uid: Vec<u32>,
    /// Also listen on TCP with TLS; clients need a certificate
    #[arg(long, value_name = "ADDR:PORT|none")]
    tls: Option<String>,
    /// Also listen on TCP without any protection; loopback addresses only
    #[arg(long, value_name = "ADDR:PORT|none")]
    insecure_tcp: Option<String>,
    /// An address of the host that containers may be published on (all, unless given); may be given several times
    #[arg(long, value_name = "ADDR")]
    publish_address: Vec<IpAddr>,
    /// Ports of the host that containers may be published on (all but 22 and 443, unless given)
    #[arg(long, value_name = "FIRST-LAST")]
    publish_ports: Vec<PortRange>,
    /// `cold`: its machines share no memory with others and start slowly; `clone` otherwise
    #[arg(long, value_name = "HOW")]
    boot: Option<Boot>,
}

/// A limit, or none.
type Limit = Option<u64>;

fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" { Ok(None) } else { size::bytes(text).map(Some) }
}

/// What is given of a volume store; the rest stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoreChange {
    name: VolumeStoreName,
    folder: Option<String>,
    bytes_max: Option<Limit>,
}

fn store(text: &str) -> Result<StoreChange, String> {
    // A folder's name may have commas in it.
    let (place, bytes_max) = match text.rsplit_once(",size=") {
        Some((place, size)) => (place, Some(limit(size)?)),
        None => (text, None),
    };
    let (name, folder) = match place.split_once('=') {
        Some((_, "")) => return Err("expected a folder after `=`".into()),
        Some((name, folder)) => (name, Some(folder.to_owned())),
        None => (place, None),
    };
    Ok(StoreChange { name: name.parse().map_err(|error| format!("{error}"))?, folder, bytes_max })
}

impl Settings {
    /// As a JSON merge patch of what a VCH is set to: nothing but what is given.
    pub fn patch(self) -> Map<String, Value> {
        let mut patch = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                patch.insert(name.into(), value);
            }
        };
        let listen = |text: String| if text == "none" { Value::Null } else { text.into() };
        let list = |given: Vec<Value>| if given.is_empty() { None } else { Some(Value::from(given)) };
        set("default_memory_bytes", self.default_memory.map(Value::from));
        set("default_cpu_milli", self.default_cpus.map(Value::from));
        set("disk_bytes", self.disk.map(Value::from));
        set("log_bytes", self.log_size.map(Value::from));
        set("containers_max", self.containers_max.map(Value::from));
        set("memory_bytes_max", self.memory_max.map(Value::from));
        set("volume_bytes", self.volume_size.map(Value::from));
        set("volumes_max", self.volumes_max.map(Value::from));
        set("volumes_bytes_max", self.volumes_size_max.map(Value::from));
        set("volume_stores", stores(self.volume_store));
        set("socket_uids", list(self.socket_uid.into_iter().map(Value::from).collect()));
        set("tls_listen", self.tls.map(listen));
        set("insecure_listen", self.insecure_tcp.map(listen));
        set("boot", self.boot.map(|boot| json!(boot)));
        let mut publish = Map::new();
        let addresses = self.publish_address.into_iter().map(|address| json!(address)).collect();
        publish.extend(list(addresses).map(|addresses| ("addresses".to_owned(), addresses)));
        let ports = self.publish_ports.into_iter().map(|range| json!(range)).collect();
        publish.extend(list(ports).map(|ports| ("ports".to_owned(), ports)));
        set("publish", (!publish.is_empty()).then(|| publish.into()));
        patch
    }
}

fn stores(changes: Vec<StoreChange>) -> Option<Value> {
    let mut stores = Map::new();
    for StoreChange { name, folder, bytes_max } in changes {
        let mut store = Map::new();
        store.extend(folder.map(|folder| ("folder".to_owned(), folder.into())));
        store.extend(bytes_max.map(|limit| ("bytes_max".to_owned(), limit.into())));
        stores.insert(name.into(), store.into());
    }
    (!stores.is_empty()).then(|| stores.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_name_with_a_folder_and_a_size() {
        let of = |text| store(text).map(|change| (change.name.to_string(), change.folder, change.bytes_max));
        assert_eq!(of("fast").unwrap(), ("fast".into(), None, None));
        assert_eq!(of("fast=/mnt/a,b").unwrap(), ("fast".into(), Some("/mnt/a,b".into()), None));
        let all = ("fast".into(), Some("/mnt".into()), Some(Some(20 << 30)));
        assert_eq!(of("fast=/mnt,size=20g").unwrap(), all);
        assert_eq!(of("default,size=none").unwrap(), ("default".into(), None, Some(None)));
        for wrong in ["", "Fast=/mnt", "fast=", "fast=/mnt,size=", "=/mnt", "fast,size=big"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }
}
