//! From model types to what policies see. A field that is added to a container's spec does not compile here until
//! somebody says what policies shall know of it.

use crate::facts::{Fact, Facts, Inputs, Thing, Uid, mebibytes};
use crate::query::{ContainerFacts, ImageFacts, Query, Settings, Subject};
use bulkhead_model::caller::Via;
use bulkhead_model::container::{ContainerSpec, Resources, is_root};
use bulkhead_model::network::HOST_NETWORK;
use bulkhead_model::process::{MASKED_PATHS, READ_ONLY_PATHS, Seccomp};
use bulkhead_model::{Action, Caller, Network, NetworkOptions, ProcessOptions, Reference, Vch, Volume};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// The facts of a query, in a fixed order.
pub(crate) fn gather(query: &Query<'_>, settings: &Settings) -> Inputs {
    let mut things = Vec::new();
    let vch = query.subject.vch();
    let principal = add_user(&mut things, query, settings);
    for vch in [vch, query.endpoint].into_iter().flatten() {
        add_tenant(&mut things, vch);
    }
    if let Some(vch) = vch {
        add_vch(&mut things, vch);
    }
    let resource = match query.subject {
        Subject::Platform => add(&mut things, Thing::new("Platform", "bulkhead")),
        Subject::Vch(vch) => Uid::new("Vch", vch.id.to_string()),
        Subject::Container { vch, container } => add_container(&mut things, vch, &container, settings),
        Subject::Image { vch, image } => {
            let pulling = query.action == Action::ImagePull;
            add_image(&mut things, vch, &image, pulling, settings)
        }
        Subject::Volume { vch, volume } => add_volume(&mut things, vch, volume),
        Subject::Network { vch, network, .. } => add_network(&mut things, vch, network),
    };
    Inputs {
        principal,
        action: Uid::new("Action", query.action.name()),
        resource,
        context: context(query, settings),
        things,
    }
}

fn add(things: &mut Vec<Thing>, thing: Thing) -> Uid {
    let uid = thing.uid.clone();
    if !things.iter().any(|there| there.uid == uid) {
        things.push(thing);
    }
    uid
}

fn context(query: &Query<'_>, settings: &Settings) -> Facts {
    let mut context = Facts::from([
        ("sourceVia".into(), Fact::Text(query.caller.via.as_str().into())),
        ("now".into(), Fact::Time(query.now)),
    ]);
    if matches!(query.action, Action::ContainerCreate | Action::ContainerStart) {
        let host = Facts::from([
            ("accelerator".into(), Fact::Text(query.host.accelerator.into())),
            ("hardwareIsolation".into(), Fact::Bool(query.host.hardware_isolation)),
            ("acceptsEmulation".into(), Fact::Bool(settings.accepts_emulation)),
        ]);
        context.insert("host".into(), Fact::Record(host));
    }
    if query.action == Action::VolumeCreate {
        let usage = Facts::from([
            ("volumes".into(), Fact::Long(query.usage_after.volumes.into())),
            ("sizeMib".into(), mebibytes(query.usage_after.volumes_bytes)),
            ("storeSizeMib".into(), mebibytes(query.usage_after.store_bytes)),
        ]);
        context.insert("usageAfter".into(), Fact::Record(usage));
    }
    if query.action == Action::ContainerCreate {
        let usage = Facts::from([
            ("containers".into(), Fact::Long(query.usage_after.containers.into())),
            ("memoryMib".into(), mebibytes(query.usage_after.memory_bytes)),
        ]);
        context.insert("usageAfter".into(), Fact::Record(usage));
    }
    if matches!(query.action, Action::NetworkConnect | Action::NetworkDisconnect)
        && let Subject::Network { container, .. } = query.subject
    {
        context.insert("container".into(), Fact::Text(container.into()));
    }
    context
}

