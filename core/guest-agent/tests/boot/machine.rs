//! A machine under QEMU's software emulation, with the devices that the back end gives it, driven by hand.

use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::journal::{Body, Exited, Reader, Record, StartFailed, Stream};
use bulkhead_guest_protocol::message::{
    Event, Exec, Hello, Interior, NO_REPLY, Process, Reply, ReplyBody, Request, RequestBody, Start, Stdio,
};
use bulkhead_guest_protocol::{CHANNEL_PORT, JOURNAL_PORT, PROTOCOL_MAX, PROTOCOL_MIN};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TOKEN: [u8; 32] = [0xab; 32];
const PATIENCE: Duration = Duration::from_secs(120);
const RW_BYTES: u64 = 8 << 30;

/// One machine at a time: two would only slow each other down.
static TURN: Mutex<()> = Mutex::new(());

pub struct Machine {
    qemu: Child,
    folder: TempDir,
    channel: UnixStream,
    decoder: Decoder,
    last_id: u32,
    events: Vec<Event>,
    pub hello: Hello,
    _turn: MutexGuard<'static, ()>,
}

/// What a process said on its stream.
#[derive(Debug, Default)]
pub struct Heard {
    pub stdout: String,
    pub stderr: String,
    pub taken: u32,
    pub exited: Option<Exited>,
}

/// What a machine is made of; the disk survives the machine if it is kept outside.
pub struct Parts {
    pub layers: Vec<PathBuf>,
    pub disk: PathBuf,
    pub memory_mib: u32,
}

pub fn guest_image() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guest");
    assert!(folder.join("guest.json").is_file(), "there is no guest image: run `cargo xtask guest-image`");
    folder
}

/// Fails with what to do if a program is missing.
pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed, install it: {error}"));
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A sparse ext4 disk.
pub fn make_disk(path: &Path) {
    fs::File::create(path).unwrap().set_len(RW_BYTES).unwrap();
    run("mkfs.ext4", &["-q", "-m0", "-E", "lazy_itable_init=1,nodiscard", path.to_str().unwrap()]);
}

