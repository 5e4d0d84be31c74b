//! `bulkhead serve`: puts the parts together, and takes them apart again.
//!
//! ```text
//!   config ─▶ lock ─▶ folders ─▶ database ─▶ policies ─▶ back end ─▶ engine ─▶ listeners
//!                                                  stop: the same way back; machines stay
//! ```
//!
//! Everything long-lived is a task that this module holds; nothing else starts tasks that outlive a request.

mod back_end;
mod database;
mod folders;
mod listeners;
mod policies;
mod signals;

use crate::config::Config;
use crate::listen::{Access, Listener, Origins, Refusal, Source, Stop, bind_tcp, bind_unix};
use crate::telemetry::{Metrics, Observed, Readiness, observe, router as telemetry_router};
use crate::tls::{Authority, context_host};
use anyhow::{Context as _, Result};
use axum::Router;
use back_end::OpenBackEnd;
use bulkhead_admin_api::view::ClientCertificate;
use bulkhead_admin_api::{AdminState, CertificateIssuer, Problem};
use bulkhead_engine::{Engine, EngineParts, EngineSettings, Observer};
use bulkhead_image::convert::{Converter, ConverterConfig};
use bulkhead_image::registry::{PrivateAddresses, Proxies, Registries, RegistryConfig};
use bulkhead_model::{Clock, ServerId, Vch};
use bulkhead_plugin::{Compiler, Limits};
use bulkhead_store::DataDirLock;
use database::Database;
use folders::Folders;
use listeners::VchListeners;
use nix::sys::resource::{Resource, setrlimit};
use policies::Policies;
use signals::Signals;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The hidden subcommand that converts layers.
pub const LAYER_CHILD: &str = "layer-convert";
/// The hidden subcommand that compiles plugins.
pub const COMPILE_CHILD: &str = "plugin-compile";

/// Deadline of the engine's own stop.
const ENGINE_STOP: Duration = Duration::from_secs(20);
/// After the grace, streams are cut; their tasks end within this.
const CUT: Duration = Duration::from_secs(2);
/// For the endpoints to be opened, before this server says that it is ready.
const FIRST_ENDPOINTS: Duration = Duration::from_secs(5);

/// Runs until a signal says to stop.
pub async fn serve(config: Config) -> Result<()> {
    // First of all, so that a signal during the start is not lost.
    let signals = Signals::new()?;
    // A core file would hold whatever secret is in memory.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    let folders = Folders::prepare(&config)?;
    let _data_lock = DataDirLock::acquire(&config.data_dir)?;
    let _run_lock = DataDirLock::acquire(&config.run_dir)?;
    let server = folders.server_id()?;
    tracing::info!(version = VERSION, data_dir = %config.data_dir.display(), server = %server, "starting");
    folders.write_pid()?;
    let database = Database::open(&config).await?;
    let outcome = run(&config, server, &database, signals).await;
    database.close().await;
    folders.remove_files(&config.admin_socket());
    if outcome.is_ok() {
        tracing::info!("stopped; machines go on");
    }
    outcome
}

async fn run(config: &Config, server: ServerId, database: &Database, mut signals: Signals) -> Result<()> {
    // Opened before anything is begun: what is in the way shows at once. Clients wait until it is served.
    let sockets = Sockets::open(config).await?;
    let clock = Clock::system();
    let store = database.store().clone();
    let fence =
        store.claim_server(server, &host_name(), clock.now()).await.context("cannot claim the data")?;
    let policies = Policies::open(config, &store, clock.now()).await?;
    let opened = OpenBackEnd::open(config, server).await?;
    let capabilities = opened.back_end.machines.capabilities().clone();
    back_end::announce(&capabilities);
    let metrics = Metrics::new(VERSION, &capabilities.back_end, &capabilities.accelerator);
    let engine = Engine::start(EngineParts {
        store: store.clone(),
        back_end: opened.back_end.clone(),
        policies: policies.decider.clone(),
        plugins: plugins(config)?,
        registries: Registries::new(registry(config)?).context("[registry]")?,
        converter: Converter::new(ConverterConfig::new(program()?, vec![LAYER_CHILD.into()])),
        clock,
        fence,
        settings: settings(config),
        observer: observer(&metrics),
    })
    .await
    .context("the engine does not start")?;

    let stop = Stop::default();
    let mut tasks = JoinSet::new();
    tasks.spawn(engine.clone().follow_policies(policies.dir.clone(), stop.soft.clone()));
    let readiness = Readiness {
        store: store.clone(),
        policies: policies.decider.clone(),
        back_end: opened.back_end.clone(),
        metrics: metrics.clone(),
    };
    let listeners = VchListeners::new(config, engine.clone(), metrics.clone());
    let admin = AdminState {
        engine: engine.clone(),
        policies: policies.status(),
        endpoints: listeners.endpoints(),
        certificates: certificate_issuer(config),
    };
    let (admin, telemetry) = sockets.listeners(config, admin, readiness, &metrics);
    let mut endpoints = listeners.endpoints();
    tasks.spawn(listeners.run(stop.clone()));
    tasks.spawn(admin.run(stop.clone()));
    // Whoever waits for this server wants to use its endpoints; one that cannot be opened tells its own story.
    if tokio::time::timeout(FIRST_ENDPOINTS, endpoints.changed()).await.is_err() {
        tracing::warn!("the Docker endpoints are not open yet");
    }
    if let Some(telemetry) = telemetry {
        tasks.spawn(telemetry.run(stop.clone()));
    }
    tracing::info!(admin = %config.admin_socket().display(), "ready");

    while signals.next().await == signals::Wanted::Reload {
        policies.reload(&engine).await;
    }
    tracing::info!("stopping: no new requests, those under way may finish; once more to stop at once");
    let abort = signals.abort_on_second();
    stop.soft.cancel();
    finish(config, &engine, &stop, tasks).await;
    opened.close().await;
    abort.abort();
    Ok(())
}

