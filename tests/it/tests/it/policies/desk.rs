//! An engine that follows a folder of policies.

use crate::world::{World, operator, start_engine_with, within};
use bulkhead_engine::{
    Activation, DraftFiles, EngineError, Expected, Happening, NewDraft, Observer, open_policies,
};
use bulkhead_model::{PolicyRevision, VchSettings};
use bulkhead_policy::{Decider, Settings, write_defaults};
use chrono::Utc;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nobody makes anything privileged.
pub const GUARD: &str = r#"@id("no-privileged-in-dev")
forbid (principal, action == Bulkhead::Action::"container.create", resource) when { resource.privileged };"#;

/// Nobody makes volumes.
pub const NO_VOLUMES: &str = r#"@id("no-volumes")
forbid (principal, action == Bulkhead::Action::"volume.create", resource);"#;

pub struct Desk {
    pub world: World,
    pub decider: Arc<Decider>,
    pub happened: Arc<Mutex<Vec<Happening>>>,
    dir: TempDir,
    stop: CancellationToken,
    following: Option<JoinHandle<()>>,
}

impl Desk {
    /// With the shipped policies in its folder, and in force as revision 1.
    pub async fn new(class: &str) -> Self {
        let mut world = World::with(class, VchSettings::default()).await;
        within("shutdown", world.engine.shutdown()).await;
        let dir = tempfile::tempdir().unwrap();
        write_defaults(&dir.path().join("p")).unwrap();
        let happened = Arc::default();
        let (decider, engine) = open(&world, dir.path().join("p"), &happened).await.unwrap();
        world.engine = engine;
        let mut desk =
            Self { world, decider, happened, dir, stop: CancellationToken::new(), following: None };
        desk.follow();
        desk
    }

    fn follow(&mut self) {
        let engine = self.world.engine.clone();
        self.following = Some(tokio::spawn(engine.follow_policies(self.folder(), self.stop.clone())));
    }

    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("p")
    }

    pub async fn shut(&mut self) {
        self.stop.cancel();
        within("the watch ends", self.following.take().unwrap()).await.unwrap();
        within("shutdown", self.world.engine.shutdown()).await;
    }

    /// As after a restart of the server.
    pub async fn open(&mut self) -> Result<(), EngineError> {
        let (decider, engine) = open(&self.world, self.folder(), &self.happened).await?;
        (self.decider, self.world.engine, self.stop) = (decider, engine, CancellationToken::new());
        self.follow();
        Ok(())
    }

    pub fn write(&self, file: &str, text: &str) {
        let path = self.folder().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub async fn draft(&self, name: &str, patch: &[(&str, Option<&str>)]) {
        let text = |text: Option<&str>| text.map(str::to_owned);
        let patch: BTreeMap<_, _> =
            patch.iter().map(|(file, new)| ((*file).to_owned(), text(*new))).collect();
        let new = NewDraft { base: None, files: DraftFiles::Patch(patch) };
        let caller = operator();
        let put = self.world.engine.policy_draft_put(&caller, name.parse().unwrap(), new, None);
        within("draft", put).await.unwrap();
    }

    pub async fn activate(&self, draft: &str, expected: Expected) -> Result<Activation, EngineError> {
        let caller = operator();
        let activated = self.world.engine.policy_activate(&caller, draft, expected, "because", false);
        within("activate", activated).await
    }

    pub async fn roll_back(&self, number: u64, expected: Expected) -> Result<Activation, EngineError> {
        let caller = operator();
        let rolled = self.world.engine.policy_rollback(&caller, number, expected, "", false);
        within("roll back", rolled).await
    }

    /// Number and origin of each revision, the newest first.
    pub async fn history(&self) -> Vec<String> {
        let all = within("history", self.world.engine.policy_revisions(&operator(), None, 100)).await;
        let line = |revision: &PolicyRevision| format!("{} {}", revision.number, revision.origin);
        all.unwrap().iter().map(line).collect()
    }

    pub fn active(&self) -> u64 {
        self.decider.version().revision
    }

    pub fn problem(&self) -> String {
        self.decider.status().problem.unwrap_or_default()
    }
}

async fn open(
    world: &World,
    folder: PathBuf,
    happened: &Arc<Mutex<Vec<Happening>>>,
) -> Result<(Arc<Decider>, bulkhead_engine::Engine), EngineError> {
    let decider = open_policies(&world.store, &folder, Settings::default(), Utc::now()).await?;
    let decider = Arc::new(decider);
    let told = happened.clone();
    let observer = Observer::new(move |happening| told.lock().unwrap().push(happening));
    let work = world.work.path();
    let engine =
        start_engine_with(&world.store, &world.sim, world.server, work, decider.clone(), observer).await?;
    Ok((decider, engine))
}

/// Waits until it holds; says how long that took.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(20), "never: {what}");
        ticks.tick().await;
    }
    started.elapsed()
}
