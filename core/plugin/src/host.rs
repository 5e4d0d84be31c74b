//! Components that were compiled, and their life in this process.

use crate::admission::bindings::AdmissionPre;
use crate::call::{CallError, Called, Guest, Limits, NoMemory, NotStarted, call, clip};
use crate::compile::Compiler;
use crate::engine::{self, Ticker};
use crate::placement::bindings::PlacementPre;
use crate::placement::{self, Candidates};
use bindings::{PluginPre, exports::bulkhead::plugin::lifecycle};
use bulkhead_model::Digest;
use bulkhead_model::plugin::{Manifest, Point, SETTINGS_BYTES_MAX};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;
use wasmtime::component::{Component, ComponentType, InstancePre, Lift, Linker};
use wasmtime::{Engine, StoreContextMut};

/// What all plugins have in common. Made from `sdk/wit`.
mod bindings {
    wasmtime::component::bindgen!({ path: "../../sdk/wit/plugin", world: "bulkhead:plugin/plugin" });
}

/// Of a manifest's texts.
const TEXT_BYTES_MAX: usize = 500;
const PROBLEMS_MAX: usize = 20;
/// Memory of any plugin, at most.
const MEMORY_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The component is not one, or not for this engine.
    #[error("{0}")]
    Refused(String),
    #[error("{doing}: {why}")]
    Io { doing: String, why: String },
}

/// Where plugins are loaded and called. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Host(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    engine: Engine,
    ticker: Ticker,
    compiler: Compiler,
    /// Code of components, compiled before; only this program writes here.
    folder: PathBuf,
    limits: Limits,
    loaded: Mutex<HashMap<Digest, Plugin>>,
    /// The pool has as many places.
    turns: Arc<Semaphore>,
}

/// A plugin, ready to be called.
#[derive(Clone)]
pub struct Plugin {
    host: Host,
    points: Arc<Points>,
    digest: Digest,
}

/// The interfaces that a component has, each found once.
pub(crate) struct Points {
    lifecycle: PluginPre<Guest>,
    pub(crate) admission: Option<AdmissionPre<Guest>>,
    pub(crate) placement: Option<PlacementPre<Guest>>,
}

const ADMIT: &str = "bulkhead:admission/admit@0.1.0";
const PLACE: &str = "bulkhead:placement/place@0.1.0";

impl Points {
    /// One that has an interface has to have it as it is written.
    fn of(component: &Component, pre: InstancePre<Guest>) -> wasmtime::Result<Self> {
        let has = |name: &str| component.get_export_index(None, name).is_some();
        let admission = has(ADMIT).then(|| AdmissionPre::new(pre.clone())).transpose()?;
        let placement = has(PLACE).then(|| PlacementPre::new(pre.clone())).transpose()?;
        if admission.is_none() && placement.is_none() {
            return Err(wasmtime::Error::msg(format!("it exports neither {ADMIT} nor {PLACE}")));
        }
        Ok(Self { lifecycle: PluginPre::new(pre)?, admission, placement })
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin").field("digest", &self.digest).finish_non_exhaustive()
    }
}

