//! Two containers that talk: directly, and through a published port by way of the host.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, rate, row};
use super::tools;

/// Bytes through a connection, in MiB.
const MIB: u64 = 64;
const PINGS: u32 = 50;
const CONNECTIONS: u32 = 20;
/// Datagrams as large as a frame takes, as fast as the sender can, for so many seconds.
const DATAGRAMS: [&str; 7] = ["--udp", "--bitrate", "0", "--time", "3", "--json", "--client"];
const SERVER: &str = "bench-server";
const ASKER: &str = "bench-asker";
const DATAGRAM_SERVER: &str = "bench-datagram-server";
const DATAGRAM_ASKER: &str = "bench-datagram-asker";
/// Bytes without end at one port, a word at the other.
const SERVE: &str =
    "nc -ll -p 5002 -e echo word & exec nc -ll -p 5001 -e dd if=/dev/zero bs=65536 count=1024";

impl Bench<'_> {
    /// Rows of throughput and of latency.
    pub fn networks(&self) -> Result<Vec<Row>> {
        for client in [self.bulkhead, self.dockerd] {
            let serve = ["run", "--detach", "--name", SERVER, "--publish", "5001:5001", self.image];
            client.run(&[serve.as_slice(), &["sh", "-c", SERVE]].concat())?;
            let ask = ["run", "--detach", "--name", ASKER, "--add-host", "up:host-gateway", self.image];
            client.run(&[ask.as_slice(), &["sleep", "100000"]].concat())?;
        }
        for (client, name, words) in [self.bulkhead, self.dockerd].into_iter().flat_map(|client| {
            [(client, DATAGRAM_SERVER, ["iperf3", "--server"]), (client, DATAGRAM_ASKER, ["sleep", "100000"])]
        }) {
            client.run(&[&["run", "--detach", "--name", name, tools::IMAGE], &words[..]].concat())?;
        }
        let rate = |what: &str| row(&format!("{what}, {MIB} MiB over TCP"), Unit::MibPerSecond);
        let time = |what: &str| row(what, Unit::Milliseconds);
        let rows = vec![
            self.each(rate("container to container"), |client| fetch(client, &address(client, SERVER)?))?,
            self.each(rate("through a published port of the host"), |client| fetch(client, "up"))?,
            self.each(row("container to container, what arrives over UDP", Unit::MibPerSecond), datagrams)?,
            self.each(time("ping, container to container"), ping)?,
            self.each(time("TCP connection for a word, nc's own start included"), connect)?,
        ];
        for client in [self.bulkhead, self.dockerd] {
            client.run(&["rm", "--force", SERVER, ASKER, DATAGRAM_SERVER, DATAGRAM_ASKER])?;
        }
        Ok(rows)
    }
}

fn address(client: &Client, container: &str) -> Result<String> {
    let format = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
    Ok(client.run(&["inspect", "--format", format, container])?.output.trim().to_owned())
}

fn ask(client: &Client, script: &str) -> Result<super::client::Ran> {
    client.run(&["exec", ASKER, "sh", "-c", script])
}

fn fetch(client: &Client, host: &str) -> Result<f64> {
    let ran = ask(client, &format!("nc {host} 5001 </dev/null | wc -c"))?;
    if ran.output.trim() != (MIB << 20).to_string() {
        bail!("{}: {} bytes of {} came", client.engine, ran.output.trim(), MIB << 20);
    }
    Ok(rate(MIB, ran.took.as_secs_f64()))
}

fn datagrams(client: &Client) -> Result<f64> {
    let server = address(client, DATAGRAM_SERVER)?;
    let ran = client.run(&[&["exec", DATAGRAM_ASKER, "iperf3"], &DATAGRAMS[..], &[&server]].concat())?;
    arrived(&ran.output).with_context(|| format!("{} said: {}", client.engine, ran.output))
}

/// MiB a second that came to the server, of iperf3's report: what it sent without what was lost.
fn arrived(report: &str) -> Option<f64> {
    let report: Value = serde_json::from_str(report).ok()?;
    let number = |place: &str| report.pointer(place).and_then(Value::as_f64);
    let kept = 1.0 - number("/end/sum/lost_percent")? / 100.0;
    Some(number("/end/sum/bytes")? * kept / number("/end/sum/seconds")? / f64::from(1 << 20))
}

/// The mean of some.
fn ping(client: &Client) -> Result<f64> {
    let ran = ask(client, &format!("ping -q -c {PINGS} -i 0.02 {}", address(client, SERVER)?))?;
    mean(&ran.output).with_context(|| format!("{} said: {}", client.engine, ran.output))
}

/// Of `round-trip min/avg/max = 0.1/0.2/0.3 ms`.
fn mean(said: &str) -> Option<f64> {
    let times = said.lines().find_map(|line| line.strip_prefix("round-trip min/avg/max = "))?;
    times.split('/').nth(1)?.parse().ok()
}

fn connect(client: &Client) -> Result<f64> {
    let host = address(client, SERVER)?;
    let one = ask(client, "true")?.ms();
    let many = format!("for n in $(seq {CONNECTIONS}); do nc {host} 5002 </dev/null >/dev/null; done");
    Ok(((ask(client, &many)?.ms() - one) / f64::from(CONNECTIONS)).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_pings_is_read() {
        let said = "--- 172.17.0.2 ping statistics ---\n50 packets transmitted\nround-trip min/avg/max = 0.044/0.053/0.093 ms\n";
        assert_eq!(mean(said), Some(0.053));
        assert_eq!(mean("nothing"), None);
    }

    #[test]
    fn datagrams_that_were_lost_do_not_count() {
        let sum = serde_json::json!({ "bytes": 8 << 20, "seconds": 2.0, "lost_percent": 25.0 });
        let report = serde_json::json!({ "end": { "sum": sum } }).to_string();
        assert_eq!(arrived(&report), Some(3.0));
        assert_eq!(arrived("{}"), None);
    }
}
