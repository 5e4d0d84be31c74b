//! A run told from inside: what the container's driver did and how long each act took, out of the server's own log.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Lines for the server's configuration with which its log tells what drivers do.
pub const CONFIG: &str = "log_format = \"json\"\nlog_filter = \"info,bulkhead_engine::driver=debug\"\n";

const DAY_US: u64 = 24 * 3600 * 1_000_000;

/// The acts of one container in their order, each with the microseconds until the next one began. An act that was
/// repeated at once counts as one. How long the last one took is not in the log, so it is left out.
pub fn of_container(log: &str, id: &str) -> Result<Vec<(String, u64)>> {
    let mut acts: Vec<(String, u64)> = Vec::new();
    let mut began: Option<(String, u64)> = None;
    for line in log.lines() {
        let Some((act, at)) = act(line, id)? else { continue };
        match &began {
            Some((same, _)) if *same == act => continue,
            // The log has the time of day only as far as this is concerned: a run may go on past midnight.
            Some((before, since)) => acts.push((before.clone(), (at + DAY_US - since) % DAY_US)),
            None => {}
        }
        began = Some((act, at));
    }
    if acts.is_empty() {
        bail!("the server's log tells nothing about container {id}");
    }
    Ok(acts)
}

/// By act, in the order in which they first came, the milliseconds that each took in each of several runs.
pub fn gather(runs: &[Vec<(String, u64)>]) -> Vec<(String, Vec<f64>)> {
    let mut order: Vec<&str> = Vec::new();
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for run in runs {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (act, us) in run {
            if !order.contains(&act.as_str()) {
                order.push(act);
            }
            *sums.entry(act).or_default() += us;
        }
        for (act, us) in sums {
            all.entry(act).or_default().push(us as f64 / 1000.0);
        }
    }
    order.into_iter().map(|act| (act.to_owned(), all.remove(act).unwrap_or_default())).collect()
}

/// The act that a line of the log tells of, if it is one of this container.
fn act(line: &str, id: &str) -> Result<Option<(String, u64)>> {
    // Anything else that a process wrote to the log, a database's words for example, is not ours to read.
    let Ok(value) = serde_json::from_str::<Value>(line) else { return Ok(None) };
    let of = value.pointer("/span/container.id").and_then(Value::as_str);
    let Some(act) = value.get("act").and_then(Value::as_str) else { return Ok(None) };
    if !of.is_some_and(|short| !short.is_empty() && id.starts_with(short)) {
        return Ok(None);
    }
    let timestamp = value.get("timestamp").and_then(Value::as_str).unwrap_or_default();
    let at = time_of_day(timestamp).with_context(|| format!("the time `{timestamp}` cannot be read"))?;
    Ok(Some((act.to_owned(), at)))
}

/// Microseconds since midnight, from `2026-11-28T00:43:52.912224Z`.
fn time_of_day(timestamp: &str) -> Option<u64> {
    let (_, time) = timestamp.strip_suffix('Z')?.split_once('T')?;
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut seconds = 0;
    for part in whole.split(':') {
        seconds = seconds * 60 + part.parse::<u64>().ok()?;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    Some(seconds * 1_000_000 + micros.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time: &str, act: &str, id: &str) -> String {
        let span = format!("{{\"container.id\":\"{id}\",\"name\":\"driver\"}}");
        format!(
            "{{\"timestamp\":\"2026-11-28T{time}Z\",\"message\":\"acts\",\"act\":\"{act}\",\"span\":{span}}}\n"
        )
    }

    #[test]
    fn an_act_lasts_until_the_next_one() {
        let log = line("23:59:58.000000", "begin-run", "aaaa")
            + "LOG:  checkpoint\n"
            + &line("23:59:58.100000", "greet", "aaaa")
            + &line("23:59:58.200000", "begin-run", "bbbb")
            + &line("23:59:59.100000", "greet", "aaaa")
            + "{\"timestamp\":\"2026-11-28T23:59:59.5Z\",\"message\":\"answered\",\"status\":200}\n"
            + &line("00:00:00.35", "forget", "aaaa");
        let told = of_container(&log, "aaaa1111").unwrap();
        assert_eq!(told, [("begin-run".to_owned(), 100_000), ("greet".to_owned(), 2_250_000)]);
        assert!(of_container(&log, "cccc").unwrap_err().to_string().contains("tells nothing"));
        let broken = line("noon", "greet", "aaaa");
        assert!(of_container(&broken, "aaaa1111").unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn acts_of_several_runs_are_gathered_in_order() {
        let run = |acts: &[(&str, u64)]| acts.iter().map(|(act, us)| ((*act).to_owned(), *us)).collect();
        let runs: Vec<Vec<(String, u64)>> =
            vec![run(&[("start", 1000), ("kill", 500), ("start", 250)]), run(&[("start", 2000)])];
        let gathered = gather(&runs);
        assert_eq!(gathered, [("start".to_owned(), vec![1.25, 2.0]), ("kill".to_owned(), vec![0.5])]);
    }
}
