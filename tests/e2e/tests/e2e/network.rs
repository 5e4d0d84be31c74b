//! Containers on networks: who reaches whom, who does not, and what happens to frames that lie.
//!
//! Three machines serve it all. Nothing leaves this host: "outside" is a namespace that the test makes.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_test_support::{Docker, run, wait_for};

use crate::harness::Case;
use crate::world::{World, has, same};

pub const CASES: &[Case] = &[("network::who_reaches_whom", who_reaches_whom)];

pub const WITHIN: Duration = Duration::from_secs(60);
/// The host's end of the way outside (RFC 5737, for documentation).
const HOST: &str = "203.0.113.1";
const OUTSIDE: &str = "203.0.113.2";
/// The same by IPv6 (RFC 3849).
pub const HOST_6: &str = "2001:db8::1";
pub const OUTSIDE_6: &str = "2001:db8::2";
const GET: &str = "GET / HTTP/1.0\r\n\r\n";

/// Sends frames as its words say, and tells when all are out.
const SENDER: &str = r#"
use Socket;
open(F, "/sys/class/net/eth0/ifindex"); chomp($index = <F>);
open(F, "/sys/class/net/eth0/address"); chomp($own = <F>); $own =~ s/://g; $own = pack("H*", $own);
socket(S, 17, 3, 0x0300) or die "socket: $!";
sub out { my ($from, $rest) = @_;
  send(S, "\xff" x 6 . $from . $rest, 0, pack("SniSCCa8", 17, 3, $index, 0, 0, 6, "\xff" x 6)) or die "send: $!"; }
sub ip { my ($from, $proto, $data) = @_;
  pack("n", 0x800) . pack("CCnnnCCna4a4", 0x45, 0, 20 + length $data, 1, 0, 64, $proto, 0, inet_aton($from), inet_aton("172.17.255.255")) . $data; }
sub six { my ($next, $data) = @_;
  pack("n", 0x86dd) . pack("NnCC", 6 << 28, length $data, $next, 255) . "\xfe\x80" . "\0" x 13 . "\1" . "\xff\2" . "\0" x 13 . "\1" . $data; }
$udp = sub { pack("nnnn", $_[0], 68, 8, 0) };
out("\2\0\0\0\0\x99", ip($ARGV[0], 17, $udp->(9)));
out($own, ip("10.9.9.9", 17, $udp->(9)));
out($own, pack("n", 0x806) . pack("nnCCn", 1, 0x800, 6, 4, 2) . $own . inet_aton("172.17.0.1") . "\xff" x 6 . inet_aton("172.17.0.1"));
out($own, pack("nn", 0x8100, 5) . ip($ARGV[0], 17, $udp->(9)));
out($own, ip($ARGV[0], 17, $udp->(67)));
out($own, six(58, pack("CCnNNN", 134, 0, 0, 0, 0, 0)));
out($own, six(59, ""));
out($own, pack("n", 0x88cc) . "\0" x 46);
print "sent\n";
"#;

/// A namespace beside the host, with a page at port 80.
pub struct Outside {
    pub name: String,
    /// The host's end of the pair.
    end: String,
    server: std::process::Child,
    _page: tempfile::TempDir,
}

