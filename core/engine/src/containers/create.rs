//! Create: image, spec, decision, row. Nothing runs yet, and nothing but the row and new volumes is made.

use super::{event, names};
use crate::admission::{Admitted, Ask, random};
use crate::placement::Chosen;
use crate::plugins::Reviewed;
use crate::volumes::{self, Planned, volume_event};
use crate::{Engine, EngineError, Session};
use bulkhead_model::container::resolve;
use bulkhead_model::lifecycle::{Desired, Status};
use bulkhead_model::plugin::Change;
use bulkhead_model::size::scaled;
use bulkhead_model::{
    Action, Container, ContainerAsk, ContainerId, ContainerSpec, Image, LogOptions, Restarts, Vch, Volume,
};
use bulkhead_plugin as plugin;
use bulkhead_policy::{ContainerFacts, ImageFacts, Subject, Usage};
use bulkhead_store::{Record, StoreError};

/// A container that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    pub id: ContainerId,
    /// What whoever asked should know: of plugins, and of what is carried out otherwise than asked.
    pub warnings: Vec<String>,
}

/// What the API front end wants back at inspect; the engine never reads it.
#[derive(Debug, Clone)]
pub struct ClientView {
    pub value: serde_json::Value,
    /// Makes it show what a plugin changed.
    pub amend: fn(&mut serde_json::Value, &Change),
}

/// Tries to find a free name, where the user gave none.
const NAME_TRIES: u32 = 8;

impl Engine {
    /// Makes a container, and the volumes that it mounts and that are not there.
    pub async fn create(
        &self,
        session: &Session,
        name: Option<String>,
        ask: ContainerAsk,
        client_view: ClientView,
    ) -> Result<Created, EngineError> {
        for _ in 1..volumes::TRIES {
            let once = self.create_once(session, name.clone(), ask.clone(), client_view.clone());
            match Box::pin(once).await {
                // One of its volumes was made or removed meanwhile, or the store of one changed.
                Err(EngineError::Store(
                    StoreError::NameTaken { kind: "volume", .. }
                    | StoreError::NotFound { kind: "volume", .. }
                    | StoreError::Conflict { kind: "volume store", .. },
                )) => {}
                other => return other,
            }
        }
        Box::pin(self.create_once(session, name, ask, client_view)).await
    }

    async fn create_once(
        &self,
        session: &Session,
        name: Option<String>,
        ask: ContainerAsk,
        client_view: ClientView,
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
        let planned = Asked { vch: &vch, image: &image, id: &id, name: name.as_deref().unwrap_or_default() };
        let Decided { ask, spec, changes, admitted, chosen } =
            self.admit_create(session, planned, ask, spec).await?;
        let restarts = Restarts { policy: ask.restart, ..Restarts::default() };
        let mut warnings = admitted.warnings.clone();
        warnings.extend(log_is_cut(&spec.log, vch.settings.log_bytes));

        for volume in &new {
            let usage = self.volumes_after(volume, &new).await?;
            self.admit_volume(session, &vch, Action::VolumeCreate, volume, usage).await?;
        }
        let made = self.create_disks(&new).await;
        let mut container = Container {
            id: id.clone(),
            vch: vch.id,
            name: String::new(),
            image_name: shown_name(&ask.image, &image),
            image: image.id.clone(),
            placement: chosen.placement,
            layers: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            ask,
            spec,
            client_view: client_view.after(&changes),
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
        let created = created.await;
        drop(chosen.turn);
        match created {
            Ok(()) => Ok(Created { id, warnings }),
            Err(error) => {
                self.give_up_disks(&error, &new).await;
                Err(error)
            }
        }
    }

    /// Asks plugins and policies, and finds a place. Plugins see what was asked for and may change it; policies judge what
    /// comes of that.
    async fn admit_create(
        &self,
        session: &Session,
        planned: Asked<'_>,
        ask: ContainerAsk,
        spec: ContainerSpec,
    ) -> Result<Decided, EngineError> {
        let Asked { vch, image, id, name } = planned;
        let asked = ask.image.clone();
        let decision = self.new_decision()?;
        let usage = self.usage_after(vch, &spec).await?;
        let outcome = self.decide(&planned.ask(session, &asked, &spec, usage));
        // A plugin is asked about nothing that it cannot help, so nobody has its attention without a right to ask.
        if outcome.is_final {
            let question = planned.ask(session, &asked, &spec, usage);
            let admitted = self.conclude(&question, decision, outcome, Reviewed::default()).await?;
            let (changes, chosen) = (Vec::new(), Chosen::default());
            return Ok(Decided { ask, spec, changes, admitted, chosen });
        }
        let circumstances = self.circumstances(&decision, vch, &session.caller)?;
        let asked_bytes = spec.resources.memory_bytes;
        let mut wanted = (ask, spec);
        let question = |(ask, spec): &(ContainerAsk, ContainerSpec)| {
            let container =
                plugin::Container { name, spec, asked: &asked, image: Some(image), restart: ask.restart };
            let subject = plugin::Subject::ContainerCreate(container);
            let others = usage.memory_bytes.saturating_sub(asked_bytes);
            let memory_bytes = others.saturating_add(spec.resources.memory_bytes);
            let usage_after = plugin::UsageAfter { containers: usage.containers, memory_bytes };
            plugin::Question { circumstances, subject, usage_after }.prepare()
        };
        let change = |wanted: &mut (ContainerAsk, ContainerSpec), changes: &[(Change, String)]| {
            let (ask, spec) = changed(id, image, vch, wanted, changes)?;
            self.check_size(&spec).map_err(|error| error.to_string())?;
            *wanted = (ask, spec);
            Ok(())
        };
        let mut reviewed = self.review(vch, &mut wanted, question, change).await;
        let (ask, spec) = wanted;
        let changes = reviewed.changes.clone();
        let (outcome, usage) = match changes.is_empty() {
            true => (outcome, usage),
            false => {
                let usage = self.usage_after(vch, &spec).await?;
                (self.decide(&planned.ask(session, &asked, &spec, usage)), usage)
            }
        };
        let chosen = match outcome.is_allowed() && reviewed.objections.is_empty() {
            true => {
                let container = plugin::Container {
                    name,
                    spec: &spec,
                    asked: &asked,
                    image: Some(image),
                    restart: ask.restart,
                };
                self.choose_place(vch, circumstances, container, &mut reviewed).await?
            }
            false => Chosen::default(),
        };
        let question = planned.ask(session, &asked, &spec, usage);
        let admitted = self.conclude(&question, decision, outcome, reviewed).await?;
        Ok(Decided { ask, spec, changes, admitted, chosen })
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
        let (containers, memory_bytes) = self.store().container_usage(vch.id).await?;
        Ok(Usage {
            containers: u32::try_from(containers).unwrap_or(u32::MAX).saturating_add(1),
            memory_bytes: memory_bytes.saturating_add(spec.resources.memory_bytes),
            ..Usage::default()
        })
    }
}

/// What comes of what was asked for.
struct Decided {
    ask: ContainerAsk,
    spec: ContainerSpec,
    /// That plugins made.
    changes: Vec<Change>,
    admitted: Admitted,
    chosen: Chosen,
}

/// Where a container is to be made, and of what.
#[derive(Clone, Copy)]
struct Asked<'a> {
    vch: &'a Vch,
    image: &'a Image,
    id: &'a ContainerId,
    /// Empty: none was given.
    name: &'a str,
}

