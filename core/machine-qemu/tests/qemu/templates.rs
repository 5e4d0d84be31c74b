//! What machines are cloned from, and what becomes of them when it is not what it should be.

use crate::fixture::{Qemu, shell};
use bulkhead_machine::MachineSpec;
use bulkhead_machine::conformance::{
    BOOT_DEADLINE, Fixture, container, ended, greet, output, prepare, records, run,
};
use bulkhead_machine::templates::TemplateState;
use bulkhead_model::{Boot, Digest};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

async fn start(fixture: &Qemu, number: u8) -> MachineSpec {
    let spec = prepare(fixture, &container(number)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    spec
}

async fn boot_of(fixture: &Qemu, spec: &MachineSpec) -> Boot {
    fixture.back_end().machines.observe(&spec.id).await.unwrap().unwrap().boot
}

/// What the script writes, in a machine that was started.
async fn output_of(fixture: &Qemu, spec: &MachineSpec, script: &str) -> String {
    let back_end = fixture.back_end();
    let (mut agent, _) = greet(&back_end, spec).await.unwrap();
    run(&back_end, spec, &mut agent, shell(script)).await.unwrap();
    let told = records(&back_end, &spec.id, 1).await.unwrap();
    output(&told, 1)
}

/// The durable form of the one template that there is.
fn durable(fixture: &Qemu) -> PathBuf {
    let folder = fixture.folder().join("templates");
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.join("capture.json").exists());
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Copies: what others link to must stay as it is.
fn unshare(folder: &Path) {
    for name in ["memory", "state", "capture.json"] {
        let copy = folder.join("copy");
        fs::copy(folder.join(name), &copy).unwrap();
        fs::rename(&copy, folder.join(name)).unwrap();
    }
}

/// Becomes true within the time of a boot.
async fn becomes<F: Future<Output = bool>>(what: &str, fact: impl Fn() -> F) {
    let look = async {
        while !fact().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(BOOT_DEADLINE, look).await.is_ok(), "{what}");
}

async fn is_saved(fixture: &Qemu) {
    becomes("the template is not saved", || async {
        let templates = fixture.back_end().machines.templates().await.unwrap();
        templates.iter().any(|template| template.disk_used_bytes > 0)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_differ_where_machines_must() {
    let fixture = Qemu::new().await;
    let script = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname; busybox head -c 16 /dev/urandom | busybox od -x";
    let mut told = Vec::new();
    for number in [1, 2] {
        let spec = start(&fixture, number).await;
        assert_eq!(boot_of(&fixture, &spec).await, Boot::Clone);
        told.push(output_of(&fixture, &spec, script).await);
    }
    let lines: Vec<Vec<&str>> = told.iter().map(|text| text.lines().collect()).collect();
    for (one, other) in lines[0].iter().zip(&lines[1]).take(3) {
        assert_ne!(one, other, "{told:?}");
    }
    let booted = MachineSpec { boot: Boot::Cold, ..prepare(&fixture, &container(3)).await.unwrap() };
    fixture.back_end().machines.start(&booted).await.unwrap();
    assert_eq!(boot_of(&fixture, &booted).await, Boot::Cold, "a machine boots that is asked to");
}

/// QEMU opens memory for writing even where it maps it privately: a guest that gives pages back, or took its hypervisor
/// over, must not be able to take them from all others.
#[tokio::test(flavor = "multi_thread")]
async fn no_clone_can_change_what_it_was_cloned_from() {
    let fixture = Qemu::new().await;
    let spec = start(&fixture, 1).await;
    let pid = fixture.pid(&spec.id).await;
    let memory =
        fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
            // The hypervisor's log is such a file, too.
            let name = fs::read_link(path).map(|target| target.display().to_string()).unwrap_or_default();
            name.starts_with("/memfd:") && fs::metadata(path).unwrap().len() >= 256 << 20
        });
    let memory = OpenOptions::new().read(true).write(true).open(memory.unwrap()).unwrap();
    let digest = || {
        Digest::of(&fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory))).unwrap())
    };
    let before = digest();
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    assert!(fallocate(&memory, punch, 0, 1 << 20).is_err());
    assert!(memory.write_all_at(b"!", 0).is_err() && memory.set_len(0).is_err());
    let told = output_of(&fixture, &spec, "busybox head -c 50000000 /dev/zero > /tmp/zeros; echo done").await;
    assert!(told.ends_with("done\n"), "{told}");
    assert_eq!(digest(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_finds_it_and_clones_go_on() {
    let mut fixture = Qemu::new().await;
    let first = start(&fixture, 1).await;
    is_saved(&fixture).await;
    let listed = fixture.back_end().machines.templates().await.unwrap();
    assert_eq!((listed.len(), listed[0].state.clone(), listed[0].clones), (1, TemplateState::Loaded, 1));
    fixture.reopen().await.unwrap();
    let listed = fixture.back_end().machines.templates().await.unwrap();
    assert_eq!((listed.len(), listed[0].state.clone(), listed[0].clones), (1, TemplateState::OnDisk, 1));
    // No second copy beside the one that the first clone holds, so what is on the disk need not even be whole.
    unshare(&durable(&fixture));
    fs::write(durable(&fixture).join("memory"), "").unwrap();
    let second = start(&fixture, 2).await;
    assert_eq!(boot_of(&fixture, &second).await, Boot::Clone);
    let inode = |pid: u32| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let line = maps.lines().find(|line| line.contains("/memfd:"));
        line.unwrap().split_whitespace().nth(4).unwrap().to_owned()
    };
    assert_eq!(inode(fixture.pid(&first.id).await), inode(fixture.pid(&second.id).await));
    // In use, and thrown away: who runs on it runs on.
    let name = fixture.back_end().machines.templates().await.unwrap().remove(0).name;
    assert!(fixture.back_end().machines.remove_template(&name).await.unwrap());
    assert!(!fixture.back_end().machines.remove_template(&name).await.unwrap());
    assert!(fixture.back_end().machines.templates().await.unwrap().is_empty());
    assert_eq!(output_of(&fixture, &first, "echo alive").await, "alive\n");
}

/// Between two servers, with a template of its own on the disk.
async fn put_away() -> (Qemu, PathBuf) {
    let fixture = Qemu::new().await;
    prepare(&fixture, &container(1)).await.unwrap();
    is_saved(&fixture).await;
    fixture.qemu.close().await;
    let folder = durable(&fixture);
    unshare(&folder);
    (fixture, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_made_anew() {
    let (mut fixture, folder) = put_away().await;
    let memory = OpenOptions::new().write(true).open(folder.join("memory")).unwrap();
    memory.write_all_at(b"damage", 64 << 20).unwrap();
    let made = |folder: &Path| fs::metadata(folder.join("capture.json")).unwrap().modified().unwrap();
    let before = made(&folder);
    fixture.reopen().await.unwrap();
    let spec = start(&fixture, 1).await;
    assert_eq!(boot_of(&fixture, &spec).await, Boot::Clone);
    becomes("it was not replaced", || async {
        folder.join("capture.json").exists() && made(&folder) != before
    })
    .await;
}

/// A state that no hypervisor loads, under digests that are right: what is left when QEMU changed underneath.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_to_life_is_thrown_away_and_the_machine_boots() {
    let (mut fixture, folder) = put_away().await;
    let mut state = fs::read(folder.join("state")).unwrap();
    state.truncate(4096);
    fs::write(folder.join("state"), &state).unwrap();
    // As the capture has it: the size, then each block with its place.
    let digest = Digest::of(&[&4096_u64.to_le_bytes()[..], &0_u64.to_le_bytes(), &state].concat());
    let facts = fs::read_to_string(folder.join("capture.json")).unwrap();
    let mut facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    facts["state"] = digest.to_string().into();
    fs::write(folder.join("capture.json"), facts.to_string()).unwrap();
    fixture.reopen().await.unwrap();
    let spec = start(&fixture, 1).await;
    assert_eq!(boot_of(&fixture, &spec).await, Boot::Cold);
    assert!(fixture.back_end().machines.templates().await.unwrap().is_empty());
    assert_eq!(output_of(&fixture, &spec, "echo alive").await, "alive\n");
    let next = start(&fixture, 2).await;
    assert_eq!(boot_of(&fixture, &next).await, Boot::Clone, "a new one was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_that_was_replaced_asks_for_another() {
    let mut fixture = Qemu::new().await;
    let guest = fixture.own_guest();
    fixture.reopen().await.unwrap();
    let first = start(&fixture, 1).await;
    is_saved(&fixture).await;
    let name = fixture.back_end().machines.templates().await.unwrap().remove(0).name;
    let again = guest.join("again");
    fs::copy(guest.join("vmlinuz"), &again).unwrap();
    fs::rename(&again, guest.join("vmlinuz")).unwrap();
    let second = start(&fixture, 2).await;
    assert_eq!(
        (boot_of(&fixture, &first).await, boot_of(&fixture, &second).await),
        (Boot::Clone, Boot::Clone)
    );
    let names: Vec<_> =
        fixture.back_end().machines.templates().await.unwrap().into_iter().map(|one| one.name).collect();
    assert!(names.len() == 2 && names.contains(&name), "{names:?}");
    fixture.reopen().await.unwrap();
    let left = fixture.back_end().machines.templates().await.unwrap();
    assert!(left.iter().all(|one| one.name != name), "what can never be used again is kept: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_while_one_is_made_leaves_nothing() {
    let mut fixture = Qemu::new().await;
    fixture.own_guest();
    fixture.reopen().await.unwrap();
    let machines = fixture.back_end().machines;
    let spec = MachineSpec { memory_bytes: 700 << 20, ..prepare(&fixture, &container(1)).await.unwrap() };
    assert!(!machines.prepare(&spec, Duration::ZERO).await.unwrap());
    let making = || {
        let folder = fixture.folder().join("templates");
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.join("unclaimed.json").exists()).collect::<Vec<_>>()
    };
    becomes("none is being made", || async { !making().is_empty() }).await;
    let maker = fs::read_to_string(making()[0].join("unclaimed.json")).unwrap();
    let maker: serde_json::Value = serde_json::from_str(&maker).unwrap();
    let process = format!("/proc/{}/stat", maker["process"]["pid"]);
    fixture.qemu.close().await;
    becomes("it is still being made", || async {
        !fs::read_to_string(&process).is_ok_and(|stat| !stat.contains(") Z "))
    })
    .await;
    fixture.reopen().await.unwrap();
    let left = fs::read_dir(fixture.folder().join("templates")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_the_next_server_a_boot_and_nothing_else() {
    let fixture = Qemu::new().await;
    let folder = fixture.folder().join("templates");
    // Room for a machine's folder, none for a template.
    let mount = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "full"])
        .arg(&folder)
        .status();
    assert!(mount.unwrap().success());
    let spec = MachineSpec { memory_bytes: 1100 << 20, ..prepare(&fixture, &container(1)).await.unwrap() };
    let machines = fixture.back_end().machines;
    assert!(machines.prepare(&spec, BOOT_DEADLINE).await.unwrap());
    machines.start(&spec).await.unwrap();
    let boot = boot_of(&fixture, &spec).await;
    becomes("half of a template is left", || async { fs::read_dir(&folder).unwrap().next().is_none() }).await;
    machines.kill(&spec.id).await.unwrap();
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&folder).status();
    assert!(unmounted.unwrap().success());
    assert_eq!(boot, Boot::Clone);
}

/// `BULKHEAD_CLONES` says how many; a run for figures takes a thousand.
#[tokio::test(flavor = "multi_thread")]
async fn clones_in_a_row_leave_nothing() {
    let fixture = Qemu::new().await;
    let count = std::env::var("BULKHEAD_CLONES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_u32);
    let back_end = fixture.back_end();
    let mut before = None;
    let mut times = Vec::new();
    for number in 0..count {
        let spec = prepare(&fixture, &container(u8::try_from(number % 200).unwrap())).await.unwrap();
        let begun = Instant::now();
        back_end.machines.start(&spec).await.unwrap();
        assert_eq!(boot_of(&fixture, &spec).await, Boot::Clone);
        let told = output_of(&fixture, &spec, "echo alive").await;
        times.push(begun.elapsed());
        assert_eq!(told, "alive\n", "number {number}");
        ended(&back_end, &spec.id).await.unwrap();
        back_end.machines.delete(&spec.id).await.unwrap();
        back_end.disks.delete_disk(spec.vch, spec.placement.disk_of(&spec.id)).await.unwrap();
        back_end.journals.delete(&spec.id).await.unwrap();
        let held = held(&fixture);
        // What stays for good was there after the second.
        if number == 1 {
            before = Some(held);
        } else if let Some(before) = &before {
            assert_eq!(&held, before, "after number {number}");
        }
    }
    times.sort();
    println!(
        "{count} clones, start to end of output: median {:?}, longest {:?}",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

/// Files of the installation, and descriptors of this process.
fn held(fixture: &Qemu) -> (Vec<PathBuf>, usize) {
    let mut files = Vec::new();
    let mut folders = vec![fixture.folder().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            files.push(entry.path());
        }
    }
    files.sort();
    (files, fs::read_dir("/proc/self/fd").unwrap().count())
}
