//! An engine on simulated machines and a real database, and short words for what tests do with it.

use bulkhead_engine::{
    Created, Engine, EngineError, EngineParts, EngineSettings, EventQuery, LogLine, LogQuery, Observer,
    Session, WaitFor,
};
use bulkhead_image::convert::Converter;
use bulkhead_image::registry::{Registries, RegistryConfig};
use bulkhead_machine::Disks as _;
use bulkhead_machine::sim::Sim;
use bulkhead_model::lifecycle::{Exit, Status};
use bulkhead_model::{
    Caller, Clock, Container, ContainerAsk, ContainerId, Digest, Event, Image, ImageConfig, Layer, ServerId,
    Vch, VchId, VchSettings,
};
use bulkhead_policy::{Decider, PolicySet, Settings};
use bulkhead_store::{Record, Store};
use bulkhead_test_support::postgres::Postgres;
use chrono::Utc;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use std::future::Future;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use uuid::Uuid;

/// Nothing here takes longer; a test that hangs says where.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The name of the image that every VCH here has.
pub const IMAGE: &str = "app";

/// Uid of the user who asks.
const USER: u32 = 1000;

pub struct World {
    pub store: Store,
    pub sim: Sim,
    pub server: ServerId,
    pub engine: Engine,
    pub vch: Vch,
    pub session: Session,
    pub work: tempfile::TempDir,
}

impl World {
    /// With a VCH `dev`.
    pub async fn new() -> Self {
        Self::with("dev", VchSettings::default()).await
    }

    /// With a VCH of a class, called as the class is.
    pub async fn with(class: &str, settings: VchSettings) -> Self {
        let postgres = Postgres::start().await.unwrap();
        let store = postgres.store().await.unwrap();
        let sim = Sim::new();
        let server = ServerId(Uuid::new_v4());
        let work = tempfile::tempdir().unwrap();
        let vch = vch(class, class, settings);
        let image = image(7);
        add_vch(&store, &sim, &vch, &image).await;
        let engine = start_engine(&store, &sim, server, work.path()).await.unwrap();
        let session = session(vch.id);
        Self { store, sim, server, engine, vch, session, work }
    }

    /// Another VCH beside the first one, with the same image.
    pub async fn add_vch(&self, name: &str, class: &str, settings: VchSettings) -> Session {
        let vch = vch(name, class, settings);
        add_vch(&self.store, &self.sim, &vch, &image(7)).await;
        session(vch.id)
    }

    /// A new engine on the same machines and data, as after a restart of the server. The one before goes on in its
    /// `Engine`, if it was not shut down.
    pub async fn next_engine(&mut self) -> Engine {
        let engine = start_engine(&self.store, &self.sim, self.server, self.work.path()).await.unwrap();
        std::mem::replace(&mut self.engine, engine)
    }

    pub async fn restart(&mut self) {
        within("shutdown", self.engine.shutdown()).await;
        self.next_engine().await;
    }

    /// A container with a script; see `bulkhead_machine::sim::script`.
    pub async fn create(&self, script: &str) -> ContainerId {
        self.create_as(None, ask(script)).await.unwrap().id
    }

    pub async fn create_as(&self, name: Option<&str>, ask: ContainerAsk) -> Result<Created, EngineError> {
        let name = name.map(Into::into);
        within("create", self.engine.create(&self.session, name, ask, no_view())).await
    }

    pub async fn start(&self, id: &ContainerId) -> Result<bulkhead_engine::Changed, EngineError> {
        within("start", self.engine.start_container(&self.session, id.as_str())).await
    }

    /// Made and started.
    pub async fn run(&self, script: &str) -> ContainerId {
        let id = self.create(script).await;
        self.start(&id).await.unwrap();
        id
    }

    pub async fn stop(
        &self,
        id: &ContainerId,
        timeout_s: Option<i64>,
    ) -> Result<bulkhead_engine::Changed, EngineError> {
        within("stop", self.engine.stop(&self.session, id.as_str(), None, timeout_s)).await
    }

    pub async fn remove(&self, id: &ContainerId, force: bool) -> Result<(), EngineError> {
        within("remove", self.engine.remove(&self.session, id.as_str(), force, false)).await
    }

    pub async fn container(&self, id: &ContainerId) -> Container {
        self.engine.container(&self.session, id.as_str()).await.unwrap()
    }

    /// How it ended, once it has.
    pub async fn exit(&self, id: &ContainerId) -> Exit {
        let waiting = self.engine.wait(&self.session, id.as_str(), WaitFor::NotRunning).await.unwrap();
        within("exit", waiting.done()).await.unwrap()
    }

    pub async fn is_gone(&self, id: &ContainerId) -> bool {
        matches!(
            self.engine.container(&self.session, id.as_str()).await,
            Err(EngineError::NoSuchContainer(_))
        )
    }

    pub async fn log_lines(&self, id: &ContainerId, query: LogQuery) -> Vec<LogLine> {
        let stream = self.engine.logs(&self.session, id.as_str(), query).await.unwrap().lines;
        within("log", stream.try_concat()).await.unwrap()
    }

    /// All lines of its log as text.
    pub async fn log(&self, id: &ContainerId) -> Vec<String> {
        self.log_lines(id, whole_log()).await.iter().map(text).collect()
    }

    /// All events so far.
    pub async fn events(&self) -> Vec<Event> {
        let query = EventQuery { since: Some(self.vch.created_at), until: Some(Utc::now()) };
        let stream = self.engine.events(&self.session, query).await.unwrap();
        within("events", stream.map(Result::unwrap).collect()).await
    }

