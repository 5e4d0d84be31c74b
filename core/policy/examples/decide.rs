//! Prints how fast decisions are: `cargo run --release -p bulkhead-policy --example decide`.

#![expect(clippy::unwrap_used, dead_code, reason = "it shares the queries of the tests")]

#[path = "../tests/it/support.rs"]
mod support;

use bulkhead_model::Action;
use bulkhead_policy::{Decider, PolicyError, PolicySet, Settings};
use std::hint::black_box;
use std::time::{Duration, Instant};
use support::World;

fn main() -> Result<(), PolicyError> {
    let started = Instant::now();
    let set = PolicySet::shipped()?;
    println!("{} policies, read and validated in {:?}", set.len(), started.elapsed());
    let decider =
        Decider::new(set, Settings { trusted_registries: vec!["docker.io".into()], ..Settings::default() });
    for (class, action) in [
        ("dev", Action::ContainerList),
        ("dev", Action::ContainerCreate),
        ("prod", Action::ContainerCreate),
        ("prod", Action::ImagePull),
    ] {
        let world = World::new(class);
        let mut took = Vec::new();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(1) {
            let one = Instant::now();
            black_box(decider.decide(black_box(&world.query(action))));
            took.push(one.elapsed());
        }
        took.sort();
        let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
        let per_second = took.len() as f64 / started.elapsed().as_secs_f64();
        println!("{class:5} {action:17} {per_second:8.0} decisions/s  p50 {:?}  p99 {:?}", at(50), at(99));
    }
    Ok(())
}
