//! Machines that are cloned ahead of need.

use crate::fixture::{Qemu, shell};
use bulkhead_machine::MachineSpec;
use bulkhead_machine::conformance::{
    BOOT_DEADLINE, Does, Fixture, container, ended, greet, output, prepare, records, run, start_process,
};
use bulkhead_model::ContainerId;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LOOK: &str = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname; \
                    busybox head -c 16 /dev/urandom | busybox od -x; busybox ls -a / | busybox sort; \
                    busybox cat /proc/mounts; busybox ls /sys/class/net; busybox ls /sys/class/scsi_disk; dmesg -c";

/// Until there are so many, of all templates.
async fn spares(fixture: &Qemu, count: u32) {
    let look = async {
        loop {
            let templates = fixture.back_end().machines.templates().await.unwrap();
            if templates.iter().map(|template| template.spares).sum::<u32>() == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(BOOT_DEADLINE, look).await.is_ok(), "there are not {count} spares");
}

/// The folders of those that there are.
fn folders(fixture: &Qemu) -> Vec<PathBuf> {
    let entries = fs::read_dir(fixture.folder().join("spares")).unwrap();
    let mut found: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

fn pid(folder: &std::path::Path) -> u64 {
    let note: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("unclaimed.json")).unwrap()).unwrap();
    note["process"]["pid"].as_u64().unwrap()
}

fn runs(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Starts a machine and runs the script in it.
async fn told(fixture: &Qemu, id: &ContainerId, script: &str) -> (MachineSpec, String) {
    let spec = prepare(fixture, id).await.unwrap();
    let back_end = fixture.back_end();
    assert!(back_end.machines.prepare(&spec, BOOT_DEADLINE).await.unwrap());
    back_end.machines.start(&spec).await.unwrap();
    let (mut agent, _) = greet(&back_end, &spec).await.unwrap();
    run(&back_end, &spec, &mut agent, shell(script)).await.unwrap();
    let told = records(&back_end, &spec.id, 1).await.unwrap();
    (spec, output(&told, 1))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_takes_one_and_is_like_any_other() {
    let fixture = Qemu::with_spares(2).await;
    // Nobody has asked for anything yet.
    assert!(folders(&fixture).is_empty());
    let begun = Instant::now();
    let (cloned, as_clone) = told(&fixture, &container(1), LOOK).await;
    let clone_took = begun.elapsed();
    ended(&fixture.back_end(), &cloned.id).await.unwrap();
    spares(&fixture, 2).await;
    let waiting: Vec<u64> = folders(&fixture).iter().map(|folder| pid(folder)).collect();
    let begun = Instant::now();
    let (spec, as_spare) = told(&fixture, &container(2), LOOK).await;
    println!("a clone took {clone_took:?}, a spare {:?}", begun.elapsed());
    let (_, as_other) = told(&fixture, &container(3), LOOK).await;
    // What identifies a machine is its own; all else is the same, and nothing tells of a rehearsal.
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (clone, spare, other) = (lines(&as_clone), lines(&as_spare), lines(&as_other));
    for number in 0..3 {
        assert_ne!(spare[number], clone[number], "{as_spare}");
        assert_ne!(spare[number], other[number], "{as_spare}");
    }
    assert_eq!(spare[3..], clone[3..], "{as_spare}\n---\n{as_clone}");
    assert!(!as_spare.contains("rehearsal"), "{as_spare}");
    // It is one of those that waited, in a folder of its own name, and the next server finds it.
    let found = fs::read_dir(fixture.folder().join("machines").join(spec.id.as_str())).unwrap();
    assert!(found.flatten().any(|entry| entry.file_name() == "loaded"));
    let record =
        fs::read(fixture.folder().join("machines").join(spec.id.as_str()).join("machine.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert!(waiting.contains(&record["process"]["pid"].as_u64().unwrap()));
    ended(&fixture.back_end(), &spec.id).await.unwrap();
    fixture.back_end().machines.delete(&spec.id).await.unwrap();
    // Others come in their place, when it is calm.
    spares(&fixture, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_was_taken_outlives_its_server_and_those_that_wait_do_not() {
    let mut fixture = Qemu::with_spares(1).await;
    let (first, _) = told(&fixture, &container(1), "exit 0").await;
    ended(&fixture.back_end(), &first.id).await.unwrap();
    spares(&fixture, 1).await;
    let spec = prepare(&fixture, &container(2)).await.unwrap();
    drop(start_process(&fixture, &spec, &[Does::Sleep]).await.unwrap());
    let before = fixture.back_end().machines.observe(&spec.id).await.unwrap();
    spares(&fixture, 1).await;
    let waited: Vec<u64> = folders(&fixture).iter().map(|folder| pid(folder)).collect();
    fixture.reopen().await.unwrap();
    assert_eq!(fixture.back_end().machines.observe(&spec.id).await.unwrap(), before);
    assert!(folders(&fixture).is_empty() && !waited.iter().any(|pid| runs(*pid)));
    let found = fixture.back_end().inventory.found().await.unwrap();
    let processes = found.iter().filter(|one| one.kind == bulkhead_machine::inventory::Kind::Process);
    assert_eq!(processes.map(|one| one.of.clone()).collect::<Vec<_>>(), [spec.id.to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_one_that_works_a_machine_is_cloned() {
    let fixture = Qemu::with_spares(1).await;
    let (first, _) = told(&fixture, &container(1), "exit 0").await;
    ended(&fixture.back_end(), &first.id).await.unwrap();
    spares(&fixture, 1).await;
    // It ended by itself.
    let dead = pid(&folders(&fixture)[0]);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(dead as i32), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let (second, said) = told(&fixture, &container(2), "echo there").await;
    assert_eq!(said, "there\n");
    ended(&fixture.back_end(), &second.id).await.unwrap();
    spares(&fixture, 1).await;
    // It stands still when it is to be given its disks.
    let stopped = nix::unistd::Pid::from_raw(pid(&folders(&fixture)[0]) as i32);
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let (_, said) = told(&fixture, &container(3), "echo there").await;
    assert_eq!(said, "there\n");
    assert!(!runs(stopped.as_raw() as u64));
}