impl Machine {
    pub fn boot(parts: &Parts) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (image, folder) = (guest_image(), TempDir::new().unwrap());
        let file = |name: &str| folder.path().join(name);
        fs::write(file("journal"), "").unwrap();
        let mut command = Command::new("qemu-system-x86_64");
        let mut args = |words: &str| {
            command.args(words.split(' '));
        };
        args(
            "-M q35,usb=off,vmport=off,smbus=off,sata=off -accel tcg,tb-size=32 -cpu max,-erms,-fsrm -smp 1",
        );
        args("-nodefaults -no-user-config -display none -no-reboot");
        args(&format!("-m {} -serial file:{}", parts.memory_mib, file("console").display()));
        args(&format!(
            "-kernel {} -initrd {}",
            image.join("vmlinuz").display(),
            image.join("initrd").display()
        ));
        args("-device virtio-serial-pci,addr=2");
        args(&format!("-chardev socket,id=channel,path={},server=on,wait=off", file("channel").display()));
        args(&format!("-device virtserialport,chardev=channel,name={CHANNEL_PORT}"));
        args(&format!("-chardev file,id=journal,path={},append=on", file("journal").display()));
        args(&format!("-device virtserialport,chardev=journal,name={JOURNAL_PORT}"));
        args("-device virtio-scsi-pci,id=scsi0,num_queues=1,addr=5");
        let layers = parts
            .layers
            .iter()
            .enumerate()
            .map(|(lun, path)| (0, lun, path, "read-only=on,file.locking=off,"));
        for (target, lun, path, options) in layers.chain([(1, 0, &parts.disk, "discard=unmap,")]) {
            let node = format!("d{target}-{lun}");
            let path = path.display();
            args(&format!(
                "-blockdev driver=raw,node-name={node},{options}file.driver=file,file.filename={path}"
            ));
            args(&format!("-device scsi-hd,bus=scsi0.0,scsi-id={target},lun={lun},drive={node}"));
        }
        command.args([
            "-append",
            "console=ttyS0 quiet cryptomgr.notests nokaslr no_timer_check noreplace-smp panic=-1",
        ]);
        let started = Instant::now();
        let qemu = command
            .stdin(std::process::Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("`qemu-system-x86_64` is needed: {error}"));
        let channel = connect(&file("channel"));
        let nobody = Hello {
            protocol: 0,
            nonce: [0; 16],
            agent: String::new(),
            kernel: String::new(),
            token: None,
            state: bulkhead_guest_protocol::message::AgentState::Ready,
        };
        let mut machine = Self {
            qemu,
            folder,
            channel,
            decoder: Decoder::default(),
            last_id: 0,
            events: Vec::new(),
            hello: nobody,
            _turn: turn,
        };
        machine.greet();
        eprintln!("boot to hello: {} ms", started.elapsed().as_millis());
        machine
    }

    /// A new connection; the old one is cut as it is.
    pub fn reconnect(&mut self) {
        let path = self.folder.path().join("channel");
        self.channel.shutdown(std::net::Shutdown::Both).unwrap();
        self.channel = connect(&path);
        self.decoder = Decoder::default();
        self.greet();
    }

    fn greet(&mut self) {
        let nonce = [u8::try_from(self.last_id % 251).unwrap() + 1; 16];
        let hello = RequestBody::Hello { protocol_min: PROTOCOL_MIN, protocol_max: PROTOCOL_MAX, nonce };
        match self.call(hello) {
            ReplyBody::Hello(hello) => {
                assert_eq!(hello.nonce, nonce);
                assert!(hello.token.is_none_or(|token| token == TOKEN));
                self.hello = hello;
            }
            other => panic!("no hello: {other:?}"),
        }
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.channel.write_all(bytes).unwrap();
    }

    pub fn call(&mut self, body: RequestBody) -> ReplyBody {
        self.last_id += 1;
        let id = self.last_id;
        let frame = frame::encode(&Request { id, body }).unwrap();
        self.send_bytes(&frame);
        loop {
            // Replies to a connection that was cut belong to nobody.
            match self.next_reply() {
                Reply { id: NO_REPLY, body: ReplyBody::Event(event) } => self.events.push(event),
                reply if reply.id == id => return reply.body,
                _ => {}
            }
        }
    }

    fn next_reply(&mut self) -> Reply {
        let mut buffer = [0; 4096];
        loop {
            while let Some(payload) = self.decoder.next_frame() {
                if let Ok(reply) = frame::decode::<Reply>(&payload) {
                    return reply;
                }
            }
            match self.channel.read(&mut buffer) {
                Ok(length) if length > 0 => self.decoder.push(&buffer[..length]),
                other => panic!("no answer ({other:?}); console:\n{}", self.console()),
            }
        }
    }

    /// Something that gets no answer.
    pub fn tell(&mut self, body: RequestBody) {
        let frame = frame::encode(&Request { id: NO_REPLY, body }).unwrap();
        self.send_bytes(&frame);
    }

    /// What the agent says unasked.
    pub fn next_event(&mut self) -> Event {
        if !self.events.is_empty() {
            return self.events.remove(0);
        }
        loop {
            if let Reply { id: NO_REPLY, body: ReplyBody::Event(event) } = self.next_reply() {
                return event;
            }
        }
    }

    /// What a stream says until `enough`, or its end; others are not listened to.
    pub fn hear(&mut self, stream: u32, enough: impl Fn(&str) -> bool) -> Heard {
        let mut heard = Heard::default();
        while heard.exited.is_none() && !enough(&heard.stdout) {
            match self.next_event() {
                Event::Output { stream: from, of, data } if from == stream => {
                    let text = String::from_utf8(data).unwrap();
                    match of {
                        Stream::Stdout => heard.stdout.push_str(&text),
                        Stream::Stderr => heard.stderr.push_str(&text),
                    }
                }
                Event::InputTaken { stream: from, bytes } if from == stream => heard.taken += bytes,
                Event::Ended { stream: from, exited } if from == stream => heard.exited = Some(exited),
                _ => {}
            }
        }
        heard
    }

    /// A process beside the container's, with plenty of credit.
    pub fn exec(&mut self, stream: u32, process: Process, stdio: Stdio) -> ReplyBody {
        let exec = Exec { stream, process, stdio, window: 1 << 20 };
        self.call(RequestBody::Exec(Box::new(exec)))
    }

    pub fn start(&mut self, process: Process, layer_count: u32) -> ReplyBody {
        self.call(RequestBody::Start(Box::new(start(process, layer_count))))
    }

    pub fn console(&self) -> String {
        fs::read_to_string(self.folder.path().join("console")).unwrap_or_default()
    }

    pub fn journal_bytes(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("journal")).unwrap()
    }

    pub fn records(&self) -> Vec<Record> {
        let mut reader = Reader::new(0);
        reader.push(0, &self.journal_bytes());
        let records: Vec<_> = std::iter::from_fn(|| reader.next_record()).map(|(_, record)| record).collect();
        assert_eq!(reader.skipped(), 0);
        for (record, seq) in records.iter().zip(0..) {
            assert_eq!((record.run, record.seq), (RUN, seq));
        }
        records
    }

    /// Waits until the output so far satisfies `enough`.
    pub fn wait_for_output(&self, enough: impl Fn(&str) -> bool) -> String {
        let started = Instant::now();
        loop {
            let text = output(&self.records(), Stream::Stdout);
            if enough(&text) {
                return text;
            }
            assert!(started.elapsed() < PATIENCE, "output so far: {text}; console:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the machine has switched itself off.
    pub fn wait_for_end(&mut self) -> Vec<Record> {
        let started = Instant::now();
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < PATIENCE, "it does not switch off; console:\n{}", self.console());
            std::thread::sleep(Duration::from_millis(10));
        }
        self.records()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn connect(path: &Path) -> UnixStream {
    let started = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                return stream;
            }
            Err(error) => assert!(started.elapsed() < PATIENCE, "QEMU does not listen: {error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub const RUN: u32 = 3;
pub const HOSTNAME: &str = "c0ffee";

pub fn start(process: Process, layer_count: u32) -> Start {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Start {
        token: TOKEN,
        run: RUN,
        entropy: [5; 32],
        unix_ns: u64::try_from(now.as_nanos()).unwrap(),
        hostname: HOSTNAME.to_owned(),
        domain_name: String::new(),
        layer_count,
        process,
        interior: interior(),
        stdio: Stdio::default(),
        journal_offset: 0,
        journal_limit: 1 << 20,
        network: Default::default(),
    }
}

/// What a container gets that asked for nothing.
pub fn interior() -> Interior {
    Interior {
        shm_bytes: 64 << 20,
        read_only_paths: vec!["/proc/sys".into()],
        masked_paths: vec!["/proc/kcore".into(), "/sys/firmware".into()],
        ..Interior::default()
    }
}

pub fn process(args: &[&str]) -> Process {
    Process {
        args: args.iter().map(|&arg| arg.to_owned()).collect(),
        env: vec!["PATH=/usr/bin:/bin".to_owned()],
        working_dir: String::new(),
        user: String::new(),
        groups: Vec::new(),
        capabilities: 0xa804_25fb,
        filtered: true,
        no_new_privileges: false,
        limits: Vec::new(),
        oom_score_adj: 0,
    }
}

pub fn output(records: &[Record], wanted: Stream) -> String {
    let data = records.iter().filter_map(|record| match &record.body {
        Body::Output { stream, data } if *stream == wanted => Some(data.as_slice()),
        _ => None,
    });
    String::from_utf8(data.collect::<Vec<_>>().concat()).unwrap()
}

pub fn exited(records: &[Record]) -> Exited {
    match records.last().map(|record| &record.body) {
        Some(Body::Exited(exited)) => exited.clone(),
        other => panic!("no exit at the end but {other:?}"),
    }
}

/// The reply and the one record agree.
pub fn failed(reply: &ReplyBody, records: &[Record]) -> (i32, String) {
    match (reply, records) {
        (ReplyBody::StartFailed { code, message }, [Record { body: Body::StartFailed(record), .. }]) => {
            assert_eq!(record, &StartFailed { code: *code, message: message.clone() });
            (*code, message.clone())
        }
        other => panic!("no failure but {other:?}"),
    }
}
