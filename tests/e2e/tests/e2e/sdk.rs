//! Clients that others wrote, as their users use them.

use anyhow::{Context as _, Result, bail, ensure};
use bollard::Docker;
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::exec::{StartExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions,
};
use bulkhead_test_support::run;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use std::process::Command;
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, code, same};

pub const CASES: &[Case] =
    &[("sdk::docker_for_python", docker_for_python), ("sdk::docker_for_rust", docker_for_rust)];

const PATIENCE: Duration = Duration::from_secs(240);

/// Debian's `python3-docker`, in Debian's Python.
fn docker_for_python(world: &mut World) -> Result<()> {
    let script = include_str!("docker_py.py");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", script, world.dev.host(), &world.busybox()]);
    let output = run(&mut command, PATIENCE)?;
    code(&output, 0)?;
    same(output.stdout.as_str(), "facts\nrunning_to_the_end\ninput_and_output\nbeside\na_life\n")
}

/// The crate `bollard`.
fn docker_for_rust(world: &mut World) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (host, image) = (world.dev.host().to_owned(), world.busybox());
    runtime.block_on(async { tokio::time::timeout(PATIENCE, with_bollard(&host, &image)).await })?
}

async fn with_bollard(host: &str, image: &str) -> Result<()> {
    let path = host.strip_prefix("unix://").context("a unix socket")?;
    let docker =
        Docker::connect_with_unix(path, 120, bollard::API_DEFAULT_VERSION)?.negotiate_version().await?;
    ensure!(docker.ping().await? == "OK");
    let words = |words: &[&str]| Some(words.iter().map(|&word| word.to_owned()).collect());
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: words(&["sh", "-c", "read -r line; echo out $line; echo err >&2; exit 3"]),
        open_stdin: Some(true),
        stdin_once: Some(true),
        host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::default().name("bollard").build();
    let id = docker.create_container(Some(options), body).await?.id;

    // Attached before the start, input and both outputs.
    let options =
        AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stderr(true).stream(true).build();
    let AttachContainerResults { output, mut input } = docker.attach_container(&id, Some(options)).await?;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    tokio::io::AsyncWriteExt::write_all(&mut input, b"word\n").await?;
    let (stdout, stderr) = read(output).await?;
    same((stdout.as_str(), stderr.as_str()), ("out word\n", "err\n"))?;
    let ended = docker.wait_container(&id, None::<WaitContainerOptions>).next().await.context("no end")?;
    match ended {
        Err(bollard::errors::Error::DockerContainerWaitError { code: 3, .. }) => {}
        other => bail!("not an end with 3: {other:?}"),
    }
    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let (stdout, _) = read(docker.logs(&id, Some(options))).await?;
    same(stdout.as_str(), "out word\n")?;
    let state = docker.inspect_container(&id, None).await?.state.context("no state")?;
    same(state.exit_code, Some(3))?;
    let force = RemoveContainerOptionsBuilder::default().force(true).build();
    docker.remove_container(&id, Some(force.clone())).await?;

    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: words(&["sh", "-c", "while :; do sleep 1; done"]),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None, body).await?.id;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    let exec = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: words(&["sh", "-c", "echo beside; exit 5"]),
        ..ExecConfig::default()
    };
    let exec = docker.create_exec(&id, exec).await?.id;
    match docker.start_exec(&exec, None::<StartExecOptions>).await? {
        StartExecResults::Attached { output, .. } => same(read(output).await?.0.as_str(), "beside\n")?,
        StartExecResults::Detached => bail!("it was not to be detached"),
    }
    same(docker.inspect_exec(&exec).await?.exit_code, Some(5))?;
    docker.remove_container(&id, Some(force)).await?;
    Ok(())
}

/// Both outputs to their end.
async fn read(
    mut output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin,
) -> Result<(String, String)> {
    let (mut stdout, mut stderr) = (String::new(), String::new());
    while let Some(piece) = output.try_next().await? {
        match piece {
            LogOutput::StdOut { message } => stdout += std::str::from_utf8(&message)?,
            LogOutput::StdErr { message } => stderr += std::str::from_utf8(&message)?,
            other => bail!("neither stdout nor stderr: {other:?}"),
        }
    }
    Ok((stdout, stderr))
}
