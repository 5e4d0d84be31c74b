//! A plugin that misbehaves as its settings say, for tests.

use bulkhead_sdk::admission::{Admission, Change, Container, Exec, Image, Network, Review, Volume};
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
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Does {
    /// Nothing wrong.
    #[default]
    Allow,
    Deny,
    /// Gives the container a label.
    Label,
    Loop,
    Panic,
    Memory,
    Recursion,
    /// Answers 48 MiB.
    Huge,
    /// Writes a million lines to the log.
    Chatter,
    /// Makes a container run as root that did not ask for it.
    BecomeRoot,
    /// Lets the container boot as it must not.
    OwnLabel,
    /// Demands more memory than any host has.
    Greed,
    /// Answers with more changes than there may be.
    ManyChanges,
}

impl Admission for Hostile {
    type Settings = Settings;
    const ABOUT: About = About {
        name: "hostile",
        version: "0.0.0",
        description: "misbehaves as it is told",
        license: "Apache-2.0",
        settings_schema: r#"{"type": "object", "properties": {"does": {"type": "string"}}}"#,
    };

    fn container_create(settings: &Settings, call: &Call, container: &Container) -> Review {
        let allow = Review::allow();
        match settings.does {
            Does::Allow => allow,
            Does::Deny => never(settings, "container"),
            Does::Label => allow.set_label("seed", &call.seed.to_string(), "it is told to").warn("labelled"),
            Does::Loop => loop {
                black_box(());
            },
            #[expect(clippy::panic, reason = "that is what it is for")]
            Does::Panic => panic!("told to"),
            Does::Memory => {
                let mut all = Vec::new();
                loop {
                    all.push(black_box(vec![1u8; 1 << 20]));
                }
            }
            Does::Recursion => allow.warn(deeper(u64::from(container.cpu_milli)).to_string()),
            Does::Huge => allow.warn("x".repeat(24 << 20)).warn("y".repeat(4 << 20)),
            Does::Chatter => {
                for _ in 0..1_000_000 {
                    log::write(log::Level::Info, "la");
                }
                allow
            }
            Does::BecomeRoot => allow.change(Change::SetUser("root".into()), "it is told to"),
            Does::OwnLabel => allow.set_label("bulkhead.boot", "clone", "it is told to"),
            Does::Greed => allow.change(Change::SetMemoryMib(u32::MAX), "it is told to"),
            Does::ManyChanges => {
                let label = |review: Review, n: u32| review.set_label(&n.to_string(), "x", "it is told to");
                (0..100).fold(allow, label)
            }
        }
    }

    fn container_update(settings: &Settings, _call: &Call, _container: &Container) -> Review {
        never(settings, "update")
    }

    fn container_exec(settings: &Settings, _call: &Call, exec: &Exec) -> Review {
        never(settings, &exec.command.join(" "))
    }

    fn image_pull(settings: &Settings, _call: &Call, image: &Image) -> Review {
        never(settings, &image.reference)
    }

    fn volume_create(settings: &Settings, _call: &Call, volume: &Volume) -> Review {
        never(settings, &volume.name)
    }

    fn network_create(settings: &Settings, _call: &Call, network: &Network) -> Review {
        never(settings, &network.name)
    }
}

fn never(settings: &Settings, what: &str) -> Review {
    match settings.does {
        Does::Deny => Review::allow().deny_with("never", format!("no {what} here"), "ask somewhere else"),
        _ => Review::allow(),
    }
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    let here = black_box([n; 64]);
    if n == u64::MAX { n } else { deeper(n + 1).wrapping_add(here.iter().sum::<u64>()) }
}

bulkhead_sdk::admission_plugin!(Hostile);
