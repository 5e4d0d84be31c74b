//! A network namespace with a name, and work inside of it.
//!
//! A thread of its own enters it and ends there: none of the server's other threads is ever anywhere but in the host's.

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockaddrStorage;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where ip(8) keeps names of namespaces.
const NAMES: &str = "/run/netns";
/// What a failed program may say of it, in bytes.
const WORDS_MAX: usize = 2048;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    /// `None`: the host's own.
    name: Option<String>,
}

impl Namespace {
    pub(crate) fn host() -> Self {
        Self { name: None }
    }

    pub(crate) fn named(name: String) -> Self {
        Self { name: Some(name) }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn path(name: &str) -> PathBuf {
        Path::new(NAMES).join(name)
    }

    /// A file of the name is left by a host that went down; only a namespace behind it makes it one.
    pub(crate) fn exists(&self) -> bool {
        let Some(name) = &self.name else { return true };
        let path = Self::path(name);
        nix::sys::statfs::statfs(&path)
            .is_ok_and(|found| found.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
    }

    pub(crate) fn ensure(&self) -> io::Result<()> {
        let Some(name) = self.name.as_ref().filter(|_| !self.exists()) else { return Ok(()) };
        match std::fs::remove_file(Self::path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        run("ip", ["netns", "add", name], "")
    }

    /// With all that is in it. Fine if it is not there.
    pub(crate) fn remove(&self) -> io::Result<()> {
        match &self.name {
            Some(name) if self.exists() => run("ip", ["netns", "delete", name], ""),
            Some(_) | None => Ok(()),
        }
    }

    /// A descriptor of it.
    pub(crate) fn file(&self) -> io::Result<File> {
        match &self.name {
            Some(name) => File::open(Self::path(name)),
            None => File::open("/proc/self/ns/net"),
        }
    }

    /// Runs `work` in it, programs that it starts included.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Some(name) = &self.name else { return work() };
        let file = File::open(Self::path(name))?;
        std::thread::scope(|scope| {
            let inside = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, move || {
                setns(&file, CloneFlags::CLONE_NEWNET)?;
                work()
            })?;
            inside.join().unwrap_or_else(|_| Err(io::Error::other("work in a network namespace was cut off")))
        })
    }

    /// A change of rules in nft(8)'s words: all of it or nothing.
    pub(crate) fn change_rules(&self, rules: &str) -> io::Result<()> {
        self.enter(|| run("nft", ["-f", "-"], rules))
    }

    /// Lines of ip(8).
    pub(crate) fn change_links(&self, lines: &[String]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.enter(|| run("ip", ["-batch", "-"], &(lines.join("\n") + "\n")))
    }

    /// Lines about choices of routes, which say nothing of their family: `-4`, `-6`.
    pub(crate) fn change_routing(&self, family: &str, lines: &[String]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        self.enter(|| run("ip", [family, "-batch", "-"], &(lines.join("\n") + "\n")))
    }

    /// Its interfaces by name, each with its addresses and the lengths of their prefixes; the host's are looked at every few
    /// seconds, so no program is asked.
    pub(crate) fn addresses(&self) -> io::Result<BTreeMap<String, Vec<(IpAddr, u8)>>> {
        self.enter(|| {
            let mut all: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for found in nix::ifaddrs::getifaddrs()? {
                let of = all.entry(found.interface_name).or_default();
                let address = found.address.as_ref().and_then(ip);
                let netmask = found.netmask.as_ref().and_then(ip);
                of.extend(address.zip(netmask).map(|(address, netmask)| (address, prefix(netmask))));
            }
            Ok(all)
        })
    }

    /// Sets kernel settings: `net/ipv4/ip_forward` and its value. What this kernel has not is none to set.
    pub(crate) fn set(&self, settings: &[(&str, &str)]) -> io::Result<()> {
        self.enter(|| {
            for (name, value) in settings {
                match std::fs::write(Path::new("/proc/sys").join(name), value) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(io::Error::new(error.kind(), format!("setting {name}: {error}")));
                    }
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let four = address.as_sockaddr_in().map(|four| IpAddr::V4(four.ip()));
    four.or_else(|| address.as_sockaddr_in6().map(|six| IpAddr::V6(six.ip())))
}

/// The length of the prefix that a mask is of.
fn prefix(netmask: IpAddr) -> u8 {
    let ones = match netmask {
        IpAddr::V4(four) => u32::from(four).count_ones(),
        IpAddr::V6(six) => u128::from(six).count_ones(),
    };
    u8::try_from(ones).unwrap_or(u8::MAX)
}

/// The program by its name, on the search path or where administrators' programs are.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let besides = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let found =
        std::env::split_paths(&path).chain(besides).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| name.into())
}

fn run<const N: usize>(name: &str, arguments: [&str; N], input: &str) -> io::Result<()> {
    feed(name, arguments, input).map(drop)
}

pub(crate) fn output<const N: usize>(name: &str, arguments: [&str; N]) -> io::Result<Vec<u8>> {
    feed(name, arguments, "")
}

/// These programs end by themselves: they wait for nothing but the kernel.
fn feed<const N: usize>(name: &str, arguments: [&str; N], input: &str) -> io::Result<Vec<u8>> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    let mut child = Command::new(program(name))
        .args(arguments.map(OsStr::new))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    // Both read all of their input before they say anything.
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let words =
        String::from_utf8_lossy(output.stderr.get(..WORDS_MAX.min(output.stderr.len())).unwrap_or_default());
    let first = words.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(io::Error::other(format!("{name} {}: {first} ({})", arguments.join(" "), output.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn loopback_has_its_address() {
        let all = Namespace::host().addresses().unwrap();
        assert!(all["lo"].contains(&(Ipv4Addr::LOCALHOST.into(), 8)), "{all:?}");
    }

    #[test]
    fn prefixes_are_counted() {
        assert_eq!(prefix(Ipv4Addr::new(255, 255, 255, 252).into()), 30);
        assert_eq!(prefix(Ipv6Addr::from(u128::MAX << 64).into()), 64);
    }
}
