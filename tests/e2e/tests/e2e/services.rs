//! What people run: a web server, a database, and an application of several parts. Each is the distribution's own.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bulkhead_test_support::{run, wait_for};

use crate::harness::Case;
use crate::world::{World, same};

pub const CASES: &[Case] = &[
    ("services::nginx_on_addresses_of_the_host", nginx),
    ("services::redis_and_an_application_without_a_server", redis_and_an_application),
    ("services::postgresql_keeps_what_it_committed", postgresql),
];

const WITHIN: Duration = Duration::from_secs(300);
/// An address of this host for the time of a test (RFC 5737, for documentation).
const HOST: &str = "192.0.2.77";
/// Rows that the database acknowledges before its power is cut.
const ROWS: u32 = 200;

/// The host has the address while this lives.
struct Address(String);

impl Address {
    fn take() -> Result<Self> {
        let (address, other) =
            (Self(format!("bs{}", std::process::id())), format!("bt{}", std::process::id()));
        let ip = |words: &[&str]| run(Command::new("ip").args(words), WITHIN)?.ok();
        ip(&["link", "add", &address.0, "type", "veth", "peer", "name", &other])?;
        ip(&["address", "add", &format!("{HOST}/32"), "dev", &address.0])?;
        ip(&["link", "set", &address.0, "up"])?;
        Ok(address)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        Command::new("ip").args(["link", "delete", &self.0]).status().ok();
    }
}

/// What is answered at `ADDRESS:PORT` to an HTTP request.
fn fetch(address: &str) -> Result<String> {
    let address: SocketAddr = address.parse()?;
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks again until the answer has that in it: a service is on its way up.
fn soon(what: &str, part: &str, mut ask: impl FnMut() -> Result<String>) -> Result<()> {
    let mut last = String::new();
    let answered = wait_for(what, WITHIN, || {
        last = ask().unwrap_or_else(|error| format!("{error:#}"));
        last.contains(part).then_some(())
    });
    answered.with_context(|| format!("the last answer: {last}"))
}

/// A port of the host that no other run of these tests takes, and that nobody is given without asking.
fn port(number: u32) -> u32 {
    20_000 + (std::process::id() * 4 + number) % 10_000
}

fn nginx(world: &mut World) -> Result<()> {
    let _address = Address::take()?;
    let (private, published) = (port(0), port(1));
    let (on_loopback, on_host) = (format!("127.0.0.1:{private}:80"), format!("{HOST}:{published}:80"));
    let web = ["run", "--detach", "--name", "nginx", "--publish", &on_loopback, "--publish", &on_host];
    world.dev.ok(&[&web[..], &[&world.image("nginx:1")]].concat())?;
    let page = "Welcome to nginx!";
    for address in [format!("127.0.0.1:{private}"), format!("{HOST}:{published}")] {
        soon(&address, page, || fetch(&address))?;
    }
    // From another VCH, by the host's address, and by nothing else.
    let other = world.vch("visitor", "dev", "other")?;
    let get = |host: &str, port: u32| {
        format!(
            "echo {host}:$(printf 'GET / HTTP/1.0\\r\\n\\r\\n' | busybox nc -w 5 {host} {port} | grep title)"
        )
    };
    let inner = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    let inner = world.dev.ok(&["inspect", "--format", inner, "nginx"])?;
    let script = [get(HOST, published), get(HOST, private), get(&inner, 80)].join("; ");
    let said = other.ok(&["run", "--rm", &world.busybox(), "sh", "-c", &script])?;
    same(said, format!("{HOST}:<title>{page}</title>\n{HOST}:\n{inner}:"))?;
    world.remove_vch("visitor")?;
    world.dev.ok(&["rm", "--force", "nginx"]).map(drop)
}

/// Counts visits in redis, which it looks up by name for each of them.
const APPLICATION: &str = r#"
import socket
def redis(*words):
    with socket.create_connection(("redis", 6379), 10) as link:
        link.sendall(("*%d\r\n" % len(words) + "".join("$%d\r\n%s\r\n" % (len(word), word) for word in words)).encode())
        return link.recv(4096).decode().strip(":\r\n")
server = socket.create_server(("0.0.0.0", 8000))
while True:
    visitor, _ = server.accept()
    visitor.recv(4096)
    try:
        page = "visit %s\n" % redis("INCR", "visits")
    except OSError as error:
        page = "no redis: %s\n" % error
    visitor.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + page.encode())
    visitor.close()
"#;

/// The number of the visit that a page tells.
fn visit(page: &str) -> Option<u32> {
    page.split_once("visit ")?.1.trim().parse().ok()
}

