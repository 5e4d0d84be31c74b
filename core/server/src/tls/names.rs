//! The names under which a listener is reached.

use std::net::{IpAddr, SocketAddr};

/// Everything that the server's certificate is good for: the address, or all of this machine's if it listens on all.
pub fn server_names(listen: SocketAddr) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(host_name());
    if listen.ip().is_unspecified() {
        names.extend(machine_addresses().iter().map(IpAddr::to_string));
    } else {
        names.push(listen.ip().to_string());
    }
    names.sort();
    names.dedup();
    names
}

/// Where a client is told to go.
pub fn context_host(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        let name = host_name().unwrap_or_else(|| "localhost".into());
        format!("tcp://{name}:{}", listen.port())
    } else {
        format!("tcp://{listen}")
    }
}

fn host_name() -> Option<String> {
    let name = nix::unistd::gethostname().ok()?.into_string().ok()?;
    let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    good.then_some(name)
}

fn machine_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    };
    interfaces.filter_map(address).collect()
}
