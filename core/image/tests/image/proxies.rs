//! Proxies, as the environment names them: each pull is a program of its own with its own environment.

use crate::disks::{Disks, converter};
use crate::peer::{Peer, Reply, reply};
use crate::proxy::ForwardProxy;
use bulkhead_image::pull;
use bulkhead_image::registry::{Credentials, Platform, Proxies, Registries, RegistryConfig, Timing};
use bulkhead_test_support::images::{LayerTar, TestImage};
use bulkhead_test_support::registry::{Registry, RegistryOptions};
use bulkhead_test_support::{Output, run};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const JOB: &str = "BULKHEAD_TEST_PULL";
const VARIABLES: [&str; 8] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

#[derive(Clone, Serialize, Deserialize)]
struct Job {
    reference: String,
    user: String,
    password: String,
    config: RegistryConfig,
    by_environment: bool,
}

/// Not a test of its own: does nothing unless it was started as a child.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else { return };
    let job: Job = serde_json::from_str(&job).unwrap();
    tracing::subscriber::set_global_default(Loud).unwrap();
    let result = tokio::runtime::Runtime::new().unwrap().block_on(async move {
        let proxies = if job.by_environment { Proxies::from_environment()? } else { Proxies::default() };
        let timing = Timing { backoff: Duration::from_millis(5), ..Timing::default() };
        let registries = Registries::new(RegistryConfig { proxies, timing, ..job.config })?;
        eprintln!("{registries:?}");
        let credentials = Credentials::Password { user: job.user, password: job.password };
        let reference = job.reference.parse().unwrap();
        let platform = Platform::default();
        let quiet: bulkhead_image::Progress = Arc::new(|_| {});
        let disks = Disks::new();
        pull::pull(&registries, &reference, &credentials, &platform, &disks, &converter(), &quiet).await
    });
    match result {
        Ok(fetched) => println!("pulled from {}", fetched.origin.unwrap().registry),
        Err(error) => {
            println!("failed: {error} {error:?}");
            std::process::exit(1);
        }
    }
}

/// Everything that anybody logs, at every level, to standard error.
struct Loud;

struct Text(String);

impl tracing::field::Visit for Text {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {field}={value:?}");
    }
}

impl tracing::Subscriber for Loud {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, attributes: &tracing::span::Attributes<'_>) -> tracing::Id {
        let mut text = Text(attributes.metadata().name().into());
        attributes.record(&mut text);
        eprintln!("{}", text.0);
        tracing::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::Id, record: &tracing::span::Record<'_>) {
        let mut text = Text(String::new());
        record.record(&mut text);
        eprintln!("{}", text.0);
    }

    fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(event.metadata().target().into());
        event.record(&mut text);
        eprintln!("{}", text.0);
    }

    fn enter(&self, _: &tracing::Id) {}

    fn exit(&self, _: &tracing::Id) {}
}

impl Job {
    /// An image of that registry, which the operator trusts, under the name that clients know the registry by.
    fn of(registry: &Registry, name: &str, is_tls: bool) -> Self {
        let mut config = RegistryConfig::default();
        if is_tls {
            config.ca_files.insert(name.into(), vec![registry.ca_pem_path.clone()]);
        } else {
            config.insecure.push(name.into());
        }
        Self {
            reference: format!("{name}/app:1"),
            user: registry.username.clone(),
            password: registry.password.clone(),
            config,
            by_environment: true,
        }
    }

    fn stranger(reference: String) -> Self {
        let (user, password) = ("alice".into(), "secret".into());
        Self { reference, user, password, config: RegistryConfig::default(), by_environment: true }
    }

    fn run(&self, environment: &[(&str, &str)]) -> Output {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["proxies::child", "--exact", "--nocapture", "--test-threads=1"]);
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env(JOB, serde_json::to_string(self).unwrap()).envs(environment.iter().copied());
        run(&mut command, Duration::from_secs(90)).unwrap()
    }

    fn pulls(&self, environment: &[(&str, &str)]) -> String {
        let told = self.run(environment).ok().unwrap();
        let registry = self.reference.split('/').next().unwrap();
        assert!(told.contains(&format!("pulled from {registry}")), "{told}");
        told
    }

    fn fails(&self, environment: &[(&str, &str)]) -> String {
        let output = self.run(environment);
        let failed = output.stdout.lines().find(|line| line.contains("failed: ")).map(str::to_owned);
        failed.unwrap_or_else(|| panic!("{output}"))
    }
}

fn secure() -> Registry {
    let registry = Registry::start().unwrap();
    registry.push("app:1", &app()).unwrap();
    registry
}

