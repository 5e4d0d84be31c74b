//! `bulkhead`: the server and the operator's command line, in one program.

mod cli;
mod config;
mod doctor;
mod listen;
mod serve;
mod telemetry;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A child that handles strangers' bytes has nothing of the server: no runtime, no logs, no arguments to parse.
    if std::env::args_os().nth(1).is_some_and(|word| word == serve::LAYER_CHILD) {
        return bulkhead_image::convert::child_main();
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == serve::COMPILE_CHILD) {
        return bulkhead_plugin::child_main();
    }
    cli::main()
}
