//! What a QEMU may do that its guest took over: nothing to the host, nothing to another.

use crate::fixture::Qemu;
use bulkhead_machine::conformance::{Fixture, container, prepare};
use std::collections::HashMap;
use std::fs;

fn status(pid: u32) -> HashMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(k, v)| (k.to_owned(), v.trim().to_owned()))
        .collect()
}

/// Waits for a fact about a process that has only just been started.
async fn becomes(what: &str, fact: impl Fn() -> bool) {
    for _ in 0..2000 {
        if fact() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_has_no_privileges_and_sees_nothing_of_the_host() {
    let fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    let pid = fixture.pid(&spec.id).await;
    // QEMU filters its own system calls once it has opened what it was given.
    becomes("no seccomp filter", || status(pid).get("Seccomp").is_some_and(|mode| mode == "2")).await;
    let status = status(pid);
    for key in ["Uid", "Gid"] {
        assert_eq!(status[key], ["1900000000"; 4].join("\t"), "{key}");
    }
    assert_eq!(status["Groups"], "");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    for kind in ["net", "ipc", "uts", "mnt"] {
        let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).unwrap();
        assert_ne!(namespace(&pid.to_string()), namespace("self"), "{kind}");
    }
    let root = format!("/proc/{pid}/root");
    let mut top: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    top.retain(|name| !["usr", "lib", "lib32", "lib64"].iter().any(|own| name == own));
    top.sort();
    assert_eq!(top, ["dev", "etc", "guest"]);
    let names = |folder: &str| -> Vec<_> {
        let entries = fs::read_dir(format!("{root}/{folder}")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!((names("dev"), names("etc")), (vec!["null".to_owned()], vec!["ld.so.cache".to_owned()]));
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    for mount in mounts.lines().filter(|mount| !mount.contains(" /dev/null ")) {
        let options = mount.split(' ').nth(5).unwrap();
        assert!(
            options.starts_with("ro,") && options.contains("nosuid") && options.contains("nodev"),
            "{mount}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_holds_its_own_files_only_and_no_layer_for_writing() {
    let fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    let pid = fixture.pid(&spec.id).await;
    let data = fixture.folder().canonicalize().unwrap();
    let mut held = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let entry = entry.unwrap();
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if let Ok(file) = target.strip_prefix(&data) {
            let info =
                fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", entry.file_name().display())).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim().to_owned();
            let writes = u32::from_str_radix(&flags, 8).unwrap() & 0o3 != 0;
            held.push((file.to_str().unwrap().to_owned(), writes));
        }
    }
    held.sort();
    held.dedup();
    let id = &spec.id;
    let layer = spec.layers[0].hex();
    let own = [
        (format!("journals/{id}"), true),
        (format!("vchs/{}/disks/{id}.ext4", spec.vch), true),
        (format!("vchs/{}/layers/{layer}.erofs", spec.vch), false),
    ];
    assert_eq!(held, own);
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!line.contains(&"5a".repeat(32)), "every user of the host can read the token");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_machines_have_two_users() {
    let fixture = Qemu::new().await;
    let mut users = Vec::new();
    for number in [1, 2] {
        let spec = prepare(&fixture, &container(number)).await.unwrap();
        fixture.back_end().machines.start(&spec).await.unwrap();
        users.push(status(fixture.pid(&spec.id).await)["Uid"].clone());
    }
    assert_ne!(users[0], users[1]);
    // A user id is free again only when its machine is deleted.
    let machines = fixture.back_end().machines;
    machines.kill(&container(1)).await.unwrap();
    let spec = prepare(&fixture, &container(3)).await.unwrap();
    machines.start(&spec).await.unwrap();
    assert!(!users.contains(&status(fixture.pid(&spec.id).await)["Uid"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_limited_by_its_control_group() {
    let fixture = Qemu::new().await;
    let limits = fixture.back_end().machines.capabilities().limits.clone();
    if limits == "none" {
        eprintln!("not possible here: no cgroup controllers");
        return;
    }
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    let groups = fs::read_to_string(format!("/proc/{}/cgroup", fixture.pid(&spec.id).await)).unwrap();
    let own = groups.lines().filter(|line| line.ends_with(&format!("/bulkhead/{}", spec.id))).count();
    assert_eq!(own, if limits == "cgroup-v2" { 1 } else { 2 }, "{groups}");
}
