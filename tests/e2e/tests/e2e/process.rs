//! What `docker run` promises about the process: rights, limits, file systems in memory, users, and how it ends.
//!
//! A boot takes seconds, so a container answers many questions at once.

use anyhow::{Result, ensure};
use bulkhead_test_support::Docker;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("process::defaults_are_dockers", defaults),
    ("process::read_only_with_memory_to_write_in", read_only),
    ("process::rights_are_what_was_asked_for", rights),
    ("process::limits_and_settings", limits),
    ("process::privileged_is_root_of_its_machine", privileged),
    ("process::devices_of_the_guest_are_there_when_asked_for", devices),
    ("process::paths_can_be_unmasked", unmasked),
    ("process::an_init_reaps_and_forwards", init),
    ("process::commands_merge_as_in_docker", commands),
    ("process::users_and_folders_come_from_the_image", users),
    ("process::files_of_the_client", client_files),
    ("process::cpus_are_seen_inside", cpus),
    ("process::out_of_memory_is_told", out_of_memory),
    ("process::panic_and_reboot_are_ends", panics),
    ("process::host_modes_warn", host_modes),
    ("process::what_cannot_be_is_refused", refused),
    ("process::prod_keeps_rights_back", prod),
];

/// Runs a script in busybox; all of its output.
fn script(world: &World, options: &[&str], text: &str) -> Result<String> {
    let output = world.busybox_run(&[&["--rm"], options].concat(), &["sh", "-c", text])?;
    code(&output, 0)?;
    Ok(output.stdout)
}

fn inspect(docker: &Docker, name: &str, format: &str) -> Result<String> {
    docker.ok(&["inspect", "--format", format, name])
}

fn has_lines(text: &str, lines: &[&str]) -> Result<()> {
    lines.iter().try_for_each(|line| {
        ensure!(text.lines().any(|found| found.trim() == *line), "no line `{line}` in:\n{text}");
        Ok(())
    })
}

const STATUS: &str = "grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status | tr '\\t' ' '";

fn defaults(world: &mut World) -> Result<()> {
    let text = format!(
        "{STATUS}; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2; ulimit -n; cat /sys/fs/cgroup/pids.max; \
         cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; \
         cat /proc/self/oom_score_adj; touch /fine && echo writable; \
         unshare -m true 2>&1 | grep -o 'Operation not permitted'; (: > /proc/sysrq-trigger) 2>/dev/null || echo protected"
    );
    let output = world.busybox_run(&["--name", "plain"], &["sh", "-c", &text])?;
    code(&output, 0)?;
    let caps = "00000000a80425fb";
    let expect = format!(
        "CapEff: {caps}\nCapBnd: {caps}\nNoNewPrivs: 0\nSeccomp: 2\n65536\n1048576\nmax\n0\n0\n0\n0\nwritable\n\
         Operation not permitted\nprotected\n"
    );
    same(output.stdout, expect)?;
    let host = inspect(&world.dev, "plain", "{{json .HostConfig}}")?;
    let host: serde_json::Value = serde_json::from_str(&host)?;
    let nulls =
        ["CapAdd", "CapDrop", "GroupAdd", "SecurityOpt", "PidsLimit", "OomKillDisable", "MemorySwappiness"];
    for name in nulls {
        ensure!(host.get(name).is_some_and(serde_json::Value::is_null), "{name} is {:?}", host.get(name));
    }
    for (name, value) in [
        ("ShmSize", serde_json::json!(67_108_864)),
        ("ReadonlyRootfs", serde_json::json!(false)),
        ("OomScoreAdj", serde_json::json!(0)),
        ("IpcMode", serde_json::json!("private")),
        ("Privileged", serde_json::json!(false)),
    ] {
        same(host.get(name), Some(&value))?;
    }
    has(&host.get("MaskedPaths").map(ToString::to_string).unwrap_or_default(), "/proc/kcore")?;
    has(&host.get("ReadonlyPaths").map(ToString::to_string).unwrap_or_default(), "/proc/sys")?;
    world.dev.ok(&["rm", "plain"]).map(drop)
}

fn read_only(world: &mut World) -> Result<()> {
    let options = [
        "--read-only",
        "--tmpfs",
        "/run/data:size=64k,mode=1750,uid=1000,gid=1000",
        "--tmpfs",
        "/tmp:exec",
        "--shm-size",
        "1m",
    ];
    let text = "touch /x 2>&1; echo y >> /etc/hosts; stat -c '%a %u:%g' /run/data; grep -E ' (/tmp|/run/data|/dev/shm) ' /proc/mounts; \
                cp /bin/busybox /tmp/sh && /tmp/sh -c 'echo executed'; echo z > /dev/shm/z && cat /dev/shm/z; \
                dd if=/dev/zero of=/run/data/big bs=1k count=100; true";
    let output = world.busybox_run(&[&["--rm"], &options[..]].concat(), &["sh", "-c", text])?;
    code(&output, 0)?;
    let all = output.stdout + &output.stderr;
    for part in [
        "touch: /x: Read-only file system",
        "can't create /etc/hosts: Read-only file system",
        "1750 1000:1000",
        "/run/data tmpfs rw,nosuid,nodev,noexec,relatime,size=64k",
        "/tmp tmpfs rw,nosuid,nodev,relatime",
        "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=1024k",
        "executed\nz\n",
        "No space left on device",
    ] {
        has(&all, part)?;
    }
    Ok(())
}

