//! Spreads containers over host slices, or packs them onto few, and knows which are to be apart or together.

use bulkhead_sdk::admission::Container;
use bulkhead_sdk::placement::{Candidates, Placement, Ratings, SCORE_MAX};
use bulkhead_sdk::{About, Call};
use serde::Deserialize;

#[derive(Debug)]
pub struct Spread;

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub mode: Mode,
    pub by: By,
    /// Labels: containers of a VCH with the same value are to be on different hosts.
    pub apart: Vec<String>,
    /// Labels: containers of a VCH with the same value are to be on one host.
    pub together: Vec<String>,
    /// A host that would not do is refused; else it only comes last.
    pub strict: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The emptiest host is the best.
    #[default]
    Spread,
    /// The fullest one.
    Pack,
}

/// What says how full a host is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    #[default]
    Memory,
    Cpu,
    Containers,
}

/// Of a score, what fullness decides; the rest is for who is apart and who is together, which counts for more.
const FULLNESS: u64 = 200;
const COMPANY: u64 = 800;
const LABELS_MAX: usize = 8;

impl Placement for Spread {
    type Settings = Settings;
    const ABOUT: About = About {
        name: "spread",
        version: env!("CARGO_PKG_VERSION"),
        description: env!("CARGO_PKG_DESCRIPTION"),
        license: "Apache-2.0",
        settings_schema: include_str!("../settings.schema.json"),
    };

    fn check(settings: &Settings) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        for (path, labels) in [("/apart", &settings.apart), ("/together", &settings.together)] {
            if labels.len() > LABELS_MAX {
                problems.push((path.to_owned(), format!("{LABELS_MAX} labels are the most")));
            }
            if labels.iter().any(String::is_empty) {
                problems.push((path.to_owned(), "a label has a name".to_owned()));
            }
        }
        for label in settings.apart.iter().filter(|label| settings.together.contains(label)) {
            problems.push(("/together".to_owned(), format!("`{label}` is in `apart`, too")));
        }
        problems
    }

    fn rate(settings: &Settings, _call: &Call, container: &Container, all: &dyn Candidates) -> Ratings {
        let count = all.count();
        let mut company = vec![COMPANY; count];
        let mut refused = Vec::new();
        for (label, apart) in
            settings.apart.iter().map(|it| (it, true)).chain(settings.together.iter().map(|it| (it, false)))
        {
            let Some(value) = container.label(label) else { continue };
            let Some(with) = all.numbers(&format!("containers-with:{label}={value}")) else { continue };
            let most = with.iter().copied().max().unwrap_or(0);
            // Nobody is there yet: one host is as good as another.
            if most == 0 {
                continue;
            }
            for (at, (there, company)) in with.iter().zip(&mut company).enumerate() {
                let good = if apart { most - there } else { *there };
                *company = (*company).min(COMPANY * u64::from(good) / u64::from(most));
                if settings.strict && apart && *there > 0 {
                    refused.push((at, format!("a container with {label}={value} is on the host")));
                }
                if settings.strict && !apart && *there == 0 {
                    refused.push((at, format!("the containers with {label}={value} are on another host")));
                }
            }
        }
        let fullness = fullness(settings, all);
        let score = |(company, fullness): (u64, u64)| i16::try_from(company + fullness).unwrap_or(SCORE_MAX);
        let mut ratings = Ratings::new(company.into_iter().zip(fullness).map(score));
        for (at, reason) in refused {
            ratings.refuse(at, &reason);
        }
        ratings
    }
}

/// What each candidate has of [`FULLNESS`].
fn fullness(settings: &Settings, all: &dyn Candidates) -> Vec<u64> {
    let none = || vec![0; all.count()];
    // Of what is free, the most is what there is.
    let (free, whole) = match settings.by {
        By::Memory => (all.numbers("memory-free-mib"), all.numbers("memory-mib")),
        By::Cpu => (all.numbers("cpu-free-milli"), all.numbers("cpu-milli")),
        By::Containers => {
            let there = all.numbers("containers").unwrap_or_default();
            let most = there.iter().copied().max().unwrap_or(0);
            let free = there.iter().map(|count| most - count).collect();
            (Some(free), Some(vec![most; there.len()]))
        }
    };
    let (Some(free), Some(whole)) = (free, whole) else { return none() };
    let part = |(free, whole): (&u32, &u32)| {
        let free = FULLNESS * u64::from(*free.min(whole)) / u64::from(*whole).max(1);
        match settings.mode {
            Mode::Spread => free,
            Mode::Pack => FULLNESS - free,
        }
    };
    free.iter().zip(&whole).map(part).collect()
}

bulkhead_sdk::placement_plugin!(Spread);

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_sdk::admission::{Label, test_call};
    use bulkhead_sdk::placement::TestCandidates;

    fn hosts() -> TestCandidates {
        TestCandidates::default()
            .with_numbers("memory-mib", &[1000, 1000, 1000])
            .with_numbers("memory-free-mib", &[1000, 500, 0])
            .with_numbers("containers", &[0, 2, 1])
            .with_numbers("containers-with:app=web", &[2, 0, 1])
    }

    fn web() -> Container {
        let label = Label { key: "app".into(), value: "web".into() };
        Container { labels: vec![label], ..Container::default() }
    }

    fn rate(settings: &Settings, container: &Container) -> Ratings {
        assert_eq!(Spread::check(settings), []);
        Spread::rate(settings, &test_call(), container, &hosts())
    }

    #[test]
    fn the_emptiest_is_best_or_the_fullest() {
        let spread = rate(&Settings::default(), &Container::default());
        assert_eq!(spread.scores(), [1000, 900, 800]);
        let pack = Settings { mode: Mode::Pack, ..Settings::default() };
        assert_eq!(rate(&pack, &Container::default()).scores(), [800, 900, 1000]);
        let by = Settings { by: By::Containers, ..Settings::default() };
        assert_eq!(rate(&by, &Container::default()).scores(), [1000, 800, 900]);
    }

    #[test]
    fn what_is_to_be_apart_goes_where_there_are_fewest() {
        let apart = || Settings { apart: vec!["app".into()], ..Settings::default() };
        assert_eq!(rate(&apart(), &web()).scores(), [200, 900, 400]);
        assert_eq!(rate(&apart(), &Container::default()).scores(), [1000, 900, 800], "it has no such label");
        let strict = rate(&Settings { strict: true, ..apart() }, &web());
        assert_eq!(strict.scores(), [-1, 900, -1]);
        assert_eq!(strict.refusal(0), Some("a container with app=web is on the host"));
    }

    #[test]
    fn what_is_to_be_together_goes_where_there_are_most() {
        let together = || Settings { together: vec!["app".into()], ..Settings::default() };
        assert_eq!(rate(&together(), &web()).scores(), [1000, 100, 400]);
        let strict = rate(&Settings { strict: true, ..together() }, &web());
        assert_eq!(strict.scores(), [1000, -1, 400]);
        // The first one of all may be anywhere.
        let none = hosts().with_numbers("containers-with:app=web", &[0, 0, 0]);
        let settings = Settings { strict: true, ..together() };
        assert_eq!(Spread::rate(&settings, &test_call(), &web(), &none).scores(), [1000, 900, 800]);
    }

    #[test]
    fn settings_that_contradict_themselves_are_told() {
        let both = Settings {
            apart: vec!["app".into()],
            together: vec!["app".into(), String::new()],
            ..Settings::default()
        };
        let paths: Vec<_> = Spread::check(&both).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["/together", "/together"]);
    }
}
