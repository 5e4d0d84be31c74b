//! The resolver's process: threads that wait, each for one thing.

use super::wire::{
    self, Data, NOT_IMPLEMENTED, Question, SERVER_FAILURE, TYPE_A, TYPE_AAAA, TYPE_PTR, UDP_BYTES_MAX,
};
use super::{BELL, NAMES, TCP, UDP};
use crate::sys;
use bulkhead_guest_protocol::frame::{self, Decoder};
use bulkhead_guest_protocol::network::Resolver as Told;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

/// Questions to upstream at a time; more are answered with a failure.
const FORWARDS_MAX: usize = 64;
const TCP_CLIENTS_MAX: usize = 16;
/// For one upstream server.
const PATIENCE: Duration = Duration::from_secs(2);
/// For a client over TCP to say something.
const CLIENT_PATIENCE: Duration = Duration::from_secs(10);
/// Waiting needs little.
const STACK_BYTES: usize = 128 << 10;

#[derive(Debug, Default)]
struct Shared {
    told: RwLock<Told>,
    forwards: AtomicUsize,
    clients: AtomicUsize,
}

pub fn run() -> ! {
    let [bell, udp, tcp] = [BELL, UDP, TCP].map(sys::inherited);
    let shared = Arc::new(Shared::default());
    read_names(&shared);
    let (listening, of) = (TcpListener::from(tcp), shared.clone());
    spawn(move || accept(&of, &listening));
    let of = shared.clone();
    spawn(move || listen_to_bell(&of, File::from(bell)));
    serve(&shared, &UdpSocket::from(udp));
    std::process::exit(1)
}

fn spawn(work: impl FnOnce() + Send + 'static) -> bool {
    thread::Builder::new().stack_size(STACK_BYTES).spawn(work).is_ok()
}

/// The agent's end closes only with the agent.
fn listen_to_bell(shared: &Shared, mut bell: File) {
    let mut bytes = [0; 64];
    while bell.read(&mut bytes).is_ok_and(|count| count > 0) {
        read_names(shared);
    }
    std::process::exit(0)
}

fn read_names(shared: &Shared) {
    let mut decoder = Decoder::default();
    decoder.push(&std::fs::read(NAMES).unwrap_or_default());
    let told = decoder.next_frame().map(|payload| frame::decode(&payload));
    if let Some(Ok(told)) = told {
        *shared.told.write().unwrap_or_else(PoisonError::into_inner) = told;
    }
}

fn serve(shared: &Arc<Shared>, socket: &UdpSocket) {
    let mut buffer = [0; UDP_BYTES_MAX];
    loop {
        let (length, client) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // A client that is gone.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(_) => return,
        };
        let query = buffer.get(..length).unwrap_or_default().to_vec();
        match own_answer(shared, &query) {
            Some(answer) => drop(socket.send_to(&answer, client)),
            None => forward_beside(shared, socket, query, client),
        }
    }
}

/// What can be said without asking anybody.
fn own_answer(shared: &Shared, query: &[u8]) -> Option<Vec<u8>> {
    let Some(question) = wire::question(query) else { return Some(wire::failure(query, NOT_IMPLEMENTED)) };
    let told = shared.told.read().unwrap_or_else(PoisonError::into_inner);
    answer_of(&told, query, &question)
}

fn answer_of(told: &Told, query: &[u8], question: &Question) -> Option<Vec<u8>> {
    if question.kind == TYPE_PTR {
        let address = wire::reverse(&question.name)?;
        // The short id is a name, too, and the one that says least.
        let is_id = |name: &str| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let named = told.names.iter().filter(|one| one.addresses.contains(&address));
        let named = named.min_by_key(|one| is_id(&one.name))?;
        return Some(wire::answer(query, question, &[Data::Name(&named.name)]));
    }
    let named = told.names.iter().find(|one| one.name == question.name)?;
    // Of the kind that was asked for. None of it is an answer, too: clients go on with what they have.
    let wanted = |address: &&IpAddr| match question.kind {
        TYPE_A => address.is_ipv4(),
        TYPE_AAAA => address.is_ipv6(),
        _ => false,
    };
    let data: Vec<_> = named.addresses.iter().filter(wanted).map(|address| Data::Address(*address)).collect();
    Some(wire::answer(query, question, &data))
}

fn forward_beside(shared: &Arc<Shared>, socket: &UdpSocket, query: Vec<u8>, client: SocketAddr) {
    let of = shared.clone();
    let busy = shared.forwards.fetch_add(1, Ordering::Relaxed) >= FORWARDS_MAX;
    let began = !busy
        && socket.try_clone().is_ok_and(|socket| {
            let query = query.clone();
            spawn(move || {
                let answer = forward(&of, &query).unwrap_or_else(|| wire::failure(&query, SERVER_FAILURE));
                let _ = socket.send_to(&answer, client);
                of.forwards.fetch_sub(1, Ordering::Relaxed);
            })
        });
    if !began {
        shared.forwards.fetch_sub(1, Ordering::Relaxed);
        let _ = socket.send_to(&wire::failure(&query, SERVER_FAILURE), client);
    }
}

