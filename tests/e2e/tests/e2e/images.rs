//! Real images, made from the distribution's packages: a busybox, a Debian base, nginx, a Python application in many
//! layers, and one with a database, redis and Python. The parts that take long are kept in the target folder between runs.

use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bulkhead_test_support::run;
use serde_json::json;

use crate::registry::Registry;

/// How many small layers the Python application has on top of its base.
pub const PYTHON_LAYERS: usize = 20;

const BUILD_WITHIN: Duration = Duration::from_secs(600);

const SUITE: &str = "bookworm";

/// Archives that `skopeo` and `docker load` read.
pub struct Images {
    folder: PathBuf,
}

/// A layer and the settings of an image.
struct Recipe<'a> {
    name: &'a str,
    layers: Vec<PathBuf>,
    config: serde_json::Value,
}

impl Images {
    /// Makes the images and pushes them to a registry, whose data is kept and served again by later runs.
    pub fn in_registry() -> Result<Registry> {
        let test = std::env::current_exe()?;
        let target = test.ancestors().find(|folder| folder.ends_with("target")).unwrap_or(Path::new("/tmp"));
        let parts = target.join("test-images").join(SUITE);
        // Another recipe makes other images.
        let mut recipe = std::hash::DefaultHasher::new();
        include_str!("images.rs").hash(&mut recipe);
        let data = parts.join(format!("registry-{:016x}", recipe.finish()));
        let complete = data.join("complete");
        fs::create_dir_all(&parts)?;
        if complete.is_file() {
            return Registry::start(&data);
        }
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        let images = Self { folder: parts };
        images.make().context("make images")?;
        let registry = Registry::start(&data)?;
        for (name, tag) in [
            ("busybox", "busybox:1"),
            ("debian", "debian:12"),
            ("nginx", "nginx:1"),
            ("python", "python:3"),
            ("services", "services:1"),
        ] {
            registry.push(&images.archive(name), tag)?;
            fs::remove_file(images.archive(name))?;
        }
        fs::write(complete, "")?;
        Ok(registry)
    }

    fn make(&self) -> Result<()> {
        self.busybox()?;
        let debian = self.rootfs("debian", &[])?;
        self.pack(&Recipe { name: "debian", layers: vec![debian], config: json!({"Cmd": ["bash"]}) })?;
        let full = self.rootfs("full", &["nginx-light", "python3-minimal"])?;
        self.nginx(&full)?;
        self.python(&full)?;
        let services = self.rootfs("services", &["postgresql", "redis-server", "python3-minimal"])?;
        // The programs themselves before the distribution's scripts around them, which are slow.
        let path = "PATH=/usr/lib/postgresql/15/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = json!({"Cmd": ["bash"], "Env": [path]});
        self.pack(&Recipe { name: "services", layers: vec![services], config })
    }

    /// The archive of one image.
    fn archive(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.tar"))
    }