/// The kernel-vouched uid behind a caller; a certificate that is named `uid:0` has none.
fn uid_of(caller: &Caller) -> Option<u32> {
    match caller.via {
        Via::Unix => caller.name.strip_prefix("uid:")?.parse().ok(),
        Via::Tls | Via::Loopback | Via::System => None,
    }
}

fn add_user(things: &mut Vec<Thing>, query: &Query<'_>, settings: &Settings) -> Uid {
    let caller = query.caller;
    let uid = uid_of(caller);
    let operator = uid.is_some_and(|uid| uid == 0 || settings.operator_uids.contains(&uid));
    let mut user = Thing::new("User", caller.name.clone())
        .fact("via", Fact::Text(caller.via.as_str().into()))
        .fact("operator", Fact::Bool(operator));
    if let Some(uid) = uid {
        user = user.fact("uid", Fact::Long(uid.into()));
    }
    // A VCH's list of socket users holds wherever they come in; the other two ways in are bound to their endpoint.
    for vch in [query.endpoint, query.subject.vch()].into_iter().flatten() {
        if uid.is_some_and(|uid| vch.settings.socket_uids.contains(&uid)) {
            user = user.parent("Tenant", vch.tenant.clone());
        }
    }
    if let Some(endpoint) = query.endpoint {
        let vouched = match caller.via {
            Via::Tls => true,
            Via::Loopback => endpoint.settings.insecure_listen.is_some(),
            Via::Unix | Via::System => false,
        };
        if vouched {
            user = user.parent("Tenant", endpoint.tenant.clone());
        }
    }
    add(things, user)
}

/// A tenant is in the class of the VCH at hand.
fn add_tenant(things: &mut Vec<Thing>, vch: &Vch) {
    add(things, Thing::new("Tenant", vch.tenant.clone()).parent("Class", vch.class.as_str()));
}

fn tenant(vch: &Vch) -> Fact {
    Fact::Thing(Uid::new("Tenant", vch.tenant.clone()))
}

fn add_vch(things: &mut Vec<Thing>, vch: &Vch) {
    let mut thing = Thing::new("Vch", vch.id.to_string())
        .fact("name", Fact::Text(vch.name.to_string()))
        .fact("tenant", tenant(vch))
        .parent("Tenant", vch.tenant.clone())
        .parent("Class", vch.class.as_str());
    if let Some(parent) = vch.parent {
        thing = thing.parent("Vch", parent.to_string());
    }
    add(things, thing);
}