fn plain() -> Registry {
    let registry = Registry::start_with(RegistryOptions { tls: false, password: true }).unwrap();
    registry.push("app:1", &app()).unwrap();
    registry
}

fn app() -> TestImage {
    TestImage::new(vec![LayerTar::new().file("a", 0o644, b"a").finish()])
}

#[test]
fn a_registry_is_asked_through_a_tunnel_of_the_proxy_that_the_environment_names() {
    let registry = secure();
    let proxy = ForwardProxy::start(&[], None);
    let job = Job::of(&registry, &registry.address, true);
    let tunnel = format!("CONNECT {}", registry.address);
    let url = format!("http://{}", proxy.address);
    let by_name = proxy.address.replace("127.0.0.1", "localhost");
    for (name, value) in
        [("HTTPS_PROXY", &url), ("https_proxy", &url), ("ALL_PROXY", &url), ("HTTPS_PROXY", &by_name)]
    {
        job.pulls(&[(name, value)]);
        let asked = proxy.take_asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == tunnel), "{name}: {asked:?}");
    }
    let port = registry.address.strip_prefix("127.0.0.1").unwrap();
    let address = registry.address.as_str();
    for no_proxy in ["127.0.0.1", "example.com, 127.0.0.0/8", "*", address] {
        job.pulls(&[("HTTPS_PROXY", &url), ("NO_PROXY", no_proxy)]);
        assert!(proxy.take_asked().is_empty(), "{no_proxy}");
    }
    job.pulls(&[("HTTPS_PROXY", &url), ("NO_PROXY", &format!("example.com,128.0.0.1,127.0.0.1{port}0"))]);
    assert!(!proxy.take_asked().is_empty(), "others only");
    job.pulls(&[("HTTP_PROXY", &url)]);
    assert!(proxy.take_asked().is_empty(), "a proxy for plain HTTP only");
    Job { by_environment: false, ..job }.pulls(&[("ALL_PROXY", &url)]);
    assert!(proxy.take_asked().is_empty(), "the environment does not count");
}

#[test]
fn a_plain_registry_is_asked_through_a_proxy_that_alone_knows_its_name() {
    let registry = plain();
    let name = "registry.invalid:5000";
    let proxy = ForwardProxy::start(&[(name, &registry.address)], None);
    let job = Job::of(&registry, name, false);
    let url = format!("http://{}", proxy.address);
    let whole = format!("GET http://{name}/v2/app/manifests/1");
    for environment in [vec![("HTTP_PROXY", url.as_str())], vec![("http_proxy", &url), ("HTTPS_PROXY", &url)]]
    {
        job.pulls(&environment);
        let asked = proxy.take_asked();
        assert!(asked.contains(&whole), "{asked:?}");
    }
    job.fails(&[("HTTP_PROXY", &url), ("NO_PROXY", ".invalid")]);
    assert!(proxy.take_asked().is_empty());
    let job = Job::of(&registry, &registry.address, false);
    job.pulls(&[("HTTP_PROXY", &url)]);
    assert!(proxy.take_asked().iter().any(|asked| asked.starts_with("GET http://127.0.0.1:")));
    job.pulls(&[("ALL_PROXY", &url), ("NO_PROXY", "127.0.0.1")]);
    job.pulls(&[("HTTPS_PROXY", &url), ("NO_PROXY", "127.0.0.1")]);
    assert!(proxy.take_asked().is_empty());
}

#[test]
fn a_proxy_gets_its_password_and_nobody_else_reads_it() {
    let (tls, plain) = (secure(), plain());
    // alice:geh:eim!
    let header = "Basic YWxpY2U6Z2VoOmVpbSE=";
    let proxy = ForwardProxy::start(&[], Some(header));
    let url = format!("http://alice:geh%3Aeim%21@{}", proxy.address);
    let wrong = format!("http://alice:geh%3Aeim%21no@{}", proxy.address);
    for job in [Job::of(&tls, &tls.address, true), Job::of(&plain, &plain.address, false)] {
        let right = job.run(&[("ALL_PROXY", &url)]);
        assert!(right.is_ok(), "{right}");
        assert!(!proxy.take_asked().is_empty());
        let refused = job.run(&[("ALL_PROXY", &wrong)]);
        let text = refused.to_string();
        let asked_for = text.lines().find(|line| line.contains("failed: ")).unwrap();
        assert!(asked_for.to_lowercase().contains("proxy auth"), "{asked_for}");
        assert!(asked_for.contains(&format!("proxy `{}`", proxy.address)), "{asked_for}");
        for text in [right.to_string(), text] {
            assert!(text.contains(&proxy.address), "something is logged: {text}");
            for secret in ["geh:eim", "geh%3A", "alice:", "YWxpY2U6Z2Vo"] {
                assert!(!text.contains(secret), "{secret}: {text}");
            }
        }
    }
}