    fn busybox(&self) -> Result<()> {
        let files = tempfile_in(&self.folder, "busybox-files")?;
        for name in ["bin", "dev", "etc", "proc", "sys", "root"] {
            fs::create_dir_all(files.join(name))?;
        }
        fs::create_dir_all(files.join("tmp"))?;
        let program = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).is_file());
        fs::copy(program.context("no busybox; its package is busybox-static")?, files.join("bin/busybox"))?;
        for name in [
            "sh", "cat", "echo", "ls", "ps", "sleep", "uname", "true", "false", "seq", "id", "env", "kill",
            "head", "wc", "test", "mkdir", "touch", "date", "hostname", "printf", "nproc", "grep", "pwd",
            "readlink", "stat", "ip", "usleep", "rm", "cut", "tr", "mount", "free", "md5sum",
        ] {
            std::os::unix::fs::symlink("busybox", files.join("bin").join(name))?;
        }
        fs::write(files.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/:/bin/sh\n")?;
        fs::write(files.join("etc/group"), "root:x:0:\napp:x:1000:\n")?;
        let layer = self.folder.join("busybox-layer.tar");
        tar(&files, &layer)?;
        fs::remove_dir_all(&files)?;
        let config = json!({"Cmd": ["sh"], "Env": ["PATH=/bin"], "Labels": {"made-by": "e2e"}});
        self.pack(&Recipe { name: "busybox", layers: vec![layer], config })
    }

    /// A root file system from packages, made once.
    fn rootfs(&self, name: &str, packages: &[&str]) -> Result<PathBuf> {
        let done = self.folder.join(format!("{name}-rootfs.tar"));
        if done.is_file() {
            return Ok(done);
        }
        let draft = self.folder.join(format!("{name}-rootfs.new.tar"));
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase", "--aptopt=APT::Install-Recommends \"false\""]);
        // Nobody reads manuals in a container, and each file costs time in every test.
        command
            .args(["--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]);
        command.args(["--dpkgopt=path-exclude=/usr/share/doc/*"]);
        // PostgreSQL's compiler of queries is larger than all else; it is switched off.
        command
            .args(["--dpkgopt=path-exclude=/usr/lib/*/libLLVM*", "--dpkgopt=path-exclude=/usr/lib/llvm-*"]);
        if packages.contains(&"postgresql") {
            let own = "etc/postgresql-common/createcluster.d";
            command.arg(format!(
                "--setup-hook=mkdir -p \"$1/{own}\"; echo create_main_cluster = false > \"$1/{own}/none.conf\""
            ));
        }
        if !packages.is_empty() {
            command.arg(format!("--include={}", packages.join(",")));
        }
        command.arg(SUITE).arg(&draft);
        run(&mut command, BUILD_WITHIN)?.ok().context("mmdebstrap")?;
        fs::rename(&draft, &done)?;
        Ok(done)
    }

    fn nginx(&self, base: &Path) -> Result<()> {
        let files = tempfile_in(&self.folder, "nginx-files")?;
        fs::create_dir_all(files.join("etc/nginx"))?;
        let settings = "daemon off;\nerror_log /dev/stderr notice;\npid /run/nginx.pid;\nevents {}\n\
             http { access_log /dev/stdout; server { listen 80; root /usr/share/nginx/html; } }\n";
        fs::write(files.join("etc/nginx/nginx.conf"), settings)?;
        let layer = self.folder.join("nginx-layer.tar");
        tar(&files, &layer)?;
        fs::remove_dir_all(&files)?;
        let config = json!({
            "Cmd": ["nginx"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "ExposedPorts": {"80/tcp": {}},
            "StopSignal": "SIGQUIT",
        });
        self.pack(&Recipe { name: "nginx", layers: vec![base.to_path_buf(), layer], config })
    }

    /// Each layer adds a module and replaces the list of those before it; the last one takes one away again.
    fn python(&self, base: &Path) -> Result<()> {
        let mut layers = vec![base.to_path_buf()];
        for number in 0..PYTHON_LAYERS {
            let files = tempfile_in(&self.folder, "python-files")?;
            let app = files.join("app");
            fs::create_dir_all(&app)?;
            fs::write(app.join(format!("part{number:02}.py")), format!("VALUE = {number}\n"))?;
            fs::write(app.join("latest"), format!("{number}\n"))?;
            if number + 1 == PYTHON_LAYERS {
                fs::write(app.join(".wh.part00.py"), "")?;
                fs::write(app.join("main.py"), PYTHON_MAIN)?;
            }
            let layer = self.folder.join(format!("python-layer{number:02}.tar"));
            tar(&files, &layer)?;
            fs::remove_dir_all(&files)?;
            layers.push(layer);
        }
        let config = json!({
            "Entrypoint": ["python3", "/app/main.py"],
            "Cmd": ["world"],
            "WorkingDir": "/app",
            "User": "nobody",
            "Env": ["PATH=/usr/bin:/bin", "APP=layers"],
        });
        self.pack(&Recipe { name: "python", layers, config })
    }

    /// An archive as `docker save` writes it.
    fn pack(&self, recipe: &Recipe<'_>) -> Result<()> {
        let folder = tempfile_in(&self.folder, "pack")?;
        let mut members = Vec::new();
        let mut digests = Vec::new();
        for (number, layer) in recipe.layers.iter().enumerate() {
            let member = format!("layer{number:02}.tar");
            fs::hard_link(layer, folder.join(&member))?;
            digests.push(format!("sha256:{}", sha256(layer)?));
            members.push(member);
        }
        let history: Vec<_> = (0..members.len())
            .map(|number| json!({"created": "2024-01-01T00:00:00Z", "created_by": format!("step {number}")}))
            .collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
            "config": recipe.config, "history": history,
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        fs::write(folder.join("config.json"), config.to_string())?;
        let name = format!("e2e/{}:made", recipe.name);
        let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": members}]);
        fs::write(folder.join("manifest.json"), manifest.to_string())?;
        tar(&folder, &self.archive(recipe.name))?;
        fs::remove_dir_all(&folder)?;
        Ok(())
    }
}

const PYTHON_MAIN: &str = "import glob, importlib, os, sys
parts = sorted(os.path.basename(p)[:-3] for p in glob.glob('/app/part*.py'))
total = sum(importlib.import_module(p).VALUE for p in parts)
print(f'hello {sys.argv[1]}: {len(parts)} parts, sum {total}, latest {open(\"/app/latest\").read().strip()}, uid {os.getuid()}, cwd {os.getcwd()}, app {os.environ[\"APP\"]}')
print('this goes to stderr', file=sys.stderr)
";

fn tempfile_in(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Packs a folder's content reproducibly.
pub fn tar(folder: &Path, into: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--create",
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@1700000000",
    ]);
    command.args(["--hard-dereference", "--file"]).arg(into).arg("--directory").arg(folder).arg(".");
    run(&mut command, BUILD_WITHIN)?.ok().map(drop)
}

fn sha256(file: &Path) -> Result<String> {
    let answer = run(Command::new("sha256sum").arg(file), BUILD_WITHIN)?.ok()?;
    Ok(answer.split_whitespace().next().context("sha256sum says nothing")?.to_owned())
}
