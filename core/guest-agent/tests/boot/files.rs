//! Work on the container's files: while its process runs, and in a machine without one.

use crate::machine::{Heard, Machine};
use crate::{Parts, boot, make_disk, make_layers, shell, started};
use bulkhead_guest_protocol::files::{
    Assemble, Change, ChangeKind, Failed, FileTask, Files, PathStat, decode_item,
};
use bulkhead_guest_protocol::journal::Stream;
use bulkhead_guest_protocol::message::{Event, ReplyBody, RequestBody};
use bulkhead_guest_protocol::volumes::Volumes;
use std::collections::BTreeMap;
use std::io::Read;
use tempfile::TempDir;

const WINDOW: u32 = 8 << 20;

/// What a task said, and its code.
#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    why: String,
    code: i32,
}

fn begin(machine: &mut Machine, stream: u32, task: FileTask) {
    let files = Files { stream, task, window: WINDOW };
    started(&machine.call(RequestBody::Files(Box::new(files))));
}

fn end(machine: &mut Machine, stream: u32) -> Answer {
    let mut answer = Answer { bytes: Vec::new(), why: String::new(), code: 0 };
    loop {
        match machine.next_event() {
            Event::Output { stream: from, of: Stream::Stdout, data } if from == stream => {
                answer.bytes.extend(data);
            }
            Event::Output { stream: from, data, .. } if from == stream => {
                answer.why.push_str(&String::from_utf8(data).unwrap());
            }
            Event::Ended { stream: from, exited } if from == stream => {
                answer.code = exited.code;
                return answer;
            }
            _ => {}
        }
    }
}

fn task(machine: &mut Machine, stream: u32, task: FileTask) -> Answer {
    begin(machine, stream, task);
    end(machine, stream)
}

fn write(machine: &mut Machine, stream: u32, path: &str, archive: &[u8], owner: Option<&str>) -> Answer {
    let asked = FileTask::Write {
        path: path.to_owned(),
        keep_kinds: true,
        owner: owner.map(str::to_owned),
        read_only: false,
    };
    begin(machine, stream, asked);
    // All fits the window.
    for piece in archive.chunks(8192) {
        machine.tell(RequestBody::Input { stream, data: piece.to_vec() });
    }
    machine.tell(RequestBody::InputEnd { stream });
    end(machine, stream)
}

fn stat(machine: &mut Machine, stream: u32, path: &str) -> Result<PathStat, Failed> {
    let answer = task(machine, stream, FileTask::Stat { path: path.to_owned() });
    match answer.code {
        0 => Ok(decode_item(&answer.bytes).unwrap().unwrap().0),
        code => Err(Failed::of(code)),
    }
}

/// Names and contents, in order.
fn listing(archive: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        if let Some(link) = entry.link_name_bytes() {
            text = [b"-> ", link.as_ref()].concat();
        }
        (String::from_utf8(entry.path_bytes().to_vec()).unwrap(), String::from_utf8_lossy(&text).into_owned())
    });
    entries.collect()
}

fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    build(&mut builder);
    builder.into_inner().unwrap()
}

fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, text: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(mode);
    header.set_uid(33);
    header.set_gid(44);
    header.set_mtime(1_600_000_000);
    // As a hostile archive would have it.
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    builder.append(&header, text.as_bytes()).unwrap();
}

fn changes(machine: &mut Machine, stream: u32) -> Vec<(ChangeKind, String)> {
    let answer = task(machine, stream, FileTask::Changes { mounts: vec!["/mnt".into()] });
    assert_eq!(answer.code, 0, "{}", answer.why);
    let (mut all, mut rest) = (Vec::new(), answer.bytes.as_slice());
    while let Some((change, length)) = decode_item::<Change>(rest).unwrap() {
        all.push((change.kind, String::from_utf8(change.path).unwrap()));
        rest = &rest[length..];
    }
    all
}

