//! Two hundred containers that run together, and how an engine answers then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Result, bail};

use super::client::Client;
use super::figures::{Row, Unit};
use super::measure::{Bench, medians, row};
use crate::say::Step;

const CROWD: usize = 200;
/// Clients that start them side by side.
const CLIENTS: usize = 8;
/// How often each question is asked.
const TIMES: usize = 50;

impl Bench<'_> {
    pub fn crowd(&self) -> Result<Vec<Row>> {
        let step = Step::start(format!("{CROWD} containers together"));
        let mut rows = vec![
            row(&format!("{CROWD} × docker run -d by {CLIENTS} clients, all run"), Unit::Milliseconds),
            row(&format!("docker ps, {CROWD} run"), Unit::Milliseconds),
            row(&format!("docker inspect, one of {CROWD} that run"), Unit::Milliseconds),
            row(&format!("docker stop of {CROWD}, by KILL, all have ended"), Unit::Milliseconds),
        ];
        let names: Vec<String> = (0..CROWD).map(|number| format!("bench-crowd-{number}")).collect();
        let all: Vec<&str> = names.iter().map(String::as_str).collect();
        for (client, of) in self.both() {
            let began = Instant::now();
            self.start_all(client, &all)?;
            let mut told = vec![vec![began.elapsed().as_secs_f64() * 1000.0]];
            told.push((0..TIMES).map(|_| Ok(client.run(&["ps"])?.ms())).collect::<Result<_>>()?);
            let some = all.iter().step_by(CROWD / TIMES);
            told.push(some.map(|name| Ok(client.run(&["inspect", name])?.ms())).collect::<Result<_>>()?);
            told.push(vec![client.run(&[&["stop"], &all[..]].concat())?.ms()]);
            for (row, numbers) in rows.iter_mut().zip(told) {
                of(row).extend(numbers);
            }
            let ended = client.run(&["ps", "--all", "--quiet", "--filter", "status=exited"])?.output;
            if ended.lines().count() != CROWD {
                bail!("{}: {} of {CROWD} have ended", client.engine, ended.lines().count());
            }
            client.run(&[&["rm"], &all[..]].concat())?;
        }
        step.done(&medians(&rows));
        Ok(rows)
    }

    fn start_all(&self, client: &Client, names: &[&str]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                let words = ["run", "--detach", "--stop-signal", "KILL", "--name", name];
                client.run(&[&words[..], &[self.image, "sleep", "100000"]].concat())?;
            }
            Ok(())
        };
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(work)).collect();
            for one in clients {
                match one.join() {
                    Ok(done) => done?,
                    Err(_) => bail!("a client was cut off"),
                }
            }
            Ok(())
        })
    }
}
