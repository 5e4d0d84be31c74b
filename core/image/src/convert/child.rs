//! The child's side.

use super::{Answer, DISK_FD, JOB_VARIABLE, Job, Task};
use crate::layer;
use crate::layer_error::{LayerError, ToldError};
use crate::recipe;
use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::process::ExitCode;

/// What the hidden subcommand runs. Takes its job from the environment, its files from descriptors 0 and 3.
pub fn child_main() -> ExitCode {
    let job = std::env::var(JOB_VARIABLE).ok().and_then(|text| serde_json::from_str::<Job>(&text).ok());
    let Some(job) = job else {
        let _ = writeln!(std::io::stderr(), "this command is for internal use");
        return ExitCode::from(2);
    };
    if let Err(why) = bulkhead_sandbox::enter(&job.bounds) {
        let _ = writeln!(std::io::stderr(), "the sandbox could not be entered: {why}");
        return ExitCode::from(3);
    }
    let answer = run(&job).unwrap_or_else(|error| Answer::Failed(error.told()));
    // On a line of its own, whatever was printed before.
    let line = serde_json::to_string(&answer).unwrap_or_default();
    match writeln!(std::io::stdout(), "\n{line}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(4),
    }
}

fn run(job: &Job) -> Result<Answer, LayerError> {
    let archive = descriptor(0);
    let mut disk = descriptor(DISK_FD);
    Ok(match job.task {
        Task::Convert { compression } => {
            Answer::Converted(layer::write(archive, compression, disk, &job.limits)?)
        }
        Task::Inflate => Answer::Inflated(layer::inflate(archive, &mut disk, &job.limits)?),
        Task::Restore => {
            let mut out = archive;
            match recipe::restore(&disk, &mut out) {
                Ok(()) => Answer::Restored,
                Err(error) => Answer::Failed(ToldError::Content { text: error.to_string() }),
            }
        }
    })
}

/// One of the files that the parent handed in. Called once for each.
fn descriptor(number: i32) -> File {
    // SAFETY: the parent set it up for exactly this, and nothing else in the child uses it.
    #[expect(unsafe_code, reason = "descriptors handed in by number have no other way in")]
    unsafe {
        File::from_raw_fd(number)
    }
}
