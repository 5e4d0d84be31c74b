//! What plugins are asked: model types in, WIT types out.

use crate::admission::bindings::bulkhead::admission::types as wit;
use crate::admission::bindings::bulkhead::plugin::types as common;
use bulkhead_model::container::Resources;
use bulkhead_model::network::HOST_NETWORK;
use bulkhead_model::ports::{PortRange, Protocol};
use bulkhead_model::process::Seccomp;
use bulkhead_model::{
    Boot, Caller, ContainerSpec, DecisionId, Image, Network, NetworkOptions, ProcessOptions, Reference,
    RestartPolicy, Vch, Volume,
};
use chrono::{DateTime, Utc};
use std::collections::BTreeMap;

/// One question, and what it is part of.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub circumstances: Circumstances<'a>,
    pub subject: Subject<'a>,
    pub usage_after: UsageAfter,
}

/// The same for all plugins that are asked in one decision.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    pub decision: &'a DecisionId,
    pub vch: &'a Vch,
    pub caller: &'a Caller,
    pub now: DateTime<Utc>,
    /// The plugin's only randomness.
    pub seed: u64,
}

impl Circumstances<'_> {
    /// Without settings.
    pub(crate) fn call_info(self) -> common::CallInfo {
        let Circumstances { decision, vch, caller, now, seed } = self;
        common::CallInfo {
            decision: decision.to_string(),
            vch: vch.name.to_string(),
            tenant: vch.tenant.clone(),
            class: vch.class.to_string(),
            principal: caller.name.clone(),
            now_ms: u64::try_from(now.timestamp_millis()).unwrap_or(0),
            seed,
            settings: String::new(),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    ContainerCreate(Container<'a>),
    /// As it would be.
    ContainerUpdate(Container<'a>),
    ContainerExec {
        container: Container<'a>,
        command: &'a [String],
        user: &'a str,
        privileged: bool,
        tty: bool,
    },
    /// As asked for.
    ImagePull(&'a Reference),
    VolumeCreate(&'a Volume),
    NetworkCreate(&'a Network),
}

/// A container, with what of it is not in its spec.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// Empty: one will be found.
    pub name: &'a str,
    pub spec: &'a ContainerSpec,
    /// The image as it was asked for.
    pub asked: &'a str,
    /// What that is; `None` where it is gone.
    pub image: Option<&'a Image>,
    pub restart: RestartPolicy,
}

/// What the VCH would use after this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageAfter {
    pub containers: u32,
    /// Of running containers together, in bytes.
    pub memory_bytes: u64,
}

/// A question in the plugins' own types, to be asked of several.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Without settings.
    pub(crate) info: common::CallInfo,
    pub(crate) request: wit::Request,
    /// Whether it can be answered with changes.
    pub(crate) changeable: bool,
}

impl Question<'_> {
    pub fn prepare(&self) -> Asked {
        let changeable = matches!(self.subject, Subject::ContainerCreate(_));
        Asked { info: self.circumstances.call_info(), request: self.request(), changeable }
    }

    fn request(&self) -> wit::Request {
        let subject = match self.subject {
            Subject::ContainerCreate(container) => wit::Subject::ContainerCreate(container.told()),
            Subject::ContainerUpdate(container) => wit::Subject::ContainerUpdate(container.told()),
            Subject::ContainerExec { container, command, user, privileged, tty } => {
                wit::Subject::ContainerExec(wit::ExecSpec {
                    container: container.told(),
                    command: command.to_vec(),
                    user: user.to_owned(),
                    privileged,
                    tty,
                })
            }
            Subject::ImagePull(reference) => wit::Subject::ImagePull(to_pull(reference)),
            Subject::VolumeCreate(volume) => wit::Subject::VolumeCreate(wit::VolumeSpec {
                name: volume.name.to_string(),
                anonymous: volume.anonymous,
                size_mib: mebibytes(volume.size_bytes),
                store: volume.store.to_string(),
                labels: pairs(&volume.labels),
            }),
            Subject::NetworkCreate(network) => wit::Subject::NetworkCreate(wit::NetworkSpec {
                name: network.name.clone(),
                subnet: network.spec.subnet.to_string(),
                internal: network.spec.internal,
                ipv6: network.spec.six.is_some(),
                labels: pairs(&network.spec.labels),
            }),
        };
        wit::Request {
            subject,
            usage_after: wit::Usage {
                containers: self.usage_after.containers,
                memory_mib: mebibytes(self.usage_after.memory_bytes),
            },
        }
    }
}

impl Container<'_> {
    /// A field that is added to a container's spec does not compile here until somebody says what plugins shall know of it.
    pub(crate) fn told(&self) -> common::ContainerSpec {
        let ContainerSpec {
            entrypoint,
            cmd,
            env,
            labels,
            user,
            working_dir,
            hostname,
            stop_signal: _,
            stop_timeout_s: _,
            resources: Resources { cpu_milli, memory_bytes, disk_bytes },
            privileged,
            auto_remove,
            stdio: _,
            process,
            log: _,
            health: _,
            mounts,
            network,
            boot,
        } = self.spec;
        let ProcessOptions {
            domain_name: _,
            groups: _,
            read_only,
            tmpfs: _,
            shm_bytes: _,
            cap_add,
            cap_drop,
            seccomp,
            no_new_privileges,
            masked_paths: _,
            read_only_paths: _,
            limits: _,
            sysctls: _,
            init: _,
            pids_max,
            oom_score_adj: _,
            devices: _,
        } = process;
        let NetworkOptions {
            endpoints,
            host,
            ports,
            exposed: _,
            publish_all: _,
            dns: _,
            dns_search: _,
            dns_options: _,
            hosts: _,
        } = network;
        let port = |wish: &bulkhead_model::ports::PortWish| common::Port {
            container: wish.container_port,
            protocol: match wish.protocol {
                Protocol::Tcp => common::Protocol::Tcp,
                Protocol::Udp => common::Protocol::Udp,
            },
            host_address: wish.host_address.map(|address| address.to_string()),
            host_ports: wish.host_ports.map(|PortRange { first, last }| (first, last)),
        };
        let mount = |mount: &bulkhead_model::Mount| common::Mount {
            volume: mount.name.to_string(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        };
        common::ContainerSpec {
            name: self.name.to_owned(),
            image: self.image(),
            entrypoint: entrypoint.clone(),
            cmd: cmd.clone(),
            env: env.iter().map(|entry| entry.split('=').next().unwrap_or_default().to_owned()).collect(),
            labels: pairs(labels),
            user: user.clone(),
            working_dir: working_dir.clone(),
            hostname: hostname.clone(),
            cpu_milli: *cpu_milli,
            memory_mib: u32::try_from(mebibytes(*memory_bytes)).unwrap_or(u32::MAX),
            disk_mib: u32::try_from(mebibytes(*disk_bytes)).unwrap_or(u32::MAX),
            privileged: *privileged,
            read_only: *read_only,
            no_new_privileges: *no_new_privileges,
            seccomp_unconfined: *seccomp == Seccomp::Unconfined,
            cap_add: cap_add.names(),
            cap_drop: cap_drop.names(),
            pids_max: *pids_max,
            restart_policy: match self.restart {
                RestartPolicy::OnFailure { retries_max } if retries_max > 0 => {
                    format!("on-failure:{retries_max}")
                }
                other => other.name().to_owned(),
            },
            auto_remove: *auto_remove,
            cold_boot: *boot == Boot::Cold,
            networks: match host {
                true => vec![HOST_NETWORK.to_owned()],
                false => endpoints.iter().map(|wish| wish.network.clone()).collect(),
            },
            ports: ports.iter().map(port).collect(),
            mounts: mounts.iter().map(mount).collect(),
        }
    }

    fn image(&self) -> common::Image {
        let asked = self.asked.parse::<Reference>().ok().map(Reference::or_latest);
        let by_digest = asked.as_ref().and_then(|reference| reference.digest.as_ref());
        let origins = self.image.map(|image| image.origins.as_slice()).unwrap_or_default();
        let pinned = by_digest.is_some_and(|digest| origins.iter().any(|origin| origin.digest == *digest))
            || self
                .image
                .is_some_and(|image| self.asked == image.id.as_str() || self.asked == image.id.hex());
        let origin = |origin: &bulkhead_model::Origin| common::Origin {
            registry: origin.registry.clone(),
            repository: origin.repository.clone(),
            digest: origin.digest.to_string(),
        };
        common::Image {
            reference: asked.map_or_else(|| self.asked.to_owned(), |reference| reference.to_string()),
            pinned,
            id: self.image.map(|image| image.id.to_string()),
            origins: origins.iter().map(origin).collect(),
            labels: self.image.map(|image| pairs(&image.config.labels)).unwrap_or_default(),
        }
    }
}

/// It will come from where it is asked for.
fn to_pull(reference: &Reference) -> common::Image {
    let digest = reference.digest.as_ref().map(ToString::to_string);
    common::Image {
        reference: reference.to_string(),
        pinned: digest.is_some(),
        id: None,
        origins: vec![common::Origin {
            registry: reference.registry.clone(),
            repository: reference.repository.clone(),
            digest: digest.unwrap_or_default(),
        }],
        labels: Vec::new(),
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<common::Label> {
    map.iter().map(|(key, value)| common::Label { key: key.clone(), value: value.clone() }).collect()
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
