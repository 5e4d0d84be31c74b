//! The guest's interfaces: found by their hardware addresses, and made what the server says.

use crate::failure::{Doing, Failure};
use crate::sys::{Interfaces, Interfaces6};
use bulkhead_guest_protocol::network::{Interface, Network, PARKED_MAC};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::{Duration, Instant};

const INTERFACES: &str = "/sys/class/net";
/// For interfaces that are plugged in while this machine becomes a container's.
const PLUG_WAIT_MAX: Duration = Duration::from_secs(5);

/// Loopback, and how interfaces are by default: those that are there already, too. None of them is up.
pub fn prepare() -> Result<(), Failure> {
    let named = fs::read_dir(INTERFACES).into_iter().flatten().flatten();
    let named = named.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name != "lo");
    for name in named.chain(["default".to_owned()]) {
        // With IPv6 the kernel looks for routers, which are dropped and counted.
        let unless_asked = set(&name, "ipv6", "disable_ipv6", "1");
        // Who knew another by an address hears of the new one.
        unless_asked
            .and_then(|()| set(&name, "ipv4", "arp_notify", "1"))
            .and_then(|()| set(&name, "ipv6", "ndisc_notify", "1"))
            .doing(format!("set up {name}"))?;
    }
    let interfaces = Interfaces::open().doing("open a socket")?;
    interfaces.up("lo").doing("bring the loopback interface up")
}

