//! What there is of templates, and who was cloned from them.

use super::capture::{self, Facts};
use super::key;
use super::{Slot, Templates};
use crate::record::{Cloned, MachineFolder};
use bulkhead_machine::templates::{ImageFacts, TemplateFacts, TemplateState};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

impl Templates {
    /// All that there are, by name.
    pub(crate) async fn list(&self) -> io::Result<Vec<TemplateFacts>> {
        let (folder, machines) = (self.shared.templates_folder(), self.shared.machines_folder());
        let listed = tokio::task::spawn_blocking(move || Ok((durable(&folder)?, uses(&machines)?)));
        let (durable, uses) = listed.await.map_err(io::Error::other).flatten()?;
        let known = self.known();
        let mut names: Vec<&String> = durable.keys().chain(known.keys()).collect();
        names.sort();
        names.dedup();
        let facts = |name: &String| {
            let class = key::parse(name)?.class;
            let here = known.get(name);
            let slot = here.map(|known| known.slot.borrow().clone());
            let (state, memory_used_bytes, made_at) = match &slot {
                None => (TemplateState::OnDisk, 0, None),
                Some(Slot::Making) => (TemplateState::Making, 0, None),
                Some(Slot::Failed { why, .. }) => (TemplateState::Failed { why: why.clone() }, 0, None),
                Some(Slot::Ready(template)) => {
                    let capture = &template.capture;
                    (TemplateState::Loaded, capture.used_bytes(), Some(capture.facts().at))
                }
            };
            let saved = durable.get(name);
            let saved_image = saved.and_then(|(_, facts)| facts.image.as_ref());
            let image = here.and_then(|known| known.kind.image.as_ref()).or(saved_image);
            Some(TemplateFacts {
                name: name.clone(),
                image: image.map(|image| ImageFacts {
                    vch: image.vch,
                    layers: image.layers.len().try_into().unwrap_or(u32::MAX),
                    disk_bytes: image.disk_bytes,
                }),
                vcpus: class.vcpus,
                memory_bytes: class.memory_mib << 20,
                state,
                memory_used_bytes,
                disk_used_bytes: saved.map_or(0, |(bytes, _)| *bytes),
                made_at: made_at.or(saved.map(|(_, facts)| facts.at)),
                clones: uses.get(name).copied().unwrap_or_default(),
                spares: 0,
            })
        };
        Ok(names.into_iter().filter_map(facts).collect())
    }
}

/// What is on the disk, and the bytes that it takes there.
pub(super) fn durable(folder: &Path) -> io::Result<HashMap<String, (u64, Facts)>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if key::parse(&name).is_some()
            && let Ok(Some(saved)) = capture::durable(&entry.path())
        {
            found.insert(name, saved);
        }
    }
    Ok(found)
}

/// The clones that there are, by what they were cloned from.
fn cloned(machines: &Path) -> io::Result<Vec<(u32, Cloned)>> {
    let mut found = Vec::new();
    for (_, folder) in MachineFolder::all(machines)? {
        if let Ok(Some(record)) = folder.record()
            && let Some(cloned) = record.cloned
            && record.process.alive()?
        {
            found.push((record.process.pid, cloned));
        }
    }
    Ok(found)
}

fn uses(machines: &Path) -> io::Result<HashMap<String, u32>> {
    let mut uses = HashMap::new();
    for (_, cloned) in cloned(machines)? {
        *uses.entry(cloned.template).or_default() += 1;
    }
    Ok(uses)
}

/// The memory that clones of the template run on. Whether it is what it should be is for others to judge.
pub(super) fn running_memory(machines: &Path, name: &str) -> io::Result<Option<File>> {
    let of_template = |(pid, cloned): (u32, Cloned)| {
        let path = format!("/proc/{pid}/fd/{}", cloned.memory);
        let is_memory = fs::read_link(&path)
            .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"/memfd:"));
        (is_memory && cloned.template == name).then(|| File::open(path).ok()).flatten()
    };
    Ok(cloned(machines)?.into_iter().find_map(of_template))
}