    /// What happened to a container, in order.
    pub async fn story(&self, id: &ContainerId) -> Vec<String> {
        let of_it = |event: &Event| event.actor == id.as_str();
        self.events().await.into_iter().filter(of_it).map(|event| event.action).collect()
    }

    /// Machines, journals, disks of containers: nothing of them is there.
    pub fn nothing_left(&self) -> bool {
        let (machines, journals, disks, _) = self.sim.leftovers();
        (machines, journals, disks) == (0, 0, 0)
    }
}

/// For who never looks at a container as the Docker API shows it.
pub fn no_view() -> bulkhead_engine::ClientView {
    bulkhead_engine::ClientView { value: serde_json::json!({}), amend: |_, _| () }
}

/// Read and checked once: that takes longer than all else at a start.
static POLICIES: LazyLock<Arc<Decider>> =
    LazyLock::new(|| Arc::new(Decider::new(PolicySet::shipped().unwrap(), Settings::default())));

pub async fn start_engine(
    store: &Store,
    sim: &Sim,
    server: ServerId,
    work: &std::path::Path,
) -> Result<Engine, EngineError> {
    start_engine_with(store, sim, server, work, POLICIES.clone(), Observer::new(|_| ())).await
}

pub async fn start_engine_with(
    store: &Store,
    sim: &Sim,
    server: ServerId,
    work: &std::path::Path,
    policies: Arc<Decider>,
    observer: Observer,
) -> Result<Engine, EngineError> {
    let fence = store.claim_server(server, "one", Utc::now()).await.unwrap();
    Engine::start(EngineParts {
        store: store.clone(),
        back_end: sim.back_end(),
        policies,
        plugins: plugin_host(work),
        registries: Registries::new(RegistryConfig::default()).unwrap(),
        converter: Converter::new(crate::converter_config()),
        clock: Clock::system(),
        fence,
        settings: EngineSettings {
            version: "0.0.0-test".into(),
            work_dir: work.into(),
            decision_days: 30,
            dns: Vec::new(),
        },
        observer,
    })
    .await
}

fn plugin_host(work: &std::path::Path) -> bulkhead_plugin::Host {
    let (program, arguments) = bulkhead_test_support::plugins::compiler().unwrap();
    let compiler = bulkhead_plugin::Compiler::new(program, arguments);
    // How long a machine that does much else takes is not for these tests to say.
    let limits = bulkhead_plugin::Limits {
        deadline: std::time::Duration::from_secs(10),
        ..bulkhead_plugin::Limits::default()
    };
    bulkhead_plugin::Host::new(&work.join("plugins"), compiler, limits).unwrap()
}

async fn add_vch(store: &Store, sim: &Sim, vch: &Vch, image: &Image) {
    store.create_vch(vch, &Record::at(vch.created_at)).await.unwrap();
    for layer in &image.layers {
        let staged = sim.stage_layer(vch.id).await.unwrap();
        staged.commit(&layer.diff_id).await.unwrap();
    }
    store.put_image(vch.id, image, &Record::at(vch.created_at)).await.unwrap();
}

/// The user of [`session`] may use it.
pub fn vch(name: &str, class: &str, mut settings: VchSettings) -> Vch {
    settings.socket_uids.push(USER);
    Vch {
        id: VchId(Uuid::new_v4()),
        name: name.parse().unwrap(),
        tenant: "acme".into(),
        class: class.parse().unwrap(),
        parent: None,
        settings,
        created_at: Utc::now(),
        deleting: false,
    }
}

/// Of two layers, called [`IMAGE`].
pub fn image(number: u8) -> Image {
    let layer =
        |number: u8| Layer { diff_id: Digest::sha256([number; 32]), size_bytes: 1000, disk_bytes: 4096 };
    let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..ImageConfig::default() };
    Image {
        id: Digest::sha256([number; 32]),
        layers: vec![layer(1), layer(number)],
        config_json: "{}".into(),
        config,
        origins: Vec::new(),
        references: vec![format!("{IMAGE}:latest").parse().unwrap()],
        added_at: Utc::now(),
    }
}

pub fn session(vch: VchId) -> Session {
    Session { vch, caller: Caller::unix(USER) }
}

pub fn operator() -> Caller {
    Caller::unix(0)
}

/// `sim` and a script as the command.
pub fn ask(script: &str) -> ContainerAsk {
    let words = std::iter::once("sim").chain(script.split_whitespace());
    ContainerAsk {
        image: IMAGE.into(),
        cmd: Some(words.map(Into::into).collect()),
        ..ContainerAsk::default()
    }
}

pub fn whole_log() -> LogQuery {
    LogQuery { stdout: true, stderr: true, ..LogQuery::default() }
}

pub fn text(line: &LogLine) -> String {
    String::from_utf8_lossy(&line.data).trim_end_matches('\n').to_owned()
}

/// `line 1` to `line N`, as `count N` prints them.
pub fn counted(lines: u64) -> Vec<String> {
    (1..=lines).map(|line| format!("line {line}")).collect()
}

/// Fails, by name, what takes too long.
#[track_caller]
pub fn within<'a, T: 'a>(
    what: &'a str,
    work: impl Future<Output = T> + Send + 'a,
) -> futures_util::future::BoxFuture<'a, T> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(done) => done,
            Err(_) => panic!("{what} takes longer than {PATIENCE:?} ({caller})"),
        }
    }
    .boxed()
}

/// Waits for a condition that nothing announces.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let limit = tokio::time::Instant::now() + PATIENCE;
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !condition().await {
        assert!(tokio::time::Instant::now() < limit, "{what}: not within {PATIENCE:?}");
        ticks.tick().await;
    }
}

pub async fn until_running(world: &World, id: &ContainerId) {
    until("running", || async { matches!(world.container(id).await.status, Status::Running { .. }) }).await;
}