fn rights(world: &mut World) -> Result<()> {
    let options = [
        "--cap-drop",
        "all",
        "--cap-add",
        "CHOWN",
        "--cap-add",
        "cap_net_admin",
        "--security-opt",
        "no-new-privileges",
        "--security-opt",
        "seccomp=unconfined",
        "--group-add",
        "777",
    ];
    let text = format!("{STATUS}; id -G");
    let found = script(world, &options, &text)?;
    let caps = "0000000000001001";
    has(&found, &format!("CapEff: {caps}\nCapBnd: {caps}\nNoNewPrivs: 1\nSeccomp: 0\n"))?;
    let groups = found.lines().nth(4).unwrap_or_default().to_owned();
    ensure!(groups.split(' ').any(|group| group == "777"), "groups are {groups}");
    ensure!(groups.starts_with("0 "), "groups are {groups}");
    // A user without privileges has none of them.
    let found = script(world, &["--user", "app", "--cap-add", "SYS_ADMIN"], STATUS)?;
    has(&found, "CapEff: 0000000000000000\nCapBnd: 00000000a82425fb")
}

fn limits(world: &mut World) -> Result<()> {
    let options = [
        "--ulimit",
        "nofile=64:128",
        "--ulimit",
        "core=0",
        "--sysctl",
        "net.core.somaxconn=77",
        "--sysctl",
        "kernel.shmmni=99",
        "--pids-limit",
        "7",
        "--oom-score-adj",
        "321",
        "--domainname",
        "example.org",
        "--hostname",
        "box",
    ];
    let text = "ulimit -n; ulimit -H -n; ulimit -c; cat /proc/sys/net/core/somaxconn /proc/sys/kernel/shmmni /proc/self/oom_score_adj; \
                cat /sys/fs/cgroup/pids.max /proc/sys/kernel/domainname; hostname; tail -n 1 /etc/hosts; \
                for i in 1 2 3 4 5 6 7 8 9; do sleep 60 & done";
    let output = world.busybox_run(&[&["--name", "limited"], &options[..]].concat(), &["sh", "-c", text])?;
    same(
        output.stdout.as_str(),
        "64\n128\n0\n77\n99\n321\n7\nexample.org\nbox\n172.17.0.2\tbox.example.org box\n",
    )?;
    has(&output.stderr, "can't fork: Resource temporarily unavailable")?;
    let format = "{{json .HostConfig.Ulimits}} {{.HostConfig.PidsLimit}} {{.HostConfig.OomScoreAdj}} {{.Config.Domainname}} {{.HostConfig.Sysctls}}";
    let shown = inspect(&world.dev, "limited", format)?;
    for part in [r#""Name":"nofile""#, "7 321 example.org", "kernel.shmmni:99"] {
        has(&shown, part)?;
    }
    world.dev.ok(&["rm", "limited"]).map(drop)
}

/// Their drivers answer, and only what was asked for may be opened.
fn devices(world: &mut World) -> Result<()> {
    let text = "ls -l /dev/fuse /dev/net/tun /dev/other | cut -c 1-10; (: <> /dev/fuse) && echo fuse; \
                (: <> /dev/net/tun) && echo tun; grep -c fuse /proc/filesystems; \
                mknod /dev/kmsg2 c 1 11; (: < /dev/kmsg2) 2>&1 | grep -o 'Operation not permitted'";
    let options = [
        "--device",
        "/dev/fuse",
        "--device",
        "/dev/net/tun:/dev/net/tun:rw",
        "--device",
        "/dev/zero:/dev/other:r",
    ];
    let said = script(world, &options, text)?;
    has_lines(&said, &["crw-rw-rw-", "fuse", "tun", "Operation not permitted"])?;
    ensure!(said.lines().filter(|line| *line == "crw-rw-rw-").count() == 3, "{said}");
    // Not among what a container has by itself, but with all privileges.
    let text = "ls /dev; ls /dev/net; true";
    ensure!(!script(world, &[], text)?.contains("fuse"), "a container has a device unasked");
    has_lines(&script(world, &["--privileged"], text)?, &["fuse", "tun"])
}

