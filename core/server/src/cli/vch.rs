//! `bulkhead vch`.

use super::client::Client;
use super::{Failure, Format, context, output, size};
use bulkhead_admin_api::view::{EndpointKind, VchAsk, VchView};
use bulkhead_model::ports::PublishGrant;
use bulkhead_model::{Boot, VchSettings};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a VCH and print how to use it
    Create(Box<Create>),
    /// List VCHs
    Ls,
    /// Show all about a VCH
    Inspect { name: String },
    /// Remove a VCH with its images
    Rm {
        name: String,
        /// End and remove its containers too
        #[arg(long, short)]
        force: bool,
    },
    /// Write a client certificate for a VCH with TLS, and print how to use it
    Context {
        name: String,
        /// The folder for ca.pem, cert.pem and key.pem; made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Who it is for: the policies see `cert:CLIENT`
        #[arg(long, value_name = "CLIENT", default_value = "client")]
        client: String,
    },
}

#[derive(Debug, Args)]
pub struct Create {
    pub name: String,
    /// Which policies are in force: dev, test, prod or one of yours
    #[arg(long, default_value = "dev")]
    class: String,
    /// Whose it is
    #[arg(long, default_value = "local")]
    tenant: String,
    /// Memory of a container that asks for none
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    default_memory: Option<u64>,
    /// CPUs of a container that asks for none
    #[arg(long, value_name = "N", value_parser = size::cpu_milli)]
    default_cpus: Option<u32>,
    /// Size of each container's own disk; takes only what is written
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    disk: Option<u64>,
    /// Log space of each container
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    log_size: Option<u64>,
    /// Most containers, running or not
    #[arg(long, value_name = "N")]
    containers_max: Option<u32>,
    /// Most memory of running containers together
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    memory_max: Option<u64>,
    /// Size of a volume that is made without one; takes only what is written
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    volume_size: Option<u64>,
    /// Most volumes
    #[arg(long, value_name = "N")]
    volumes_max: Option<u32>,
    /// Most that the sizes of all volumes may add up to
    #[arg(long, value_name = "SIZE", value_parser = size::bytes)]
    volumes_size_max: Option<u64>,
    /// A user who may use the unix socket, besides root; may be given several times
    #[arg(long, value_name = "UID")]
    socket_uid: Vec<u32>,
    /// Also listen on TCP with TLS; clients need a certificate
    #[arg(long, value_name = "ADDR:PORT")]
    tls: Option<String>,
    /// Also listen on TCP without any protection; loopback addresses only
    #[arg(long, value_name = "ADDR:PORT")]
    insecure_tcp: Option<String>,
    /// An address of the host that containers may be published on (all, unless given); may be given several times
    #[arg(long, value_name = "ADDR")]
    publish_address: Vec<std::net::Ipv4Addr>,
    /// Ports of the host that containers may be published on (all but 22 and 443, unless given)
    #[arg(long, value_name = "FIRST-LAST")]
    publish_ports: Vec<bulkhead_model::ports::PortRange>,
    /// `cold`: its machines share no memory with others and start slowly; `clone` otherwise
    #[arg(long, value_name = "HOW", default_value_t)]
    boot: Boot,
}

impl Create {
    fn ask(self) -> VchAsk {
        let default = VchSettings::default();
        let settings = VchSettings {
            default_cpu_milli: self.default_cpus.unwrap_or(default.default_cpu_milli),
            default_memory_bytes: self.default_memory.unwrap_or(default.default_memory_bytes),
            disk_bytes: self.disk.unwrap_or(default.disk_bytes),
            log_bytes: self.log_size.unwrap_or(default.log_bytes),
            containers_max: self.containers_max.unwrap_or(default.containers_max),
            memory_bytes_max: self.memory_max,
            volume_bytes: self.volume_size.unwrap_or(default.volume_bytes),
            volumes_max: self.volumes_max.unwrap_or(default.volumes_max),
            volumes_bytes_max: self.volumes_size_max,
            socket_uids: self.socket_uid,
            tls_listen: self.tls,
            insecure_listen: self.insecure_tcp,
            publish: PublishGrant {
                addresses: or_default(self.publish_address, default.publish.addresses),
                ports: or_default(self.publish_ports, default.publish.ports),
            },
            boot: self.boot,
        };
        VchAsk { name: self.name, class: self.class, tenant: self.tenant, settings }
    }
}

fn or_default<T>(given: Vec<T>, default: Vec<T>) -> Vec<T> {
    if given.is_empty() { default } else { given }
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Create(create) => {
            let vch: VchView = client.post("/v1/vchs", &create.ask())?;
            match format {
                Format::Json => output::json(&vch),
                Format::Table => {
                    created(&vch);
                    Ok(())
                }
            }
        }
        Command::Ls => {
            let all: Vec<VchView> = client.get("/v1/vchs")?;
            match format {
                Format::Json => output::json(&all),
                Format::Table => {
                    let header =
                        ["NAME", "CLASS", "TENANT", "CONTAINERS", "RUNNING", "MEMORY", "IMAGES", "ENDPOINT"];
                    output::table(&header, &all.iter().map(row).collect::<Vec<_>>());
                    Ok(())
                }
            }
        }
        Command::Inspect { name } => {
            let vch: VchView = client.get(&path(&name)?)?;
            match format {
                Format::Json => output::json(&vch),
                Format::Table => {
                    output::text(&page(&vch));
                    Ok(())
                }
            }
        }
        Command::Rm { name, force } => {
            client.delete(&format!("{}?force={force}", path(&name)?))?;
            output::line(&name);
            Ok(())
        }
        Command::Context { name, out, client: who } => {
            context::write(client, &name, &path(&name)?, &out, &who)
        }
    }
}

