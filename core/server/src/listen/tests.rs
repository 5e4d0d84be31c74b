use super::*;
use crate::tls::Authority;
use axum::Extension;
use axum::routing::get;
use bulkhead_model::Caller;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio_rustls::TlsConnector;

/// Answers with the caller's name.
fn app() -> Router {
    Router::new().route("/", get(|Extension(caller): Extension<Caller>| async move { caller.to_string() }))
}

fn listener(source: Source, origins: Origins, limits: LimitsSection) -> Listener {
    Listener { name: "test".into(), source, app: app(), origins, limits }
}

/// The whole answer to one request.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, headers: &str) -> std::io::Result<String> {
    stream.write_all(format!("GET / HTTP/1.1\r\n{headers}Connection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn access(uids: &[u32], refusal: Refusal) -> Access {
    Access { uids: uids.to_vec(), refusal }
}

async fn on_unix(dir: &Path, access: Access) -> String {
    let path = dir.join("s.sock");
    let stop = Stop::default();
    let source = Source::Unix { listener: bind_unix(&path).unwrap(), access };
    let task = tokio::spawn(listener(source, Origins::NoPages, LimitsSection::default()).run(stop.clone()));
    let answer = ask(UnixStream::connect(&path).await.unwrap(), "Host: x\r\n").await.unwrap();
    stop.soft.cancel();
    task.await.unwrap();
    answer
}

fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[tokio::test]
async fn the_kernel_says_who_the_peer_is() {
    let dir = tempfile::tempdir().unwrap();
    let answer = on_unix(dir.path(), access(&[own_uid()], Refusal::Admin)).await;
    assert!(answer.ends_with(&format!("uid:{}", own_uid())), "{answer}");
}

#[test]
fn only_root_and_listed_users_get_in() {
    let access = access(&[1000], Refusal::Admin);
    assert_eq!(access.refuse(0), None);
    assert_eq!(access.refuse(1000), None);
    assert!(access.refuse(1001).is_some());
}

/// A connection of another user cannot be made here without being root, so the served refusal is tested by its peer.
#[tokio::test]
async fn a_refused_peer_is_told_which_setting() {
    for (refusal, expect) in [
        (Refusal::Admin, "application/problem+json"),
        (
            Refusal::Docker { vch: "dev".into() },
            r#"{"message":"permission denied: uid 1001 may not use the VCH `dev`"#,
        ),
    ] {
        let (client, server) = UnixStream::pair().unwrap();
        let served = Served { app: app(), origins: Origins::NoPages, timeout: Duration::from_secs(5) };
        let peer = Peer::Unix { stream: server, uid: 1001, refusal: access(&[1000], refusal).refuse(1001) };
        let task = tokio::spawn(served.run(peer, Stop::default()));
        let answer = ask(client, "Host: x\r\n").await.unwrap();
        task.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
        assert!(answer.contains(expect) && answer.contains("[admin]") && answer.contains("1001"), "{answer}");
    }
}

#[tokio::test]
async fn a_socket_that_a_crash_left_is_replaced_and_a_file_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    drop(bind_unix(&path).unwrap());
    assert!(path.exists());
    bind_unix(&path).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(bind_unix(&file).is_err());
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn pages_and_foreign_hosts_are_refused_on_plain_tcp() {
    let tcp = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let stop = Stop::default();
    let listener =
        listener(Source::Loopback { listener: tcp }, Origins::NoPagesOnLoopback, LimitsSection::default());
    let task = tokio::spawn(listener.run(stop.clone()));
    let to = async |headers: &str| ask(TcpStream::connect(address).await.unwrap(), headers).await.unwrap();
    assert!(to(&format!("Host: {address}\r\n")).await.ends_with("loopback"));
    assert!(to("Host: evil.example\r\n").await.starts_with("HTTP/1.1 403"));
    assert!(to("Host: localhost\r\nOrigin: http://localhost\r\n").await.starts_with("HTTP/1.1 403"));
    stop.soft.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_client_that_sends_no_headers_is_cut_off() {
    let (mut client, server) = UnixStream::pair().unwrap();
    let served = Served { app: app(), origins: Origins::NoPages, timeout: Duration::from_millis(50) };
    let task =
        tokio::spawn(served.run(Peer::Unix { stream: server, uid: 0, refusal: None }, Stop::default()));
    client.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    task.await.unwrap();
}

#[tokio::test]
async fn a_soft_stop_ends_idle_connections_and_a_hard_one_all() {
    let (mut idle, server) = UnixStream::pair().unwrap();
    let served = || Served { app: app(), origins: Origins::NoPages, timeout: Duration::from_secs(60) };
    let stop = Stop::default();
    let task = tokio::spawn(served().run(Peer::Unix { stream: server, uid: 0, refusal: None }, stop.clone()));
    stop.soft.cancel();
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    task.await.unwrap();
    // Half a request keeps a connection open through the soft stop.
    let (mut half, server) = UnixStream::pair().unwrap();
    half.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let stop = Stop::default();
    let task = tokio::spawn(served().run(Peer::Unix { stream: server, uid: 0, refusal: None }, stop.clone()));
    stop.hard.cancel();
    task.await.unwrap();
}

/// An endpoint that tells when it is asked, and answers when it is let.
fn slow_app(asked: Arc<Notify>, let_go: Arc<Notify>) -> Router {
    Router::new().route(
        "/",
        get(move || async move {
            asked.notify_one();
            let_go.notified().await;
            "done"
        }),
    )
}

#[tokio::test]
async fn a_client_that_is_gone_is_not_waited_for_and_one_that_only_listens_is() {
    let (asked, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let serve = |stream| {
        let app = slow_app(asked.clone(), let_go.clone());
        let served = Served { app, origins: Origins::NoPages, timeout: Duration::from_secs(60) };
        tokio::spawn(served.run(Peer::Unix { stream, uid: 0, refusal: None }, Stop::default()))
    };
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    let (mut client, server) = UnixStream::pair().unwrap();
    let task = serve(server);
    client.write_all(request).await.unwrap();
    asked.notified().await;
    drop(client);
    task.await.unwrap();

    let (mut client, server) = UnixStream::pair().unwrap();
    let task = serve(server);
    client.write_all(request).await.unwrap();
    client.shutdown().await.unwrap();
    asked.notified().await;
    let_go.notify_one();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("done"), "{answer}");
    task.await.unwrap();
}

/// What a TLS client has.
struct Client {
    authority: Authority,
    certificate: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Client {
    async fn ask(self, address: SocketAddr) -> std::io::Result<String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match self.certificate {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        ask(stream, "Host: x\r\n").await
    }
}

fn certificate(
    authority: &Authority,
    name: &str,
    now: SystemTime,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let issued = authority.issue_client(name, now).unwrap();
    // By way of the PEM that clients are given.
    let chain = CertificateDer::from_pem_slice(issued.cert_pem.as_bytes()).unwrap();
    (vec![chain], PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap())
}

#[tokio::test]
async fn tls_lets_in_only_clients_of_this_vch_and_calls_them_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let authority = Authority::open(&dir.path().join("own"), "dev", now).unwrap();
    let foreign = Authority::open(&dir.path().join("foreign"), "dev", now).unwrap();
    let tcp = bind_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let tls = TlsServer::new(authority.clone(), address).unwrap();
    let stop = Stop::default();
    let listener = listener(Source::Tls { listener: tcp, tls }, Origins::NoPages, LimitsSection::default());
    let task = tokio::spawn(listener.run(stop.clone()));
    let with = |certificate| Client { authority: authority.clone(), certificate };

    let answer = with(Some(certificate(&authority, "alice", now))).ask(address).await.unwrap();
    assert!(answer.ends_with("cert:alice"), "{answer}");
    let nobody = with(None).ask(address).await;
    assert!(nobody.is_err() || nobody.unwrap().is_empty(), "no certificate");
    let stranger = with(Some(certificate(&foreign, "alice", now))).ask(address).await;
    assert!(stranger.is_err() || stranger.unwrap().is_empty(), "another VCH's certificate");
    let old = now - Duration::from_secs(400 * 24 * 3600);
    let expired = with(Some(certificate(&authority, "alice", old))).ask(address).await;
    assert!(expired.is_err() || expired.unwrap().is_empty(), "an expired certificate");
    // A server's certificate is none for a client.
    let issued = authority.issue_server(&["localhost".into()], now).unwrap();
    let chain = vec![CertificateDer::from(issued.cert_der)];
    let server = with(Some((chain, PrivateKeyDer::try_from(issued.key_der).unwrap()))).ask(address).await;
    assert!(server.is_err() || server.unwrap().is_empty(), "a server's certificate");
    // Plain HTTP gets nowhere.
    let plain = ask(TcpStream::connect(address).await.unwrap(), "Host: x\r\n").await;
    assert!(plain.is_err() || !plain.unwrap().starts_with("HTTP/1.1 200"));
    stop.soft.cancel();
    task.await.unwrap();
}

#[test]
fn an_authority_stays_and_its_key_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let first = Authority::open(&tls, "dev", SystemTime::now()).unwrap().certificate_pem().unwrap();
    let again = Authority::open(&tls, "dev", SystemTime::now()).unwrap().certificate_pem().unwrap();
    assert_eq!(first, again);
    let mode = |name: &str| std::fs::metadata(tls.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("ca.key"), mode("ca.pem"), mode(".")), (0o600, 0o600, 0o700));
}
