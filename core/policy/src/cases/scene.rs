//! Questions in a few words: a caller, a VCH and a container that a case bends to what it is about.

use crate::query::{ContainerFacts, HostFacts, ImageFacts, Query, Subject, Usage};
use bulkhead_model::container::{Resources, Signal};
use bulkhead_model::{
    Action, Boot, Caller, ContainerId, ContainerSpec, Digest, Image, ImageConfig, Network, Origin, Vch,
    VchId, VchSettings, Volume, VolumeId, VolumeStoreName,
};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// Everything that a query borrows.
#[derive(Debug, Clone)]
pub struct Scene {
    pub caller: Caller,
    pub endpoint: Option<Vch>,
    pub vch: Vch,
    pub id: ContainerId,
    pub name: String,
    pub owner: String,
    pub spec: ContainerSpec,
    pub volume: Volume,
    pub asked: String,
    pub image: Option<Image>,
    pub network: Network,
    pub accelerator: String,
    pub hardware_isolation: bool,
    pub usage: Usage,
    pub now: DateTime<Utc>,
}

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SceneError(String);

pub(super) fn digest(seed: &str) -> Digest {
    Digest::of(seed.as_bytes())
}

pub(super) fn vch(name: &str, tenant: &str, class: &str) -> Result<Vch, SceneError> {
    let wrong = |error: bulkhead_model::vch::NameError| SceneError(error.to_string());
    Ok(Vch {
        id: VchId(uuid(name)),
        name: name.parse().map_err(wrong)?,
        tenant: tenant.into(),
        class: class.parse().map_err(wrong)?,
        parent: None,
        settings: VchSettings { socket_uids: vec![1000], ..VchSettings::default() },
        created_at: DateTime::UNIX_EPOCH,
        deleting: false,
    })
}

/// The same for the same name.
fn uuid(name: &str) -> uuid::Uuid {
    let text = digest(name);
    let half = text.hex().get(..32).unwrap_or_default();
    uuid::Uuid::parse_str(half).unwrap_or_default()
}

pub(super) fn origin(repository: &str) -> Origin {
    let (registry, repository) = repository.split_once('/').unwrap_or((repository, ""));
    Origin {
        registry: registry.into(),
        repository: repository.into(),
        digest: digest(&format!("{registry}/{repository}")),
    }
}

/// An image that was pulled from these repositories; from none if it was loaded.
pub(super) fn image(origins: &[&str]) -> Image {
    Image {
        id: digest("config"),
        layers: Vec::new(),
        config_json: String::new(),
        config: ImageConfig::default(),
        origins: origins.iter().map(|repository| origin(repository)).collect(),
        references: Vec::new(),
        added_at: DateTime::UNIX_EPOCH,
    }
}

impl Scene {
    /// User 1000 of tenant acme at its VCH's endpoint, about to run a modest container of an image of Docker Hub.
    pub fn new(class: &str) -> Result<Self, SceneError> {
        let vch = vch("main", "acme", class)?;
        let vch_id = vch.id;
        Ok(Self {
            network: Network::default_of(vch.id, DateTime::UNIX_EPOCH),
            caller: Caller::unix(1000),
            endpoint: Some(vch.clone()),
            vch,
            id: ContainerId::from_random([7; 32]),
            name: "web".into(),
            owner: "uid:1000".into(),
            spec: ContainerSpec {
                boot: Boot::default(),
                entrypoint: Vec::new(),
                cmd: vec!["nginx".into()],
                env: vec!["PATH=/bin".into(), "PASSWORD=hunter2".into()],
                labels: BTreeMap::from([("team".into(), "web".into())]),
                user: "1000".into(),
                working_dir: "/".into(),
                hostname: "web".into(),
                stop_signal: Signal::TERM,
                stop_timeout_s: 10,
                resources: Resources { cpu_milli: 1000, memory_bytes: 512 << 20, disk_bytes: 8 << 30 },
                privileged: false,
                auto_remove: false,
                stdio: Default::default(),
                process: Default::default(),
                log: Default::default(),
                health: None,
                mounts: Vec::new(),
                network: Default::default(),
            },
            volume: Volume {
                vch: vch_id,
                id: VolumeId(uuid("data")),
                name: "data".parse().map_err(|error| SceneError(format!("{error}")))?,
                labels: BTreeMap::from([("team".into(), "web".into())]),
                options: BTreeMap::new(),
                size_bytes: 16 << 30,
                owner: "uid:1000".into(),
                anonymous: false,
                created_at: DateTime::UNIX_EPOCH,
                settled: false,
                store: VolumeStoreName::default(),
                folder: None,
            },
            asked: "nginx".into(),
            image: Some(image(&["docker.io/library/nginx"])),
            accelerator: "kvm".into(),
            hardware_isolation: true,
            usage: Usage {
                containers: 1,
                memory_bytes: 512 << 20,
                volumes: 1,
                volumes_bytes: 16 << 30,
                store_bytes: 16 << 30,
            },
            now: DateTime::from_timestamp(1_764_000_000, 0).unwrap_or_default(),
        })
    }

