//! Real machines: the guest image under QEMU, with layers and a disk, driven over its two ports.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test"
)]

mod files;
mod interior;
mod machine;
mod streams;

use bulkhead_guest_protocol::frame;
use bulkhead_guest_protocol::journal::{Exited, Stream};
use bulkhead_guest_protocol::message::{AgentState, Interior, ReplyBody, Request, RequestBody};
use machine::{HOSTNAME, Machine, Parts, RUN, exited, failed, make_disk, output, process, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Two layers, the upper one changing a file of the lower.
fn make_layers(folder: &Path) -> [PathBuf; 2] {
    let (bottom, top) = (folder.join("bottom"), folder.join("top"));
    for path in ["bin", "etc", "tmp", "mnt"] {
        fs::create_dir_all(bottom.join(path)).unwrap();
    }
    fs::copy("/bin/busybox", bottom.join("bin/busybox")).expect("busybox-static is needed");
    for applet in [
        "sh", "cat", "id", "ls", "yes", "head", "mknod", "sleep", "ps", "hostname", "stat", "ip", "tail",
        "dd", "date", "mount", "mkdir", "seq", "tr", "tty", "stty", "wc", "grep", "ln", "rm",
    ] {
        symlink("busybox", bottom.join("bin").join(applet)).unwrap();
    }
    fs::set_permissions(bottom.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(bottom.join("bin/plain"), "no program").unwrap();
    fs::write(bottom.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n")
        .unwrap();
    fs::write(bottom.join("etc/group"), "root:x:0:\nweb:x:34:\nadm:x:4:web\n").unwrap();
    fs::write(bottom.join("word"), "bottom").unwrap();
    fs::create_dir_all(top.join("etc")).unwrap();
    fs::write(top.join("word"), "top").unwrap();
    // As it is where systemd resolves names; what it points at is not there.
    symlink("../run/systemd/resolve/stub-resolv.conf", top.join("etc/resolv.conf")).unwrap();
    symlink("/nowhere/hostname", top.join("etc/hostname")).unwrap();
    for name in ["bottom", "top"] {
        let [image, source] = [format!("{name}.erofs"), name.to_owned()].map(|name| folder.join(name));
        run("mkfs.erofs", &["--all-root", "--quiet", image.to_str().unwrap(), source.to_str().unwrap()]);
    }
    ["bottom.erofs", "top.erofs"].map(|name| folder.join(name))
}

/// A new disk with layers beside it.
fn parts(folder: &Path) -> Parts {
    let disk = folder.join("disk");
    make_disk(&disk);
    Parts { layers: make_layers(folder).to_vec(), disk, memory_mib: 256 }
}

/// A machine with a new disk.
fn boot() -> (Machine, TempDir) {
    let folder = TempDir::new().unwrap();
    (Machine::boot(&parts(folder.path())), folder)
}

fn shell(script: &str) -> bulkhead_guest_protocol::message::Process {
    process(&["sh", "-c", script])
}

fn started(reply: &ReplyBody) {
    assert!(matches!(reply, ReplyBody::Started { .. }), "{reply:?}");
}

#[test]
fn a_process_runs_as_its_user_and_its_changes_stay() {
    let folder = TempDir::new().unwrap();
    let parts = parts(folder.path());
    let script = "echo pid $$; hostname; id; pwd; echo $HOME; cat /word; echo; ps | tail -n +2 | head -n 1; echo data > /tmp/kept; \
                  cat /etc/hosts | tail -n 1; ls -A /dev; printf 'to stderr' >&2; exit 7";
    let mut machine = Machine::boot(&parts);
    assert_eq!(machine.hello.state, AgentState::Ready);
    let mut asked = shell(script);
    asked.user = "web".to_owned();
    asked.working_dir = "/srv/app".to_owned();
    let mut start = machine::start(asked, 2);
    start.interior.limits.cpu_quota_milli = 500;
    let reply = machine.call(RequestBody::Start(Box::new(start)));
    started(&reply);
    let records = machine.wait_for_end();
    assert_eq!(exited(&records), Exited { code: 7, ..Exited::default() });
    assert_eq!(output(&records, Stream::Stderr), "to stderr");
    let text = output(&records, Stream::Stdout);
    let lines: Vec<&str> = text.lines().collect();
    let expect = ["pid 1", HOSTNAME, "uid=33(web) gid=34(web) groups=4(adm)", "/srv/app", "/var/www", "top"];
    assert_eq!(lines[..6], expect, "{text}");
    assert!(lines[6].trim().starts_with("1 web"), "{text}");
    assert_eq!(lines[7], format!("127.0.0.1\t{HOSTNAME}"));
    let devices = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(lines[8..].join(" "), devices);
    drop(machine);

    let mut machine = Machine::boot(&parts);
    started(&machine.start(process(&["cat", "/tmp/kept"]), 2));
    let records = machine.wait_for_end();
    assert_eq!((output(&records, Stream::Stdout).as_str(), exited(&records).code), ("data\n", 0));
}

/// Root without privileges has no way to the agent, its ports or the raw disks.
#[test]
fn the_container_is_shut_in() {
    let (mut machine, _folder) = boot();
    let script = "mknod /tmp/sda b 8 0 && cat /tmp/sda; mknod /tmp/port c 245 1; head -c 1 /tmp/port; echo x > /proc/sys/kernel/hostname; \
                  mount -t tmpfs none /tmp; echo a > /sys/x; ls /sys/firmware; ls /sys/class/virtio-ports >/dev/null; cat /proc/kcore; \
                  while read -r line; do case $line in Cap*) echo $line;; esac; done < /proc/self/status; \
                  echo 1.2.3.4 mine >> /etc/hosts; tail -n 1 /etc/hosts; echo x > /dev/full; \
                  cat /sys/fs/cgroup/cgroup.procs | head -n 1; stat -c %a / /dev/shm /dev/null; ip addr show dev lo | head -n 1";
    started(&machine.start(shell(script), 2));
    let records = machine.wait_for_end();
    let (text, errors) = (output(&records, Stream::Stdout), output(&records, Stream::Stderr));
    let expect_errors = [
        "cat: can't open '/tmp/sda': Operation not permitted",
        "head: /tmp/port: Operation not permitted",
        "sh: can't create /proc/sys/kernel/hostname: Read-only file system",
        "mount: permission denied (are you root?)",
        "sh: can't create /sys/x: ",
        "sh: write error: No space left on device",
    ];
    for expect in expect_errors {
        assert!(errors.contains(expect), "`{expect}` is not in: {errors}");
    }
    let caps = "00000000a80425fb";
    let sets = ["0000000000000000", caps, caps, caps, "0000000000000000"];
    let names = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"];
    let mut expect: Vec<String> =
        names.iter().zip(sets).map(|(name, set)| format!("{name}: {set}")).collect();
    expect.extend(["1.2.3.4 mine", "1", "755", "1777", "666"].map(str::to_owned));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..expect.len()], expect, "{text}\n{errors}");
    assert!(lines[expect.len()].contains("LOOPBACK,UP"), "{text}");
}

#[test]
fn a_privileged_container_may_do_everything_in_its_machine() {
    let (mut machine, _folder) = boot();
    let script = "while read -r line; do case $line in CapEff*) echo $line;; esac; done < /proc/self/status; \
                  mount -t tmpfs none /mnt && echo mounted; echo renamed > /proc/sys/kernel/hostname && hostname; \
                  mkdir /sys/fs/cgroup/mine && echo grouped; mknod /tmp/sda b 8 0 && head -c 0 /tmp/sda && echo opened; \
                  cat /etc/hostname /run/systemd/resolve/stub-resolv.conf /nowhere/hostname";
    let mut asked = shell(script);
    asked.capabilities = u64::MAX;
    asked.filtered = false;
    let mut start = machine::start(asked, 2);
    start.interior = Interior { privileged: true, ..Interior::default() };
    started(&machine.call(RequestBody::Start(Box::new(start))));
    let records = machine.wait_for_end();
    let expect =
        format!("CapEff: 000001ffffffffff\nmounted\nrenamed\ngrouped\nopened\n{HOSTNAME}\n{HOSTNAME}\n");
    assert_eq!(output(&records, Stream::Stdout), expect, "{}", output(&records, Stream::Stderr));
}

#[test]
fn output_waits_for_credit_and_survives_a_reconnect() {
    let (mut machine, _folder) = boot();
    let mut first =
        machine::start(shell("trap 'exit 3' TERM; seq 1 60000; echo end; while :; do sleep 1; done"), 2);
    first.journal_limit = 100_000;
    let reply = machine.call(RequestBody::Start(Box::new(first.clone())));
    started(&reply);
    assert_eq!(machine.call(RequestBody::Start(Box::new(first.clone()))), reply, "a repetition");
    first.run += 1;
    assert!(matches!(machine.call(RequestBody::Start(Box::new(first))), ReplyBody::Refused { .. }));
    machine.wait_for_output(|text| text.len() > 99_000);

    // Cut in the middle of a request.
    let request = Request { id: 900, body: RequestBody::Signal { number: 9 } };
    let frame = frame::encode(&request).unwrap();
    machine.send_bytes(&frame[..frame.len() - 2]);
    machine.reconnect();
    assert!(matches!(machine.hello.state, AgentState::Running { run: RUN, .. }));
    assert!(machine.journal_bytes().len() <= 100_000);
    for limit in (150_000_u64..1_000_000).step_by(50_000) {
        assert_eq!(machine.call(RequestBody::JournalLimit { offset: limit }), ReplyBody::Done);
        assert!(machine.journal_bytes().len() as u64 <= limit);
    }
    let text = machine.wait_for_output(|text| text.ends_with("end\n"));
    let expect: String = (1..=60_000).map(|number| format!("{number}\n")).collect();
    assert!(text == expect + "end\n", "lines are lost or doubled");
    assert_eq!(machine.call(RequestBody::SetClock { unix_ns: 1_800_000_000_000_000_000 }), ReplyBody::Done);
    assert_eq!(machine.call(RequestBody::Signal { number: 15 }), ReplyBody::Done);
    let records = machine.wait_for_end();
    assert_eq!(exited(&records).code, 3);
    assert!(records.last().unwrap().unix_ns >= 1_800_000_000_000_000_000);
}

#[test]
fn what_cannot_run_is_said_and_ends_the_machine() {
    let mut unknown_user = shell("true");
    unknown_user.user = "eve".to_owned();
    let cases = [
        (unknown_user, 126, "unable to find user eve: no matching entries in passwd file"),
        (process(&["nope"]), 127, "exec: \"nope\": executable file not found in $PATH"),
        (process(&["/bin/plain"]), 126, "exec: \"/bin/plain\": permission denied"),
        (process(&["/bin/none"]), 127, "exec: \"/bin/none\": stat /bin/none: no such file or directory"),
    ];
    for (asked, code, message) in cases {
        let (mut machine, _folder) = boot();
        // An image may have no layers at all; then there is no program either.
        let layer_count = if asked.args == ["/bin/none"] { 0 } else { 2 };
        let reply = machine.start(asked, layer_count);
        let records = machine.wait_for_end();
        assert_eq!(failed(&reply, &records), (code, message.to_owned()));
    }
}

#[test]
fn a_disk_without_a_file_system_is_named() {
    let folder = TempDir::new().unwrap();
    let parts = parts(folder.path());
    fs::write(&parts.disk, [0; 1 << 20]).unwrap();
    let mut machine = Machine::boot(&parts);
    let reply = machine.start(shell("true"), 2);
    let records = machine.wait_for_end();
    assert_eq!(failed(&reply, &records), (125, "the container's disk has no ext4 file system".to_owned()));
}

#[test]
fn memory_runs_out_for_the_container_and_not_for_the_agent() {
    let (mut machine, _folder) = boot();
    started(&machine.start(process(&["tail", "/dev/zero"]), 2));
    let records = machine.wait_for_end();
    let expect = Exited { code: 137, signal: Some(9), oom_killed: true, error: String::new() };
    assert_eq!(exited(&records), expect);
}

#[test]
fn a_machine_switches_off_on_request() {
    let (mut machine, _folder) = boot();
    let early = RequestBody::Signal { number: 15 };
    assert!(matches!(machine.call(early), ReplyBody::Refused { .. }));
    assert_eq!(machine.call(RequestBody::PowerOff), ReplyBody::Done);
    assert_eq!(machine.wait_for_end(), []);
    drop(machine);

    let (mut machine, _folder) = boot();
    let mut endless = machine::start(process(&["yes"]), 2);
    endless.journal_limit = 70_000;
    started(&machine.call(RequestBody::Start(Box::new(endless))));
    machine.wait_for_output(|text| text.len() > 60_000);
    assert_eq!(machine.call(RequestBody::PowerOff), ReplyBody::Done);
    assert_eq!(exited(&machine.wait_for_end()).code, 137);
}