#[test]
fn a_proxy_that_is_not_there_is_named() {
    let job = Job::stranger("registry.invalid/app:1".into());
    let told = job.fails(&[("HTTPS_PROXY", "http://alice:geheim@127.0.0.1:1")]);
    assert!(told.contains("through the proxy `127.0.0.1:1`") && !told.contains("geheim"), "{told}");
    let told = job.fails(&[("HTTPS_PROXY", "gopher://alice:geheim@127.0.0.1:1")]);
    assert!(
        told.contains("HTTPS_PROXY: ") && told.contains("`gopher`") && !told.contains("geheim"),
        "{told}"
    );
}

#[test]
fn private_registries_stay_the_operator_s_to_allow() {
    let proxy = ForwardProxy::start(&[], None);
    let url = format!("http://{}", proxy.address);
    // As a name it passes the resolver, wherever it leads to; and as a bare one it is a proxy too.
    let by_name = proxy.address.replace("127.0.0.1", "localhost");
    for (host, words) in [
        ("127.0.0.1:1", "private address"),
        ("10.0.0.1", "private address"),
        ("169.254.169.254", "link-local"),
        ("localhost:5000", "private address"),
        ("metadata.localhost:5000", "private address"),
    ] {
        for proxy_url in [&url, &by_name] {
            let told = Job::stranger(format!("{host}/app:1")).fails(&[("ALL_PROXY", proxy_url)]);
            assert!(told.contains("may not be reached") && told.contains(words), "{told}");
        }
    }
    let told = Job::stranger("proxy.corp:22/app:1".into()).fails(&[("ALL_PROXY", "proxy.corp:3128")]);
    assert!(told.contains("it is a proxy"), "{told}");
    assert!(proxy.take_asked().is_empty());
    // A public name is the proxy's to find, which is then asked although it lies at a private address itself.
    let registry = secure();
    let proxy = ForwardProxy::start(&[("registry.example:443", &registry.address)], None);
    let by_name = proxy.address.replace("127.0.0.1", "localhost");
    let told = Job::stranger("registry.example/app:1".into()).fails(&[("HTTPS_PROXY", &by_name)]);
    assert!(proxy.take_asked().contains(&"CONNECT registry.example:443".into()));
    assert!(told.contains("certificate"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_s_redirects_to_forbidden_addresses_do_not_reach_the_proxy() {
    let proxy = Arc::new(ForwardProxy::start(&[], None));
    for target in
        ["http://169.254.169.254/latest", "http://[fe80::1]/", "http://2852039166/", "http://0.0.0.0/"]
    {
        for as_realm in [false, true] {
            let peer = Peer::start(move |asked, _| match (asked.path.as_str(), as_realm) {
                ("/", _) => reply(200, ""),
                (_, true) => Reply {
                    headers: vec![("WWW-Authenticate", format!("Bearer realm=\"{target}\""))],
                    ..reply(401, "{}")
                },
                (_, false) => Reply { headers: vec![("Location", target.into())], ..reply(302, "") },
            })
            .await;
            let mut job = Job::stranger(format!("{}/app:1", peer.address));
            job.config.insecure.push(peer.address.clone());
            let url = format!("http://{}", proxy.address);
            let told = tokio::task::spawn_blocking(move || job.fails(&[("ALL_PROXY", &url)])).await.unwrap();
            assert!(told.contains("may not be reached"), "{target}: {told}");
            let asked = proxy.take_asked();
            assert!(
                !asked.is_empty() && asked.iter().all(|asked| asked.contains(&peer.address)),
                "{asked:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_in_trouble_is_not_taken_for_a_registry_without_tls() {
    let registry = secure();
    // Neither tunnels nor forwards at first, as one that cannot reach the registry: it wants another password.
    let proxy = ForwardProxy::start(&[], Some("Basic bm9ib2R5Om5vYm9keQ=="));
    let mut job = Job::of(&registry, &registry.address, true);
    job.config.insecure.push(registry.address.clone());
    let url = format!("http://{}", proxy.address);
    let told = tokio::task::spawn_blocking(move || job.fails(&[("ALL_PROXY", &url)])).await.unwrap();
    assert!(told.to_lowercase().contains("proxy auth"), "{told}");
    let plain = format!("GET http://{}/v2/", registry.address);
    let asked = proxy.take_asked();
    assert!(!asked.iter().any(|asked| asked.starts_with(&plain)), "no credentials in the clear: {asked:?}");
}