impl<'a> Asked<'a> {
    /// The question to the policies. `asked`: the image as it was asked for.
    fn ask(
        &self,
        session: &'a Session,
        asked: &'a str,
        spec: &'a ContainerSpec,
        usage_after: Usage,
    ) -> Ask<'a> {
        let container = ContainerFacts {
            id: self.id,
            name: self.name,
            owner: &session.caller.name,
            spec,
            image: ImageFacts { asked, cached: Some(self.image) },
        };
        Ask {
            action: Action::ContainerCreate,
            caller: &session.caller,
            endpoint: Some(self.vch),
            subject: Subject::Container { vch: self.vch, container },
            usage_after,
        }
    }
}

impl ClientView {
    fn after(self, changes: &[Change]) -> serde_json::Value {
        let mut value = self.value;
        for change in changes {
            (self.amend)(&mut value, change);
        }
        value
    }
}

/// What was asked for, and what comes of it, after a plugin's changes: all of them, or none.
fn changed(
    id: &ContainerId,
    image: &Image,
    vch: &Vch,
    (ask, spec): &(ContainerAsk, ContainerSpec),
    changes: &[(Change, String)],
) -> Result<(ContainerAsk, ContainerSpec), String> {
    let (mut ask, mut spec) = (ask.clone(), spec.clone());
    for (change, _) in changes {
        change.apply(&mut ask, &spec).map_err(|error| error.to_string())?;
        let resolved = resolve(id, &ask, &image.config, &vch.settings);
        let resolved = resolved.map_err(|error| format!("`{change}` cannot be: {error}"))?;
        change.check_done(&resolved).map_err(|error| error.to_string())?;
        spec = ContainerSpec { mounts: spec.mounts, ..resolved };
    }
    Ok((ask, spec))
}

/// More of a log was asked for than its VCH keeps.
fn log_is_cut(log: &LogOptions, most: u64) -> Option<String> {
    let wanted = log.bytes_max.filter(|wanted| *wanted > most)?;
    let (wanted, most) = (scaled(wanted), scaled(most));
    let text = |(number, unit): (String, &str)| format!("{number} {unit}");
    Some(format!("this VCH keeps {} of a container's log, not {}", text(most), text(wanted)))
}

/// The name as typed, unless it was typed as an id.
fn shown_name(asked: &str, image: &Image) -> String {
    let by_id = asked.starts_with("sha256:") || image.id.hex().starts_with(asked);
    if by_id { image.id.to_string() } else { asked.to_owned() }
}