impl Host {
    /// `folder` is made if need be, for the server's user alone.
    /// `limits`: of each call in a request.
    pub fn new(folder: &Path, compiler: Compiler, limits: Limits) -> Result<Self, HostError> {
        let engine = engine::to_run(MEMORY_BYTES_MAX).map_err(|error| HostError::Io {
            doing: "preparing to run WebAssembly".into(),
            why: format!("{error:#}"),
        })?;
        let ticker = Ticker::start(&engine).map_err(io("starting a thread"))?;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| sweep(folder)).map_err(io(format!("making `{}`", folder.display())))?;
        let folder = folder.to_owned();
        Ok(Self(Arc::new(Inner {
            engine,
            ticker,
            compiler,
            folder,
            limits,
            loaded: Mutex::default(),
            turns: Arc::new(Semaphore::new(engine::CALLS_MAX as usize)),
        })))
    }

    /// The plugin, compiled if it was not before. `component` is only read then.
    pub async fn load(
        &self,
        digest: &Digest,
        component: impl AsyncFnOnce() -> Result<Vec<u8>, HostError>,
    ) -> Result<Plugin, HostError> {
        if let Some(plugin) = self.loaded().get(digest) {
            return Ok(plugin.clone());
        }
        let file = self.file_of(digest);
        let plugin = match self.read(digest, file.clone()).await {
            Some(plugin) => plugin,
            None => {
                let component = component().await?;
                if Digest::of(&component) != *digest {
                    let text = format!("the component is not the one of digest {digest}");
                    return Err(HostError::Refused(text));
                }
                let code = self.0.compiler.compile(component).await?;
                self.keep(&file, &code).await?;
                self.read(digest, file).await.ok_or_else(|| {
                    HostError::Refused("what was compiled cannot be loaded; see the server's log".into())
                })?
            }
        };
        self.loaded().insert(digest.clone(), plugin.clone());
        Ok(plugin)
    }

    /// Of each call in a request.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Of each call about candidates, which may be many: 50 ms where others have 30.
    pub fn placement_limits(&self) -> Limits {
        Limits { deadline: self.0.limits.deadline * 5 / 3, ..self.0.limits }
    }

    /// Forgets it and its code; who calls it now ends in peace.
    pub fn forget(&self, digest: &Digest) {
        self.loaded().remove(digest);
        let file = self.file_of(digest);
        if let Err(error) = std::fs::remove_file(&file)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "a plugin's code could not be removed");
        }
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Plugin>> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the engine is in the name: code of another is compiled anew.
    fn file_of(&self, digest: &Digest) -> PathBuf {
        self.0.folder.join(format!("{}.{}.cwasm", digest.hex(), engine::VERSION))
    }

    /// `None`: there is none, or it is of no use.
    async fn read(&self, digest: &Digest, file: PathBuf) -> Option<Plugin> {
        let (host, digest) = (self.clone(), digest.clone());
        let read = tokio::task::spawn_blocking(move || {
            if !file.is_file() {
                return None;
            }
            match host.link(&file, digest) {
                Ok(plugin) => Some(plugin),
                Err(error) => {
                    tracing::warn!(file = %file.display(), error = format!("{error:#}"), "a plugin's code is compiled anew");
                    None
                }
            }
        });
        read.await.unwrap_or_default()
    }

    fn link(&self, file: &Path, digest: Digest) -> wasmtime::Result<Plugin> {
        let kept = std::fs::read(file)?;
        let code = whole(&kept).ok_or_else(|| wasmtime::Error::msg("it is not as it was written"))?;
        // SAFETY: this is native code. It lies in a folder that only the server's user can read and write, `keep` put it
        // there with its digest, and its bytes come from this program's own compiler.
        #[expect(unsafe_code, reason = "loading compiled code has no safe API")]
        let component = unsafe { Component::deserialize(&self.0.engine, code)? };
        let mut linker = Linker::<Guest>::new(&self.0.engine);
        let mut log = linker.instance("bulkhead:plugin/log@0.1.0")?;
        log.func_wrap("write", |mut store: StoreContextMut<'_, Guest>, (level, text): (Level, String)| {
            Guest::write(&mut store, level.into(), &text)
        })?;
        placement::link(&mut linker)?;
        let points = Points::of(&component, linker.instantiate_pre(&component)?)?;
        Ok(Plugin { host: self.clone(), points: Arc::new(points), digest })
    }

    /// Whole, or not at all.
    async fn keep(&self, file: &Path, code: &[u8]) -> Result<(), HostError> {
        let doing = format!("keeping a plugin's code in `{}`", file.display());
        let draft = file.with_extension(format!("{}.draft", std::process::id()));
        let kept = async {
            let mut out = tokio::fs::File::create(&draft).await?;
            out.write_all(&Sha256::digest(code)).await?;
            out.write_all(code).await?;
            out.sync_all().await?;
            tokio::fs::rename(&draft, file).await
        };
        kept.await.map_err(io(doing))
    }
}

impl Plugin {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Where it can be asked.
    pub fn points(&self) -> Vec<Point> {
        let admission = self.points.admission.as_ref().map(|_| Point::Admission);
        let placement = self.points.placement.as_ref().map(|_| Point::Placement);
        admission.into_iter().chain(placement).collect()
    }

