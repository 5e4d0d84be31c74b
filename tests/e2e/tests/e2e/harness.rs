//! Runs cases one after another on one world, and reports as Rust's own test programs do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::world::World;

/// A name and what to do.
pub type Case = (&'static str, fn(&mut World) -> Result<()>);

/// Runs the cases that the command line asks for.
pub fn main(cases: &[Case]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let exact = words.iter().any(|word| word == "--exact");
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters
                .iter()
                .any(|filter| if exact { name == *filter } else { name.contains(filter.as_str()) })
    };
    let chosen: Vec<&Case> = cases.iter().filter(|(name, _)| wanted(name)).collect();
    if words.iter().any(|word| word == "--list") {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    run(&chosen, cases.len() - chosen.len())
}

fn run(chosen: &[&Case], filtered_out: usize) -> ExitCode {
    let started = Instant::now();
    if chosen.is_empty() {
        println!("\nrunning 0 tests\n");
        result(0, 0, filtered_out, started);
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len() + 2);
    let mut score = Score::default();
    let mut world = None;
    score.case("world::is_made", || {
        world = Some(World::make()?);
        Ok(())
    });
    match world {
        Some(mut world) => {
            for (name, case) in chosen {
                let before = score.failures.len();
                score.case(name, || case(&mut world));
                if score.failures.len() > before {
                    world.explain_failure();
                    // What it left would fail others, or slow them down.
                    world.sweep();
                }
            }
            score.case("world::is_taken_down", || world.take_down());
        }
        // Without a world no case can be run, and none may seem to have passed.
        None => chosen.iter().for_each(|(name, _)| score.case(name, || anyhow::bail!("there is no world"))),
    }
    for (name, text) in &score.failures {
        println!("\n---- {name} ----\n{text}");
    }
    result(score.passed, score.failures.len(), filtered_out, started);
    if score.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

#[derive(Default)]
struct Score {
    passed: usize,
    failures: Vec<(String, String)>,
}

impl Score {
    fn case(&mut self, name: &str, body: impl FnOnce() -> Result<()>) {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(body));
        let seconds = started.elapsed().as_secs_f32();
        let text = match outcome {
            Ok(Ok(())) => {
                self.passed += 1;
                println!("test {name} ... ok");
                eprintln!("     {name}: {seconds:.1} s");
                return;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
                .unwrap_or_else(|| "panicked".to_owned()),
        };
        println!("test {name} ... FAILED");
        eprintln!("     {name} after {seconds:.1} s: {text}");
        self.failures.push((name.to_owned(), text));
    }
}

fn result(passed: usize, failed: usize, filtered_out: usize, started: Instant) {
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered_out} filtered out; \
         finished in {:.2}s\n",
        started.elapsed().as_secs_f32()
    );
}
