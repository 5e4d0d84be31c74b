//! What is around a container's process: file systems in memory, rights, limits, settings.

use super::{boot, shell, started};
use crate::machine::{self, exited, failed, output};
use bulkhead_guest_protocol::journal::Stream;
use bulkhead_guest_protocol::message::{Limit, Process, RequestBody, Start, Tmpfs};

fn prepared(process: Process, change: impl FnOnce(&mut Start)) -> RequestBody {
    let mut start = machine::start(process, 2);
    change(&mut start);
    RequestBody::Start(Box::new(start))
}

fn tmpfs(target: &str, options: &str) -> Tmpfs {
    Tmpfs { target: target.into(), options: options.into(), ..Tmpfs::default() }
}

const STATUS: &str = "while read -r line; do case $line in CapBnd*|NoNewPrivs*|Seccomp:*) echo $line;; esac; done < /proc/self/status";

#[test]
fn a_process_finds_around_it_what_was_asked_for() {
    let (mut machine, _folder) = boot();
    let script = format!(
        "{STATUS}; echo x > /new; echo x > /etc/hosts; echo x > /dev/shm/a && echo shm; stat -c '%a %u' /tmp /run/mine; \
         cat /proc/self/mounts | while read -r a b c d e; do case $b in /run/mine|/tmp|/dev/shm) echo $b $d;; esac; done; \
         cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_unprivileged_port_start; \
         echo x > /proc/sys/net/core/somaxconn; ulimit -n; ulimit -H -c; id -G; cat /proc/self/oom_score_adj; cat /sys/fs/cgroup/pids.max; \
         cat /etc/hosts | tail -n 1; \
         for i in 1 2 3 4 5 6 7 8; do sleep 9 & done"
    );
    let mut asked = shell(&script);
    asked.capabilities = 1 << 21 | 0xff;
    asked.no_new_privileges = true;
    asked.groups = vec!["adm".into(), "777".into()];
    asked.oom_score_adj = -5;
    let unlimited = u64::MAX;
    asked.limits =
        vec![Limit { resource: 7, soft: 64, hard: 128 }, Limit { resource: 4, soft: 0, hard: unlimited }];
    let request = prepared(asked, |start| {
        start.domain_name = "example.org".into();
        let interior = &mut start.interior;
        interior.read_only = true;
        interior.limits.pids_max = 6;
        interior.shm_bytes = 1 << 20;
        interior.tmpfs = vec![
            Tmpfs { executable: true, ..tmpfs("/run/mine", "size=64k,mode=1750,uid=33") },
            tmpfs("/tmp", "size=1m"),
        ];
        let settings = [
            ("net.core.somaxconn", "77"),
            ("kernel.shmmni", "99"),
            ("net.ipv4.ip_unprivileged_port_start", "0"),
        ];
        interior.sysctls = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    });
    started(&machine.call(request));
    let records = machine.wait_for_end();
    let (text, errors) = (output(&records, Stream::Stdout), output(&records, Stream::Stderr));
    let expect = "CapBnd: 00000000002000ff\nNoNewPrivs: 1\nSeccomp: 2\nshm\n1777 0\n1750 33\n\
                  /dev/shm rw,nosuid,nodev,noexec,relatime,size=1024k,inode64\n\
                  /run/mine rw,nosuid,nodev,relatime,size=64k,mode=1750,uid=33,inode64\n\
                  /tmp rw,nosuid,nodev,noexec,relatime,size=1024k,inode64\n\
                  77\n99\nexample.org\n0\n64\nunlimited\n0 4 777\n-5\n6\n";
    assert!(text.starts_with(expect), "{text}\n{errors}");
    assert!(text.contains("c0ffee.example.org c0ffee"), "{text}");
    for expect in [
        "can't create /new: Read-only file system",
        "can't create /etc/hosts: Read-only file system",
        "can't create /proc/sys/net/core/somaxconn: Read-only file system",
        "can't fork: Resource temporarily unavailable",
    ] {
        assert!(errors.contains(expect), "`{expect}` is not in: {errors}");
    }
}

/// The first process is ours: it reaps, passes signals on and ends as its child does.
#[test]
fn an_init_reaps_and_passes_signals_on() {
    let (mut machine, _folder) = boot();
    let script = "echo $$; cat /proc/1/comm; cat /proc/1/cmdline | tr '\\0' ' ' | head -c 25; echo; \
                  (sleep 0.1 & sleep 0); trap 'echo heard; exit 5' TERM; echo ready; \
                  while :; do sleep 0.2; done";
    let mut asked = shell(script);
    asked.user = "web".into();
    started(&machine.call(prepared(asked, |start| start.interior.init = true)));
    machine.wait_for_output(|text| text.contains("ready"));
    // More than one, as orphans are on their way, too.
    machine.call(RequestBody::Signal { number: 15 });
    let records = machine.wait_for_end();
    let text = output(&records, Stream::Stdout);
    assert!(text.starts_with("2\ndocker-init\n/sbin/docker-init -- sh -"), "{text}");
    assert!(text.ends_with("heard\n"), "{text}");
    let exited = exited(&records);
    assert_eq!((exited.code, exited.signal), (5, None));
}

#[test]
fn what_an_init_cannot_start_is_said() {
    let (mut machine, _folder) = boot();
    let reply = machine.call(prepared(machine::process(&["nope"]), |start| start.interior.init = true));
    let records = machine.wait_for_end();
    let expect = (127, "exec: \"nope\": executable file not found in $PATH".to_owned());
    assert_eq!(failed(&reply, &records), expect);
}

#[test]
fn a_setting_that_the_kernel_lacks_is_named() {
    let (mut machine, _folder) = boot();
    let reply = machine.call(prepared(shell("true"), |start| {
        start.interior.sysctls = vec![("net.teleport".into(), "1".into())];
    }));
    let records = machine.wait_for_end();
    let expect = "sysctl \"net.teleport\": the guest's kernel has none of this name";
    assert_eq!(failed(&reply, &records), (125, expect.to_owned()));
}

#[test]
fn a_reboot_from_inside_is_an_end_with_a_reason() {
    for (applet, code, reason) in [("reboot", 129, "reboot"), ("poweroff", 130, "poweroff")] {
        let (mut machine, _folder) = boot();
        let mut asked = shell(&format!("busybox {applet} -f; sleep 60"));
        asked.capabilities = u64::MAX;
        started(&machine.start(asked, 2));
        let exited = exited(&machine.wait_for_end());
        assert_eq!(exited.code, code);
        assert!(exited.error.contains(reason), "{}", exited.error);
    }
}