fn add_container(
    things: &mut Vec<Thing>,
    vch: &Vch,
    container: &ContainerFacts<'_>,
    settings: &Settings,
) -> Uid {
    let image = add_image(things, vch, &container.image, false, settings);
    // What is not named with a value is nothing that policies know about yet: where a process runs, not what it
    // may do.
    let ContainerSpec {
        entrypoint: _,
        cmd: _,
        env,
        labels,
        user,
        working_dir: _,
        hostname: _,
        stop_signal: _,
        stop_timeout_s: _,
        resources: Resources { cpu_milli, memory_bytes, disk_bytes },
        privileged,
        auto_remove,
        stdio: _,
        log: _,
        // It is as any process beside the container's own, with no rights that this has not.
        health: _,
        mounts,
        process,
        network,
        boot,
    } = container.spec;
    // Where it is not in the schema, it takes something away, or bounds what the memory's size bounds already.
    let ProcessOptions {
        domain_name: _,
        groups: _,
        read_only,
        tmpfs: _,
        shm_bytes: _,
        cap_add,
        cap_drop,
        seccomp: _,
        no_new_privileges,
        masked_paths: _,
        read_only_paths: _,
        limits: _,
        sysctls,
        init: _,
        pids_max: _,
        oom_score_adj: _,
        // Of its own guest.
        devices: _,
    } = process;
    let NetworkOptions {
        endpoints,
        host,
        ports,
        exposed: _,
        // Its ports are among `ports`.
        publish_all: _,
        // What names mean to the container itself.
        dns: _,
        dns_search: _,
        dns_options: _,
        hosts: _,
    } = network;
    let published = ports.iter().map(|wish| {
        let host = wish.host_ports.map_or_else(|| "any".to_owned(), |range| range.to_string());
        let address = wish.host_address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let address = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
        format!("{address}:{host}/{}", wish.protocol)
    });
    let published: BTreeSet<String> = published.collect();
    let lowest = ports.iter().filter_map(|wish| wish.host_ports).map(|range| range.first).min();
    let loopback_only =
        ports.iter().all(|wish| wish.host_address.is_some_and(|address| address.is_loopback()));
    let networks: BTreeSet<String> = match host {
        true => BTreeSet::from([HOST_NETWORK.to_owned()]),
        false => endpoints.iter().map(|wish| wish.network.clone()).collect(),
    };
    let seccomp = if process.is_filtered(*privileged) { Seccomp::Default } else { Seccomp::Unconfined };
    // Less than what is hidden and protected by itself.
    let bared = |now: Vec<String>, whole: &[&str]| whole.iter().any(|path| !now.iter().any(|it| it == path));
    let unmasked = bared(process.masked(*privileged), &MASKED_PATHS)
        || bared(process.unwritable(*privileged), &READ_ONLY_PATHS);
    let names: BTreeSet<&str> = env.iter().map(|entry| entry.split('=').next().unwrap_or_default()).collect();
    let volumes: BTreeSet<&str> = mounts.iter().map(|mount| mount.name.as_str()).collect();
    let mut thing = Thing::new("Container", container.id.as_str())
        .fact("tenant", tenant(vch))
        .fact("name", Fact::Text(container.name.into()))
        .fact("owner", Fact::Text(container.owner.into()))
        .fact("image", Fact::Thing(image))
        .fact("cpuMilli", Fact::Long((*cpu_milli).into()))
        .fact("memoryMib", mebibytes(*memory_bytes))
        .fact("diskMib", mebibytes(*disk_bytes))
        .fact("privileged", Fact::Bool(*privileged))
        .fact("runAsRoot", Fact::Bool(is_root(user)))
        .fact("autoRemove", Fact::Bool(*auto_remove))
        .fact("boot", Fact::Text(boot.to_string()))
        .fact("readOnly", Fact::Bool(*read_only))
        .fact("capAdd", Fact::Texts(cap_add.names()))
        .fact("capDrop", Fact::Texts(cap_drop.names()))
        .fact("seccomp", Fact::Text(seccomp.as_str().into()))
        .fact("noNewPrivileges", Fact::Bool(*no_new_privileges))
        .fact("pathsUnmasked", Fact::Bool(unmasked))
        .fact("sysctls", Fact::Texts(sysctls.keys().cloned().collect()))
        .fact("networks", Fact::Texts(networks.into_iter().collect()))
        .fact("publishes", Fact::Texts(published.into_iter().collect()))
        .fact("publishesOnLoopbackOnly", Fact::Bool(loopback_only))
        .fact("envKeys", Fact::Texts(names.into_iter().map(Into::into).collect()))
        .fact("volumes", Fact::Texts(volumes.into_iter().map(Into::into).collect()))
        .parent("Vch", vch.id.to_string());
    if let Some(port) = lowest {
        thing = thing.fact("lowestPort", Fact::Long(port.into()));
    }
    thing.tags = labels.clone();
    add(things, thing)
}

fn add_volume(things: &mut Vec<Thing>, vch: &Vch, volume: &Volume) -> Uid {
    let mut thing = Thing::new("Volume", volume.id.to_string())
        .fact("tenant", tenant(vch))
        .fact("name", Fact::Text(volume.name.to_string()))
        .fact("owner", Fact::Text(volume.owner.clone()))
        .fact("sizeMib", mebibytes(volume.size_bytes))
        .fact("anonymous", Fact::Bool(volume.anonymous))
        .fact("store", Fact::Text(volume.store.to_string()))
        .parent("Vch", vch.id.to_string());
    thing.tags = volume.labels.clone();
    add(things, thing)
}

