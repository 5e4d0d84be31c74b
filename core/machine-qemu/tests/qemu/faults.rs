//! What happens to a machine whose parts fail or misbehave.

use crate::fixture::{Qemu, shell};
use bulkhead_guest_protocol::message::ReplyBody;
use bulkhead_machine::conformance::{
    Does, Fixture, container, ended, exit, greet, prepare, records, run, start_process,
};
use bulkhead_machine::{Condition, MachineSpec};
use bulkhead_model::Digest;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

async fn signal(fixture: &Qemu, spec: &MachineSpec, signal: Signal) {
    kill(Pid::from_raw(fixture.pid(&spec.id).await.cast_signed()), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_hypervisor_is_an_ended_machine_and_leaves_nothing() {
    let fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    signal(&fixture, &spec, Signal::SIGKILL).await;
    let reason = ended(&fixture.back_end(), &spec.id).await.unwrap();
    assert!(reason.starts_with("the hypervisor process ended"), "{reason}");
    fixture.back_end().machines.delete(&spec.id).await.unwrap();
    assert_eq!(fs::read_dir(fixture.folder().join("machines")).unwrap().count(), 0);
    for controller in ["cpu", "memory", ""] {
        assert!(!fs::exists(format!("/sys/fs/cgroup/{controller}/bulkhead/{}", spec.id)).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hypervisor_that_hangs_is_killed_all_the_same() {
    let fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    signal(&fixture, &spec, Signal::SIGSTOP).await;
    let told = Instant::now();
    fixture.back_end().machines.kill(&spec.id).await.unwrap();
    assert!(told.elapsed() < Duration::from_secs(5), "it took {:?}", told.elapsed());
    assert_eq!(ended(&fixture.back_end(), &spec.id).await.unwrap(), "killed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_server_is_found_by_the_next() {
    let mut fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    let pid = fixture.pid(&spec.id).await;
    fixture.qemu.close().await;
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    while fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::task::yield_now().await;
    }
    let back_end = fixture.reopen().await.unwrap();
    let facts = back_end.machines.observe(&spec.id).await.unwrap().unwrap();
    assert_eq!(facts.condition, Condition::Ended { reason: "the hypervisor process ended".into() });
    back_end.machines.delete(&spec.id).await.unwrap();
    assert!(back_end.machines.observe(&spec.id).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_told_in_the_guests_words_also_if_nobody_listened() {
    let mut fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    fixture.back_end().machines.start(&spec).await.unwrap();
    let (mut agent, _) = greet(&fixture.back_end(), &spec).await.unwrap();
    let process = shell("sleep 1; echo c > /proc/sysrq-trigger; sleep 1000");
    let reply = run(&fixture.back_end(), &spec, &mut agent, process).await.unwrap();
    assert!(matches!(reply, ReplyBody::Started { .. }), "{reply:?}");
    // The server goes away before it happens.
    let back_end = fixture.reopen().await.unwrap();
    let reason = ended(&back_end, &spec.id).await.unwrap();
    assert_eq!(reason, "guest panicked: sysrq triggered crash");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_writes_past_the_cap_of_its_journal_is_ended() {
    let fixture = Qemu::new().await;
    let spec = MachineSpec { journal_bytes_max: 1 << 20, ..prepare(&fixture, &container(1)).await.unwrap() };
    fixture.back_end().machines.start(&spec).await.unwrap();
    // As QEMU would write what a guest sends around its agent.
    let mut journal = fs::OpenOptions::new()
        .append(true)
        .open(fixture.folder().join("journals").join(spec.id.as_str()))
        .unwrap();
    journal.write_all(&vec![b'x'; 3 << 20]).unwrap();
    fixture.back_end().journals.read(&spec.id, 0, 4096).await.unwrap();
    let reason = ended(&fixture.back_end(), &spec.id).await.unwrap();
    assert_eq!(reason, "the guest wrote past the cap of its journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_carries_127_layers() {
    let fixture = Qemu::new().await;
    let mut spec = prepare(&fixture, &container(1)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    for number in 2..=127 {
        let (root, layer) = (folder.path().join("root"), folder.path().join("layer"));
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("newest"), number.to_string()).unwrap();
        let made = std::process::Command::new("mkfs.erofs").arg("--quiet").arg(&layer).arg(&root).status();
        assert!(made.unwrap().success());
        let staged = fixture.back_end().disks.stage_layer(spec.vch).await.unwrap();
        staged.file().unwrap().write_all(&fs::read(&layer).unwrap()).unwrap();
        let diff_id = Digest::of(number.to_string().as_bytes());
        staged.commit(&diff_id).await.unwrap();
        spec.layers.push(diff_id);
        fs::remove_file(&layer).unwrap();
    }
    let back_end = fixture.back_end();
    back_end.machines.start(&spec).await.unwrap();
    let (mut agent, _) = greet(&back_end, &spec).await.unwrap();
    let process = shell("test \"$(cat /newest)\" = 127");
    run(&back_end, &spec, &mut agent, process).await.unwrap();
    let told = records(&back_end, &spec.id, 1).await.unwrap();
    assert_eq!(exit(&told).unwrap().code, 0, "{told:?}");

    let too_many = [spec.layers.clone(), vec![spec.layers[0].clone()]].concat();
    let spec = MachineSpec { id: container(2), layers: too_many, ..spec };
    let refused = back_end.machines.start(&spec).await.unwrap_err().to_string();
    assert!(refused.contains("128 layers are more than the 127"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writable_disk_is_never_shared() {
    let fixture = Qemu::new().await;
    let spec = prepare(&fixture, &container(1)).await.unwrap();
    drop(start_process(&fixture, &spec, &[Does::Sleep]).await.unwrap());
    let other = prepare(&fixture, &container(2)).await.unwrap();
    let disks = fixture.folder().join("vchs").join(spec.vch.to_string()).join("disks");
    fs::remove_file(disks.join(format!("{}.ext4", other.id))).unwrap();
    fs::hard_link(disks.join(format!("{}.ext4", spec.id)), disks.join(format!("{}.ext4", other.id))).unwrap();
    fixture.back_end().machines.start(&other).await.unwrap();
    let reason = ended(&fixture.back_end(), &other.id).await.unwrap();
    assert!(reason.contains("lock"), "{reason}");
    let templates = fixture.back_end().machines.templates().await.unwrap();
    assert!(!templates.is_empty(), "the template is not to blame");
}