fn redis_and_an_application(world: &mut World) -> Result<()> {
    let (dev, image) = (world.dev.clone(), world.image("services:1"));
    dev.ok(&["pull", "--quiet", &image])?;
    dev.ok(&["network", "create", "shop"])?;
    // It looks for the other by name, too.
    let redis = "while :; do getent hosts shop-web && echo found; sleep 1; done & \
                 exec redis-server --bind 0.0.0.0 --protected-mode no --save '' --loglevel warning";
    let on = ["run", "--detach", "--network", "shop"];
    dev.ok(
        &[&on[..], &["--name", "shop-redis", "--network-alias", "redis", &image, "sh", "-c", redis]].concat()
    )?;
    let address = format!("127.0.0.1:{}", port(2));
    let publish = format!("{address}:8000");
    let web = ["--name", "shop-web", "--publish", &publish, &image, "python3", "-c", APPLICATION];
    dev.ok(&[&on[..], &web].concat())?;
    soon("the application", "visit 1\n", || fetch(&address))?;

    let now = || run(Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%S"]), WITHIN)?.ok();
    let killed = now()?;
    world.server.kill_9()?;
    // For some seconds, each visit looked up anew.
    let (mut visits, mut last) = (1, String::new());
    wait_for("visits without a server", WITHIN, || {
        last = fetch(&address).unwrap_or_else(|error| format!("{error:#}"));
        visits = visit(&last).unwrap_or(visits);
        (visits >= 50).then_some(())
    })
    .with_context(|| format!("after visit {visits}: {last}"))?;
    world.server.restart()?;
    let back = now()?;
    let logs = dev.ok(&["logs", "--timestamps", "shop-redis"])?;
    let meanwhile = logs.lines().filter(|line| {
        line.ends_with("found") && line.get(..19).is_some_and(|at| *at > *killed && *at < *back)
    });
    ensure!(meanwhile.count() > 0, "the application was not found between {killed} and {back}:\n{logs}");
    ensure!(visit(&fetch(&address)?) > Some(visits), "after the server came back");
    dev.ok(&["rm", "--force", "shop-web", "shop-redis"])?;
    dev.ok(&["network", "rm", "shop"]).map(drop)
}

/// Makes a database on the volume if there is none, and serves it.
const DATABASE: &str = "set -e; \
    as() { setpriv --reuid postgres --regid postgres --clear-groups \"$@\"; }; \
    test -s /data/PG_VERSION || { chown postgres /data; as initdb --no-locale --encoding UTF8 --auth trust --pgdata /data >/dev/null; }; \
    install -d -o postgres /run/postgresql; \
    exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D /data -c jit=off";

/// Writes rows, one transaction each, and tells each that was acknowledged.
const WRITER: &str = "n=0; while :; do n=$((n+1)); printf 'insert into rows values (%s);\\n\\\\echo row %s\\n' $n $n; done | \
    psql --quiet -U postgres";

fn postgresql(world: &mut World) -> Result<()> {
    let (dev, image) = (world.dev.clone(), world.image("services:1"));
    let start = |name: &str| -> Result<()> {
        dev.ok(&[
            "run",
            "--detach",
            "--name",
            name,
            "--volume",
            "pgdata:/data",
            &image,
            "sh",
            "-c",
            DATABASE,
        ])?;
        soon("the database", "1 row", || dev.ok(&["exec", name, "psql", "-U", "postgres", "-c", "select 1"]))
    };
    start("pg-one")?;
    dev.ok(&["exec", "pg-one", "psql", "-U", "postgres", "-c", "create table rows (n integer primary key)"])?;

    let mut writer =
        dev.command(&["exec", "-t", "pg-one", "sh", "-c", WRITER]).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(writer.stdout.take().context("no output")?).lines();
    let mut acknowledged = 0;
    let mut said = String::new();
    while acknowledged < ROWS {
        let line = lines.next().with_context(|| format!("it ended at row {acknowledged}: {said}"))??;
        match line.trim().strip_prefix("row ").and_then(|number| number.parse().ok()) {
            Some(number) => acknowledged = number,
            None => writeln!(said, "{line}")?,
        }
    }
    let machine = world.machine_process("pg-one")?.to_string();
    world.server.kill_9()?;
    run(Command::new("kill").args(["-9", &machine]), WITHIN)?.ok()?;
    // What was on its way to the client was acknowledged, too.
    for line in lines.map_while(Result::ok) {
        acknowledged =
            line.trim().strip_prefix("row ").and_then(|row| row.parse().ok()).unwrap_or(acknowledged);
    }
    writer.wait()?;
    world.server.restart()?;
    dev.ok(&["rm", "--force", "pg-one"])?;

    start("pg-two")?;
    let count = ["psql", "-U", "postgres", "-tAc", "select count(*), max(n) from rows"];
    let found = dev.ok(&[&["exec", "pg-two"], &count[..]].concat())?;
    let (count, last) = found.trim().split_once('|').context("no count")?;
    let (count, last): (u32, u32) = (count.parse()?, last.parse()?);
    eprintln!("     {acknowledged} rows were acknowledged, {count} are there, the last is {last}");
    ensure!(count >= acknowledged && count == last, "{acknowledged} rows were acknowledged: {found}");
    dev.ok(&["stop", "--time", "60", "pg-two"])?;
    dev.ok(&["rm", "pg-two"])?;
    dev.ok(&["volume", "rm", "pgdata"]).map(drop)
}