impl Outside {
    pub fn make() -> Result<Self> {
        let (name, end) = (format!("bh-test-{}", std::process::id()), format!("bt{}", std::process::id()));
        let page = tempfile::tempdir()?;
        std::fs::write(page.path().join("index.html"), "from outside\n")?;
        ip(&["netns", "add", &name])?;
        ip(&["link", "add", &end, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        ip(&["address", "add", &format!("{HOST}/30"), "dev", &end])?;
        ip(&["link", "set", &end, "up"])?;
        // It knows no way back to anybody but the host: what answers it went through NAT.
        ip(&["-n", &name, "address", "add", &format!("{OUTSIDE}/30"), "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["address", "add", &format!("{HOST_6}/126"), "dev", &end, "nodad"])?;
        ip(&["-n", &name, "address", "add", &format!("{OUTSIDE_6}/126"), "dev", "eth0", "nodad"])?;
        let mut command = inside(&name, &["busybox", "httpd", "-f", "-p", "80", "-h"]);
        let server = command.arg(page.path()).spawn().context("a server outside")?;
        Ok(Self { name, end, server, _page: page })
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.server.kill().ok();
        self.server.wait().ok();
        // By name and at once: the kernel takes a namespace down in its own time, and the next one's pair and
        // addresses are the same.
        ip(&["link", "delete", &self.end]).ok();
        ip(&["netns", "delete", &self.name]).ok();
    }
}

pub fn ip(words: &[&str]) -> Result<()> {
    run(Command::new("ip").args(words), WITHIN)?.ok().map(drop)
}

pub fn inside(namespace: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).args(words);
    command
}

pub fn fetch(address: &str) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(GET.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a container is answered from there; an error, if it is not.
pub fn from(docker: &Docker, container: &str, host: &str, port: u16) -> Result<String> {
    let ask =
        format!("printf '{}' | busybox nc -w 5 {host} {port}", GET.replace('\r', "\\r").replace('\n', "\\n"));
    docker.ok(&["exec", container, "sh", "-c", &ask])
}

pub fn address_of(docker: &Docker, container: &str) -> Result<String> {
    docker.ok(&["inspect", "--format", "{{.NetworkSettings.Networks.bridge.IPAddress}}", container])
}

/// Asks again until the answer has that in it: a server may still be on its way up, and a way may just be made.
pub fn soon(what: &str, part: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let mut last = String::new();
    let answered = wait_for(what, WITHIN, || {
        last = ask().unwrap_or_else(|error| format!("{error:#}"));
        last.contains(part).then_some(())
    });
    answered.with_context(|| format!("the last answer: {last}"))
}

/// The namespace of a VCH.
pub fn namespace(world: &World, vch: &str) -> Result<String> {
    let text = world.server.bulkhead(&["vch", "inspect", vch, "-o", "json"])?.ok()?;
    let shown: serde_json::Value = serde_json::from_str(&text)?;
    let id = shown.get("id").and_then(|id| id.as_str()).context("no id")?.replace('-', "");
    Ok(format!("bulkhead-{}", id.get(..12).context("a short id")?))
}

fn who_reaches_whom(world: &mut World) -> Result<()> {
    let outside = Outside::make()?;
    let (dev, other) = (world.dev.clone(), world.vch("net-b", "dev", "other")?);
    other.ok(&["pull", "--quiet", &world.busybox()])?;
    let serve = "echo from web > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp";
    let image = world.busybox();
    let web = ["run", "--detach", "--name", "web", "--publish", "80", "--publish", "127.0.0.1::80"];
    dev.ok(&[&web[..], &[image.as_str(), "sh", "-c", serve]].concat())?;
    // It asks for the other by its name, again and again: also while there is no server.
    let ask = "while :; do (exec 3<>/dev/tcp/web/80 && echo got it); sleep 1; done";
    dev.ok(&["run", "--detach", "--name", "client", &world.image("debian:12"), "bash", "-c", ask])?;
    other.ok(&["run", "--detach", "--name", "stranger", &world.busybox(), "sleep", "3600"])?;

    reach(world, &dev, &other, &outside).context("who reaches whom")?;
    lies(world, &dev).context("frames that lie")?;
    comes_and_goes(&dev).context("connect and disconnect")?;
    flushed(world, &dev).context("rules are flushed")?;
    without_server(world, &dev).context("without a server")?;
    for (docker, name) in [(&dev, "web"), (&dev, "client"), (&other, "stranger")] {
        docker.ok(&["rm", "--force", name])?;
    }
    let gone = namespace(world, "net-b")?;
    world.remove_vch("net-b")?;
    ensure!(!std::path::Path::new("/run/netns").join(&gone).exists(), "the namespace {gone} is left");
    Ok(())
}

pub fn published(dev: &Docker) -> Result<(u16, u16)> {
    let text = dev.ok(&["port", "web", "80"])?;
    let port = |address: &str| -> Result<u16> {
        let line = text.lines().find_map(|line| line.strip_prefix(address)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no port of {address} in {text}"))?.parse()?)
    };
    Ok((port("0.0.0.0")?, port("127.0.0.1")?))
}

fn reach(world: &World, dev: &Docker, other: &Docker, outside: &Outside) -> Result<()> {
    let (port, on_loopback) = published(dev)?;
    let web = address_of(dev, "web")?;
    // In a VCH: by address and by name; two VCHs with the same subnet do not see each other.
    for host in [web.as_str(), "web"] {
        soon(host, "from web", || dev.ok(&["exec", "client", "bash", "-c", &by_bash(host, 80)]))?;
    }
    ensure!(address_of(other, "stranger")?.starts_with("172.17."), "the default subnet");
    let client = address_of(dev, "client")?;
    for host in [client.as_str(), "web"] {
        ensure!(from(other, "stranger", host, 80).is_err(), "{host} of another VCH was reached");
    }
    // Out, with an answer; and in, by ports that are published.
    soon("a way out", "from outside", || from(dev, "web", OUTSIDE, 80))?;
    for address in [format!("127.0.0.1:{port}"), format!("127.0.0.1:{on_loopback}"), format!("{HOST}:{port}")]
    {
        soon(&address, "from web", || fetch(&address))?;
    }
    soon("the port from outside", "from web", || {
        let mut ask = inside(&outside.name, &["busybox", "nc", "-w", "5", HOST, &port.to_string()]);
        Ok(bulkhead_test_support::run_with_input(&mut ask, GET, WITHIN)?.stdout)
    })?;
    soon("the port from another VCH", "from web", || from(other, "stranger", HOST, port))?;
    soon("the port from the container itself, by way of the host", "from web", || {
        from(dev, "web", HOST, port)
    })?;
    // What is published on loopback is nobody else's.
    ensure!(fetch(&format!("{HOST}:{on_loopback}")).is_err(), "loopback's port is on another address");
    // The host's own services, its end of the uplink, and cloud metadata.
    let service = TcpListener::bind("0.0.0.0:0")?;
    let port = service.local_addr()?.port();
    for host in [HOST, "198.18.0.1", "169.254.169.254"] {
        ensure!(from(dev, "web", host, port).is_err(), "{host}:{port} was reached from a container");
    }
    let _ = world;
    Ok(())
}

pub fn by_bash(host: &str, port: u16) -> String {
    format!("exec 3<>/dev/tcp/{host}/{port} && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3")
}

/// Frames that were dropped, of all ports of a VCH together, by reason.
pub fn dropped(namespace: &str) -> Result<BTreeMap<String, u64>> {
    let listed =
        run(&mut inside(namespace, &["nft", "-j", "list", "table", "bridge", "bulkhead"]), WITHIN)?.ok()?;
    let listed: serde_json::Value = serde_json::from_str(&listed)?;
    let mut found = BTreeMap::new();
    for set in listed.get("nftables").and_then(|all| all.as_array()).into_iter().flatten() {
        let name = set.pointer("/set/name").and_then(|name| name.as_str()).unwrap_or_default();
        let Some(reason) = name.strip_prefix("dropped_") else { continue };
        let elements = set.pointer("/set/elem").and_then(|all| all.as_array()).into_iter().flatten();
        let packets = elements.filter_map(|one| one.pointer("/elem/counter/packets")?.as_u64()).sum();
        found.insert(reason.to_owned(), packets);
    }
    Ok(found)
}

fn lies(world: &World, dev: &Docker) -> Result<()> {
    let namespace = namespace(world, "dev-a")?;
    let before = dropped(&namespace)?;
    let own = address_of(dev, "client")?;
    let reasons = ["mac", "ip", "arp", "vlan", "dhcp", "ra", "ipv6", "other"];
    let missing = wait_for("all are counted", WITHIN, || {
        // Again each time: rules that are made anew begin to count anew.
        has(&dev.ok(&["exec", "client", "perl", "-e", SENDER, &own]).ok()?, "sent").ok()?;
        let after = dropped(&namespace).ok()?;
        reasons.iter().all(|reason| after.get(*reason) > before.get(*reason)).then_some(())
    });
    if missing.is_err() {
        bail!("before: {before:?}, after: {:?}", dropped(&namespace)?);
    }
    Ok(())
}

fn comes_and_goes(dev: &Docker) -> Result<()> {
    dev.ok(&["network", "create", "--internal", "--subnet", "10.77.0.0/24", "extra"])?;
    dev.ok(&["network", "connect", "--ip", "10.77.0.9", "extra", "web"])?;
    has(&dev.ok(&["exec", "web", "cat", "/etc/hosts"])?, "10.77.0.9\t")?;
    // From one network of a VCH to another there is no way.
    let ask = dev.run(&["exec", "client", "timeout", "3", "bash", "-c", &by_bash("10.77.0.9", 80)])?;
    ensure!(ask.code != Some(0), "another network of the VCH was reached: {ask}");
    dev.ok(&["network", "connect", "--alias", "asker", "extra", "client"])?;
    let links = dev.ok(&["exec", "web", "ip", "address", "show"])?;
    has(&links, "10.77.0.9/24")?;
    soon("the new network", "from web", || {
        dev.ok(&["exec", "client", "bash", "-c", &by_bash("10.77.0.9", 80)])
    })?;
    dev.ok(&["network", "disconnect", "extra", "web"])?;
    dev.ok(&["network", "disconnect", "extra", "client"])?;
    let links = dev.ok(&["exec", "web", "ip", "address", "show"])?;
    ensure!(!links.contains("10.77.0.9"), "the interface is still there: {links}");
    let hosts = dev.ok(&["exec", "web", "cat", "/etc/hosts"])?;
    ensure!(!hosts.contains("10.77.0.9"), "its name is still there: {hosts}");
    dev.ok(&["network", "rm", "extra"])?;
    // The first one is as it was.
    soon("the first network", "from web", || dev.ok(&["exec", "client", "bash", "-c", &by_bash("web", 80)]))
}

fn flushed(world: &World, dev: &Docker) -> Result<()> {
    let (port, _) = published(dev)?;
    let namespace = namespace(world, "dev-a")?;
    run(&mut inside(&namespace, &["nft", "flush", "ruleset"]), WITHIN)?.ok()?;
    // Five seconds are promised; a loaded machine gets some more.
    wait_for("rules are made anew", Duration::from_secs(15), || {
        dropped(&namespace).ok().filter(|reasons| !reasons.is_empty())
    })?;
    soon("the port after that", "from web", || fetch(&format!("127.0.0.1:{port}")))?;
    // A connection that was begun meanwhile is tried again later and later: one after that is waited for.
    let open = chrono_now()?;
    let last = || dev.ok(&["logs", "--timestamps", "--tail", "1", "client"]);
    wait_for("the client is answered again", WITHIN, || {
        last().ok().filter(|line| line.get(..19).is_some_and(|at| *at > *open)).map(drop)
    })
}

fn without_server(world: &mut World, dev: &Docker) -> Result<()> {
    let (port, on_loopback) = published(dev)?;
    let killed = chrono_now()?;
    world.server.kill_9()?;
    // For some seconds: so long that the client has asked meanwhile.
    let mut answers = 0;
    wait_for("the port answers without a server", WITHIN, || {
        answers += u32::from(fetch(&format!("127.0.0.1:{port}")).is_ok_and(|page| page.contains("from web")));
        (answers >= 120).then_some(())
    })?;
    world.server.restart()?;
    let back = chrono_now()?;
    soon("the port of loopback", "from web", || fetch(&format!("127.0.0.1:{on_loopback}")))?;
    // Lines of a time at which no server was there.
    let logs = dev.ok(&["logs", "--timestamps", "client"])?;
    let meanwhile = logs.lines().filter(|line| {
        line.ends_with("got it") && line.get(..19).is_some_and(|at| *at > *killed && *at < *back)
    });
    ensure!(meanwhile.count() > 0, "nothing was found by name between {killed} and {back}:\n{logs}");
    same(dev.ok(&["port", "web", "80"])?.contains(&format!("0.0.0.0:{port}")), true)
}

/// As the CLI writes times, to the second.
fn chrono_now() -> Result<String> {
    let now = run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S"]), WITHIN)?.ok()?;
    Ok(now.trim().to_owned())
}
