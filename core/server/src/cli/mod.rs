//! The command line: noun, verb, as docker's users expect.
//!
//! All but `serve`, `doctor`, `policy check`, `policy test` of a folder, `plugin new`, `plugin build` and `config` speak to a
//! running server through its admin socket, as any other client does. Results go to the standard output, everything else to the standard error.

mod binding;
mod client;
mod context;
mod debug;
mod decision;
mod failure;
mod machine;
mod output;
mod plugin;
mod policy;
mod size;
mod template;
mod time;
mod vch;

pub use failure::Failure;
pub use output::{json as print_json, text as print_text};

use crate::config::{Config, EXAMPLE};
use crate::doctor;
use crate::serve::{VERSION, serve};
use crate::telemetry::start_logs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use client::Client;
use std::path::PathBuf;
use std::process::ExitCode;

/// Of each of the server's threads. A request is one deep call, whose frames are large where nothing is optimised; memory
/// that nobody touches costs nothing.
const STACK_BYTES: usize = 8 << 20;

#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    about = "Runs each container in a virtual machine of its own, behind the Docker API",
    propagate_version = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// The server's admin socket
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "BULKHEAD_ADMIN_SOCKET",
        default_value = "/run/bulkhead/admin.sock"
    )]
    socket: PathBuf,
    /// How results are printed
    #[arg(short = 'o', long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(ConfigArgs),
    /// Virtual container hosts: Docker endpoints of tenants
    #[command(subcommand)]
    Vch(vch::Command),
    /// Recorded decisions: what was allowed or denied, and why
    #[command(subcommand)]
    Decision(decision::Command),
    /// Policies: check files, see what is in force, change it and go back
    #[command(subcommand)]
    Policy(policy::Command),
    /// Plugins: WebAssembly components that have a say in decisions
    #[command(subcommand)]
    Plugin(plugin::Command),
    /// Bindings: which plugin has a say where, and how it is set
    #[command(subcommand)]
    Binding(binding::Command),
    /// Machines that run, what they take of the host, and how their start went
    #[command(subcommand)]
    Machine(machine::Command),
    /// Templates: what machines are cloned from
    #[command(subcommand)]
    Template(template::Command),
    /// Check this machine, with a remedy for each thing that is missing
    Doctor(ConfigArgs),
    /// Look into a running server
    #[command(subcommand)]
    Debug(debug::Command),
    /// The configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// Settings (TOML); see `bulkhead config example`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where everything is kept; wins over the file's
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a commented file with every setting and its default
    Example,
    /// Check a file without starting anything
    Check(ConfigArgs),
}

impl ConfigArgs {
    fn load(&self) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), self.data_dir.as_deref()).map_err(Failure::config)
    }
}

pub fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let format = cli.global.output;
    let client = || Client::new(cli.global.socket.clone());
    match cli.command {
        Command::Serve(args) => {
            let config = args.load()?;
            start_logs(&config.telemetry).map_err(Failure::from)?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .thread_stack_size(STACK_BYTES)
                .build()
                .map_err(|error| Failure::from(anyhow::Error::from(error)))?;
            runtime.block_on(serve(config)).map_err(Failure::from)?;
        }
        Command::Vch(command) => vch::run(command, &client()?, format)?,
        Command::Decision(command) => return decision::run(command, &client()?, format),
        Command::Policy(command) => return policy::run(command, client, format),
        Command::Plugin(command) => plugin::run(command, client, format)?,
        Command::Binding(command) => binding::run(command, &client()?, format)?,
        Command::Debug(command) => return debug::run(&command, &client()?, format),
        Command::Machine(command) => machine::run(command, &client()?, format)?,
        Command::Template(command) => template::run(command, &client()?, format)?,
        Command::Doctor(args) => return doctor::run(&args.load()?, format),
        Command::Config(ConfigCommand::Example) => output::text(EXAMPLE),
        Command::Config(ConfigCommand::Check(args)) => {
            let config = args.load()?;
            output::line(&format!(
                "good; data in {}, sockets in {}",
                config.data_dir.display(),
                config.run_dir.display()
            ));
        }
        Command::Version => output::line(&format!("bulkhead {VERSION}")),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_of_all_commands_may_come_first_or_last() {
        for line in ["bulkhead --socket /s vch ls -o json", "bulkhead vch ls --socket /s -o json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!((cli.global.socket, cli.global.output), ("/s".into(), Format::Json), "{line}");
        }
    }

    #[test]
    fn unknown_words_are_a_matter_of_usage() {
        for line in [
            "bulkhead",
            "bulkhead vch",
            "bulkhead vch create",
            "bulkhead vch make x",
            "bulkhead vch create x --memory 1g",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
