//! Components to native code, in a child without rights.
//!
//! The child is this same program, started again with a hidden subcommand. It reads the component from descriptor 0 and
//! writes the code to descriptor 1. A component whose compilation goes on for ever, or takes all memory, ends its child.

use crate::engine;
use crate::host::HostError;
use bulkhead_model::plugin::COMPONENT_BYTES_MAX;
use bulkhead_sandbox::Bounds;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

/// Where the child finds its [`Bounds`].
const BOUNDS_VARIABLE: &str = "BULKHEAD_COMPILE_BOUNDS";
const NOBODY: u32 = 65534;
const MEMORY_BYTES_MAX: u64 = 1 << 30;
/// Of passing and of processor time. A component of 100 KB takes a fifth of a second, that of a large runtime half a minute.
const SECONDS_MAX: u32 = 60;
const CODE_BYTES_MAX: u64 = 128 << 20;
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// What the child ends with where the component is at fault; its words are on descriptor 2.
const REFUSED: u8 = 65;

/// Starts children, one at a time.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    arguments: Vec<OsString>,
    one: Arc<Semaphore>,
}

impl Compiler {
    /// `program` and what makes it call [`child_main`].
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self { program, arguments, one: Arc::new(Semaphore::new(1)) }
    }

    pub(crate) async fn compile(&self, component: Vec<u8>) -> Result<Vec<u8>, HostError> {
        if component.len() > COMPONENT_BYTES_MAX {
            let text =
                format!("the component has {} bytes, {COMPONENT_BYTES_MAX} are the most", component.len());
            return Err(HostError::Refused(text));
        }
        let _turn = self.one.acquire().await;
        let bounds = Bounds {
            last_descriptor: 2,
            uid: NOBODY,
            gid: NOBODY,
            memory_bytes: MEMORY_BYTES_MAX,
            cpu_seconds: SECONDS_MAX.into(),
            file_bytes: 0,
            deadline_seconds: SECONDS_MAX,
        };
        let failed = |why: String| HostError::Io { doing: "compiling a plugin".into(), why };
        let bounds = serde_json::to_string(&bounds).map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env(BOUNDS_VARIABLE, bounds)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(format!("starting `{}`: {error}", self.program.display())))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut code, mut complaint) = (Vec::new(), String::new());
        let feed = async {
            if let Some(mut pipe) = stdin {
                // A child that has seen enough says why.
                let _ = pipe.write_all(&component).await;
            }
        };
        let drink = async {
            if let Some(pipe) = stdout {
                let _ = pipe.take(CODE_BYTES_MAX).read_to_end(&mut code).await;
            }
        };
        let listen = async {
            if let Some(pipe) = stderr {
                let _ = pipe.take(COMPLAINT_BYTES_MAX).read_to_string(&mut complaint).await;
            }
        };
        let work = async {
            tokio::join!(feed, drink, listen);
            child.wait().await
        };
        // The kernel ends it; this is for a kernel that does not.
        let patience = Duration::from_secs(u64::from(SECONDS_MAX) + 5);
        let status = tokio::time::timeout(patience, work)
            .await
            .map_err(|_| failed(format!("it took longer than {SECONDS_MAX} s")))?
            .map_err(|error| failed(error.to_string()))?;
        let complaint = crate::call::clip(complaint.trim(), 500);
        match (status.success(), status.code(), status.signal()) {
            (true, ..) if code.len() as u64 >= CODE_BYTES_MAX => {
                Err(HostError::Refused("what is compiled of the component is too large".into()))
            }
            (true, ..) => Ok(code),
            (_, Some(code), _) if code == i32::from(REFUSED) => Err(HostError::Refused(complaint)),
            (_, _, Some(libc::SIGXCPU | libc::SIGALRM)) => {
                Err(HostError::Refused(format!("the component takes longer than {SECONDS_MAX} s to compile")))
            }
            (_, _, Some(libc::SIGABRT)) if complaint.contains("memory allocation") => {
                Err(HostError::Refused(format!(
                    "the component takes more than {} MiB to compile",
                    MEMORY_BYTES_MAX >> 20
                )))
            }
            _ => Err(failed(format!("its process ended with {status}: {complaint}"))),
        }
    }
}

/// What the hidden subcommand runs.
pub fn child_main() -> ExitCode {
    let bounds =
        std::env::var(BOUNDS_VARIABLE).ok().and_then(|text| serde_json::from_str::<Bounds>(&text).ok());
    let Some(bounds) = bounds else {
        let _ = writeln!(std::io::stderr(), "this command is for internal use");
        return ExitCode::from(2);
    };
    if let Err(why) = bulkhead_sandbox::enter(&bounds) {
        let _ = writeln!(std::io::stderr(), "the sandbox could not be entered: {why}");
        return ExitCode::from(3);
    }
    match compile() {
        Ok(code) if std::io::stdout().write_all(&code).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(4),
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            ExitCode::from(REFUSED)
        }
    }
}

fn compile() -> Result<Vec<u8>, String> {
    let mut component = Vec::new();
    let most = COMPONENT_BYTES_MAX as u64 + 1;
    std::io::stdin().take(most).read_to_end(&mut component).map_err(|error| error.to_string())?;
    let engine = engine::to_compile().map_err(|error| format!("{error:#}"))?;
    engine.precompile_component(&component).map_err(|error| format!("{error:#}"))
}
