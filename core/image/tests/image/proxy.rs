//! A forwarding proxy: tunnels (`CONNECT`), and plain requests by their whole address.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Ends when dropped.
pub struct ForwardProxy {
    /// `127.0.0.1:port`.
    pub address: String,
    shared: Arc<Shared>,
    accepts: Option<JoinHandle<()>>,
}

struct Shared {
    /// Where hosts are that nobody else knows: `host:port` to `address:port`.
    hosts: HashMap<String, String>,
    /// The header's value, if one is wanted.
    authorization: Option<&'static str>,
    /// `CONNECT host:port` or `GET http://host:port/path`.
    asked: Mutex<Vec<String>>,
    ends: AtomicBool,
}

impl ForwardProxy {
    pub fn start(hosts: &[(&str, &str)], authorization: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let hosts = hosts.iter().map(|(name, address)| ((*name).to_owned(), (*address).to_owned())).collect();
        let (asked, ends) = (Mutex::default(), AtomicBool::new(false));
        let shared = Arc::new(Shared { hosts, authorization, asked, ends });
        let own = Arc::clone(&shared);
        let accepts = std::thread::spawn(move || {
            let mut connections = Vec::new();
            for stream in listener.incoming().flatten() {
                if own.ends.load(Ordering::Relaxed) {
                    break;
                }
                let own = Arc::clone(&own);
                connections.push(std::thread::spawn(move || serve(stream, &own)));
            }
            // The clients are gone: their programs have ended.
            for connection in connections {
                let _ = connection.join();
            }
        });
        Self { address, shared, accepts: Some(accepts) }
    }

    /// What was asked of it until now, which is forgotten.
    pub fn take_asked(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.asked.lock().unwrap())
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
    }
}

fn serve(client: TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let words: Vec<&str> = lines[0].split(' ').collect();
    let (method, target) = (words[0], words[1]);
    shared.asked.lock().unwrap().push(format!("{method} {target}"));
    let header = |name: &str| {
        lines.iter().filter_map(|line| line.split_once(": ")).find(|(own, _)| own.eq_ignore_ascii_case(name))
    };
    let mut client = client;
    if shared.authorization.is_some_and(|wanted| header("proxy-authorization").map(|h| h.1) != Some(wanted)) {
        let _ = client.write_all(
            b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
        return;
    }
    let host = target.strip_prefix("http://").unwrap_or(target);
    let (host, path) = host.split_once('/').unwrap_or((host, ""));
    let address = shared.hosts.get(host).map_or(host, String::as_str);
    let Ok(mut server) = TcpStream::connect(address) else {
        let _ =
            client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return;
    };
    if method == "CONNECT" {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let (mut from, mut to) = (reader, server.try_clone().unwrap());
        let upwards = std::thread::spawn(move || {
            pass(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        pass(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
        let _ = upwards.join();
        return;
    }
    let mut head = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    for line in &lines[1..] {
        let name = line.split(':').next().unwrap().to_lowercase();
        if !["connection", "proxy-authorization"].contains(&name.as_str()) {
            head += &format!("{line}\r\n");
        }
    }
    head += "\r\n";
    let _ = server.write_all(head.as_bytes());
    pass(&mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
}

fn pass(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to);
}
