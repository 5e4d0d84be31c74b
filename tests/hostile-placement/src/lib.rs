//! A plugin that misbehaves at placement as its settings say, for tests. It is asked at admission, too, and allows.

use bulkhead_sdk::admission::{Admission, Container, Review};
use bulkhead_sdk::placement::{Candidates, Placement, Ratings};
use bulkhead_sdk::{About, Call, log};
use serde::Deserialize;
use std::hint::black_box;

#[derive(Debug)]
pub struct Hostile;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    pub does: Does,
    /// What it reads, or prefers.
    #[serde(default)]
    pub what: String,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// Nothing wrong.
    #[default]
    Zero,
    /// Gives the host that is called so the best score.
    Prefer,
    /// Refuses all of them.
    Refuse,
    /// Has one score too few.
    Short,
    Loop,
    Panic,
    /// Reads a column for ever.
    ReadForEver,
    /// Reads columns of more and more names.
    ReadMany,
    /// Asks for a column whose name has a MiB.
    LongName,
    /// Tells the log the sum of a column.
    Sum,
    /// Tells the log the texts of a column.
    Texts,
}

impl Admission for Hostile {
    type Settings = Settings;
    const ABOUT: About = ABOUT;

    fn container_create(_settings: &Settings, _call: &Call, _container: &Container) -> Review {
        Review::allow()
    }
}

const ABOUT: About = About {
    name: "hostile-placement",
    version: "0.0.0",
    description: "misbehaves as it is told",
    license: "Apache-2.0",
    settings_schema: r#"{"type": "object", "properties": {"does": {"type": "string"}}}"#,
};

impl Placement for Hostile {
    type Settings = Settings;
    const ABOUT: About = ABOUT;

    fn rate(settings: &Settings, _call: &Call, _container: &Container, all: &dyn Candidates) -> Ratings {
        let count = all.count();
        match settings.does {
            Does::Zero => {}
            Does::Prefer => {
                let are = all.texts("host").map(|hosts| hosts.are(&settings.what)).unwrap_or_default();
                return Ratings::new(are.into_iter().map(|is| if is { 1000 } else { 0 }));
            }
            Does::Refuse => {
                let mut ratings = Ratings::all(count, 0);
                (0..count).for_each(|at| ratings.refuse(at, "nowhere"));
                return ratings;
            }
            Does::Short => return Ratings::all(count.saturating_sub(1), 0),
            Does::Loop => loop {
                black_box(());
            },
            #[expect(clippy::panic, reason = "that is what it is for")]
            Does::Panic => panic!("told to"),
            Does::ReadForEver => loop {
                black_box(all.numbers("memory-mib"));
            },
            Does::ReadMany => (0..1000).for_each(|n| {
                black_box(all.texts(&format!("column-{n}")));
            }),
            Does::LongName => {
                black_box(all.numbers(&"x".repeat(1 << 20)));
            }
            Does::Sum => {
                let sum: u64 = all.numbers(&settings.what).into_iter().flatten().map(u64::from).sum();
                log::write(log::Level::Info, &sum.to_string());
            }
            Does::Texts => {
                let texts = all.texts(&settings.what).unwrap_or_default();
                let all: Vec<_> = (0..count).map(|at| texts.of(at).unwrap_or("-")).collect();
                log::write(log::Level::Info, &all.join(" "));
            }
        }
        Ratings::all(count, 0)
    }
}

bulkhead_sdk::admission_and_placement_plugin!(Hostile);