/// Makes the interface that this machine has had since before it was anybody's the first of those that are told, or
/// takes it away; waits for the others.
pub fn claim(parked: Option<&str>, network: &Network) -> Result<(), Failure> {
    let interfaces = Interfaces::open().doing("open a socket")?;
    if let Some(parked) = parked {
        let claimed = match network.interfaces.first() {
            Some(first) => interfaces.set_mac(parked, first.mac),
            // The PCI device: the interface's own is the virtio device on it.
            None => fs::write(Path::new(INTERFACES).join(parked).join("device/../remove"), "1"),
        };
        claimed.doing(format!("take {parked} over"))?;
    }
    let start = Instant::now();
    let missing = || network.interfaces.iter().any(|wanted| named(&interfaces, parked, wanted.mac).is_none());
    while missing() && start.elapsed() < PLUG_WAIT_MAX {
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The interface that nobody has claimed.
pub fn parked() -> Option<String> {
    find(PARKED_MAC)
}

/// Makes an interface that was claimed what it was before.
pub fn park(name: &str) -> Result<(), Failure> {
    let interfaces = Interfaces::open().doing("open a socket")?;
    interfaces
        .down(name)
        .and_then(|()| interfaces.clear_address(name))
        .and_then(|()| interfaces.set_mac(name, PARKED_MAC))
        .doing(format!("park {name}"))
}

/// All that is told. What is so already is left alone. Fails where an interface is not there (yet).
pub fn configure(parked: Option<&str>, network: &Network) -> Result<(), Failure> {
    let interfaces = Interfaces::open().doing("open a socket")?;
    for wanted in &network.interfaces {
        let name = named(&interfaces, parked, wanted.mac)
            .ok_or_else(|| Failure::internal(format!("there is no interface {}", shown(wanted.mac))))?;
        bring_up(&interfaces, &name, wanted).doing(format!("set up {name}"))?;
    }
    let way_out = network.interfaces.iter().find_map(|interface| interface.gateway);
    route(&interfaces, way_out).doing("set the default route")?;
    route6(network).doing("set the default route of IPv6")
}

fn bring_up(interfaces: &Interfaces, name: &str, wanted: &Interface) -> std::io::Result<()> {
    if interfaces.address(name)? == Some(wanted.address) {
        return Ok(());
    }
    if wanted.six.is_some() {
        // Addresses are given by the server, who knows that nobody else has them.
        set(name, "ipv6", "accept_ra", "0")?;
        set(name, "ipv6", "accept_dad", "0")?;
        set(name, "ipv6", "disable_ipv6", "0")?;
    }
    interfaces.set_address(name, wanted.address, netmask(wanted.prefix))?;
    interfaces.up(name)?;
    match wanted.six {
        Some(six) => Interfaces6::open()?.add_address(name, six.address, six.prefix),
        None => Ok(()),
    }
}

/// Where this kernel has it.
fn set(interface: &str, family: &str, setting: &str, value: &str) -> std::io::Result<()> {
    match fs::write(format!("/proc/sys/net/{family}/conf/{interface}/{setting}"), value) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn netmask(prefix: u8) -> Ipv4Addr {
    let bits = u32::MAX.checked_shl(32_u32.saturating_sub(prefix.into())).unwrap_or(0);
    Ipv4Addr::from(bits)
}

/// The name of an interface. The one that was parked is asked first: to look through all of them takes a while.
fn named(interfaces: &Interfaces, parked: Option<&str>, mac: [u8; 6]) -> Option<String> {
    let claimed = parked.filter(|name| interfaces.mac(name).is_ok_and(|found| found == mac));
    claimed.map(str::to_owned).or_else(|| find(mac))
}

/// Its name, as the kernel gave it.
fn find(mac: [u8; 6]) -> Option<String> {
    let wanted = shown(mac);
    let entries = fs::read_dir(INTERFACES).ok()?;
    let named = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    named.into_iter().find(|name| {
        fs::read_to_string(Path::new(INTERFACES).join(name).join("address"))
            .is_ok_and(|address| address.trim() == wanted)
    })
}

fn shown([a, b, c, d, e, g]: [u8; 6]) -> String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
}

fn route(interfaces: &Interfaces, wanted: Option<Ipv4Addr>) -> std::io::Result<()> {
    let there = default_routes(&fs::read_to_string("/proc/net/route")?);
    for gateway in there.iter().filter(|gateway| Some(**gateway) != wanted) {
        interfaces.remove_default_route(*gateway)?;
    }
    match wanted {
        Some(gateway) if !there.contains(&gateway) => interfaces.add_default_route(gateway),
        Some(_) | None => Ok(()),
    }
}

/// The way out is that of the first interface which has one.
fn route6(network: &Network) -> std::io::Result<()> {
    let wanted =
        network.interfaces.iter().find_map(|interface| Some((interface.mac, interface.six?.gateway?)));
    let wanted = wanted.and_then(|(mac, gateway)| Some((find(mac)?, gateway)));
    let there = match fs::read_to_string("/proc/net/ipv6_route") {
        Ok(table) => default_routes6(&table),
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    if wanted.is_none() && there.is_empty() {
        return Ok(());
    }
    let interfaces = Interfaces6::open()?;
    for (name, gateway) in there.iter().filter(|route| Some(*route) != wanted.as_ref()) {
        interfaces.remove_default_route(name, *gateway)?;
    }
    match wanted {
        Some(route) if !there.contains(&route) => interfaces.add_default_route(&route.0, route.1),
        Some(_) | None => Ok(()),
    }
}

/// Interfaces and gateways of routes to everywhere, in what /proc/net/ipv6_route says: columns of hexadecimal digits.
fn default_routes6(table: &str) -> Vec<(String, Ipv6Addr)> {
    let route = |line: &str| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let [destination, length, _, _, gateway, .., name] = columns.as_slice() else { return None };
        let number = u128::from_str_radix(gateway, 16).ok().filter(|number| *number != 0)?;
        let everywhere = *length == "00" && destination.bytes().all(|digit| digit == b'0');
        everywhere.then(|| ((*name).to_owned(), Ipv6Addr::from(number)))
    };
    table.lines().filter_map(route).collect()
}

/// Gateways of routes to everywhere, in what /proc/net/route says: columns of hexadecimal numbers, in the machine's
/// byte order.
fn default_routes(table: &str) -> Vec<Ipv4Addr> {
    let gateway = |line: &str| {
        let mut columns = line.split_whitespace().skip(1);
        let (destination, gateway) = (columns.next()?, columns.next()?);
        let number = u32::from_str_radix(gateway, 16).ok().filter(|number| *number != 0)?;
        (destination == "00000000").then(|| Ipv4Addr::from(number.to_le_bytes()))
    };
    table.lines().skip(1).filter_map(gateway).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_read_from_the_kernels_table() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\n\
                     eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\n";
        assert_eq!(default_routes(table), [Ipv4Addr::new(172, 17, 0, 1)]);
        assert!(default_routes("").is_empty());
    }

    #[test]
    fn default_routes_of_ipv6_are_read_from_the_kernels_table() {
        let zero = "0".repeat(32);
        let gateway = "fd000000000000000000000000000001";
        let table = format!(
            "{gateway} 40 {zero} 00 {zero} 00000100 00000001 00000000 00000001     eth0\n\
             {zero} 00 {zero} 00 {gateway} 00000400 00000001 00000000 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n"
        );
        assert_eq!(default_routes6(&table), [("eth0".to_owned(), "fd00::1".parse().unwrap())]);
        assert!(default_routes6("").is_empty());
    }

    #[test]
    fn netmasks() {
        for (prefix, mask) in
            [(0, "0.0.0.0"), (16, "255.255.0.0"), (30, "255.255.255.252"), (32, "255.255.255.255")]
        {
            assert_eq!(netmask(prefix).to_string(), mask);
        }
    }

    #[test]
    fn loopback_is_found_by_its_address() {
        assert_eq!(find([0; 6]).as_deref(), Some("lo"));
        assert_eq!(find([2, 0, 0, 0, 0, 1]), None);
    }
}
