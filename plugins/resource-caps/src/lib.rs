//! Caps what one container may have, by lowering what asks for more or by refusing it.

use bulkhead_sdk::admission::{Admission, Change, Container, Review};
use bulkhead_sdk::{About, Call};
use serde::Deserialize;

#[derive(Debug)]
pub struct ResourceCaps;

/// What is not set is not capped.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Thousandths of a vCPU.
    pub cpu_milli_max: Option<u32>,
    pub memory_mib_max: Option<u32>,
    pub pids_max: Option<u32>,
    pub over: Over,
}

/// What becomes of a container that asks for more.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Over {
    /// It gets what there is, and its user a warning.
    #[default]
    Lower,
    Refuse,
}

impl Admission for ResourceCaps {
    type Settings = Settings;
    const ABOUT: About = About {
        name: "resource-caps",
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        license: "Apache-2.0",
        settings_schema: include_str!("../settings.schema.json"),
    };

    fn check(settings: &Settings) -> Vec<(String, String)> {
        let least = [
            ("/cpu-milli-max", settings.cpu_milli_max, 10),
            ("/memory-mib-max", settings.memory_mib_max, 6),
            ("/pids-max", settings.pids_max, 1),
        ];
        let low = least.into_iter().filter(|(_, cap, least)| cap.is_some_and(|cap| cap < *least));
        low.map(|(path, _, least)| (path.to_owned(), format!("{least} is the least that there can be")))
            .collect()
    }

    fn container_create(settings: &Settings, _call: &Call, container: &Container) -> Review {
        judge(settings, settings.over, container)
    }

    /// What is there is not lowered: whoever asked sees what is possible.
    fn container_update(settings: &Settings, _call: &Call, container: &Container) -> Review {
        let review = judge(settings, Over::Refuse, container);
        match (settings.pids_max, container.pids_max) {
            (Some(cap), None) => review.deny_with(
                "pids-over-cap",
                format!("it asks for any number of processes, the cap is {cap}"),
                format!("--pids-limit {cap} at most"),
            ),
            _ => review,
        }
    }
}

fn judge(settings: &Settings, over: Over, container: &Container) -> Review {
    let mut review = Review::allow();
    if let Some(cap) = settings.cpu_milli_max.filter(|cap| container.cpu_milli > *cap) {
        review = match over {
            Over::Lower => review.change(Change::SetCpuMilli(cap), format!("{} is the cap", cpus(cap))).warn(
                format!("CPUs are lowered from {} to {}, the cap", cpus(container.cpu_milli), cpus(cap)),
            ),
            Over::Refuse => review.deny_with(
                "cpu-over-cap",
                format!("it asks for {} CPUs, the cap is {}", cpus(container.cpu_milli), cpus(cap)),
                format!("--cpus {} at most", cpus(cap)),
            ),
        };
    }
    if let Some(cap) = settings.memory_mib_max.filter(|cap| container.memory_mib > *cap) {
        review = match over {
            Over::Lower => review
                .change(Change::SetMemoryMib(cap), format!("{cap} MiB is the cap"))
                .warn(format!("memory is lowered from {} to {cap} MiB, the cap", container.memory_mib)),
            Over::Refuse => review.deny_with(
                "memory-over-cap",
                format!("it asks for {} MiB of memory, the cap is {cap}", container.memory_mib),
                format!("--memory {cap}m at most"),
            ),
        };
    }
    // Nobody asks for "as many processes as its memory holds", so there is nobody to refuse or to warn.
    if let Some(cap) = settings.pids_max {
        review = match container.pids_max {
            None => review.change(Change::SetPidsMax(cap), format!("{cap} processes are the cap")),
            Some(pids) if pids <= cap => review,
            Some(pids) if over == Over::Lower => review
                .change(Change::SetPidsMax(cap), format!("{cap} processes are the cap"))
                .warn(format!("processes are limited to {cap}, the cap, instead of {pids}")),
            Some(pids) => review.deny_with(
                "pids-over-cap",
                format!("it asks for {pids} processes, the cap is {cap}"),
                format!("--pids-limit {cap} at most"),
            ),
        };
    }
    review
}

fn cpus(milli: u32) -> f64 {
    f64::from(milli) / 1000.0
}

bulkhead_sdk::admission_plugin!(ResourceCaps);

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::admission::test_call;

    fn review(settings: Settings, container: Container) -> Review {
        assert_eq!(ResourceCaps::check(&settings), []);
        ResourceCaps::container_create(&settings, &test_call(), &container)
    }

    fn caps(over: Over) -> Settings {
        Settings { cpu_milli_max: Some(500), memory_mib_max: Some(64), pids_max: Some(100), over }
    }

    #[test]
    fn what_asks_for_more_is_lowered_and_warned() {
        let made = review(caps(Over::Lower), Container { pids_max: Some(200), ..Container::default() });
        assert_eq!((made.changes.len(), made.warnings.len(), made.denials.len()), (3, 3, 0));
    }

    #[test]
    fn or_refused_with_what_would_pass() {
        let made = review(caps(Over::Refuse), Container { pids_max: Some(200), ..Container::default() });
        let remedies: Vec<_> = made.denials.iter().filter_map(|denial| denial.remedy.as_deref()).collect();
        assert_eq!(remedies, ["--cpus 0.5 at most", "--memory 64m at most", "--pids-limit 100 at most"]);
    }

    #[test]
    fn what_asks_for_no_more_is_left_alone_but_for_a_limit_of_processes() {
        let small = || Container { cpu_milli: 500, memory_mib: 64, ..Container::default() };
        let made = review(caps(Over::Refuse), small());
        assert!(matches!(made.changes.as_slice(), [(Change::SetPidsMax(100), _)]) && made.denials.is_empty());
        let made = review(caps(Over::Refuse), Container { pids_max: Some(5), ..small() });
        assert!(made.changes.is_empty() && made.denials.is_empty());
        let made = review(Settings::default(), Container::default());
        assert!(made.changes.is_empty() && made.warnings.is_empty());
    }

    #[test]
    fn what_is_there_is_never_lowered_but_refused_what_is_above() {
        let update = |container| ResourceCaps::container_update(&caps(Over::Lower), &test_call(), &container);
        let small =
            || Container { cpu_milli: 500, memory_mib: 64, pids_max: Some(9), ..Container::default() };
        let unlimited = update(Container { pids_max: None, ..small() });
        assert_eq!(unlimited.denials.len(), 1, "{unlimited:?}");
        assert!(update(small()).denials.is_empty() && update(small()).changes.is_empty());
        let more = update(Container { memory_mib: 65, ..small() });
        assert_eq!((more.denials.len(), more.denials[0].code.as_str()), (1, "memory-over-cap"));
    }

    #[test]
    fn caps_below_what_there_can_be_are_told() {
        let settings = Settings {
            cpu_milli_max: Some(9),
            memory_mib_max: Some(5),
            pids_max: Some(0),
            ..Settings::default()
        };
        let paths: Vec<_> = ResourceCaps::check(&settings).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/cpu-milli-max", "/memory-mib-max", "/pids-max"]);
    }
}