/// The name goes into a path: only a name can be meant.
fn path(name: &str) -> Result<String, Failure> {
    let name: bulkhead_model::vch::VchName =
        name.parse().map_err(|error| Failure::new(super::failure::USAGE, format!("{error}")))?;
    Ok(format!("/v1/vchs/{name}"))
}

/// What goes to the standard output can be given to a shell; the rest is for people.
fn created(vch: &VchView) {
    for endpoint in &vch.endpoints {
        if let Some(problem) = &endpoint.problem {
            eprintln!("warning: {} does not listen yet: {problem}", endpoint.host);
        } else if endpoint.kind == EndpointKind::InsecureTcp {
            eprintln!(
                "warning: {} is unprotected: every user and program on this machine may use this VCH",
                endpoint.host
            );
        } else if endpoint.kind == EndpointKind::Tls {
            eprintln!(
                "{} takes client certificates: bulkhead vch context {} --out DIR",
                endpoint.host, vch.name
            );
        }
    }
    if let Some(host) = vch.endpoints.first().map(|endpoint| &endpoint.host) {
        output::line(&format!("export DOCKER_HOST={host}"));
    }
}

fn row(vch: &VchView) -> Vec<String> {
    let name = if vch.deleting { format!("{} (going)", vch.name) } else { vch.name.clone() };
    vec![
        name,
        vch.class.to_string(),
        vch.tenant.clone(),
        vch.usage.containers.to_string(),
        vch.usage.running.to_string(),
        output::bytes(vch.usage.memory_bytes),
        vch.usage.images.to_string(),
        vch.endpoints.first().map(|endpoint| endpoint.host.clone()).unwrap_or_default(),
    ]
}

fn page(vch: &VchView) -> String {
    let settings = &vch.settings;
    let limit = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), output::bytes);
    let uids: Vec<String> = settings.socket_uids.iter().map(u32::to_string).collect();
    let mut lines = vec![
        ("name", vch.name.clone()),
        ("id", vch.id.clone()),
        ("class", vch.class.to_string()),
        ("tenant", vch.tenant.clone()),
        ("created", vch.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        (
            "containers",
            format!(
                "{} ({} running), at most {}",
                vch.usage.containers, vch.usage.running, settings.containers_max
            ),
        ),
        (
            "memory in use",
            format!(
                "{}, at most {}",
                output::bytes(vch.usage.memory_bytes),
                limit(settings.memory_bytes_max)
            ),
        ),
        ("images", vch.usage.images.to_string()),
        (
            "volumes",
            format!(
                "{} of {}, at most {} of {}",
                vch.usage.volumes,
                output::bytes(vch.usage.volumes_bytes),
                settings.volumes_max,
                limit(settings.volumes_bytes_max)
            ),
        ),
        ("volume", output::bytes(settings.volume_bytes)),
        ("default memory", output::bytes(settings.default_memory_bytes)),
        (
            "default cpus",
            format!("{}.{:03}", settings.default_cpu_milli / 1000, settings.default_cpu_milli % 1000),
        ),
        ("container disk", output::bytes(settings.disk_bytes)),
        ("container log", output::bytes(settings.log_bytes)),
        ("boot", settings.boot.to_string()),
        (
            "socket users",
            if uids.is_empty() {
                "root and admins".into()
            } else {
                format!("root, admins, {}", uids.join(", "))
            },
        ),
    ];
    for endpoint in &vch.endpoints {
        let state = endpoint
            .problem
            .as_ref()
            .map_or_else(String::new, |problem| format!(" (does not listen: {problem})"));
        lines.push(("endpoint", format!("{}{state}", endpoint.host)));
    }
    lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    #[test]
    fn options_become_settings() {
        let line = "x dev --class prod --tenant t --default-memory 256m --default-cpus 0.5 --disk 4g --containers-max 7 \
                    --memory-max 8g --volume-size 1g --volumes-max 9 --volumes-size-max 5g --socket-uid 1000 --socket-uid 1001 --tls 0.0.0.0:2376 --insecure-tcp 127.0.0.1:2375";
        let ask = Line::try_parse_from(line.split_whitespace())
            .unwrap_or_else(|error| panic!("{error}"))
            .create
            .ask();
        assert_eq!((ask.name.as_str(), ask.class.as_str(), ask.tenant.as_str()), ("dev", "prod", "t"));
        let expect = VchSettings {
            default_cpu_milli: 500,
            default_memory_bytes: 256 << 20,
            disk_bytes: 4 << 30,
            containers_max: 7,
            memory_bytes_max: Some(8 << 30),
            volume_bytes: 1 << 30,
            volumes_max: 9,
            volumes_bytes_max: Some(5 << 30),
            socket_uids: vec![1000, 1001],
            tls_listen: Some("0.0.0.0:2376".into()),
            insecure_listen: Some("127.0.0.1:2375".into()),
            ..VchSettings::default()
        };
        assert_eq!(ask.settings, expect);
    }

    #[test]
    fn nothing_but_names_gets_into_a_path() {
        assert_eq!(path("dev").unwrap(), "/v1/vchs/dev");
        assert_eq!(path("../x").unwrap_err().code, 2);
    }
}