fn add_network(things: &mut Vec<Thing>, vch: &Vch, network: &Network) -> Uid {
    let thing = Thing::new("Network", network.id.as_str())
        .fact("tenant", tenant(vch))
        .fact("name", Fact::Text(network.name.clone()))
        .fact("subnet", Fact::Text(network.spec.subnet.to_string()))
        .fact("internal", Fact::Bool(network.spec.internal))
        .fact("ipv6", Fact::Bool(network.spec.six.is_some()))
        .parent("Vch", vch.id.to_string());
    add(things, thing)
}

/// A pull is judged by the registry that it will ask, whatever is cached already; anything else by where the image
/// was fetched from, whatever it is called.
fn add_image(
    things: &mut Vec<Thing>,
    vch: &Vch,
    image: &ImageFacts<'_>,
    pulling: bool,
    settings: &Settings,
) -> Uid {
    // An id is asked for by itself and has neither registry nor digest of a manifest.
    let asked = image.asked.parse::<Reference>().ok().map(Reference::or_latest);
    let asked_digest = asked.as_ref().and_then(|reference| reference.digest.as_ref());
    let origins = image.cached.map(|cached| cached.origins.as_slice()).unwrap_or_default();
    let (sources, pinned): (BTreeSet<_>, bool) = if pulling {
        let source =
            asked.as_ref().map(|reference| (reference.registry.clone(), reference.repository.clone()));
        (source.into_iter().collect(), asked_digest.is_some())
    } else {
        let by_digest =
            asked_digest.is_some_and(|asked| origins.iter().any(|origin| origin.digest == *asked));
        let by_id =
            image.cached.is_some_and(|it| image.asked == it.id.as_str() || image.asked == it.id.hex());
        let sources = origins.iter().map(|origin| (origin.registry.clone(), origin.repository.clone()));
        (sources.collect(), by_digest || by_id)
    };
    let registries: BTreeSet<String> = origins.iter().map(|origin| origin.registry.clone()).collect();
    let reference = asked.as_ref().map_or_else(|| image.asked.to_owned(), Reference::to_string);
    let id = image.cached.map_or_else(|| reference.clone(), |cached| cached.id.to_string());
    let mut thing = Thing::new("Image", id)
        .fact("tenant", tenant(vch))
        .fact("reference", Fact::Text(reference))
        .fact("pinned", Fact::Bool(pinned))
        .fact("cached", Fact::Bool(image.cached.is_some()))
        .fact("originKnown", Fact::Bool(!origins.is_empty()))
        .fact("originRegistries", Fact::Texts(registries.into_iter().collect()))
        .parent("Vch", vch.id.to_string());
    if let Some(cached) = image.cached {
        thing = thing.fact("digest", Fact::Text(cached.id.to_string()));
    }
    for (registry, repository) in sources {
        let full = add_repository(things, &registry, &repository, settings);
        thing = thing.parent("Repository", full);
    }
    add(things, thing)
}

fn add_repository(things: &mut Vec<Thing>, registry: &str, repository: &str, settings: &Settings) -> String {
    let full = format!("{registry}/{repository}");
    let mut of_registry = Thing::new("Registry", registry);
    let mut of_repository = Thing::new("Repository", full.clone()).parent("Registry", registry);
    for trusted in &settings.trusted_registries {
        let trusted = trusted.trim_end_matches('/');
        let below =
            || full.strip_prefix(trusted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if trusted == registry {
            of_registry = of_registry.parent("Registries", "trusted");
        } else if trusted.contains('/') && below() {
            of_repository = of_repository.parent("Registries", "trusted");
        }
    }
    add(things, of_registry);
    add(things, of_repository);
    full
}
