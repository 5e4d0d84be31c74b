//! What people type reaches their program, also under a terminal, and what runs beside it.

use anyhow::{Result, ensure};
use bulkhead_test_support::wait_for;
use std::time::Duration;

use crate::harness::Case;
use crate::world::{World, code, has, same};

pub const CASES: &[Case] = &[
    ("streams::input_reaches_the_process", input_reaches_the_process),
    ("streams::a_lot_of_input", a_lot_of_input),
    ("streams::a_terminal", a_terminal),
    ("streams::interrupted", interrupted),
    ("streams::detach_and_attach_again", detach_and_attach_again),
    ("streams::exec", exec),
    ("streams::exec_with_input_and_terminal", exec_with_input_and_terminal),
    ("streams::exec_where_nothing_runs", exec_where_nothing_runs),
];

fn input_reaches_the_process(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let output = world.dev.run_with_input(
        &["run", "--rm", "-i", &image, "sh", "-c", "read a; echo got $a >&2; cat; exit 6"],
        "one\ntwo\nthree",
    )?;
    code(&output, 6)?;
    same(output.stdout.as_str(), "two\nthree")?;
    has(&output.stderr, "got one\n")
}

fn a_lot_of_input(world: &mut World) -> Result<()> {
    let input: String = (0..150_000).map(|number| format!("line {number}\n")).collect();
    let bytes = input.len();
    let output = world.dev.run_with_input(&["run", "--rm", "-i", &world.busybox(), "cat"], input.clone())?;
    code(&output, 0)?;
    ensure!(output.stdout == input, "{} bytes came back of {bytes}", output.stdout.len());
    Ok(())
}

fn a_terminal(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let mut terminal = world.dev.terminal(&["run", "--rm", "-it", &image, "sh"])?;
    terminal.wait_for("# ")?;
    terminal.type_in("tty; stty size; echo $TERM\r")?;
    terminal.wait_for("/dev/pts/0\r\n24 80\r\nxterm\r\n")?;
    terminal.resize(40, 100)?;
    // The CLI hears of it by a signal, and tells; nobody answers.
    terminal.type_in("until stty size | grep -q '40 100'; do sleep 0.1; done; echo re''sized\r")?;
    terminal.wait_for("resized")?;
    terminal.type_in("exit 7\r")?;
    let (status, _) = terminal.end()?;
    same(status.code(), Some(7))
}

fn interrupted(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.2; done";
    let mut terminal = world.dev.terminal(&["run", "--rm", "-it", &image, "sh", "-c", script])?;
    terminal.wait_for("ready")?;
    terminal.type_in("\u{3}")?;
    let (status, screen) = terminal.end()?;
    has(&screen, "caught")?;
    same(status.code(), Some(9))
}

fn detach_and_attach_again(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let script = "while read -r line; do echo \"<$line>\"; [ \"$line\" = end ] && exit 4; done";
    let args = ["run", "--name", "leave", "-it", "--detach-keys", "ctrl-a,d", &image, "sh", "-c", script];
    let mut terminal = world.dev.terminal(&args)?;
    // Ready when it answers.
    terminal.type_in("first\r")?;
    terminal.wait_for("<first>")?;
    terminal.type_in("\u{1}d")?;
    let (status, _) = terminal.end()?;
    same(status.code(), Some(0))?;
    same(world.dev.ok(&["inspect", "--format", "{{.State.Status}}", "leave"])?, "running".to_owned())?;

    let mut terminal = world.dev.terminal(&["attach", "leave"])?;
    terminal.type_in("end\r")?;
    let (status, screen) = terminal.end()?;
    has(&screen, "<end>")?;
    same(status.code(), Some(4))?;
    world.dev.ok(&["rm", "leave"]).map(drop)
}

