//! `cargo xtask up`: from a fresh clone to a container VM that ran.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::layout::{Layout, VCH};
use crate::server::Profile;
use crate::{containers, say, server, setup};

/// The words after `up`.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let data_dir = data_dir(arguments)?;
    let layout = Layout::parse(data_dir)?;
    let started = Instant::now();

    setup::ensure(setup::For::Running).context("step `packages`")?;
    server::build(Profile::Dev).context("step `build`")?;
    server::put_in_place(Profile::Dev, &layout).context("step `put in place`")?;
    server::start(&layout).with_context(|| {
        let (program, config) = (layout.binary.display(), layout.config.display());
        format!("step `start the server`; `{program} doctor --config {config}` may know more")
    })?;
    server::ensure_vch(&layout).context("step `create a VCH`")?;
    let image = containers::ensure_image(&layout).context("step `bring an image`")?;
    containers::run_first(&layout, image).with_context(|| {
        format!("step `first container VM`; the server's log is {}", layout.log.display())
    })?;

    let layout_words = words(&layout, image, data_dir);
    eprintln!("\nBulkhead runs ({} in all).\n{layout_words}", say::seconds(started.elapsed()));
    println!("export DOCKER_HOST={}", layout.docker_host());
    Ok(ExitCode::SUCCESS)
}

/// `--data-dir DIR`, the only option of `up`.
fn data_dir(arguments: &[String]) -> Result<Option<&str>> {
    match arguments {
        [] => Ok(None),
        [option, value] if option == "--data-dir" => Ok(Some(value)),
        [option] if option.starts_with("--data-dir=") => Ok(option.strip_prefix("--data-dir=")),
        _ => bail!("`up` takes `--data-dir DIR` or nothing"),
    }
}

fn words(layout: &Layout, image: &str, data_dir: Option<&str>) -> String {
    let cli = match data_dir {
        None => "bulkhead".to_owned(),
        Some(_) => format!("{} --socket {}", layout.binary.display(), layout.admin_socket().display()),
    };
    format!(
        "  try      docker run --rm {image} cat /proc/version\n\
         \x20 look     {cli} vch inspect {VCH}\n\
         \x20 policies {}\n\
         \x20 log      {}\n\
         \x20 stop     {} (machines go on; with --all the VCH and all in it is removed first)\n\
         \x20 The line below is for your shell: eval \"$(cargo xtask up)\" takes it by itself.",
        layout.data.join("policies").display(),
        layout.log.display(),
        layout.down_command(data_dir),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_after_up() {
        let parse = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            data_dir(&words).map(|folder| folder.map(str::to_owned)).ok()
        };
        assert_eq!(parse(&[]), Some(None));
        assert_eq!(parse(&["--data-dir", "/x"]), Some(Some("/x".into())));
        assert_eq!(parse(&["--data-dir=/x"]), Some(Some("/x".into())));
        assert_eq!(parse(&["--nonsense"]), None);
    }
}
