//! Input, terminals, and processes beside the container's own.

use crate::machine::{self, Machine, exited, output, process};
use crate::{boot, shell, started};
use bulkhead_guest_protocol::journal::Stream;
use bulkhead_guest_protocol::message::{
    Exec, INPUT_WINDOW, MAIN_STREAM, ReplyBody, RequestBody, Stdio, TerminalSize,
};

const TERMINAL: Stdio = Stdio { stdin: true, terminal: Some(TerminalSize { rows: 24, columns: 80 }) };
const PIPES: Stdio = Stdio { stdin: true, terminal: None };
pub const NONE: Stdio = Stdio { stdin: false, terminal: None };

fn input(machine: &mut Machine, stream: u32, text: &str) {
    machine.tell(RequestBody::Input { stream, data: text.as_bytes().to_vec() });
}

#[test]
fn input_reaches_the_process_and_ends() {
    let (mut machine, _folder) = boot();
    let mut asked = machine::start(shell("cat; echo over"), 2);
    asked.stdio = PIPES;
    started(&machine.call(RequestBody::Start(Box::new(asked))));
    input(&mut machine, MAIN_STREAM, "one\n");
    machine.wait_for_output(|text| text == "one\n");
    input(&mut machine, MAIN_STREAM, "two\n");
    machine.tell(RequestBody::InputEnd { stream: MAIN_STREAM });
    let records = machine.wait_for_end();
    assert_eq!(output(&records, Stream::Stdout), "one\ntwo\nover\n");
}

#[test]
fn a_terminal_is_one() {
    let (mut machine, _folder) = boot();
    let mut asked = machine::start(shell("tty; stty size; read -r line; stty size; echo got $line >&2"), 2);
    asked.stdio = TERMINAL;
    asked.process.user = "web".to_owned();
    started(&machine.call(RequestBody::Start(Box::new(asked))));
    machine.wait_for_output(|text| text.ends_with("24 80\r\n"));
    let size = TerminalSize { rows: 10, columns: 40 };
    assert_eq!(machine.call(RequestBody::Resize { stream: MAIN_STREAM, size }), ReplyBody::Done);
    input(&mut machine, MAIN_STREAM, "word\r");
    let records = machine.wait_for_end();
    let text = output(&records, Stream::Stdout);
    assert_eq!(text, "/dev/pts/0\r\n24 80\r\nword\r\n10 40\r\ngot word\r\n");
}

#[test]
fn processes_beside_the_containers_own() {
    let (mut machine, _folder) = boot();
    started(&machine.start(
        shell("mkdir /tmp/x; hostname > /tmp/x/name; trap 'exit 9' TERM; while :; do sleep 1; done"),
        2,
    ));

    // Its folder is there once it has got that far.
    started(&machine.exec(3, shell("until [ -s /tmp/x/name ]; do sleep 0.1; done"), NONE));
    assert_eq!(machine.hear(3, |_| false).exited.unwrap().code, 0);

    // The same files, processes, limits; a user and a folder of its own.
    let mut asked = shell(
        "id; pwd; cat /tmp/x/name; cat /proc/1/comm; cat /proc/self/cgroup | tail -n 1; ls /proc/self/fd | wc -l; \
         echo wrong >&2; exit 4",
    );
    asked.user = "web".to_owned();
    asked.working_dir = "/tmp/x".to_owned();
    started(&machine.exec(1, asked, NONE));
    let heard = machine.hear(1, |_| false);
    let expect =
        format!("uid=33(web) gid=34(web) groups=4(adm)\n/tmp/x\n{}\nsh\n0::/\n4\n", machine::HOSTNAME);
    assert_eq!((heard.stdout, heard.stderr.as_str()), (expect, "wrong\n"));
    assert_eq!(heard.exited.unwrap().code, 4);

    // What cannot be run has its code; the container does not mind.
    let reply = machine.exec(2, process(&["nope"]), NONE);
    assert!(
        matches!(&reply, ReplyBody::StartFailed { code: 127, message } if message.contains("nope")),
        "{reply:?}"
    );

    // More input than anything holds, and back.
    started(&machine.exec(3, process(&["cat"]), PIPES));
    let piece = "x".repeat(10_000);
    let (mut echoed, mut sent, mut taken) = (0, 0, 0);
    while echoed < 400_000 {
        while sent < 400_000 && sent + piece.len() <= taken + INPUT_WINDOW as usize {
            input(&mut machine, 3, &piece);
            sent += piece.len();
        }
        let before = echoed;
        let heard = machine.hear(3, |text| !text.is_empty());
        echoed += heard.stdout.len();
        taken += heard.taken as usize;
        let bytes = u32::try_from(echoed - before).unwrap().max(256);
        machine.tell(RequestBody::Credit { stream: 3, bytes });
    }
    machine.tell(RequestBody::InputEnd { stream: 3 });
    assert_eq!(machine.hear(3, |_| false).exited.unwrap().code, 0);

    // Output stops where the credit ends, and nobody else minds.
    let flood = Exec { stream: 4, process: process(&["yes"]), stdio: NONE, window: 50_000 };
    started(&machine.call(RequestBody::Exec(Box::new(flood))));
    let heard = machine.hear(4, |text| text.len() > 40_000);
    assert!(heard.stdout.len() <= 50_000);
    started(&machine.exec(5, shell("echo alive"), NONE));
    assert_eq!(machine.hear(5, |_| false).stdout, "alive\n");
    machine.tell(RequestBody::Leave { stream: 4 });

    // A terminal, and a child that keeps it open after the end.
    let mut shell_with_terminal = shell("stty size; sleep 100 & echo $line; exit 3");
    shell_with_terminal.env.push("line=ended".to_owned());
    started(&machine.exec(6, shell_with_terminal, TERMINAL));
    let heard = machine.hear(6, |_| false);
    assert_eq!((heard.stdout.as_str(), heard.exited.unwrap().code), ("24 80\r\nended\r\n", 3));

    // Whoever comes next finds no streams of the one before.
    started(&machine.exec(7, process(&["cat"]), PIPES));
    machine.reconnect();
    started(&machine.exec(7 + 1, shell("while ps | grep -q '[c]at$'; do sleep 0.1; done; echo gone"), NONE));
    assert_eq!(machine.hear(8, |_| false).stdout, "gone\n");
    assert_eq!(machine.call(RequestBody::Signal { number: 15 }), ReplyBody::Done);
    let records = machine.wait_for_end();
    assert_eq!(exited(&records).code, 9);
}
