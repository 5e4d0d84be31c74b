//! Networks of VCHs as namespaces of the host: see [`rules`] for the way of a packet.
//!
//! What was applied is remembered only so that what did not change is left alone. A new server applies everything once
//! and finds it there.

mod found;
mod generation;
mod links;
mod names;
pub(crate) mod namespace;
mod netlink;
mod present;
mod probe;
mod rules;
pub(crate) mod tap;
mod unmarked;

pub use probe::probe_networks;

use async_trait::async_trait;
use bulkhead_machine::MachineError;
use bulkhead_machine::networks::{Dropped, Networks, Nic, VchNetworks};
use bulkhead_model::network::Subnet;
use bulkhead_model::ports::Protocol;
use bulkhead_model::{EndpointId, Published, ServerId, VchId};
use generation::Counter;
use links::Ends;
use namespace::Namespace;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, setsockopt, socket, sockopt,
};
use present::Links;
use rules::{Openings, Uplink};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often it is looked whether somebody else changed rules.
const LOOK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(crate) struct QemuNetworks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// A file for each VCH that has a namespace: the next server takes away what has no VCH any more.
    folder: PathBuf,
    server: ServerId,
    uplinks: Subnet,
    unavailable: Option<String>,
    applied: Mutex<Applied>,
    taps: Mutex<Taps>,
    disturbed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Applied {
    vchs: BTreeMap<VchId, VchApplied>,
    host: Option<Host>,
    openings: Openings,
}

#[derive(Debug)]
struct VchApplied {
    networks: VchNetworks,
    ends: Ends,
    rules: Counted,
    openings: Openings,
    links: Links,
}

impl VchApplied {
    fn ports(&self) -> impl Iterator<Item = &EndpointId> {
        self.networks.segments.iter().flat_map(|segment| &segment.ports).map(|port| &port.endpoint)
    }

    /// Bridges and the uplink; taps come and go with their machines.
    fn has_links(&self) -> bool {
        let mut bridges = self.networks.segments.iter().map(|segment| names::bridge(&segment.network));
        self.links.has(names::UPLINK) && bridges.all(|bridge| self.links.has(&bridge))
    }
}

/// Ends of machines' interfaces, by their places.
#[derive(Debug, Default)]
struct Taps {
    /// Were there when it was last looked, or were made since.
    there: BTreeSet<EndpointId>,
    /// Somebody took them away from under a machine.
    lost: BTreeSet<EndpointId>,
}

impl Taps {
    /// Looks at those that should be there. Whether one was taken away since.
    fn look<'a>(&mut self, wanted: impl Iterator<Item = (&'a EndpointId, bool)>) -> bool {
        let mut all = BTreeSet::new();
        let before = self.lost.len();
        for (endpoint, is_there) in wanted {
            all.insert(endpoint.clone());
            match is_there {
                true => drop(self.there.insert(endpoint.clone())),
                false if self.there.remove(endpoint) => drop(self.lost.insert(endpoint.clone())),
                // Its machine is on its way up.
                false => {}
            }
        }
        let grown = self.lost.len() > before;
        self.there.retain(|endpoint| all.contains(endpoint));
        self.lost.retain(|endpoint| all.contains(endpoint));
        grown
    }

    fn made(&mut self, endpoint: &EndpointId) {
        self.there.insert(endpoint.clone());
        self.lost.remove(endpoint);
    }
}

/// The server's table in the host's namespace, where many others have theirs.
#[derive(Debug)]
struct Host {
    text: String,
    /// As nft(8) tells of it, to be compared once anybody changed anything.
    listed: Vec<u8>,
    rules: Counted,
}

/// Rules, as many changes as there had been with them.
#[derive(Debug)]
struct Counted {
    counter: Counter,
    count: u32,
}

impl Counted {
    fn now(namespace: &Namespace) -> io::Result<Self> {
        let counter = Counter::open(namespace)?;
        let count = counter.read()?;
        Ok(Self { counter, count })
    }

    fn is_disturbed(&self) -> bool {
        self.counter.read().is_ok_and(|count| count != self.count)
    }
}

impl QemuNetworks {
    pub(crate) fn open(data_dir: &std::path::Path, server: ServerId, uplinks: Subnet) -> Self {
        let unavailable = probe_networks().err();
        if let Some(why) = &unavailable {
            tracing::warn!(why, "containers can have no networks on this host");
        }
        Self(Arc::new(Inner {
            folder: data_dir.join("networks"),
            server,
            uplinks,
            unavailable,
            applied: Mutex::default(),
            taps: Mutex::default(),
            disturbed: watch::Sender::new(0),
        }))
    }

