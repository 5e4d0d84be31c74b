//! A VCH, an image and a container to test with.

use bulkhead_model::container::{ContainerAsk, ContainerSpec, Resources, Signal};
use bulkhead_model::event::{EventKind, NewEvent};
use bulkhead_model::lifecycle::{Desired, Exit, Goal, Status};
use bulkhead_model::{
    Boot, Container, ContainerId, Digest, Image, ImageConfig, Layer, Origin, ServerId, Vch, VchId,
    VchSettings,
};
use bulkhead_store::{AuditEntry, Fence, Record, Store};
use bulkhead_test_support::postgres::Postgres;
use chrono::{DateTime, TimeZone as _, Utc};
use std::collections::BTreeMap;
use uuid::Uuid;

pub const MIB: u64 = 1 << 20;

/// A store with one VCH, one image in it, and a claimed server.
pub struct World {
    pub postgres: Postgres,
    pub store: Store,
    pub vch: Vch,
    pub image: Image,
    pub fence: Fence,
}

impl World {
    pub async fn new() -> Self {
        Self::with(VchSettings::default()).await
    }

    pub async fn with(settings: VchSettings) -> Self {
        let postgres = Postgres::start().await.unwrap();
        let store = postgres.store().await.unwrap();
        let vch = Vch { settings, ..vch("dev") };
        store.create_vch(&vch, &record("create")).await.unwrap();
        let image = image(1, &[1, 2]);
        store.put_image(vch.id, &image, &Record::at(at(0))).await.unwrap();
        let fence = store.claim_server(ServerId(Uuid::new_v4()), "one", at(0)).await.unwrap();
        Self { postgres, store, vch, image, fence }
    }

    pub fn container(&self, name: &str) -> Container {
        container(self.vch.id, &self.image, name)
    }

    /// One that exists.
    pub async fn create(&self, name: &str) -> Container {
        let container = self.container(name);
        self.store.create_container(&container, &[], self.fence, &record("create")).await.unwrap();
        container
    }

    pub async fn want(&self, container: &Container, expect: &Desired, goal: Goal, run: u32) -> Container {
        let new = Desired { goal, run, ..Desired::default() };
        self.store.set_desired(self.vch.id, &container.id, expect, &new, &record("start")).await.unwrap().0
    }

    pub async fn status(&self, container: &Container, status: &Status) {
        let record = record("status");
        self.store.set_status(self.fence, self.vch.id, &container.id, status, None, &record).await.unwrap();
    }
}

/// Seconds after a day in 2026, with microseconds.
pub fn at(seconds: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_780_000_000 + seconds, 123_456_000).unwrap()
}

pub fn event(action: &str) -> NewEvent {
    let attributes = BTreeMap::from([("name".to_owned(), "a\0b \u{1F600}".to_owned())]);
    NewEvent { kind: EventKind::Container, action: action.into(), actor: "someone".into(), attributes }
}

pub fn record(action: &str) -> Record {
    let audit = AuditEntry {
        caller: "uid:1000".into(),
        action: action.into(),
        resource: "Thing::\"x\"".into(),
        decision: None,
        outcome: "done".into(),
    };
    Record::at(at(1)).event(event(action)).audit(audit)
}

pub fn vch(name: &str) -> Vch {
    Vch {
        id: VchId(Uuid::new_v4()),
        name: name.parse().unwrap(),
        tenant: "acme".into(),
        class: "dev".parse().unwrap(),
        parent: None,
        settings: VchSettings::default(),
        created_at: at(0),
        deleting: false,
    }
}

pub fn digest(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

pub fn layer(number: u8) -> Layer {
    Layer { diff_id: digest(number), size_bytes: 1000 + u64::from(number), disk_bytes: 4096 }
}

pub fn origin(repository: &str, number: u8) -> Origin {
    Origin { registry: "reg.example".into(), repository: repository.into(), digest: digest(number) }
}

/// Its id is digest `number`; the labels hold what `jsonb` would refuse.
pub fn image(number: u8, layers: &[u8]) -> Image {
    let config = ImageConfig {
        labels: BTreeMap::from([("nul".into(), "\0".into()), ("big".into(), "1e999".into())]),
        ..ImageConfig::default()
    };
    Image {
        id: digest(number),
        layers: layers.iter().map(|number| layer(*number)).collect(),
        config_json: "{ \"b\":1,  \"a\":\"\\u0000\", \"a\":2 }".into(),
        config,
        origins: vec![origin("app", number)],
        references: Vec::new(),
        added_at: at(i64::from(number)),
    }
}

pub fn container_id() -> ContainerId {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    ContainerId::from_random(bytes)
}

pub fn rest() -> Desired {
    Desired::default()
}

pub fn running(run: u32) -> Status {
    Status::Running { run, started_at: at(5), stop_signalled: false, paused: false }
}

pub fn exited(run: u32) -> Status {
    let exit = Exit { code: 3, error: None, oom_killed: false, started_at: Some(at(5)), finished_at: at(6) };
    Status::Exited { run, exit }
}

pub fn container(vch: VchId, image: &Image, name: &str) -> Container {
    Container {
        id: container_id(),
        vch,
        name: name.into(),
        ask: ContainerAsk { image: "app".into(), ..ContainerAsk::default() },
        spec: ContainerSpec {
            boot: Boot::Cold,
            entrypoint: Vec::new(),
            cmd: vec!["sh".into()],
            env: vec!["A=\u{1}".into()],
            labels: BTreeMap::from([("nul".into(), "\0".into())]),
            user: String::new(),
            working_dir: "/".into(),
            hostname: "h".into(),
            stop_signal: Signal::TERM,
            stop_timeout_s: 10,
            resources: Resources { cpu_milli: 1000, memory_bytes: 512 * MIB, disk_bytes: 8 << 30 },
            privileged: false,
            auto_remove: false,
            process: bulkhead_model::ProcessOptions::default(),
            log: Default::default(),
            health: None,
            mounts: Vec::new(),
            network: Default::default(),
            stdio: Default::default(),
        },
        image: image.id.clone(),
        placement: bulkhead_model::Placement {
            host: "left".parse().unwrap(),
            datastore: "fast".parse().unwrap(),
        },
        layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
        image_name: "app:latest".into(),
        client_view: serde_json::json!({ "Tty": false, "Numbers": [1, 2.5, null] }),
        owner: "uid:1000".into(),
        created_at: at(2),
        desired: rest(),
        status: Status::Created,
        health: None,
        endpoints: Vec::new(),
        published: Vec::new(),
    }
}
