//! `/etc/hostname`, `/etc/hosts` and `/etc/resolv.conf`: written at each start, and kept true as networks come and go.
//!
//! They live in a small file system of their own, in memory, as they are nobody's change. The container may write them, and
//! what it wrote stays while it runs: only lines of the agent's own are changed.

use crate::failure::{Doing, Failure};
use crate::sys;
use bulkhead_guest_protocol::network::{Network, RESOLVER};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Below /etc.
pub const OWN_FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];
const FOLDER: &str = "/own";
/// One that the container made longer is its own affair.
const BYTES_MAX: u64 = 1 << 20;

/// What they say now.
pub struct OwnFiles {
    hostname: String,
    domain_name: String,
    network: Network,
}

/// Makes the place for them, before there is a container.
pub fn prepare() -> Result<(), Failure> {
    fs::create_dir_all(FOLDER).doing("make a mount point")?;
    let flags = libc::MS_NODEV | libc::MS_NOSUID | libc::MS_NOEXEC;
    // Three files, and what a container may add to them.
    sys::mount("own", Path::new(FOLDER), "tmpfs", flags, "mode=0755,size=4m,nr_inodes=16")
        .doing("make a place for files")
}

/// Where the agent has it.
pub fn path(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

impl OwnFiles {
    /// Called by the agent, outside of the container's root.
    pub fn write(hostname: &str, domain_name: &str, network: &Network) -> Result<Self, Failure> {
        let own = Self {
            hostname: hostname.to_owned(),
            domain_name: domain_name.to_owned(),
            network: network.clone(),
        };
        let hosts = COMMON.to_owned() + &own.lines(network).concat();
        let contents = [format!("{hostname}\n"), hosts, resolv_conf(network)];
        for (name, content) in OWN_FILES.iter().zip(contents) {
            let path = path(name);
            // A new file each time: the container may have done anything to the last one.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => fs::write(&path, content),
            }
            .doing(format!("write /etc/{name}"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644))
                .doing(format!("write /etc/{name}"))?;
        }
        Ok(own)
    }

    /// As the container's networks are now.
    pub fn follow(&mut self, network: &Network) -> Result<(), Failure> {
        if self.network == *network {
            return Ok(());
        }
        let (old, new) = (self.lines(&self.network), self.lines(network));
        change("hosts", |now| (old != new).then(|| changed(now, &old, &new)))?;
        let (old, new) = (resolv_conf(&self.network), resolv_conf(network));
        change("resolv.conf", |now| (now == old && old != new).then(|| new.clone()))?;
        self.network = network.clone();
        Ok(())
    }

    /// Lines of /etc/hosts that are the agent's.
    fn lines(&self, network: &Network) -> Vec<String> {
        let names = match self.domain_name.as_str() {
            "" => self.hostname.clone(),
            domain => format!("{0}.{domain} {0}", self.hostname),
        };
        let own = network.interfaces.iter().flat_map(|interface| {
            let six = interface.six.map(|six| IpAddr::V6(six.address));
            [Some(IpAddr::V4(interface.address)), six].into_iter().flatten()
        });
        let own: Vec<_> = match network.interfaces.is_empty() {
            true => vec![Ipv4Addr::LOCALHOST.into()],
            false => own.collect(),
        };
        let hosts = network.hosts.iter().map(|(name, address)| format!("{address}\t{name}\n"));
        hosts.chain(own.into_iter().map(|address| format!("{address}\t{names}\n"))).collect()
    }
}

const COMMON: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                      ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// `old` lines that are not among the `new` go, the others are added where they are not.
fn changed(now: &str, old: &[String], new: &[String]) -> String {
    let is_over = |line: &&str| old.iter().any(|one| one == line) && !new.iter().any(|one| one == line);
    let mut kept: Vec<&str> = now.split_inclusive('\n').filter(|line| !is_over(line)).collect();
    let ends_in_line = kept.last().is_none_or(|last| last.ends_with('\n'));
    if !ends_in_line {
        kept.push("\n");
    }
    let added = new.iter().filter(|line| !kept.contains(&line.as_str()));
    let added: Vec<_> = added.cloned().collect();
    kept.concat() + &added.concat()
}

/// In its place: it is mounted as a file of its own.
fn change(name: &str, to: impl FnOnce(&str) -> Option<String>) -> Result<(), Failure> {
    let doing = format!("change /etc/{name}");
    let mut file = OpenOptions::new().read(true).write(true).open(path(name)).doing(doing.clone())?;
    let mut now = Vec::new();
    (&mut file).take(BYTES_MAX).read_to_end(&mut now).doing(doing.clone())?;
    let full = u64::try_from(now.len()).unwrap_or(u64::MAX) >= BYTES_MAX;
    match to(&String::from_utf8_lossy(&now)).filter(|_| !full) {
        Some(text) => overwrite(file, text.as_bytes()).doing(doing),
        None => Ok(()),
    }
}

fn overwrite(mut file: File, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Seek as _;
    file.rewind()?;
    file.write_all(bytes)?;
    file.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
}

/// Nothing where there is nobody to ask.
fn resolv_conf(network: &Network) -> String {
    if network.interfaces.is_empty() {
        return String::new();
    }
    let resolver = &network.resolver;
    let mut text = format!("nameserver {RESOLVER}\n");
    if !resolver.search.is_empty() {
        text += &format!("search {}\n", resolver.search.join(" "));
    }
    // As Docker's engine has it: a name without dots is asked for as it is.
    let own = (!resolver.options.iter().any(|option| option.starts_with("ndots:"))).then_some("ndots:0");
    let options: Vec<_> = own.into_iter().chain(resolver.options.iter().map(String::as_str)).collect();
    text + &format!("options {}\n", options.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_others_stay() {
        let lines = |addresses: &[&str]| -> Vec<String> {
            addresses.iter().map(|address| format!("{address}\tweb\n")).collect()
        };
        let (old, new) = (lines(&["172.17.0.2", "10.0.0.2"]), lines(&["172.17.0.2", "10.9.0.2"]));
        let now = "127.0.0.1\tlocalhost\n172.17.0.2\tweb\n10.0.0.2\tweb\n6.6.6.6 mine";
        let expect = "127.0.0.1\tlocalhost\n172.17.0.2\tweb\n6.6.6.6 mine\n10.9.0.2\tweb\n";
        assert_eq!(changed(now, &old, &new), expect);
        assert_eq!(changed("", &old, &new), new.concat());
        assert_eq!(changed(expect, &new, &new), expect);
    }
}