#[test]
fn files_of_a_container_that_runs() {
    let (mut machine, _folder) = boot();
    let script = "ln -s /etc /tmp/link; mkdir -p /a/b; echo one > /a/b/c; ln /a/b/c /a/b/d; rm /word; mkdir /gone; \
                  rm -r /bin/plain; echo new > /etc/new; mkdir /mnt/x; ln -s /nowhere /tmp/dangling; echo ready; \
                  while :; do echo tick >> /tmp/ticks; done";
    let mut asked = crate::machine::start(shell(script), 2);
    asked.interior.tmpfs = vec![bulkhead_guest_protocol::message::Tmpfs {
        target: "/mnt".into(),
        executable: true,
        ..Default::default()
    }];
    started(&machine.call(RequestBody::Start(Box::new(asked))));
    machine.wait_for_output(|text| text == "ready\n");

    // What is at a path, as Docker sees paths.
    assert_eq!(stat(&mut machine, 1, "/nope").unwrap_err(), Failed::NotFound);
    assert_eq!(stat(&mut machine, 2, "/etc/passwd/x").unwrap_err(), Failed::NotFound);
    let link = stat(&mut machine, 3, "/tmp/link").unwrap();
    assert_eq!((link.name.as_str(), link.link_target.as_str()), ("link", "/etc"));
    assert_eq!(link.mode & libc::S_IFMT, libc::S_IFLNK);
    let followed = stat(&mut machine, 4, "tmp/link/").unwrap();
    assert_eq!((followed.name.as_str(), followed.mode), ("link", libc::S_IFDIR | 0o755));
    assert_eq!(stat(&mut machine, 5, "/tmp/dangling").unwrap().link_target, "/nowhere");
    let in_memory = stat(&mut machine, 6, "/mnt/x").unwrap();
    assert_eq!(in_memory.mode & libc::S_IFMT, libc::S_IFDIR);

    // Out.
    let read = task(&mut machine, 7, FileTask::Read { path: "/a".into() });
    let (told, length) = decode_item::<PathStat>(&read.bytes).unwrap().unwrap();
    assert_eq!(told.name, "a");
    let listed = listing(&read.bytes[length..]);
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(names, ["a/", "a/b/", "a/b/c", "a/b/d"]);
    assert!(["one\n", "-> a/b/c", "-> a/b/d"].contains(&listed["a/b/c"].as_str()));

    // In, with owner and mode, over a folder link that stays inside.
    let good = archive(|builder| {
        file(builder, "deep/down/file", 0o4751, "inside");
        file(builder, "./top", 0o600, "top");
    });
    assert_eq!(write(&mut machine, 8, "/tmp/link", &good, None).code, 0);
    let written = stat(&mut machine, 9, "/etc/deep/down/file").unwrap();
    assert_eq!((written.mode & 0o7777, written.size, written.mtime_seconds), (0o4751, 6, 1_600_000_000));
    started(&machine.exec(10, shell("stat -c %u:%g /etc/top /etc/deep"), crate::streams::NONE));
    assert_eq!(machine.hear(10, |_| false).stdout, "33:44\n0:0\n");
    assert_eq!(write(&mut machine, 11, "/etc", &good, Some("web:adm")).code, 0);
    started(&machine.exec(12, shell("stat -c %u:%g /etc/top"), crate::streams::NONE));
    assert_eq!(machine.hear(12, |_| false).stdout, "33:4\n");

    // What must not be.
    let refused = |machine: &mut Machine, stream, path: &str, bytes: &[u8]| {
        let answer = write(machine, stream, path, bytes, None);
        (Failed::of(answer.code), answer.why)
    };
    let escape = archive(|builder| file(builder, "../../out", 0o600, "x"));
    let (why, text) = refused(&mut machine, 13, "/tmp", &escape);
    assert!(why == Failed::BadArchive && text.contains("leads out"), "{text}");
    assert_eq!(refused(&mut machine, 14, "/tmp", &good[..600]).0, Failed::BadArchive);
    assert_eq!(refused(&mut machine, 15, "/nope", &good).0, Failed::NotFound);
    let (why, text) = refused(&mut machine, 16, "/etc/passwd", &good);
    assert_eq!((why, text.as_str()), (Failed::NotFolder, "extraction point is not a directory"));
    let clash = archive(|builder| file(builder, "deep", 0o600, "x"));
    assert_eq!(refused(&mut machine, 17, "/etc", &clash).0, Failed::OtherKind);
    let (why, text) = refused(&mut machine, 18, "/tmp", b"BZh91AY&SY");
    assert!(why == Failed::BadArchive && text.contains("bzip2"), "{text}");

    // What became of the image.
    let listed = changes(&mut machine, 19);
    let has = |kind: ChangeKind, path: &str| {
        assert!(listed.contains(&(kind, path.to_owned())), "no {kind:?} {path} in {listed:?}");
    };
    has(ChangeKind::Added, "/a");
    has(ChangeKind::Added, "/a/b/c");
    has(ChangeKind::Added, "/gone");
    has(ChangeKind::Added, "/etc/new");
    has(ChangeKind::Modified, "/etc");
    has(ChangeKind::Deleted, "/word");
    has(ChangeKind::Modified, "/bin");
    has(ChangeKind::Deleted, "/bin/plain");
    let mounted = ["/proc", "/sys", "/dev", "/mnt", "/etc/hosts", "/etc/hostname", "/run", "/nowhere"];
    for (_, path) in &listed {
        assert!(!mounted.contains(&path.as_str()), "{path} in {listed:?}");
    }

    let layer = task(&mut machine, 20, FileTask::Layer { mounts: Vec::new(), freeze: true });
    assert_eq!(layer.code, 0, "{}", layer.why);
    let listed = listing(&layer.bytes);
    for name in ["a/b/c", ".wh.word", "bin/.wh.plain", "etc/new", "gone/"] {
        assert!(listed.contains_key(name), "no {name} in {:?}", listed.keys());
    }
    assert!(
        !listed.keys().any(|name| name.starts_with("proc") || name == "etc/hosts"),
        "{:?}",
        listed.keys()
    );

    let export = task(&mut machine, 21, FileTask::Export);
    let listed = listing(&export.bytes);
    assert!(listed.contains_key("bin/busybox") && listed.contains_key("proc/"), "{:?}", listed.keys());
    assert!(!listed.keys().any(|name| name.starts_with("proc/1") || name.starts_with("mnt/x")));
    // Its processes go on.
    started(&machine.exec(
        22,
        shell("before=$(wc -c < /tmp/ticks); sleep 1; [ $(wc -c < /tmp/ticks) -gt $before ]"),
        crate::streams::NONE,
    ));
    let Heard { exited, .. } = machine.hear(22, |_| false);
    assert_eq!(exited.unwrap().code, 0);
}

