//! Rules and links that somebody takes away: nothing passes without them, and they come back.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::{Docker, run, wait_for};

use crate::harness::Case;
use crate::network::{WITHIN, dropped, fetch, inside, ip, namespace, published, soon};
use crate::world::World;

pub const CASES: &[Case] = &[
    ("closed::rules_are_flushed_while_no_server_runs", flushed_without_a_server),
    ("closed::rules_are_flushed_and_come_back", flushed),
    ("closed::links_are_deleted_and_come_back", deleted),
];

/// What is promised, in seconds, and some more for a loaded machine.
const BACK_WITHIN: Duration = Duration::from_secs(15);

/// Tells everybody on its segment something twenty times a second, under its own address and under another's.
const TELLER: &str = r#"
use Socket;
open(F, "/sys/class/net/eth0/ifindex"); chomp($index = <F>);
open(F, "/sys/class/net/eth0/address"); chomp($own = <F>); $own =~ s/://g; $own = pack("H*", $own);
chomp($name = `hostname`); $ip = gethostbyname($name);
socket(S, 17, 3, 0x0300) or die "socket: $!";
sub out { my ($from) = @_;
  my $packet = pack("CCnnnCCna4a4", 0x45, 0, 28, 1, 0, 64, 17, 0, $from, inet_aton("172.17.255.255")) . pack("nnnn", 9, 9, 8, 0);
  send(S, "\xff" x 6 . $own . pack("n", 0x800) . $packet, 0, pack("SniSCCa8", 17, 3, $index, 0, 0, 6, "\xff" x 6)); }
while (1) { out($ip); out(inet_aton("10.9.9.9")); select(undef, undef, undef, 0.05); }
"#;

struct Pair {
    dev: Docker,
    namespace: String,
    /// The host's ends of their interfaces.
    web: String,
    teller: String,
}

impl Pair {
    fn make(world: &World) -> Result<Self> {
        let dev = world.dev.clone();
        let serve = "echo from web > /tmp/index.html; exec busybox httpd -f -p 80 -h /tmp";
        let web = ["run", "--detach", "--name", "web", "--publish", "80", "--publish", "127.0.0.1::80"];
        dev.ok(&[&web[..], &[&world.busybox(), "sh", "-c", serve]].concat())?;
        let image = world.image("debian:12");
        dev.ok(&["run", "--detach", "--name", "teller", &image, "perl", "-e", TELLER])?;
        let tap = |name: &str| -> Result<String> {
            let format = "{{.NetworkSettings.Networks.bridge.EndpointID}}";
            let id = dev.ok(&["inspect", "--format", format, name])?;
            Ok(format!("p{}", id.get(..12).context("an id")?))
        };
        let (web, teller) = (tap("web")?, tap("teller")?);
        Ok(Self { namespace: namespace(world, "dev-a")?, web, teller, dev })
    }

    fn packets(&self, tap: &str, way: &str) -> Result<u64> {
        let text =
            run(Command::new("ip").args(["-n", &self.namespace, "-s", "-j", "link", "show", tap]), WITHIN)?;
        let shown: serde_json::Value = serde_json::from_str(&text.ok()?)?;
        let path = format!("/0/stats64/{way}/packets");
        shown.pointer(&path).and_then(serde_json::Value::as_u64).with_context(|| format!("{path} of {tap}"))
    }

    /// Waits until the teller has told that much more.
    fn told(&self, more: u64) -> Result<()> {
        let before = self.packets(&self.teller, "rx")?;
        wait_for("the teller tells", WITHIN, || {
            self.packets(&self.teller, "rx").ok().filter(|now| *now >= before + more)
        })
        .map(drop)
    }

    fn flush(&self) -> Result<()> {
        run(&mut inside(&self.namespace, &["nft", "flush", "ruleset"]), WITHIN)?.ok().map(drop)
    }

    fn port(&self) -> Result<String> {
        Ok(format!("127.0.0.1:{}", published(&self.dev)?.0))
    }

    fn remove(self) -> Result<()> {
        self.dev.ok(&["rm", "--force", "web", "teller"]).map(drop)
    }
}

fn flushed_without_a_server(world: &mut World) -> Result<()> {
    let pair = Pair::make(world)?;
    let port = pair.port()?;
    soon("the port", "from web", || fetch(&port))?;
    // Under its own address the teller is heard.
    let before = pair.packets(&pair.web, "tx")?;
    wait_for("it is heard", WITHIN, || pair.packets(&pair.web, "tx").ok().filter(|now| *now >= before + 10))?;
    world.server.kill_9()?;
    pair.flush()?;
    // What was on its way then has arrived.
    pair.told(10)?;
    let before = pair.packets(&pair.web, "tx")?;
    pair.told(100)?;
    ensure!(pair.packets(&pair.web, "tx")? == before, "frames passed without rules");
    ensure!(fetch(&port).is_err(), "the port answers without rules");
    world.server.restart()?;
    let started = Instant::now();
    soon("the port", "from web", || fetch(&port))?;
    eprintln!("     open again {} ms after the next server was there", started.elapsed().as_millis());
    pair.remove()
}

fn flushed(world: &mut World) -> Result<()> {
    let pair = Pair::make(world)?;
    let port = pair.port()?;
    soon("the port", "from web", || fetch(&port))?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        pair.flush()?;
        wait_for("rules are made anew", BACK_WITHIN, || {
            dropped(&pair.namespace).ok().filter(|reasons| !reasons.is_empty())
        })?;
        soon("the port after that", "from web", || fetch(&port))?;
        times.push(started.elapsed().as_millis());
    }
    eprintln!("     after a flush all was open again in {times:?} ms");
    pair.remove()
}

fn deleted(world: &mut World) -> Result<()> {
    let pair = Pair::make(world)?;
    let port = pair.port()?;
    soon("the port", "from web", || fetch(&port))?;
    let id = pair.dev.ok(&["network", "inspect", "--format", "{{.Id}}", "bridge"])?;
    let bridge = format!("b{}", id.get(..12).context("an id")?);
    let mut times = Vec::new();
    for link in [&bridge, &pair.web] {
        let started = Instant::now();
        ip(&["-n", &pair.namespace, "link", "delete", "dev", link])?;
        soon("the port after that", "from web", || fetch(&port)).context(link.clone())?;
        times.push(started.elapsed().as_millis());
    }
    eprintln!("     a bridge and a tap were back in {times:?} ms");
    pair.remove()
}
