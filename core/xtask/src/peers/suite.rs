//! A suite that others wrote: fetched from the Python package index, run by pytest in an environment of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::outcome::{self, Outcomes};
use crate::say::{self, Step};
use crate::{layout, root};

/// The distribution's, since the package for its environments is the distribution's as well.
const PYTHON: &str = "/usr/bin/python3";

/// A package whose source archive carries its tests.
#[derive(Debug)]
pub struct Suite {
    pub package: &'static str,
    pub version: &'static str,
    /// Where its tests are.
    pub folder: &'static str,
    /// What they need besides the package, at versions that fit it.
    pub needs: &'static [&'static str],
    /// What they are told by variables.
    pub env: &'static [(&'static str, &'static str)],
    /// Seconds for one test; machines are slow under emulation.
    pub timeout: u32,
    /// Files that are not run, with what they are about.
    pub waiting: &'static [(&'static str, &'static str)],
}

pub const SUITES: &[Suite] = &[DOCKER_PY, AIODOCKER];

const DOCKER_PY: Suite = Suite {
    package: "docker",
    // The last whose source archive has the tests in it.
    version: "6.1.3",
    folder: "tests/integration",
    needs: &[
        "pytest==7.4.4",
        "pytest-timeout==2.4.0",
        "requests<2.32",
        "urllib3<2",
        "paramiko",
        "websocket-client",
    ],
    // What that engine speaks: both are asked in the same words.
    env: &[("DOCKER_TEST_API_VERSION", "1.41")],
    timeout: 120,
    waiting: &[
        ("api_build_test.py", "build"),
        ("api_config_test.py", "swarm"),
        ("api_plugin_test.py", "plugins"),
        ("api_secret_test.py", "swarm"),
        ("api_service_test.py", "swarm"),
        ("api_swarm_test.py", "swarm"),
        ("context_api_test.py", "concerns the client only"),
        ("models_nodes_test.py", "swarm"),
        ("models_services_test.py", "swarm"),
        ("models_swarm_test.py", "swarm"),
    ],
};

const AIODOCKER: Suite = Suite {
    package: "aiodocker",
    version: "0.27.0",
    folder: "tests",
    needs: &[
        "pytest==9.0.3",
        "pytest-asyncio==1.3.0",
        "pytest-timeout==2.4.0",
        "testcontainers==4.15.0",
        "async-timeout",
        "asyncssh",
        "paramiko",
    ],
    env: &[],
    timeout: 120,
    waiting: &[
        ("test_configs.py", "swarm"),
        ("test_context.py", "concerns the client only"),
        ("test_docker_close.py", "concerns the client only"),
        ("test_flow_control_queue.py", "concerns the client only"),
        ("test_jsonstream.py", "concerns the client only"),
        ("test_nodes.py", "swarm"),
        ("test_secrets.py", "swarm"),
        ("test_services.py", "swarm"),
        ("test_ssh.py", "concerns the client only"),
        ("test_swarm.py", "swarm"),
        ("test_utils.py", "concerns the client only"),
    ],
};

impl Suite {
    /// Fetches it, unless it is there.
    pub fn prepare(&self) -> Result<()> {
        let done = self.place().join("ready");
        if fs::read_to_string(&done).is_ok_and(|text| text == self.receipt()) {
            return Ok(());
        }
        let step = Step::start(format!("fetch the tests of {} {}", self.package, self.version));
        if self.place().exists() {
            fs::remove_dir_all(self.place())?;
        }
        fs::create_dir_all(self.place())?;
        root::run(Command::new(PYTHON).args(["-m", "venv"]).arg(self.place().join("venv")))?;
        let named = format!("{}=={}", self.package, self.version);
        self.pip(&["download", "--no-deps", "--no-binary", self.package, "--dest", ".", &named])?;
        let archive = format!("{}-{}.tar.gz", self.package, self.version);
        root::run(Command::new("tar").args(["-xzf", &archive]).current_dir(self.place()))?;
        let mut words = vec!["install", &named];
        words.extend(self.needs);
        self.pip(&words)?;
        fs::write(done, self.receipt())?;
        step.done("ready");
        Ok(())
    }

    /// Runs it against one engine, `who`.
    pub fn run(&self, host: &str, who: &str, filter: Option<&str>) -> Result<Outcomes> {
        let step = Step::start(format!("{} {} against {who}", self.package, self.version));
        // Tests of contexts write below it, and trip over what another run left.
        let home = self.place().join("home");
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::create_dir_all(&home)?;
        let mut command = Command::new(self.place().join("venv/bin/python"));
        command
            .current_dir(self.source())
            .args(["-m", "pytest", "-v", "--no-header", "--color=no", "--tb=short", "-p", "no:cacheprovider"])
            // Its own would ask for plugins that say nothing here.
            .args(["-o", "addopts="])
            .args(["--timeout", &self.timeout.to_string()])
            .args(self.files()?)
            .envs(self.env.iter().copied())
            .env("DOCKER_HOST", host)
            .env("HOME", &home)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        for name in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG"] {
            command.env_remove(name);
        }
        if let Some(filter) = filter {
            command.args(["-k", filter]);
        }
        let mut child = command.spawn().context("cannot start pytest")?;
        let mut outcomes = Outcomes::new();
        let output = child.stdout.take().context("no output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            eprintln!("{line}");
            outcome::read_line(self.folder, &line, &mut outcomes);
        }
        // Its code tells of failures, which are counted here; one that ran nothing has failed as a whole.
        let status = child.wait()?;
        if outcomes.is_empty() && filter.is_none() {
            bail!("pytest ran nothing ({status}); its words are above");
        }
        step.done(&format!("{} tests", outcomes.len()));
        Ok(outcomes)
    }

    fn files(&self) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(self.source().join(self.folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let is_test = name.ends_with("_test.py") || (name.starts_with("test_") && name.ends_with(".py"));
            if is_test && !self.waiting.iter().any(|(file, _)| *file == name) {
                files.push(PathBuf::from(self.folder).join(name));
            }
        }
        files.sort();
        Ok(files)
    }

    fn pip(&self, words: &[&str]) -> Result<()> {
        say::note(&format!("pip {}", words.join(" ")));
        let mut command = Command::new(self.place().join("venv/bin/python"));
        command.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]).args(words);
        root::run(command.current_dir(self.place()))
    }

    /// Any change of what is asked for makes the environment anew.
    fn receipt(&self) -> String {
        format!("{} {} {}", self.package, self.version, self.needs.join(" "))
    }

    fn place(&self) -> PathBuf {
        layout::target().join("peers").join(self.package)
    }

    fn source(&self) -> PathBuf {
        self.place().join(format!("{}-{}", self.package, self.version))
    }
}
