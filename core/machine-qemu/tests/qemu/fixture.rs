//! An installation in a folder of its own, and an image with a shell.

use async_trait::async_trait;
use bulkhead_guest_protocol::message::Process;
use bulkhead_machine::conformance::{Does, Failure, Fixture};
use bulkhead_machine::{BackEnd, Condition};
use bulkhead_machine_qemu::{AcceleratorChoice, QemuBackEnd, QemuConfig};
use bulkhead_model::{Boot, ContainerId, Digest, ServerId, VchId};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// One emulated machine at a time: several would only slow each other down.
static TURN: LazyLock<Arc<Mutex<()>>> = LazyLock::new(Arc::default);

/// The bytes of a layer with a static busybox, made once.
static SHELL_LAYER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    layer_of(|root| {
        for path in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        fs::copy("/bin/busybox", root.join("bin/busybox"))
            .expect("these tests need the package busybox-static");
        for tool in ["sh", "seq", "sed", "sleep", "cat", "echo"] {
            symlink("busybox", root.join("bin").join(tool)).unwrap();
        }
    })
});

/// The bytes of a layer disk with what is put into a folder.
fn layer_of(fill: impl FnOnce(&Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir_all(&root).unwrap();
    fill(&root);
    let layer = folder.path().join("layer.erofs");
    let made = Command::new("mkfs.erofs").arg("--quiet").arg(&layer).arg(&root).status();
    let made = made.expect("these tests need the package erofs-utils");
    assert!(made.success(), "mkfs.erofs: {made}");
    fs::read(layer).unwrap()
}

/// Templates that tests made: the others find them on their disk, as after a restart. It is cargo's own folder, and what
/// no machine can be cloned from any more is replaced.
fn made() -> &'static Path {
    Path::new(concat!(env!("CARGO_TARGET_TMPDIR"), "/templates"))
}

pub struct Qemu {
    boot: Boot,
    config: QemuConfig,
    pub qemu: QemuBackEnd,
    folder: tempfile::TempDir,
    _turn: OwnedMutexGuard<()>,
}

impl Qemu {
    /// Its machines are clones.
    pub async fn new() -> Self {
        Self::with(Boot::Clone, 0, 0).await
    }

    /// So many machines are cloned ahead of need.
    pub async fn with_spares(spares: usize) -> Self {
        Self::with(Boot::Clone, spares, 0).await
    }

    /// So many images have a template of their own.
    pub async fn with_image_templates(image_templates: usize) -> Self {
        Self::with(Boot::Clone, 0, image_templates).await
    }

    /// Its machines boot.
    pub async fn booting() -> Self {
        Self::with(Boot::Cold, 0, 0).await
    }

    async fn with(boot: Boot, spares: usize, image_templates: usize) -> Self {
        let turn = TURN.clone().lock_owned().await;
        let guest = guest_folder();
        assert!(
            guest.join("guest.json").exists(),
            "no guest image in `{}`: make it with `cargo xtask guest-image`",
            guest.display()
        );
        // On a disk, as the real one: tmpfs has no holes to find after a crash of the host.
        let disk = std::env::var_os("BULKHEAD_TEST_DISK").unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::Builder::new().prefix("bulkhead-test-").tempdir_in(disk).unwrap();
        let config = QemuConfig {
            accelerator: AcceleratorChoice::Tcg,
            // Not those of an installation on the same host.
            uid_base: 1_900_000_000,
            spares,
            image_templates,
            ..QemuConfig::new(folder.path(), guest)
        };
        share(made(), &folder.path().join("templates"));
        let qemu = QemuBackEnd::open(config.clone(), server()).await.unwrap();
        Self { boot, config, qemu, folder, _turn: turn }
    }

    /// From the next server on, a copy of the guest image that may be changed.
    pub fn own_guest(&mut self) -> PathBuf {
        let own = self.folder.path().join("guest");
        fs::create_dir_all(&own).unwrap();
        for file in ["vmlinuz", "initrd", "guest.json"] {
            fs::copy(self.config.guest_dir.join(file), own.join(file)).unwrap();
        }
        self.config.guest_dir = own.clone();
        own
    }

    /// From the next server on.
    pub fn set_image_templates(&mut self, image_templates: usize) {
        self.config.image_templates = image_templates;
    }

    pub fn config(&self) -> &QemuConfig {
        &self.config
    }