fn privileged(world: &mut World) -> Result<()> {
    let text = format!(
        "{STATUS}; mkdir /here && mount -t tmpfs none /here && echo mounted; hostname renamed && hostname; ls /sys/firmware | wc -l"
    );
    let output = world.busybox_run(&["--privileged", "--name", "strong"], &["sh", "-c", &text])?;
    code(&output, 0)?;
    let caps = "000001ffffffffff";
    has(
        &output.stdout,
        &format!("CapEff: {caps}\nCapBnd: {caps}\nNoNewPrivs: 0\nSeccomp: 0\nmounted\nrenamed\n"),
    )?;
    same(
        inspect(&world.dev, "strong", "{{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}}")?,
        "null null".to_owned(),
    )?;
    world.dev.ok(&["rm", "strong"]).map(drop)
}

fn unmasked(world: &mut World) -> Result<()> {
    let found = script(
        world,
        &["--security-opt", "systempaths=unconfined"],
        "ls /sys/firmware | wc -l; echo 99 > /proc/sys/net/core/somaxconn && echo written",
    )?;
    ensure!(found.ends_with("written\n") && !found.starts_with("0\n"), "{found}");
    Ok(())
}

fn init(world: &mut World) -> Result<()> {
    let text = "echo $$; cat /proc/1/comm; trap 'echo heard; exit 5' TERM; (sleep 0 &); echo ready; while :; do sleep 0.2; done";
    let image = world.busybox();
    let docker = &world.dev;
    docker.ok(&["run", "--detach", "--init", "--name", "reaped", &image, "sh", "-c", text])?;
    bulkhead_test_support::wait_for("the script is ready", std::time::Duration::from_secs(60), || {
        docker.ok(&["logs", "reaped"]).ok().filter(|log| log.contains("ready"))
    })?;
    docker.ok(&["stop", "reaped"])?;
    same(inspect(docker, "reaped", "{{.State.ExitCode}} {{.HostConfig.Init}}")?, "5 true".to_owned())?;
    same(docker.ok(&["logs", "reaped"])?, "2\ndocker-init\nready\nheard".to_owned())?;
    docker.ok(&["rm", "reaped"])?;
    code(&world.busybox_run(&["--rm", "--init"], &["no-such-program"])?, 127)
}

/// The image's command is a shell; its entrypoint is nothing.
fn commands(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let run = |words: &[&str]| world.dev.run(&[&["run", "--rm"], words].concat());
    let output = run(&["--entrypoint", "echo", &image, "a", "b c"])?;
    same(output.stdout.as_str(), "a b c\n")?;
    let output = run(&["--entrypoint", "", &image, "echo", "d"])?;
    same(output.stdout.as_str(), "d\n")?;
    code(&run(&["--entrypoint", "no-such-program", &image])?, 127)?;
    let made = world.dev.fails(&["create", "--entrypoint", "", &image])?;
    has(&made, "no command specified")
}

fn users(world: &mut World) -> Result<()> {
    let text = "id -u; id -g; pwd; echo $HOME; stat -c %u .";
    let found = script(world, &["--user", "app", "--workdir", "/made/for/it"], text)?;
    has(&found, "1000\n1000\n/made/for/it\n")?;
    let found = script(world, &["--user", "4242:4343"], "id -u; id -g; id -G; echo $HOME")?;
    same(found.as_str(), "4242\n4343\n4343\n/\n")?;
    let unknown = world.busybox_run(&["--rm", "--user", "nobody-there"], &["true"])?;
    code(&unknown, 125)?;
    has(&unknown.stderr, "unable to find user nobody-there: no matching entries in passwd file")?;
    let unknown = world.busybox_run(&["--rm", "--group-add", "nobodies"], &["true"])?;
    has(&unknown.stderr, "unable to find group nobodies: no matching entries in group file")
}

fn client_files(world: &mut World) -> Result<()> {
    let folder = world.server.dir().join("client");
    std::fs::create_dir_all(&folder)?;
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    std::fs::write(path("env"), "# a comment\nONE=1\nTWO=two words\n")?;
    std::fs::write(path("labels"), "team=web\n")?;
    let (env, labels, cid) = (path("env"), path("labels"), path("cid"));
    let options = ["--env-file", &env, "--label-file", &labels, "--cidfile", &cid, "--env", "TWO=three"];
    let output = world.busybox_run(&options, &["sh", "-c", "echo $ONE $TWO"])?;
    same(output.stdout.as_str(), "1 three\n")?;
    let id = std::fs::read_to_string(&cid)?;
    same(inspect(&world.dev, &id, "{{.Config.Labels.team}}")?, "web".to_owned())?;
    world.dev.ok(&["rm", &id]).map(drop)
}

