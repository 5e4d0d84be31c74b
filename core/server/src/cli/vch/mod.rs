//! `bulkhead vch`.

mod page;
mod settings;

use super::client::Client;
use super::{Failure, Format, context, output};
use bulkhead_admin_api::view::{EndpointKind, VchAsk, VchPatch, VchView};
use bulkhead_model::{VchSettings, VolumeStoreName};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use settings::Settings;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a VCH and print how to use it
    Create(Box<Create>),
    /// Set a VCH to something else: what is given holds from now on, the rest stays. Of options that may be given several
    /// times, what is given replaces all there was, but for volume stores
    Update(Box<Update>),
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
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
pub struct Update {
    pub name: String,
    #[command(flatten)]
    settings: Settings,
    /// A volume store that goes; it must have no volumes. May be given several times
    #[arg(long, value_name = "NAME")]
    volume_store_rm: Vec<VolumeStoreName>,
}

impl Create {
    fn ask(self) -> Result<VchAsk, Failure> {
        let patch = VchPatch { settings: self.settings.patch() };
        let settings = patch.applied(&VchSettings::default()).map_err(|error| wrong(&error))?;
        Ok(VchAsk { name: self.name, class: self.class, tenant: self.tenant, settings })
    }
}

impl Update {
    fn patch(self) -> VchPatch {
        let mut patch = self.settings.patch();
        let stores = patch.entry("volume_stores").or_insert_with(|| json!({}));
        if let Some(stores) = stores.as_object_mut() {
            stores.extend(self.volume_store_rm.into_iter().map(|name| (name.into(), Value::Null)));
        }
        VchPatch { settings: patch }
    }
}

fn wrong(error: &serde_json::Error) -> Failure {
    Failure::new(super::failure::USAGE, format!("{error}"))
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Create(create) => {
            let vch: VchView = client.post("/v1/vchs", &create.ask()?)?;
            match format {
                Format::Json => output::json(&vch),
                Format::Table => {
                    created(&vch);
                    Ok(())
                }
            }
        }
        Command::Update(update) => {
            let vch: VchView = client.patch(&path(&update.name)?, &update.patch())?;
            show(&vch, format)
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
            show(&vch, format)
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

fn show(vch: &VchView, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output::json(vch),
        Format::Table => {
            output::text(&page::of(vch));
            Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use bulkhead_model::VolumeStore;
    use clap::Parser;
    use std::collections::BTreeMap;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        create: Create,
    }

    #[test]
    fn options_become_settings() {
        let line = "x dev --class prod --tenant t --default-memory 256m --default-cpus 0.5 --disk 4g --containers-max 7 \
                    --memory-max 8g --volume-size 1g --volumes-max 9 --volumes-size-max 5g --volume-store default,size=3g --volume-store fast=/mnt/fast --socket-uid 1000 --socket-uid 1001 --tls 0.0.0.0:2376 --insecure-tcp 127.0.0.1:2375";
        let ask = Line::try_parse_from(line.split_whitespace())
            .unwrap_or_else(|error| panic!("{error}"))
            .create
            .ask()
            .unwrap();
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
            volume_stores: BTreeMap::from([
                (VolumeStoreName::default(), VolumeStore { folder: None, bytes_max: Some(3 << 30) }),
                ("fast".parse().unwrap(), VolumeStore { folder: Some("/mnt/fast".into()), bytes_max: None }),
            ]),
            socket_uids: vec![1000, 1001],
            tls_listen: Some("0.0.0.0:2376".into()),
            insecure_listen: Some("127.0.0.1:2375".into()),
            ..VchSettings::default()
        };
        assert_eq!(ask.settings, expect);
    }

    #[test]
    fn an_update_changes_what_is_given_and_nothing_else() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            update: Update,
        }
        let patch = |line: &str| {
            let line = Line::try_parse_from(line.split_whitespace());
            Value::from(line.unwrap_or_else(|error| panic!("{error}")).update.patch().settings)
        };
        assert_eq!(patch("x dev"), json!({ "volume_stores": {} }));
        let line = "x dev --memory-max none --volume-store fast,size=1g --volume-store-rm old --tls none --volumes-max 9";
        let expect = json!({
            "memory_bytes_max": null,
            "volume_stores": { "fast": { "bytes_max": 1 << 30 }, "old": null },
            "tls_listen": null,
            "volumes_max": 9,
        });
        assert_eq!(patch(line), expect);
    }

    #[test]
    fn nothing_but_names_gets_into_a_path() {
        assert_eq!(path("dev").unwrap(), "/v1/vchs/dev");
        assert_eq!(path("../x").unwrap_err().code, 2);
    }
}
