//! A run told from outside: the engine's own events, with its own times, between the client's start and end.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The phases of a run, in order; each ends where the next begins.
pub const PHASES: [&str; 5] = [
    "client starts, container created",
    "created until its process runs",
    "process runs until its end is known",
    "container removed",
    "client hears of it and ends",
];

/// The events that end all phases but the last.
const MARKS: [&str; 4] = ["create", "start", "die", "destroy"];

/// What an engine told about one container.
#[derive(Debug)]
pub struct Events(Vec<Event>);

#[derive(Debug)]
struct Event {
    action: String,
    /// Nanoseconds since the epoch.
    at_ns: u64,
    id: String,
}

impl Events {
    /// From what `docker events --format '{{json .}}'` printed.
    pub fn parse(printed: &str) -> Result<Self> {
        let lines = printed.lines().filter(|line| !line.trim().is_empty());
        Ok(Self(lines.map(Event::parse).collect::<Result<_>>()?))
    }

    /// Each phase in nanoseconds; `began_ns` and `ended_ns` are the client's.
    pub fn phases(&self, began_ns: u64, ended_ns: u64) -> Result<[u64; 5]> {
        let mut marks = vec![("client's start", began_ns)];
        for mark in MARKS {
            marks.push((mark, self.at(mark)?));
        }
        marks.push(("client's end", ended_ns));
        let mut phases = [0; 5];
        for (phase, pair) in phases.iter_mut().zip(marks.windows(2)) {
            let [from, to] = pair else { continue };
            *phase = until(*from, *to)?;
        }
        Ok(phases)
    }

    /// Nanoseconds from one event to another.
    pub fn between(&self, from: &'static str, to: &'static str) -> Result<u64> {
        until((from, self.at(from)?), (to, self.at(to)?))
    }

    /// Of the container that all of them are about.
    pub fn container_id(&self) -> Result<&str> {
        self.0.first().map(|event| event.id.as_str()).context("there was no event")
    }

    fn at(&self, action: &str) -> Result<u64> {
        let found = self.0.iter().find(|event| event.action == action);
        found.map(|event| event.at_ns).with_context(|| format!("there was no event `{action}`"))
    }
}

impl Event {
    fn parse(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("no event: `{line}`"))?;
        let text = |place: &str| value.pointer(place).and_then(Value::as_str).map(str::to_owned);
        let at = value.get("timeNano").and_then(Value::as_u64);
        match (text("/Action"), at, text("/Actor/ID")) {
            (Some(action), Some(at_ns), Some(id)) => Ok(Self { action, at_ns, id }),
            _ => bail!("an event without action, time or container: `{line}`"),
        }
    }
}

fn until(from: (&str, u64), to: (&str, u64)) -> Result<u64> {
    let apart = to.1.checked_sub(from.1);
    apart.with_context(|| format!("`{}` came before `{}`: phases cannot be told apart", to.0, from.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(events: &[(&str, u64)]) -> String {
        let line = |(action, at): &(&str, u64)| {
            format!(
                "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"a\"}},\"timeNano\":{at}}}\n"
            )
        };
        events.iter().map(line).collect()
    }

    #[test]
    fn phases_lie_between_the_marks() {
        let text =
            printed(&[("create", 110), ("attach", 111), ("start", 150), ("die", 155), ("destroy", 170)]);
        let events = Events::parse(&format!("{text}\n\n")).unwrap();
        assert_eq!(events.phases(100, 175).unwrap(), [10, 40, 5, 15, 5]);
        assert_eq!(events.between("start", "die").unwrap(), 5);
        assert_eq!(events.container_id().unwrap(), "a");
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let phases = |text: &str| Events::parse(text)?.phases(100, 175);
        let wrong = |text: &str| phases(text).unwrap_err().to_string();
        assert_eq!(wrong(&printed(&[("create", 110)])), "there was no event `start`");
        let turned = printed(&[("create", 110), ("start", 150), ("die", 149), ("destroy", 170)]);
        assert!(wrong(&turned).starts_with("`die` came before `start`"), "{}", wrong(&turned));
        let late = printed(&[("create", 110), ("start", 120), ("die", 130), ("destroy", 180)]);
        assert!(wrong(&late).starts_with("`client's end` came before `destroy`"), "{}", wrong(&late));
        assert!(wrong("{\"Action\":\"create\"}").starts_with("an event without action, time"));
        assert!(wrong("Error: no").starts_with("no event"));
    }
}