fn upstream(shared: &Shared) -> Vec<IpAddr> {
    shared.told.read().unwrap_or_else(PoisonError::into_inner).upstream.clone()
}

/// Asks one after another.
fn forward(shared: &Shared, query: &[u8]) -> Option<Vec<u8>> {
    upstream(shared).into_iter().find_map(|server| ask(server, query).ok())
}

/// With a number and a port of its own, so that nobody who does not see the question can answer it.
fn ask(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut asked = query.to_vec();
    File::open("/dev/urandom")?.read_exact(asked.get_mut(..2).unwrap_or_default())?;
    let any: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect((server, super::PORT))?;
    socket.send(&asked)?;
    let until = Instant::now() + PATIENCE;
    let mut buffer = [0; UDP_BYTES_MAX];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut buffer)?;
        let mut reply = buffer.get(..length).unwrap_or_default().to_vec();
        if wire::belongs(&asked, &reply) {
            for (to, from) in reply.iter_mut().zip(query.iter().take(2)) {
                *to = *from;
            }
            return Ok(reply);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let of = shared.clone();
        let full = shared.clients.fetch_add(1, Ordering::Relaxed) >= TCP_CLIENTS_MAX;
        let began = !full
            && spawn(move || {
                // A client that leaves, or an upstream that does not answer: the connection ends either way.
                let _ = converse(&of, stream);
                of.clients.fetch_sub(1, Ordering::Relaxed);
            });
        if !began {
            shared.clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn converse(shared: &Shared, mut client: TcpStream) -> io::Result<()> {
    client.set_read_timeout(Some(CLIENT_PATIENCE))?;
    client.set_write_timeout(Some(CLIENT_PATIENCE))?;
    loop {
        let query = receive(&mut client)?;
        let answer = own_answer(shared, &query)
            .or_else(|| upstream(shared).into_iter().find_map(|server| ask_by_tcp(server, &query).ok()));
        send(&mut client, &answer.unwrap_or_else(|| wire::failure(&query, SERVER_FAILURE)))?;
    }
}

fn ask_by_tcp(server: IpAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&(server, super::PORT).into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(&mut stream, query)?;
    receive(&mut stream)
}

/// A message behind its length.
fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[length.to_be_bytes().as_slice(), message].concat())
}

#[cfg(test)]
mod tests {
    use super::super::wire::tests::query;
    use super::*;
    use bulkhead_guest_protocol::network::Name;

    fn shared(upstream: Vec<IpAddr>) -> Arc<Shared> {
        let names = vec![
            Name { name: "web".into(), addresses: vec![[172, 18, 0, 2].into(), [172, 18, 0, 3].into()] },
            Name { name: "alone".into(), addresses: Vec::new() },
            Name { name: "0123456789ab".into(), addresses: vec![[172, 18, 0, 3].into()] },
            Name { name: "both".into(), addresses: vec![[172, 18, 0, 4].into(), Ipv6Addr::LOCALHOST.into()] },
        ];
        let told = Told { names, upstream, ..Told::default() };
        Arc::new(Shared { told: RwLock::new(told), ..Shared::default() })
    }

    #[test]
    fn names_of_containers_are_answered_here() {
        let shared = shared(Vec::new());
        let answer = own_answer(&shared, &query("WEB", TYPE_A)).unwrap();
        assert_eq!(answer[6..8], [0, 2], "two addresses");
        // There is the name, and no address of the other kind: clients go on with what they have.
        let six = own_answer(&shared, &query("web", 28)).unwrap();
        assert_eq!((six[3] & 0xf, &six[6..8]), (0, &[0, 0][..]));
        let both = own_answer(&shared, &query("both", TYPE_AAAA)).unwrap();
        assert_eq!((&both[6..8], &both[both.len() - 16..]), (&[0, 1][..], &Ipv6Addr::LOCALHOST.octets()[..]));
        assert_eq!(own_answer(&shared, &query("both", TYPE_A)).unwrap()[6..8], [0, 1]);
        let reverse = own_answer(&shared, &query("3.0.18.172.in-addr.arpa", TYPE_PTR)).unwrap();
        assert!(reverse.ends_with(&[3, b'w', b'e', b'b', 0]));
        assert_eq!(own_answer(&shared, &query("elsewhere.example", TYPE_A)), None);
        let odd = own_answer(&shared, b"x").unwrap();
        assert_eq!(odd[3] & 0xf, NOT_IMPLEMENTED);
    }

    #[test]
    fn nobody_to_ask_is_a_failure() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let asked = query("elsewhere.example", TYPE_A);
        forward_beside(&shared(Vec::new()), &socket, asked.clone(), client.local_addr().unwrap());
        let mut buffer = [0; 512];
        let length = client.recv(&mut buffer).unwrap();
        assert!(wire::belongs(&asked, &buffer[..length]));
        assert_eq!(buffer[3] & 0xf, SERVER_FAILURE);
    }
}
