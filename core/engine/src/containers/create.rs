//! Create: image, spec, decision, row. Nothing runs yet, and nothing but the row and new volumes is made.

use super::{event, names};
use crate::admission::{Admitted, Ask, random};
use crate::volumes::{self, Planned, volume_event};
use crate::{Engine, EngineError, Session};
use bulkhead_model::container::resolve;
use bulkhead_model::lifecycle::{Desired, Status};
use bulkhead_model::{
    Action, Container, ContainerAsk, ContainerId, ContainerSpec, Image, Restarts, Vch, Volume,
};
use bulkhead_policy::{ContainerFacts, ImageFacts, Subject, Usage};
use bulkhead_store::{Record, StoreError};

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub id: ContainerId,
}

/// Tries to find a free name, where the user gave none.
const NAME_TRIES: u32 = 8;

impl Engine {
    /// Makes a container, and the volumes that it mounts and that are not there. `client_view` is given back at inspect
    /// and never looked at.
    pub async fn create(
        &self,
        session: &Session,
        name: Option<String>,
        ask: ContainerAsk,
        client_view: serde_json::Value,
    ) -> Result<Created, EngineError> {
        for _ in 1..volumes::TRIES {
            match self.create_once(session, name.clone(), ask.clone(), client_view.clone()).await {
                // One of its volumes was made or removed meanwhile.
                Err(EngineError::Store(
                    StoreError::NameTaken { kind: "volume", .. }
                    | StoreError::NotFound { kind: "volume", .. },
                )) => {}
                other => return other,
            }
        }
        self.create_once(session, name, ask, client_view).await
    }

    async fn create_once(
        &self,
        session: &Session,
        name: Option<String>,
        ask: ContainerAsk,
        client_view: serde_json::Value,
    ) -> Result<Created, EngineError> {
        let vch = self.vch_of(session).await?;
        if let Some(name) = &name {
            names::check(name)?;
        }
        let image = self.find_image(session, &ask.image).await?;
        self.check_platform(&image, &ask.image)?;
        let id = ContainerId::from_random(random()?);
        let Planned { mounts, new } = self.plan_volumes(session, &vch, &ask, &image.config).await?;
        let spec = ContainerSpec { mounts, ..resolve(&id, &ask, &image.config, &vch.settings)? };
        self.check_size(&spec)?;
        for wish in &spec.network.ports {
            vch.settings.publish.check(wish)?;
        }
        let restarts = Restarts { policy: ask.restart, ..Restarts::default() };

        let facts = ContainerFacts {
            id: &id,
            name: name.as_deref().unwrap_or_default(),
            owner: &session.caller.name,
            spec: &spec,
            image: ImageFacts { asked: &ask.image, cached: Some(&image) },
        };
        let admitted = self
            .admit(Ask {
                action: Action::ContainerCreate,
                caller: &session.caller,
                endpoint: Some(&vch),
                subject: Subject::Container { vch: &vch, container: facts },
                usage_after: self.usage_after(&vch, &spec).await?,
            })
            .await?;

        let usage = self.volumes_after(vch.id, &new).await?;
        for volume in &new {
            self.admit_volume(session, &vch, Action::VolumeCreate, volume, usage).await?;
        }
        let made = self.create_disks(&new).await;
        let mut container = Container {
            id: id.clone(),
            vch: vch.id,
            name: String::new(),
            image_name: shown_name(&ask.image, &image),
            image: image.id.clone(),
            layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            ask,
            spec,
            client_view,
            owner: session.caller.name.clone(),
            created_at: self.now(),
            desired: Desired { restarts, ..Desired::default() },
            status: Status::Created,
            health: None,
            endpoints: Vec::new(),
            published: Vec::new(),
        };
        let created = async {
            made?;
            self.place(&mut container).await?;
            self.insert(container, name, &new, admitted).await
        };
        match created.await {
            Ok(()) => Ok(Created { id }),
            Err(error) => {
                self.give_up_disks(&error, &new).await;
                Err(error)
            }
        }
    }

    /// Writes it down, under a name that is free if the user gave none.
    async fn insert(
        &self,
        mut container: Container,
        name: Option<String>,
        new: &[Volume],
        admitted: Admitted,
    ) -> Result<(), EngineError> {
        for _ in 0..NAME_TRIES {
            container.name = match &name {
                Some(name) => name.clone(),
                None => names::generate(u64::from_le_bytes(random()?)),
            };
            let record = Record::at(container.created_at).audit(admitted.audit.clone());
            let made = new.iter().map(|volume| volume_event(&volume.name, "create", &[]));
            let record = made.fold(record, Record::event).event(event(&container, "create", &[]));
            match self.store().create_container(&container, new, self.0.fence, &record).await {
                Ok(_) => {
                    self.0.feed.wake();
                    self.drive(&container);
                    return Ok(());
                }
                Err(StoreError::NameTaken { kind: "container", .. }) if name.is_none() => {}
                Err(StoreError::NameTaken { kind: "container", name, holder }) => {
                    let holder = holder.parse().map_err(|_| EngineError::InvalidName(name.clone()))?;
                    return Err(EngineError::NameInUse { name, holder });
                }
                Err(other) => return Err(other.into()),
            }
        }
        Err(EngineError::InvalidName(container.name))
    }

    fn check_platform(&self, image: &Image, asked: &str) -> Result<(), EngineError> {
        let (os, architecture) = (&image.config.os, &image.config.architecture);
        if os == "linux" && architecture == "amd64" {
            return Ok(());
        }
        Err(EngineError::WrongPlatform {
            image: asked.into(),
            found: format!("{os}/{architecture}"),
            wanted: "linux/amd64".into(),
        })
    }

    pub(super) fn check_size(&self, spec: &ContainerSpec) -> Result<(), EngineError> {
        let capabilities = self.back_end().machines.capabilities();
        let vcpus = spec.resources.vcpus();
        if vcpus > capabilities.vcpus_max {
            let why = format!("range of CPUs is from 0.01 to {}.00", capabilities.vcpus_max);
            let value = format!("{}", f64::from(spec.resources.cpu_milli) / 1000.0);
            return Err(EngineError::Invalid { what: "number of CPUs", value, why });
        }
        let memory = spec.resources.memory_bytes;
        if memory > capabilities.host_memory_bytes {
            let why = format!("the host has {} bytes", capabilities.host_memory_bytes);
            return Err(EngineError::Invalid { what: "memory", value: memory.to_string(), why });
        }
        Ok(())
    }

    /// What the VCH would use with this container running.
    async fn usage_after(&self, vch: &Vch, spec: &ContainerSpec) -> Result<Usage, EngineError> {
        let containers = self.store().containers(vch.id).await?;
        let running: u64 = containers
            .iter()
            .filter(|container| matches!(container.status, Status::Starting { .. } | Status::Running { .. }))
            .map(|container| container.spec.resources.memory_bytes)
            .sum();
        Ok(Usage {
            containers: u32::try_from(containers.len()).unwrap_or(u32::MAX).saturating_add(1),
            memory_bytes: running.saturating_add(spec.resources.memory_bytes),
            ..Usage::default()
        })
    }
}

/// The name as typed, unless it was typed as an id.
fn shown_name(asked: &str, image: &Image) -> String {
    let by_id = asked.starts_with("sha256:") || image.id.hex().starts_with(asked);
    if by_id { image.id.to_string() } else { asked.to_owned() }
}