#[test]
fn files_of_a_container_that_does_not_run() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    make_disk(&disk);
    let parts = Parts { layers: make_layers(folder.path()).to_vec(), disk, memory_mib: 256 };
    let mut machine = Machine::boot(&parts);
    let asked = Files { stream: 1, task: FileTask::Export, window: WINDOW };
    assert!(matches!(machine.call(RequestBody::Files(Box::new(asked))), ReplyBody::Refused { .. }));
    let assemble = RequestBody::Assemble(Assemble {
        token: crate::machine::TOKEN,
        unix_ns: 1_700_000_000_000_000_000,
        layer_count: 2,
        volumes: Volumes::default(),
    });
    assert_eq!(machine.call(assemble.clone()), ReplyBody::Done);
    assert_eq!(machine.call(assemble), ReplyBody::Done, "a repetition");
    assert!(matches!(machine.start(shell("true"), 2), ReplyBody::Refused { .. }));
    assert_eq!(changes(&mut machine, 2), []);
    let bytes = archive(|builder| file(builder, "config", 0o640, "before the start"));
    assert_eq!(write(&mut machine, 3, "/etc", &bytes, None).code, 0);
    let read = task(&mut machine, 4, FileTask::Read { path: "/etc/config".into() });
    let (_, length) = decode_item::<PathStat>(&read.bytes).unwrap().unwrap();
    assert_eq!(listing(&read.bytes[length..])["config"], "before the start");
    assert_eq!(
        changes(&mut machine, 5),
        [(ChangeKind::Modified, "/etc".to_owned()), (ChangeKind::Added, "/etc/config".to_owned())]
    );
    assert_eq!(machine.call(RequestBody::PowerOff), ReplyBody::Done);
    assert_eq!(machine.wait_for_end(), []);
    drop(machine);

    let mut machine = Machine::boot(&parts);
    started(&machine.start(shell("cat /etc/config; stat -c %u:%g:%a /etc/config"), 2));
    let records = machine.wait_for_end();
    assert_eq!(crate::output(&records, Stream::Stdout), "before the start33:44:640\n");
}