/// The requests under way, then the engine, then whatever is left.
async fn finish(config: &Config, engine: &Engine, stop: &Stop, mut tasks: JoinSet<()>) {
    let grace = Duration::from_secs(config.limits.stop_grace_s);
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::info!("some requests did not end in time and are cut");
    }
    if tokio::time::timeout(ENGINE_STOP, engine.shutdown()).await.is_err() {
        tracing::warn!("the engine did not stop in time; the next start picks up what it left");
    }
    stop.hard.cancel();
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(CUT, all).await.is_err() {
        tasks.abort_all();
    }
}

fn observer(metrics: &Metrics) -> Observer {
    let metrics = metrics.clone();
    Observer::new(move |happening| metrics.happened(happening))
}

fn settings(config: &Config) -> EngineSettings {
    EngineSettings {
        version: VERSION.into(),
        work_dir: config.data_dir.join("spool"),
        decision_days: config.policies.decision_days,
        dns: config.network.resolvers(),
    }
}

fn plugins(config: &Config) -> Result<bulkhead_plugin::Host> {
    let compiler = Compiler::new(program()?, vec![COMPILE_CHILD.into()]);
    bulkhead_plugin::Host::new(&config.data_dir.join("plugins"), compiler, Limits::default())
        .context("plugins")
}

/// This very program, which is also what converts layers and compiles plugins.
fn program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

fn registry(config: &Config) -> Result<RegistryConfig> {
    let section = &config.registry;
    let private_addresses = if section.private.iter().any(|host| host == "*") {
        PrivateAddresses::All
    } else {
        PrivateAddresses::Of(section.private.clone())
    };
    let proxies = Proxies::from_environment().context("a proxy in the environment")?;
    if !proxies.is_empty() {
        tracing::info!(?proxies, "registries are asked through a proxy");
    }
    Ok(RegistryConfig {
        insecure: section.insecure.clone(),
        ca_files: section.ca_files.iter().map(|(host, file)| (host.clone(), vec![file.clone()])).collect(),
        mirrors: section.mirrors.clone(),
        private_addresses,
        proxies,
        ..RegistryConfig::default()
    })
}

/// What the server itself listens on, beside the VCHs.
struct Sockets {
    admin: UnixListener,
    telemetry: Option<TcpListener>,
}

impl Sockets {
    async fn open(config: &Config) -> Result<Self> {
        let what = "[telemetry] listen; set it to another port, or to \"\" for none";
        let telemetry = match config.telemetry.address() {
            Some(address) => Some(bind_tcp(address).await.context(what)?),
            None => None,
        };
        Ok(Self { admin: bind_unix(&config.admin_socket())?, telemetry })
    }

    fn listeners(
        self,
        config: &Config,
        admin: AdminState,
        readiness: Readiness,
        metrics: &Metrics,
    ) -> (Listener, Option<Listener>) {
        let listener = |name: &str, source, app, origins| Listener {
            name: name.into(),
            source,
            app: observed(app, name, metrics),
            origins,
            limits: config.limits.clone(),
        };
        let access = Access { uids: config.admin.uids.clone(), refusal: Refusal::Admin };
        let source = Source::Unix { listener: self.admin, access };
        let admin = listener("admin", source, bulkhead_admin_api::router(admin), Origins::NoPages);
        let telemetry = self.telemetry.map(|socket| {
            let source = Source::Loopback { listener: socket };
            listener("telemetry", source, telemetry_router(readiness), Origins::NoPagesOnLoopback)
        });
        (admin, telemetry)
    }
}

/// A span, a log line and the figures around each request.
fn observed(app: Router, listener: &str, metrics: &Metrics) -> Router {
    let observed = Observed { listener: listener.into(), metrics: metrics.clone() };
    app.layer(axum::middleware::from_fn_with_state(observed, observe))
}

/// The folder of a VCH's own authority.
fn tls_dir(data_dir: &std::path::Path, vch: &Vch) -> PathBuf {
    data_dir.join("tls").join(vch.id.to_string())
}

fn certificate_issuer(config: &Config) -> CertificateIssuer {
    let data_dir = config.data_dir.clone();
    Arc::new(move |vch, client| {
        issue(&data_dir, vch, client).map_err(|error| {
            tracing::error!(vch.name = %vch.name, error = %format!("{error:#}"), "cannot issue a client certificate");
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            Problem::new(status, bulkhead_admin_api::code::INTERNAL, "cannot issue a client certificate; the server's log tells why")
        })
    })
}

fn issue(data_dir: &std::path::Path, vch: &Vch, client: &str) -> Result<ClientCertificate> {
    let now = SystemTime::now();
    let authority = Authority::open(&tls_dir(data_dir, vch), vch.name.as_str(), now)?;
    let issued = authority.issue_client(client, now)?;
    let listen: SocketAddr = vch.settings.tls_listen.as_deref().unwrap_or_default().parse()?;
    Ok(ClientCertificate {
        host: context_host(listen),
        ca_pem: authority.certificate_pem()?,
        cert_pem: issued.cert_pem,
        key_pem: issued.key_pem,
        not_after: issued.not_after.into(),
    })
}

fn host_name() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".into())
}
