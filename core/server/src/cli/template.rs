//! `bulkhead template`.

use super::client::Client;
use super::failure::USAGE;
use super::{Failure, Format, output, size};
use bulkhead_admin_api::view::{TemplateAsk, TemplateView};
use chrono::SecondsFormat;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List templates with their size and use
    Ls,
    /// Make the template for machines of a size, before the first one is needed
    Build {
        #[arg(long, value_name = "N", default_value_t = 1)]
        cpus: u32,
        /// Memory of the containers, at most
        #[arg(long, value_name = "SIZE", value_parser = size::bytes, default_value = "256m")]
        memory: u64,
    },
    /// Throw a template away; machines that were cloned from it go on
    Rm { name: String },
}

pub fn run(command: Command, client: &Client, format: Format) -> Result<(), Failure> {
    match command {
        Command::Ls => {
            let all: Vec<TemplateView> = client.get("/v1/templates")?;
            show(&all, format)
        }
        Command::Build { cpus, memory } => {
            let ask = TemplateAsk { vcpus: cpus, memory_bytes: memory };
            let built: TemplateView = client.post("/v1/templates", &ask)?;
            match format {
                Format::Json => output::json(&built),
                Format::Table => {
                    output::line(&built.name);
                    Ok(())
                }
            }
        }
        Command::Rm { name } => client.delete(&path(&name)?),
    }
}

/// A name has no other characters, so nothing else is worth asking for.
fn path(name: &str) -> Result<String, Failure> {
    match name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        true => Ok(format!("/v1/templates/{name}")),
        false => Err(Failure::new(USAGE, format!("`{name}` is not the name of a template"))),
    }
}

fn show(all: &[TemplateView], format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(&all);
    }
    let row = |template: &TemplateView| {
        let image = template.image.as_ref();
        let made = template.made_at.map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true));
        vec![
            template.name.clone(),
            image.map(|image| image.vch.clone()).unwrap_or_default(),
            image.map(|image| image.layers.to_string()).unwrap_or_default(),
            template.vcpus.to_string(),
            output::bytes(template.memory_bytes),
            template.failure.clone().map_or_else(|| template.state.clone(), |why| format!("failed: {why}")),
            output::bytes(template.memory_used_bytes),
            output::bytes(template.disk_used_bytes),
            template.clones.to_string(),
            template.spares.to_string(),
            made.unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    let header = [
        "NAME",
        "VCH",
        "LAYERS",
        "CPUS",
        "MEMORY",
        "STATE",
        "IN MEMORY",
        "ON DISK",
        "CLONES",
        "SPARES",
        "MADE",
    ];
    output::table(&header, &rows);
    Ok(())
}