    /// Puts a layer on the datastore in which `/etc/NAME` says that name.
    pub async fn layer_with(&self, vch: VchId, name: &str) -> Digest {
        let bytes = layer_of(|root| {
            fs::create_dir(root.join("etc")).unwrap();
            fs::write(root.join("etc").join(name), format!("{name}\n")).unwrap();
        });
        self.add_layer(vch, &bytes).await.unwrap()
    }

    async fn add_layer(&self, vch: VchId, bytes: &[u8]) -> Result<Digest, Failure> {
        let staged = self.back_end().disks.stage_layer(vch).await?;
        staged.file()?.write_all(bytes)?;
        let layer = Digest::of(bytes);
        staged.commit(&layer).await?;
        Ok(layer)
    }

    pub fn server_id(&self) -> ServerId {
        server()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub async fn pid(&self, id: &ContainerId) -> u32 {
        match self.back_end().machines.observe(id).await.unwrap().unwrap().condition {
            Condition::Running { pid: Some(pid), .. } => pid,
            other => panic!("it has no process: {other:?}"),
        }
    }
}

impl Drop for Qemu {
    /// Whatever a test left running, also one that failed.
    fn drop(&mut self) {
        let back_end = self.back_end();
        let runtime = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| {
            runtime.block_on(async {
                for machine in back_end.machines.list().await.unwrap_or_default() {
                    let _ = back_end.machines.kill(&machine.id).await;
                    let _ = back_end.machines.delete(&machine.id).await;
                }
                self.qemu.close().await;
            });
        });
        let own = self.folder.path().join("templates");
        if self.config.guest_dir == guest_folder() && has_new(&own) {
            let _ = fs::remove_dir_all(made());
            share(&own, made());
        }
    }
}

/// Whether something whole is in there that is not among the made.
fn has_new(own: &Path) -> bool {
    whole(own).iter().any(|template| !made().join(template.file_name().unwrap()).exists())
}

fn whole(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    // An image's is of layers that no other test has.
    paths.filter(|path| path.join("capture.json").exists() && !path.join("disk").exists()).collect()
}

/// Links what is whole in one folder into another, or copies it.
fn share(from: &Path, to: &Path) {
    for template in whole(from) {
        let target = to.join(template.file_name().unwrap());
        fs::create_dir_all(&target).unwrap();
        for file in ["memory", "state", "capture.json"] {
            let (from, to) = (template.join(file), target.join(file));
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).unwrap();
        }
    }
}

fn server() -> ServerId {
    ServerId(uuid::Uuid::from_bytes([0x77; 16]))
}

fn guest_folder() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guest");
    std::env::var_os("BULKHEAD_GUEST_DIR").map_or_else(|| default.into(), PathBuf::from)
}

/// Runs a script of the image's shell.
pub fn shell(script: &str) -> Process {
    Process {
        args: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        env: vec!["PATH=/bin".into()],
        working_dir: "/".into(),
        user: String::new(),
        groups: Vec::new(),
        capabilities: 0xa804_25fb,
        filtered: true,
        no_new_privileges: false,
        limits: Vec::new(),
        oom_score_adj: 0,
    }
}

#[async_trait]
impl Fixture for Qemu {
    fn back_end(&self) -> BackEnd {
        self.qemu.back_end()
    }

    async fn reopen(&mut self) -> Result<BackEnd, Failure> {
        self.qemu.close().await;
        self.qemu = QemuBackEnd::open(self.config.clone(), server()).await?;
        Ok(self.back_end())
    }

    fn server(&self) -> ServerId {
        server()
    }

    fn boot(&self) -> Boot {
        self.boot
    }

    async fn image(&self, vch: VchId) -> Result<Vec<Digest>, Failure> {
        Ok(vec![self.add_layer(vch, &SHELL_LAYER).await?])
    }

    fn process(&self, what: &[Does]) -> Process {
        let steps = what.iter().map(|step| match step {
            Does::Count(lines) => format!("seq {lines} | sed 's/^/line /'"),
            Does::Sleep => "sleep 1000 & wait".to_owned(),
            Does::Exit(code) => format!("exit {code}"),
        });
        let steps: Vec<_> = std::iter::once("trap 'exit 143' TERM".to_owned()).chain(steps).collect();
        shell(&steps.join("; "))
    }
}