    /// With the subject that the schema gives to the action.
    pub fn query(&self, action: Action) -> Query<'_> {
        let vch = &self.vch;
        let image = ImageFacts { asked: &self.asked, cached: self.image.as_ref() };
        let container =
            ContainerFacts { id: &self.id, name: &self.name, owner: &self.owner, spec: &self.spec, image };
        let subject = match action {
            Action::VchList
            | Action::TemplateList
            | Action::TemplateBuild
            | Action::TemplateRemove
            | Action::PluginList
            | Action::PluginInstall
            | Action::PluginRemove
            | Action::BindingList
            | Action::BindingPut
            | Action::BindingRemove
            | Action::PolicyRead
            | Action::PolicyEdit
            | Action::PolicyActivate
            | Action::MachineList => Subject::Platform,
            Action::ContainerInspect
            | Action::ContainerLogs
            | Action::ContainerAttach
            | Action::ContainerExec
            | Action::ContainerDiff
            | Action::ContainerTop
            | Action::ContainerStats
            | Action::ContainerExport
            | Action::ContainerArchiveRead
            | Action::ContainerArchiveWrite
            | Action::ContainerCommit
            | Action::ContainerWait
            | Action::ContainerCreate
            | Action::ContainerStart
            | Action::ContainerStop
            | Action::ContainerRestart
            | Action::ContainerPause
            | Action::ContainerUnpause
            | Action::ContainerRename
            | Action::ContainerUpdate
            | Action::ContainerKill
            | Action::ContainerRemove => Subject::Container { vch, container },
            Action::ImageInspect
            | Action::ImagePull
            | Action::ImageTag
            | Action::ImageRemove
            | Action::ImageSave => Subject::Image { vch, image },
            Action::VolumeCreate | Action::VolumeInspect | Action::VolumeRemove => {
                Subject::Volume { vch, volume: &self.volume }
            }
            Action::NetworkCreate
            | Action::NetworkRemove
            | Action::NetworkConnect
            | Action::NetworkDisconnect => {
                Subject::Network { vch, network: &self.network, container: &self.name }
            }
            Action::SystemRead
            | Action::SystemEvents
            | Action::RegistryLogin
            | Action::ContainerList
            | Action::ContainerPrune
            | Action::ImagePrune
            | Action::VolumePrune
            | Action::NetworkPrune
            | Action::ImageList
            | Action::ImageLoad
            | Action::NetworkList
            | Action::VolumeList
            | Action::VchCreate
            | Action::VchUpdate
            | Action::VchInspect
            | Action::VchDelete
            | Action::DecisionRead => Subject::Vch(vch),
        };
        Query {
            action,
            caller: &self.caller,
            endpoint: self.endpoint.as_ref(),
            subject,
            host: HostFacts { accelerator: &self.accelerator, hardware_isolation: self.hardware_isolation },
            usage_after: self.usage,
            now: self.now,
        }
    }
}
