//! A network with IPv6: who reaches whom, out and in, and what lies are dropped.

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_test_support::{Docker, run_with_input, wait_for};

use crate::harness::Case;
use crate::network::{HOST_6, OUTSIDE_6, Outside, WITHIN, by_bash, dropped, fetch, inside, namespace, soon};
use crate::world::{World, has};

pub const CASES: &[Case] = &[("ipv6::who_reaches_whom", who_reaches_whom)];

/// Sends frames as its words say, and tells when all are out.
const SENDER: &str = r#"
use Socket qw(:DEFAULT inet_pton AF_INET6);
open(F, "/sys/class/net/eth0/ifindex"); chomp($index = <F>);
open(F, "/sys/class/net/eth0/address"); chomp($own = <F>); $own =~ s/://g; $own = pack("H*", $own);
socket(S, 17, 3, 0x0300) or die "socket: $!";
sub six { my ($from, $next, $data) = @_;
  my $packet = pack("NnCC", 6 << 28, length $data, $next, 255) . inet_pton(AF_INET6, $from) . inet_pton(AF_INET6, "ff02::1") . $data;
  send(S, "\x33\x33\0\0\0\1" . $own . pack("n", 0x86dd) . $packet, 0, pack("SniSCCa8", 17, 3, $index, 0, 0, 6, "\xff" x 6)) or die "send: $!"; }
six("fd99::1", 59, "");
six($ARGV[0], 58, pack("CCnN", 136, 0, 0, 0x60000000) . inet_pton(AF_INET6, "fd77::1"));
six($ARGV[0], 58, pack("CCnNNN", 134, 0, 0, 0, 0, 0));
six($ARGV[0], 58, pack("CCnN", 137, 0, 0, 0) . "\0" x 32);
six($ARGV[0], 17, pack("nnnn", 547, 546, 8, 0));
print "sent\n";
"#;

fn six_of(docker: &Docker, container: &str) -> Result<String> {
    let format = "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}";
    docker.ok(&["inspect", "--format", format, container])
}

fn who_reaches_whom(world: &mut World) -> Result<()> {
    let outside = Outside::make()?;
    let dev = world.dev.clone();
    dev.ok(&["network", "create", "--ipv6", "--subnet", "fd77::/64", "six"])?;
    let serve = "echo from six > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp";
    let on = ["run", "--detach", "--network", "six"];
    let (busybox, debian) = (world.busybox(), world.image("debian:12"));
    dev.ok(&[&on[..], &["--name", "web6", "--publish", "80", &busybox, "sh", "-c", serve]].concat())?;
    dev.ok(&[&on[..], &["--name", "client6", &debian, "sleep", "3600"]].concat())?;
    let outcome = reach(&dev, &outside).and_then(|()| lies(world, &dev));
    dev.ok(&["rm", "--force", "web6", "client6"])?;
    dev.ok(&["network", "rm", "six"])?;
    outcome
}

fn reach(dev: &Docker, outside: &Outside) -> Result<()> {
    let web = six_of(dev, "web6")?;
    ensure!(web.starts_with("fd77::"), "not an address of the network: `{web}`");
    has(&dev.ok(&["exec", "web6", "cat", "/etc/hosts"])?, &web)?;
    let by_name = dev.ok(&["exec", "client6", "getent", "ahostsv6", "web6"])?;
    has(&by_name, &web)?;
    soon("the gateway", "1 packets received", || {
        dev.ok(&["exec", "web6", "busybox", "ping", "-6", "-c", "1", "-W", "5", "fd77::1"])
    })?;
    soon("by address", "from six", || dev.ok(&["exec", "client6", "bash", "-c", &by_bash(&web, 80)]))?;
    // Out, with an answer, by an address of the host; and in.
    soon("a way out", "from outside", || {
        dev.ok(&["exec", "client6", "bash", "-c", &by_bash(OUTSIDE_6, 80)])
    })?;
    let ports = dev.ok(&["port", "web6", "80"])?;
    let port = |start: &str| -> Result<u16> {
        let line = ports.lines().find_map(|line| line.strip_prefix(start));
        Ok(line.with_context(|| format!("no {start} in {ports}"))?.parse()?)
    };
    let (six, four) = (port("[::]:")?, port("0.0.0.0:")?);
    ensure!(six == four, "two ports for one: {ports}");
    for address in [format!("[{HOST_6}]:{six}"), format!("127.0.0.1:{four}")] {
        soon(&address, "from six", || fetch(&address))?;
    }
    soon("the port from outside", "from six", || {
        let mut ask = inside(&outside.name, &["busybox", "nc", "-w", "5", HOST_6, &six.to_string()]);
        Ok(run_with_input(&mut ask, "GET / HTTP/1.0\r\n\r\n", WITHIN)?.stdout)
    })?;
    // The host's own services, and its end of the uplink.
    let service = std::net::TcpListener::bind("[::]:0")?;
    let port = service.local_addr()?.port();
    for host in [HOST_6, "fd62:6c6b:6864::c612:1"] {
        let ask = dev.run(&["exec", "client6", "timeout", "5", "bash", "-c", &by_bash(host, port)])?;
        ensure!(ask.code != Some(0), "{host}:{port} of the host was reached: {ask}");
    }
    Ok(())
}

fn lies(world: &World, dev: &Docker) -> Result<()> {
    let namespace = namespace(world, "dev-a")?;
    let before = dropped(&namespace)?;
    let own = six_of(dev, "client6")?;
    let reasons = ["nd", "ra", "ipv6", "dhcp"];
    let counted = wait_for("all are counted", WITHIN, || {
        has(&dev.ok(&["exec", "client6", "perl", "-e", SENDER, &own]).ok()?, "sent").ok()?;
        let after = dropped(&namespace).ok()?;
        reasons.iter().all(|reason| after.get(*reason) > before.get(*reason)).then_some(())
    });
    if counted.is_err() {
        let sent = dev.run(&["exec", "client6", "perl", "-e", SENDER, &own])?;
        bail!("before: {before:?}, after: {:?}; the sender: {sent}", dropped(&namespace)?);
    }
    // Nobody has a route from anybody but the server.
    let routes = dev.ok(&["exec", "web6", "cat", "/proc/net/ipv6_route"])?;
    let gateways = routes.lines().filter(|line| line.starts_with(&format!("{} 00", "0".repeat(32))));
    let by_gateway = gateways.filter(|line| line.contains(" fd770000000000000000000000000001 ")).count();
    ensure!(by_gateway == 1, "the way out: {routes}");
    Ok(())
}
