//! `cargo xtask`: what a developer or a first-time user runs from a clone.
//!
//! ```text
//! cargo xtask up            set up this machine, start a server, run a first container VM
//! cargo xtask down [--all]  stop the server (machines go on), or remove the first VCH as well
//! cargo xtask test [--full] [--cold] [FILTER]   every check and test, what CI runs
//! cargo xtask peers [--write] [FILTER]   other people's tests, against a Docker engine and against Bulkhead
//! cargo xtask bench [--runs N] [--only PART] [--json] [--write]   figures beside a Docker engine's
//! cargo xtask plugins       the plugins that come with Bulkhead, as components
//! cargo xtask guest-image   kernel, modules and agent for the machines
//! ```
//!
//! All talk goes to stderr. Only `up` writes to stdout, one line, and only when everything worked, so that
//! `eval "$(cargo xtask up)"` is safe.

mod apt;
mod bench;
mod containers;
mod dockerd;
mod down;
mod first_image;
mod guest_image;
mod layout;
mod peer;
mod peers;
mod plugins;
mod private;
mod registry;
mod root;
mod say;
mod server;
mod setup;
mod test;
mod up;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask up [--data-dir DIR]
       cargo xtask down [--all] [--data-dir DIR]
       cargo xtask test [--full] [--cold] [FILTER]
       cargo xtask peers [--write] [FILTER]
       cargo xtask bench [--runs N] [--only PART] [--json] [--write]
       cargo xtask plugins
       cargo xtask guest-image";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("", [].as_slice()),
    };
    let outcome = match command {
        "up" => up::run(rest),
        "down" => down::run(rest),
        "test" => test::run(rest),
        "peers" => peers::run(rest),
        "bench" => bench::run(rest),
        "plugins" => plugins::run(rest),
        "guest-image" => guest_image::run(rest),
        "peer-pid" => peer::print_pid(rest),
        "" | "help" | "--help" | "-h" => {
            eprintln!("{USAGE}");
            return ExitCode::from(if command.is_empty() { 2 } else { 0 });
        }
        other => {
            eprintln!("xtask: there is no command `{other}`\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("\nxtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