    /// Looks for changes that others made, until `stop`.
    pub(crate) fn watch(&self, tasks: &TaskTracker, stop: CancellationToken) {
        if self.0.unavailable.is_some() {
            return;
        }
        let inner = self.0.clone();
        tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
                let looking = inner.clone();
                let found = tokio::task::spawn_blocking(move || looking.look()).await;
                match found {
                    Ok(Ok(true)) => inner.disturbed.send_modify(|count| *count = count.wrapping_add(1)),
                    Ok(Ok(false)) | Err(_) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "networks could not be looked after"),
                }
            }
        });
    }

    /// A tap for a machine's interface; its network was applied before.
    pub(crate) fn open_tap(&self, vch: VchId, nic: &Nic) -> io::Result<File> {
        if let Some(why) = &self.0.unavailable {
            return Err(io::Error::other(why.clone()));
        }
        let tap = tap::open(&Namespace::named(names::namespace(vch)), nic)?;
        self.0.taps().made(&nic.endpoint);
        Ok(tap)
    }

    /// As [`Self::open_tap`], with one that is there and leads nowhere.
    pub(crate) fn join(&self, vch: VchId, nic: &Nic, parked: &tap::Parked) -> io::Result<()> {
        if let Some(why) = &self.0.unavailable {
            return Err(io::Error::other(why.clone()));
        }
        parked.join(&Namespace::named(names::namespace(vch)), nic)?;
        self.0.taps().made(&nic.endpoint);
        Ok(())
    }

    /// Whether its tap was taken away by somebody.
    pub(crate) fn is_lost(&self, endpoint: &EndpointId) -> bool {
        self.0.taps().lost.contains(endpoint)
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, Applied> {
        // What is remembered is written after it was carried out; at worst it is carried out again.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taps(&self) -> std::sync::MutexGuard<'_, Taps> {
        // Whole after every statement.
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what others changed, so that it is applied anew. Whether there was any of it.
    fn look(&self) -> io::Result<bool> {
        let mut applied = self.lock();
        let mut changed = false;
        if let Some(host) = applied.host.as_mut().filter(|host| host.rules.is_disturbed()) {
            host.rules = Counted::now(&Namespace::host())?;
            // Most changes are those of others to what is theirs.
            if self.list_host().ok().as_ref() != Some(&host.listed) {
                applied.host = None;
                changed = true;
            }
        }
        let gone = |id: &VchId| !Namespace::named(names::namespace(*id)).exists();
        let before = applied.vchs.len();
        let places = applied.vchs.values().flat_map(|vch| vch.ports().map(move |port| (vch, port)));
        let seen = places.map(|(vch, port)| (port, vch.links.has(&names::port(port))));
        changed |= self.taps().look(seen);
        applied.vchs.retain(|id, vch| !vch.rules.is_disturbed() && !gone(id) && vch.has_links());
        changed |= applied.vchs.len() != before;
        if !applied.vchs.is_empty() {
            let host = links::host_addresses()?;
            let wanted = Openings { host, open: applied.openings.open.clone() };
            for (id, vch) in applied.vchs.iter_mut().filter(|(_, vch)| vch.openings != wanted) {
                let namespace = Namespace::named(names::namespace(*id));
                namespace.change_rules(&rules::opened(&wanted))?;
                vch.rules = Counted::now(&namespace)?;
                vch.openings = wanted.clone();
            }
            applied.openings = wanted;
        }
        Ok(changed)
    }

    fn apply(&self, all: &[VchNetworks]) -> io::Result<Vec<(VchId, String)>> {
        let mut applied = self.lock();
        self.remove_others(&mut applied, all)?;
        if all.is_empty() && applied.host.is_none() && !self.folder.exists() {
            return Ok(Vec::new());
        }
        let published = all.iter().flat_map(|networks| &networks.published);
        let host = match applied.vchs.is_empty() {
            true => links::host_addresses()?,
            // Refreshed by whoever looks.
            false => applied.openings.host.clone(),
        };
        applied.openings = Openings::of(host, published);
        let mut problems = Vec::new();
        for networks in all {
            let known = applied.vchs.get(&networks.vch);
            if known.is_some_and(|known| known.networks == *networks) {
                continue;
            }
            match self.apply_one(networks, known, &applied.openings) {
                Ok(done) => drop(applied.vchs.insert(networks.vch, done)),
                Err(error) => {
                    applied.vchs.remove(&networks.vch);
                    problems.push((networks.vch, error.to_string()));
                }
            }
        }
        self.apply_host(&mut applied)?;
        Ok(problems)
    }

    fn apply_one(
        &self,
        networks: &VchNetworks,
        known: Option<&VchApplied>,
        openings: &Openings,
    ) -> io::Result<VchApplied> {
        let vch = networks.vch;
        let namespace = Namespace::named(names::namespace(vch));
        let ends = match known {
            Some(known) => known.ends,
            None => {
                std::fs::create_dir_all(&self.folder)?;
                std::fs::write(self.folder.join(vch.to_string()), "")?;
                links::forward()?;
                links::ensure_uplink(vch, self.uplinks)?
            }
        };
        let there: BTreeSet<String> = ports(networks).collect();
        let before: BTreeSet<String> = match known {
            Some(known) => ports(&known.networks).collect(),
            // What an earlier server left; there may be nothing at all.
            None => counters(&namespace).unwrap_or_default().into_iter().map(|one| one.endpoint).collect(),
        };
        let gone = rules::forget(before.difference(&there).map(String::as_str));
        // Before there is anything that they are for.
        change(
            &namespace,
            &["bridge bulkhead", "ip bulkhead", "ip6 bulkhead"],
            &(rules::inside(networks, self.uplinks, openings) + &gone),
        )?;
        let bridges = |networks: &VchNetworks| {
            let of = networks.segments.iter();
            let of = of.map(|one| (one.network.clone(), one.gateway, one.subnet, one.six));
            of.collect::<Vec<_>>()
        };
        if known.is_none_or(|known| bridges(&known.networks) != bridges(networks)) {
            links::ensure_bridges(&namespace, networks)?;
            if has_six(networks) {
                links::forward_six()?;
                links::ensure_six(vch, ends)?;
            }
        }
        let rules = Counted::now(&namespace)?;
        let (networks, openings) = (networks.clone(), openings.clone());
        let links = Links::open(&namespace)?;
        Ok(VchApplied { networks, ends, rules, openings, links })
    }

    fn apply_host(&self, applied: &mut Applied) -> io::Result<()> {
        let uplinks: Vec<_> = applied
            .vchs
            .iter()
            .map(|(vch, one)| Uplink {
                interface: names::uplink(*vch),
                inner: one.ends.inner,
                inner6: has_six(&one.networks).then(|| links::six(one.ends.inner)),
                published: one.networks.published.clone(),
            })
            .collect();
        let table = names::host_table(self.server);
        let text = rules::host(&table, &uplinks);
        match &applied.host {
            Some(host) if host.text == text => return Ok(()),
            Some(_) | None => {}
        }
        let namespace = Namespace::host();
        let (four, six) = (format!("ip {table}"), format!("ip6 {table}"));
        let delete =
            |table: &str| namespace.change_rules(&format!("add table {table}\ndelete table {table}\n"));
        if uplinks.iter().all(|uplink| uplink.inner6.is_none()) {
            // A kernel without IPv6 has no such table, either.
            if let Err(error) = delete(&six) {
                tracing::debug!(%error, "rules of IPv6 are not taken away");
            }
        }
        if uplinks.is_empty() {
            delete(&four)?;
            applied.host = None;
            return Ok(());
        }
        change(&namespace, &[&four, &six], &text)?;
        let rules = Counted::now(&namespace)?;
        applied.host = Some(Host { text, listed: self.list_host()?, rules });
        Ok(())
    }

    /// Without counters.
    fn list_host(&self) -> io::Result<Vec<u8>> {
        let table = names::host_table(self.server);
        let mut all = namespace::output("nft", ["-s", "list", "table", "ip", &table])?;
        // Only where a network has it.
        all.extend(namespace::output("nft", ["-s", "list", "table", "ip6", &table]).unwrap_or_default());
        Ok(all)
    }

    /// What belongs to VCHs that are no more.
    fn remove_others(&self, applied: &mut Applied, all: &[VchNetworks]) -> io::Result<()> {
        for vch in self.vchs()? {
            if all.iter().any(|networks| networks.vch == vch) {
                continue;
            }
            links::remove(vch)?;
            applied.vchs.remove(&vch);
            std::fs::remove_file(self.folder.join(vch.to_string()))?;
        }
        Ok(())
    }

    fn dropped(&self, vch: VchId) -> io::Result<Vec<Dropped>> {
        let namespace = Namespace::named(names::namespace(vch));
        if !namespace.exists() {
            return Ok(Vec::new());
        }
        let mut dropped = counters(&namespace)?;
        let applied = self.lock();
        let ports = applied.vchs.get(&vch).map(|one| &one.networks.segments);
        let ports: Vec<_> = ports.into_iter().flatten().flat_map(|segment| &segment.ports).collect();
        for one in &mut dropped {
            if let Some(port) = ports.iter().find(|port| names::port(&port.endpoint) == one.endpoint) {
                one.endpoint = port.endpoint.to_string();
            }
        }
        Ok(dropped)
    }
}

/// Names of all ports.
fn ports(networks: &VchNetworks) -> impl Iterator<Item = String> {
    networks.segments.iter().flat_map(|segment| &segment.ports).map(|port| names::port(&port.endpoint))
}

/// What was dropped, by the names of ports.
fn counters(namespace: &Namespace) -> io::Result<Vec<Dropped>> {
    let text = namespace.enter(|| namespace::output("nft", ["-j", "list", "table", "bridge", "bulkhead"]))?;
    Ok(probe::counters(&serde_json::from_slice(&text)?))
}

#[async_trait]
impl Networks for QemuNetworks {
    fn unavailable(&self) -> Option<&str> {
        self.0.unavailable.as_deref()
    }

    fn reserved(&self) -> Subnet {
        self.0.uplinks
    }

    async fn apply(&self, all: &[VchNetworks]) -> Result<Vec<(VchId, String)>, MachineError> {
        if self.0.unavailable.is_some() {
            return Ok(Vec::new());
        }
        let (inner, all) = (self.0.clone(), all.to_vec());
        blocking("making networks", move || inner.apply(&all)).await
    }

    async fn is_free(&self, port: &Published) -> bool {
        let port = port.clone();
        blocking("looking at a port", move || Ok(is_free(&port))).await.unwrap_or(false)
    }

    async fn host_address(&self, vch: VchId) -> Option<Ipv4Addr> {
        self.0.lock().vchs.get(&vch).map(|one| one.ends.host)
    }

    async fn dropped(&self, vch: VchId) -> Result<Vec<Dropped>, MachineError> {
        let inner = self.0.clone();
        blocking("reading counters", move || inner.dropped(vch)).await
    }

    fn disturbed(&self) -> watch::Receiver<u64> {
        self.0.disturbed.subscribe()
    }
}

fn has_six(networks: &VchNetworks) -> bool {
    networks.segments.iter().any(|segment| segment.six.is_some())
}

/// What another release left may not go together with what is to hold: then all of it is made anew.
fn change(namespace: &Namespace, tables: &[&str], text: &str) -> io::Result<()> {
    let Err(error) = namespace.change_rules(text) else { return Ok(()) };
    tracing::warn!(%error, namespace = namespace.name(), "rules are made anew, with counters at zero");
    let there = tables.iter().filter(|table| text.contains(&format!("add table {table}\n")));
    let without: String = there.map(|table| format!("add table {table}\ndelete table {table}\n")).collect();
    namespace.change_rules(&(without + text))
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, MachineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(MachineError::io(doing))
}

/// What listens there would be cut off, and would cut off who it is published for.
fn is_free(port: &Published) -> bool {
    let taken = |error: io::Error| error.kind() == io::ErrorKind::AddrInUse;
    !bind(port).is_err_and(taken)
}

/// Of one family alone, as a port is published.
fn bind(port: &Published) -> io::Result<()> {
    let address = SocketAddr::new(port.host_address, port.host_port);
    let IpAddr::V6(_) = port.host_address else {
        return match port.protocol {
            Protocol::Tcp => TcpListener::bind(address).map(drop),
            Protocol::Udp => UdpSocket::bind(address).map(drop),
        };
    };
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    if port.protocol == Protocol::Tcp {
        // As std does: what lingers of a connection that ended uses nothing.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    nix::sys::socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    match port.protocol {
        Protocol::Tcp => Ok(nix::sys::socket::listen(&socket, Backlog::new(1)?)?),
        Protocol::Udp => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_lost_once_it_was_there() {
        let (one, other) = (EndpointId::from_random([1; 32]), EndpointId::from_random([2; 32]));
        let mut taps = Taps::default();
        // On its way up, it is not missed.
        assert!(!taps.look([(&one, false), (&other, true)].into_iter()));
        taps.made(&one);
        assert!(taps.look([(&one, false), (&other, true)].into_iter()));
        assert!(!taps.look([(&one, false), (&other, true)].into_iter()), "told once");
        assert!(taps.lost.contains(&one));
        taps.made(&one);
        assert!(taps.lost.is_empty());
        // One that gave its place up is nobody's to miss.
        assert!(!taps.look([(&one, true)].into_iter()));
        assert!(!taps.there.contains(&other));
    }
}
