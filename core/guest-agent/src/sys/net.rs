//! Network interfaces, by the requests of netdevice(7) and the routing requests of ip(7).

use super::{check, owned};
use std::io::{Error, Result};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

/// What the kernel gives routes for which none is said.
const METRIC: u32 = 1024;

/// A socket that such requests are made on.
pub struct Interfaces(OwnedFd);

impl Interfaces {
    pub fn open() -> Result<Self> {
        // SAFETY: plain numbers.
        owned(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }).map(Self)
    }

    pub fn up(&self, name: &str) -> Result<()> {
        self.set_flags(name, libc::IFF_UP | libc::IFF_RUNNING)
    }

    pub fn down(&self, name: &str) -> Result<()> {
        self.set_flags(name, 0)
    }

    fn set_flags(&self, name: &str, flags: libc::c_int) -> Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_flags = libc::c_short::try_from(flags).unwrap_or_default();
        self.ask(libc::SIOCSIFFLAGS, &mut request)
    }

    /// The hardware address of an interface that is down.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        let mut request = request(name)?;
        let mut data = [0; 14];
        for (to, from) in data.iter_mut().zip(mac) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
        self.ask(libc::SIOCSIFHWADDR, &mut request)
    }

    /// The hardware address of an Ethernet interface.
    pub fn mac(&self, name: &str) -> Result<[u8; 6]> {
        let mut request = request(name)?;
        self.ask(libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: this request fills in a hardware address; any bytes are one.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(data) {
            [*to] = from.to_ne_bytes();
        }
        Ok(mac)
    }

    pub fn address(&self, name: &str) -> Result<Option<Ipv4Addr>> {
        let mut request = request(name)?;
        match self.ask(libc::SIOCGIFADDR, &mut request) {
            // SAFETY: this request fills in an address; any bytes are one.
            Ok(()) => Ok(Some(of_socket(unsafe { request.ifr_ifru.ifru_addr }))),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One address; another one that it had goes.
    pub fn set_address(&self, name: &str, address: Ipv4Addr, netmask: Ipv4Addr) -> Result<()> {
        for (what, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, netmask)] {
            let mut request = request(name)?;
            request.ifr_ifru.ifru_addr = socket_address(value);
            self.ask(what, &mut request)?;
        }
        Ok(())
    }

    /// Fine if there is none.
    pub fn clear_address(&self, name: &str) -> Result<()> {
        let mut request = request(name)?;
        request.ifr_ifru.ifru_addr = socket_address(Ipv4Addr::UNSPECIFIED);
        self.ask(libc::SIOCSIFADDR, &mut request)
    }

    pub fn add_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        self.route(libc::SIOCADDRT, gateway)
    }

    pub fn remove_default_route(&self, gateway: Ipv4Addr) -> Result<()> {
        self.route(libc::SIOCDELRT, gateway)
    }

    fn route(&self, what: libc::c_ulong, gateway: Ipv4Addr) -> Result<()> {
        // SAFETY: all zeros is a valid `rtentry`.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the structure that these requests read.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), what, &raw const route) })?;
        Ok(())
    }

    fn ask(&self, what: libc::c_ulong, request: &mut libc::ifreq) -> Result<()> {
        // SAFETY: the structure that these requests read and write.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), what, &raw mut *request) })?;
        Ok(())
    }
}

/// The same for IPv6, by the requests of ipv6(7).
pub struct Interfaces6(OwnedFd);

/// linux/ipv6.h
#[repr(C)]
struct In6Ifreq {
    address: libc::in6_addr,
    prefix: u32,
    index: libc::c_int,
}

/// linux/ipv6_route.h
#[repr(C)]
struct In6Rtmsg {
    destination: libc::in6_addr,
    source: libc::in6_addr,
    gateway: libc::in6_addr,
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

impl In6Rtmsg {
    const ANY: libc::in6_addr = libc::in6_addr { s6_addr: [0; 16] };
    const TO_EVERYWHERE: Self = Self {
        destination: Self::ANY,
        source: Self::ANY,
        gateway: Self::ANY,
        kind: 0,
        destination_length: 0,
        source_length: 0,
        metric: 0,
        info: 0,
        flags: 0,
        index: 0,
    };
}

impl Interfaces6 {
    pub fn open() -> Result<Self> {
        // SAFETY: plain numbers.
        owned(unsafe { libc::socket(libc::AF_INET6, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }).map(Self)
    }

    /// One more address; fine if it is there.
    pub fn add_address(&self, name: &str, address: Ipv6Addr, prefix: u8) -> Result<()> {
        let address = libc::in6_addr { s6_addr: address.octets() };
        let request = In6Ifreq { address, prefix: prefix.into(), index: index(name)? };
        // SAFETY: the structure that this request reads.
        match check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCSIFADDR, &raw const request) }) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
            _ => Ok(()),
        }
    }

    pub fn add_default_route(&self, name: &str, gateway: Ipv6Addr) -> Result<()> {
        self.route(libc::SIOCADDRT, name, gateway)
    }

    pub fn remove_default_route(&self, name: &str, gateway: Ipv6Addr) -> Result<()> {
        self.route(libc::SIOCDELRT, name, gateway)
    }

    fn route(&self, what: libc::c_ulong, name: &str, gateway: Ipv6Addr) -> Result<()> {
        let route = In6Rtmsg {
            gateway: libc::in6_addr { s6_addr: gateway.octets() },
            flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
            metric: METRIC,
            index: index(name)?,
            ..In6Rtmsg::TO_EVERYWHERE
        };
        // SAFETY: the structure that these requests read.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), what, &raw const route) })?;
        Ok(())
    }
}

fn index(name: &str) -> Result<libc::c_int> {
    let text = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex"))?;
    text.trim().parse().map_err(Error::other)
}

fn request(name: &str) -> Result<libc::ifreq> {
    // SAFETY: all zeros is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}

/// `sockaddr_in` as the general kind: family, port, address, nothing. ip(7)
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default(),
        sa_data: data,
    }
}

fn of_socket(address: libc::sockaddr) -> Ipv4Addr {
    let [_, _, a, b, c, d, ..] = address.sa_data.map(|byte| u8::from_ne_bytes(byte.to_ne_bytes()));
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_general_kind() {
        let address = Ipv4Addr::new(172, 17, 0, 200);
        assert_eq!(of_socket(socket_address(address)), address);
    }

    #[test]
    fn loopback_has_its_address() {
        let interfaces = Interfaces::open().unwrap();
        assert_eq!(interfaces.address("lo").unwrap(), Some(Ipv4Addr::LOCALHOST));
        assert!(interfaces.address("no-such").is_err());
        assert!(interfaces.address("longer-than-any-name").is_err());
    }
}