fn exec(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let dev = &world.dev;
    let script = "echo made > /made; while :; do sleep 1; done";
    dev.ok(&["run", "-d", "--name", "beside", "-e", "A=1", "-w", "/tmp", &image, "sh", "-c", script])?;
    wait_for("the file is there", Duration::from_secs(30), || {
        dev.ok(&["exec", "beside", "cat", "/made"]).ok().filter(|text| text == "made")
    })?;
    let output = dev.run(&["exec", "beside", "sh", "-c", "echo $A $HOSTNAME; pwd; echo no >&2; exit 3"])?;
    code(&output, 3)?;
    let id = dev.ok(&["inspect", "--format", "{{.Config.Hostname}}", "beside"])?;
    same((output.stdout, output.stderr.as_str()), (format!("1 {id}\n/tmp\n"), "no\n"))?;
    let args =
        ["exec", "-u", "1000:100", "-w", "/etc", "-e", "B=2", "beside", "sh", "-c", "id -u; pwd; echo $B"];
    same(dev.ok(&args)?, "1000\n/etc\n2".to_owned())?;

    let output = dev.run(&["exec", "beside", "nope"])?;
    code(&output, 127)?;
    has(&output.stdout, "executable file not found")?;
    let output = dev.run(&["exec", "beside", "/etc"])?;
    code(&output, 126)?;
    // A folder to work in is made for the container's own process only.
    let output = dev.run(&["exec", "-w", "/none", "beside", "true"])?;
    code(&output, 126)?;
    has(&output.stdout, "chdir to cwd (\"/none\")")?;
    has(&output.stdout, "o such file or directory")?;

    // Without a client it goes on.
    dev.ok(&["exec", "-d", "beside", "sh", "-c", "sleep 1; echo later > /later"])?;
    wait_for("what was left is done", Duration::from_secs(30), || {
        dev.ok(&["exec", "beside", "cat", "/later"]).ok().filter(|text| text == "later")
    })?;
    let events = dev.ok(&[
        "events",
        "--since",
        "5m",
        "--until=-2s",
        "--filter",
        "container=beside",
        "--format",
        "{{.Action}}",
    ])?;
    has(&events, "exec_create: nope")?;
    has(&events, "exec_die")?;
    dev.ok(&["rm", "-f", "beside"]).map(drop)
}

fn exec_with_input_and_terminal(world: &mut World) -> Result<()> {
    let image = world.busybox();
    let dev = &world.dev;
    dev.ok(&["run", "-d", "--name", "beside", &image, "sh", "-c", "while :; do sleep 1; done"])?;
    let input = "0123456789".repeat(50_000);
    let output = dev.run_with_input(&["exec", "-i", "beside", "sh", "-c", "wc -c; exit 2"], input)?;
    code(&output, 2)?;
    same(output.stdout.trim(), "500000")?;

    let mut terminal = dev.terminal(&["exec", "-it", "beside", "sh"])?;
    terminal.wait_for("# ")?;
    terminal.type_in("stty size; cat /proc/1/comm\r")?;
    terminal.wait_for("24 80\r\nsh\r\n")?;
    terminal.type_in("exit 5\r")?;
    let (status, _) = terminal.end()?;
    same(status.code(), Some(5))?;

    // The container's end is theirs.
    let terminal = dev.terminal(&["exec", "-it", "beside", "sh"])?;
    terminal.wait_for("# ")?;
    dev.ok(&["kill", "beside"])?;
    let (status, _) = terminal.end()?;
    same(status.code(), Some(137))?;
    dev.ok(&["rm", "beside"]).map(drop)
}

fn exec_where_nothing_runs(world: &mut World) -> Result<()> {
    let image = world.busybox();
    world.dev.ok(&["create", "--name", "idle", &image, "true"])?;
    has(&world.dev.fails(&["exec", "idle", "true"])?, "is not running")?;
    has(&world.dev.fails(&["exec", "nobody", "true"])?, "No such container: nobody")?;
    world.dev.ok(&["rm", "idle"]).map(drop)
}