fn cpus(world: &mut World) -> Result<()> {
    let found = script(
        world,
        &["--cpus", "1.5"],
        "nproc; grep -c ^processor /proc/cpuinfo; cat /sys/fs/cgroup/cpu.max",
    )?;
    same(found.as_str(), "2\n2\n150000 100000\n")
}

fn out_of_memory(world: &mut World) -> Result<()> {
    let output =
        world.busybox_run(&["--name", "hungry", "--memory", "128m"], &["sh", "-c", "tail /dev/zero"])?;
    code(&output, 137)?;
    let docker = &world.dev;
    let state = inspect(docker, "hungry", "{{.State.OOMKilled}} {{.State.ExitCode}} {{.State.Error}}")?;
    has(&state, "true 137 out of memory")?;
    has(&state, "-m 256m")?;
    let events = docker.ok(&[
        "events",
        "--since",
        "10m",
        // The CLI cuts the time to whole seconds.
        "--until=-1s",
        "--filter",
        "container=hungry",
        "--format",
        "{{.Action}}",
    ])?;
    has_lines(&events, &["oom", "die"])?;
    docker.ok(&["rm", "hungry"]).map(drop)
}

/// Nothing hangs, whatever the machine's own root does to it.
fn panics(world: &mut World) -> Result<()> {
    let docker = &world.dev;
    for (name, text, reason) in [
        ("panicked", "echo c > /proc/sysrq-trigger; sleep 600", "panic"),
        ("rebooted", "reboot -f; sleep 600", "reboot"),
        ("reset", "echo b > /proc/sysrq-trigger; sleep 600", "machine ended"),
        ("switched-off", "poweroff -f; sleep 600", "poweroff"),
    ] {
        let output = world.busybox_run(&["--privileged", "--name", name], &["sh", "-c", text])?;
        ensure!(output.code.is_some_and(|code| code >= 125), "{name}: {output}");
        let state = inspect(docker, name, "{{.State.Status}} {{.State.Error}}")?;
        has(&state, "exited ")?;
        has(&state, reason)?;
        docker.ok(&["rm", name])?;
    }
    // Without the right to it, nothing happens.
    let found = script(world, &[], "reboot -f 2>&1 | grep -o 'not permitted'; echo alive")?;
    same(found.as_str(), "not permitted\nalive\n")
}

fn host_modes(world: &mut World) -> Result<()> {
    let options =
        ["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host", "--oom-kill-disable"];
    let image = world.busybox();
    let output =
        world.dev.run(&[&["create", "--name", "modes"], &options[..], &[image.as_str(), "true"]].concat())?;
    code(&output, 0)?;
    for part in [
        "PidMode \"host\"",
        "IpcMode \"host\"",
        "UTSMode \"host\"",
        "CgroupnsMode \"host\"",
        "OomKillDisable discarded",
    ] {
        has(&output.stderr, part)?;
    }
    same(
        inspect(&world.dev, "modes", "{{.HostConfig.PidMode}} {{.HostConfig.OomKillDisable}}")?,
        "host <nil>".to_owned(),
    )?;
    world.dev.ok(&["rm", "modes"]).map(drop)
}

fn refused(world: &mut World) -> Result<()> {
    let image = world.busybox();
    for (options, text) in [
        (["--cap-add", "TELEPORT"], "unknown capability: \"CAP_TELEPORT\""),
        (["--security-opt", "nonsense=x"], "invalid --security-opt 2"),
        (["--security-opt", "label=type:x"], "no SELinux"),
        (["--tmpfs", "/x:teleport"], "nvalid tmpfs option"),
        (["--tmpfs", "/proc/x"], "must not be inside /proc"),
        (["--oom-score-adj", "5000"], "range for oom score adj is [-1000, 1000]"),
        (["--ipc", "container:x"], "HostConfig.IpcMode is not supported"),
    ] {
        has(&world.dev.fails(&[&["create"], &options[..], &[image.as_str(), "true"]].concat())?, text)?;
    }
    Ok(())
}

fn prod(world: &mut World) -> Result<()> {
    let docker = world.vch("prod-rights", "prod", "acme")?;
    docker.ok(&["pull", "--quiet", &world.busybox()])?;
    // By its whole id it is as exact as a digest.
    let image = docker.ok(&["images", "--quiet", "--no-trunc"])?;
    for (options, policy) in [
        (["--cap-add", "ALL"], "no-strong-capabilities-in-prod"),
        (["--cap-add", "SYS_ADMIN"], "no-strong-capabilities-in-prod"),
        (["--security-opt", "seccomp=unconfined"], "system-calls-are-filtered-in-prod"),
    ] {
        has(&docker.fails(&[&["create"], &options[..], &[image.as_str(), "true"]].concat())?, policy)?;
    }
    world.remove_vch("prod-rights")
}