    /// One call, in the instance that `ask` makes, on a thread that may be blocked for as long as the limits let it.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        limits: &Limits,
        candidates: Option<Arc<dyn Candidates>>,
        ask: impl FnOnce(&Points, &mut wasmtime::Store<Guest>) -> wasmtime::Result<T> + Send + 'static,
    ) -> Called<T> {
        // It goes with the call, which goes on where its caller does not.
        let turn = self.host.0.turns.clone().acquire_owned().await;
        let (plugin, limits) = (self.clone(), *limits);
        let called = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let _ticks = plugin.host.0.ticker.run();
            call(&plugin.host.0.engine, &limits, candidates, |store| ask(&plugin.points, store))
        });
        called.await.unwrap_or_else(|error| Called::broken(error.to_string()))
    }

    /// What it says of itself.
    pub async fn describe(&self) -> Result<Manifest, CallError> {
        let limits = patient();
        let said = self.call(&limits, None, |points, store| {
            let plugin = points.lifecycle.instantiate(&mut *store).map_err(not_started)?;
            plugin.bulkhead_plugin_lifecycle().call_describe(store)
        });
        manifest(said.await.result?, self.points())
    }

    /// What is wrong with settings: where (a JSON pointer) and what. Empty: nothing.
    pub async fn check_settings(
        &self,
        settings: &serde_json::Value,
    ) -> Result<Vec<(String, String)>, CallError> {
        if !settings.is_object() {
            return Ok(vec![(String::new(), "settings are a JSON object".into())]);
        }
        let text = settings.to_string();
        if text.len() > SETTINGS_BYTES_MAX {
            return Ok(vec![(String::new(), format!("settings are {SETTINGS_BYTES_MAX} bytes at most"))]);
        }
        let limits = patient();
        let said = self.call(&limits, None, move |points, store| {
            let plugin = points.lifecycle.instantiate(&mut *store).map_err(not_started)?;
            plugin.bulkhead_plugin_lifecycle().call_check_settings(store, &text)
        });
        let problems = match said.await.result? {
            Ok(()) => Vec::new(),
            Err(problems) if problems.is_empty() => {
                return Err(CallError::answer("it refuses settings and does not say why"));
            }
            Err(problems) => problems,
        };
        let told = |problem: lifecycle::SettingsProblem| {
            (clip(&problem.path, TEXT_BYTES_MAX), clip(&problem.message, TEXT_BYTES_MAX))
        };
        Ok(problems.into_iter().take(PROBLEMS_MAX).map(told).collect())
    }
}

/// A component can run code when it is instantiated, which ends as a call does.
pub(crate) fn not_started(error: wasmtime::Error) -> wasmtime::Error {
    match error.is::<wasmtime::Trap>() || error.is::<NoMemory>() {
        true => error,
        false => NotStarted(format!("{error:#}")).into(),
    }
}

/// At installation nobody's request waits.
fn patient() -> Limits {
    Limits { deadline: Duration::from_secs(1), ..Limits::default() }
}

fn manifest(said: lifecycle::Manifest, points: Vec<Point>) -> Result<Manifest, CallError> {
    let text = |what: &str, text: String| match text.is_empty() || text.len() > TEXT_BYTES_MAX {
        true => Err(CallError::answer(format!("its {what} has to be of 1 to {TEXT_BYTES_MAX} bytes"))),
        false => Ok(clip(&text, TEXT_BYTES_MAX)),
    };
    let settings_schema = serde_json::from_str(&said.settings_schema)
        .map_err(|error| CallError::answer(format!("its settings' schema is no JSON: {error}")))?;
    Ok(Manifest {
        name: said.name.parse().map_err(|error| CallError::answer(format!("its name: {error}")))?,
        version: text("version", said.version)?,
        description: text("description", said.description)?,
        license: text("license", said.license)?,
        settings_schema,
        points,
    })
}

/// What is behind the digest of it, if it is that.
fn whole(kept: &[u8]) -> Option<&[u8]> {
    let (digest, code) = kept.split_at_checked(<Sha256 as sha2::Digest>::output_size())?;
    (*digest == *Sha256::digest(code)).then_some(code)
}

/// Removes drafts, and code of other versions of the engine.
fn sweep(folder: &Path) -> std::io::Result<()> {
    let ours = format!(".{}.cwasm", engine::VERSION);
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if !path.to_string_lossy().ends_with(&ours) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> HostError {
    let doing = doing.into();
    move |error| HostError::Io { doing, why: error.to_string() }
}

/// As in the WIT.
#[expect(dead_code, reason = "its values are made by the plugin")]
#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
enum Level {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}

impl From<Level> for tracing::Level {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Self::DEBUG,
            Level::Info => Self::INFO,
            Level::Warn => Self::WARN,
            Level::Error => Self::ERROR,
        }
    }
}
