//! Many networks: what each that is made costs, how those that are there are found, and how names are answered then.

use anyhow::{Context, Result};

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use super::tools;
use crate::say::Step;

/// Networks that are there together. Each has its subnet named: the engine's own pools end at 31.
const MANY: usize = 200;
const NAMED: &str = "bench-named";
const LOOKER: &str = "bench-looker";
/// Asks for a name again and again and prints the mean, in milliseconds. Its clock is the kernel's monotonic one
/// (system call 228), which the distribution's smallest perl has no module for.
const LOOK: &str = r#"sub now { my $t = "\0" x 16; syscall(228, 1, $t); my ($s, $n) = unpack("qq", $t); $s * 1e3 + $n / 1e6 }
gethostbyname($ARGV[0]) or die "no answer"; my $began = now();
for (1..200) { gethostbyname($ARGV[0]) or die "no answer" } printf("%.4f\n", (now() - $began) / 200);"#;

impl Bench<'_> {
    pub fn many_networks(&self) -> Result<Vec<Row>> {
        let names: Vec<String> = (0..MANY).map(|number| format!("bench-net-{number:03}")).collect();
        let mut create = row(&format!("docker network create, each of {MANY}"), Unit::Milliseconds);
        let step = Step::start(create.what.clone());
        for (number, name) in names.iter().enumerate() {
            let subnet = format!("10.77.{number}.0/24");
            for (client, of) in self.both() {
                of(&mut create).push(client.run(&["network", "create", "--subnet", &subnet, name])?.ms());
            }
        }
        step.done(&medians(std::slice::from_ref(&create)));
        let one = names.get(MANY / 2).context("no network")?.as_str();
        let inspect_all = ["network", "inspect"].into_iter().chain(names.iter().map(String::as_str));
        let inspect_all: Vec<&str> = inspect_all.collect();
        let mut rows = vec![
            create,
            self.times(&format!("docker network ls, {MANY} there"), |client| {
                Ok(client.run(&["network", "ls"])?.ms())
            })?,
            self.times("docker network inspect, one of them", |client| {
                Ok(client.run(&["network", "inspect", one])?.ms())
            })?,
            self.times(&format!("docker network inspect, all {MANY} (a request for each)"), |client| {
                Ok(client.run(&inspect_all)?.ms())
            })?,
        ];
        for name in [NAMED, LOOKER] {
            for (client, _) in self.both() {
                let words = ["run", "--detach", "--network", one, "--name", name, tools::IMAGE];
                client.run(&[&words[..], &["sleep", "100000"]].concat())?;
            }
        }
        rows.push(self.times("a container's name looked up there, mean of 200", look)?);
        for (client, _) in self.both() {
            client.run(&["rm", "--force", NAMED, LOOKER])?;
            let remove = ["network", "rm"].into_iter().chain(names.iter().map(String::as_str));
            client.run(&remove.collect::<Vec<_>>())?;
        }
        Ok(rows)
    }
}

fn look(client: &Client) -> Result<f64> {
    let ran = client.run(&["exec", LOOKER, "perl", "-e", LOOK, NAMED])?;
    let told = ran.output.trim().parse();
    told.with_context(|| format!("{} said: {}", client.engine, ran.output))
}
