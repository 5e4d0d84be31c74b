//! What the machine needs, in one table: the package, the reason, how to see that it is there, the way it comes.
//!
//! Two ways. `Apt` installs the package. `Unpack` fetches the package from the same, signed archive but only takes
//! files out of it; for packages that would bring a service, an engine or the host's next boot kernel with them.
//! No service may be running afterwards that was not running before; [`crate::apt`] sees to that.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::say::{self, Step};
use crate::{apt, layout, root};

/// Who needs a row; each also needs what those before it need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    Running,
    Testing,
    /// Beside another engine, for figures and for what its clients expect.
    Comparing,
}

/// How to see that a row is there already, whoever brought it.
#[derive(Debug)]
pub enum There {
    Program(&'static str),
    File(&'static str),
    /// `initdb` and `postgres` of any version below `/usr/lib/postgresql`.
    PostgresServer,
    /// A kernel with its modules, of the system or unpacked before.
    GuestKernel,
    /// A file of a package that is only unpacked; see [`unpacked`].
    Unpacked(&'static str),
}

/// How a row comes.
#[derive(Debug)]
pub enum How {
    Apt,
    /// One program out of the package, put where [`tools`] says.
    UnpackProgram(&'static str),
    /// One program out of the package, for all users.
    UnpackForAll(&'static str),
    /// The whole package, below [`unpacked`].
    Unpack,
    /// The same; a second name is followed, since the first only points at it.
    UnpackKernel,
}

/// One row.
#[derive(Debug)]
pub struct Need {
    pub package: &'static str,
    pub why: &'static str,
    pub there: There,
    pub how: How,
    pub needed_for: For,
}

/// The package whose kernel the machines boot.
pub const KERNEL_PACKAGE: &str = "linux-image-cloud-amd64";

/// The table.
pub const NEEDS: &[Need] = &[
    Need {
        package: "ca-certificates",
        why: "to trust public registries",
        there: There::File("/etc/ssl/certs/ca-certificates.crt"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "libc6-dev",
        why: "to link the guest agent statically",
        there: There::File("/usr/lib/x86_64-linux-gnu/libc.a"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "qemu-system-x86",
        why: "runs the machines",
        there: There::Program("qemu-system-x86_64"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "kmod",
        why: "`depmod` lists what each module of the guest's kernel needs",
        there: There::Program("depmod"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: KERNEL_PACKAGE,
        why: "the kernel inside the machines (unpacked only: this host's boot stays as it is)",
        there: There::GuestKernel,
        how: How::UnpackKernel,
        needed_for: For::Running,
    },
    Need {
        package: "e2fsprogs",
        why: "formats the writable disk of a machine",
        there: There::Program("mkfs.ext4"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "postgresql",
        why: "the server keeps its state in a private cluster (no cluster of the distribution is created)",
        there: There::PostgresServer,
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "iproute2",
        why: "namespaces, bridges and uplinks of containers' networks",
        there: There::Program("ip"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "nftables",
        why: "rules of containers' networks: who may speak as whom, where to, and published ports",
        there: There::Program("nft"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "docker.io",
        why: "the docker CLI (only the client is taken out: no second engine)",
        there: There::Program("docker"),
        how: How::UnpackForAll("usr/bin/docker"),
        needed_for: For::Running,
    },
    Need {
        package: "busybox-static",
        why: "content of the image that is made on the spot when no public registry answers",
        there: There::Program("busybox"),
        how: How::Apt,
        needed_for: For::Running,
    },
    Need {
        package: "docker-registry",
        why: "the registry that the tests pull from (only the program is taken out: no service)",
        there: There::Program("docker-registry"),
        how: How::UnpackProgram("usr/bin/docker-registry"),
        needed_for: For::Testing,
    },
    Need {
        package: "python3-docker",
        why: "the SDK of Docker for Python, a client of the tests",
        there: There::File("/usr/lib/python3/dist-packages/docker/__init__.py"),
        how: How::Apt,
        needed_for: For::Testing,
    },
    Need {
        package: "apache2-utils",
        why: "`htpasswd`, for a registry with a password",
        there: There::Program("htpasswd"),
        how: How::Apt,
        needed_for: For::Testing,
    },
    Need {
        package: "skopeo",
        why: "pushes test images",
        there: There::Program("skopeo"),
        how: How::Apt,
        needed_for: For::Testing,
    },
    Need {
        package: "mmdebstrap",
        why: "makes Debian images from packages",
        there: There::Program("mmdebstrap"),
        how: How::Apt,
        needed_for: For::Testing,
    },
    Need {
        package: "erofs-utils",
        why: "`fsck.erofs` judges the layer disks",
        there: There::Program("fsck.erofs"),
        how: How::Apt,
        needed_for: For::Testing,
    },
    Need {
        package: "docker.io",
        why: "the engine to compare with (only unpacked: nothing of it runs but when comparing)",
        there: There::Unpacked("usr/sbin/dockerd"),
        how: How::Unpack,
        needed_for: For::Comparing,
    },
    Need {
        package: "containerd",
        why: "that engine's part for containers (only unpacked)",
        there: There::Unpacked("usr/bin/containerd"),
        how: How::Unpack,
        needed_for: For::Comparing,
    },
    Need {
        package: "runc",
        why: "that engine's part for processes (only unpacked)",
        there: There::Unpacked("usr/sbin/runc"),
        how: How::Unpack,
        needed_for: For::Comparing,
    },
    Need {
        package: "tini",
        why: "that engine's `--init` (only unpacked)",
        there: There::Unpacked("usr/bin/tini-static"),
        how: How::Unpack,
        needed_for: For::Comparing,
    },
    Need {
        package: "libdevmapper1.02.1",
        why: "a library of that engine",
        there: There::File("/lib/x86_64-linux-gnu/libdevmapper.so.1.02.1"),
        how: How::Apt,
        needed_for: For::Comparing,
    },
    Need {
        package: "iptables",
        why: "that engine's packet filter, in a network namespace of its own",
        there: There::Program("iptables"),
        how: How::Apt,
        needed_for: For::Comparing,
    },
    Need {
        package: "iproute2",
        why: "`ip`, for that namespace",
        there: There::Program("ip"),
        how: How::Apt,
        needed_for: For::Comparing,
    },
    Need {
        package: "python3-venv",
        why: "a folder for the Python SDK's own tests",
        there: There::File("/var/lib/dpkg/info/python3-venv.list"),
        how: How::Apt,
        needed_for: For::Comparing,
    },
];

/// Installs what is missing. The answer says what came, for the closing words.
pub fn ensure(purpose: For) -> Result<Vec<&'static str>> {
    let wanted = NEEDS.iter().filter(|need| need.needed_for <= purpose);
    let missing: Vec<&Need> = wanted.filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let step = Step::start("packages that are missing here");
    for need in &missing {
        say::note(&format!("{}: {}", need.package, need.why));
    }
    if root::find_program("apt-get").is_none() {
        bail!(
            "this machine has no apt-get: install what is named above by its own means, then run the command again"
        );
    }
    apt::refresh_lists()?;
    let by_apt: Vec<&str> =
        missing.iter().filter(|need| matches!(need.how, How::Apt)).map(|need| need.package).collect();
    apt::install(&by_apt)?;
    for need in &missing {
        match need.how {
            How::Apt => {}
            How::UnpackProgram(file) => apt::unpack_program(need.package, file, &tools())?,
            How::UnpackForAll(file) => unpack_for_all(need.package, file)?,
            How::Unpack => apt::unpack(need.package, &unpacked(need.package))?,
            How::UnpackKernel => unpack_kernel()?,
        }
    }
    for need in &missing {
        if !is_there(need) {
            bail!("`{}` was installed, but {:?} is still not to be found", need.package, need.there);
        }
    }
    step.done(&format!("{} came", missing.len()));
    Ok(missing.iter().map(|need| need.package).collect())
}

/// The kernel package's files, with the list of what each module needs: an installation would make it on the host.
pub fn unpack_kernel() -> Result<()> {
    let folder = unpacked(KERNEL_PACKAGE);
    apt::unpack_newest_dependency(KERNEL_PACKAGE, &folder)?;
    // Where `/lib` is only a name for `/usr/lib`, packages use the latter.
    if folder.join("usr/lib/modules").is_dir() && !folder.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", folder.join("lib"))?;
    }
    let depmod = root::find_program("depmod").context("there is no `depmod`; its package is kmod")?;
    for release in std::fs::read_dir(folder.join("lib/modules"))?.flatten() {
        let mut command = std::process::Command::new(&depmod);
        root::run(command.arg("--basedir").arg(&folder).arg(release.file_name()))?;
    }
    Ok(())
}

/// Newer distributions have the client in a package of its own.
fn unpack_for_all(package: &str, file: &str) -> Result<()> {
    let package = if apt::exists("docker-cli") { "docker-cli" } else { package };
    apt::unpack_program(package, file, Path::new("/usr/local/bin"))
}

/// Programs that only tests use; [`crate::test`] puts this folder on their `PATH`.
pub fn tools() -> PathBuf {
    layout::target().join("tools")
}

/// Where the files of an unpacked package are, as they would be below `/`.
pub fn unpacked(package: &str) -> PathBuf {
    layout::target().join("unpacked").join(package)
}

/// The folder that has `boot/vmlinuz-*` and `lib/modules/*` of the guest kernel: ours, or the system's.
pub fn kernel_root() -> Option<PathBuf> {
    [unpacked(KERNEL_PACKAGE), PathBuf::from("/")].into_iter().find(|root| has_kernel(root))
}

fn has_kernel(root: &Path) -> bool {
    let Ok(boot) = std::fs::read_dir(root.join("boot")) else { return false };
    boot.flatten().any(|entry| {
        let name = entry.file_name();
        let release = name.to_string_lossy().strip_prefix("vmlinuz-").map(str::to_owned);
        release.is_some_and(|release| {
            release.ends_with("-cloud-amd64")
                && root.join("lib/modules").join(release).join("modules.dep").is_file()
        })
    })
}

fn is_there(need: &Need) -> bool {
    match need.there {
        There::Program(name) => root::find_program(name).is_some() || tools().join(name).is_file(),
        There::File(path) => Path::new(path).exists(),
        There::PostgresServer => std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|versions| {
            versions.flatten().any(|version| {
                ["initdb", "postgres"].iter().all(|name| version.path().join("bin").join(name).is_file())
            })
        }),
        There::GuestKernel => kernel_root().is_some(),
        There::Unpacked(file) => unpacked(need.package).join(file).is_file(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_package_is_named_once_with_a_reason() {
        // Some packages come whole only for comparing; of those, running takes one program.
        let mut names: Vec<_> = NEEDS.iter().map(|need| (need.package, need.needed_for)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), NEEDS.len());
        assert!(NEEDS.iter().all(|need| need.why.len() > 10));
    }

    #[test]
    fn a_kernel_counts_only_with_its_modules() {
        let root = std::env::temp_dir().join(format!("bulkhead-kernel-{}", std::process::id()));
        std::fs::create_dir_all(root.join("boot")).unwrap();
        std::fs::write(root.join("boot/vmlinuz-6.1.0-9-cloud-amd64"), "").unwrap();
        assert!(!has_kernel(&root));
        let modules = root.join("lib/modules/6.1.0-9-cloud-amd64");
        std::fs::create_dir_all(&modules).unwrap();
        assert!(!has_kernel(&root));
        std::fs::write(modules.join("modules.dep"), "").unwrap();
        assert!(has_kernel(&root));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
