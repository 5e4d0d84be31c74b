//! Which volumes a container that is to be made will have.

use super::stores;
use crate::{Engine, EngineError, Session};
use bulkhead_model::volume::{MountAsk, PlannedMount, plan_mounts};
use bulkhead_model::{Action, ContainerAsk, ImageConfig, Mount, Vch, Volume};

/// The mounts of a container, and the volumes that are made with it.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) new: Vec<Volume>,
}

impl Engine {
    /// Nothing is made yet.
    pub(crate) async fn plan_volumes(
        &self,
        session: &Session,
        vch: &Vch,
        ask: &ContainerAsk,
        image: &ImageConfig,
    ) -> Result<Planned, EngineError> {
        let mut inherited = Vec::new();
        for from in &ask.mounts_from {
            // Whoever may not look at it does not get what it has.
            let (_, container, _) =
                self.admit_container(session, Action::ContainerInspect, &from.container).await?;
            inherited.extend(container.spec.mounts.into_iter().map(|mount| {
                let read_only = mount.read_only || from.read_only;
                PlannedMount::Inherited(Mount { read_only, fills: false, ..mount })
            }));
        }
        let covered: Vec<&str> = ask.process.tmpfs.iter().map(|tmpfs| tmpfs.target.as_str()).collect();
        let paths = [image.volumes.as_slice(), ask.volume_paths.as_slice()].concat();
        let mut planned = Planned::default();
        for mount in plan_mounts(&ask.mounts, inherited, &paths, &covered)? {
            let mount = match mount {
                PlannedMount::Inherited(mount) => mount,
                PlannedMount::Asked(asked) => self.found_or_new(session, vch, &mut planned, asked).await?,
            };
            planned.mounts.push(mount);
        }
        Ok(planned)
    }

    async fn found_or_new(
        &self,
        session: &Session,
        vch: &Vch,
        planned: &mut Planned,
        asked: MountAsk,
    ) -> Result<Mount, EngineError> {
        let MountAsk { target, volume: ask, read_only, no_copy, subpath } = asked;
        let named = |volume: &&Volume| Some(&volume.name) == ask.name.as_ref();
        let found = match (&ask.name, planned.new.iter().find(named)) {
            (_, Some(new)) => Some((new.id, new.name.clone())),
            (Some(name), None) => match self.find_volume(vch.id, name.as_str()).await {
                Ok(found) => {
                    stores::check_same(&found, &ask)?;
                    Some((found.id, found.name))
                }
                Err(EngineError::NoSuchVolume(_)) => None,
                Err(other) => return Err(other),
            },
            (None, None) => None,
        };
        let (volume, name) = match found {
            Some(found) => found,
            None => {
                let new = self.new_volume(session, vch, &ask)?;
                let made = (new.id, new.name.clone());
                planned.new.push(new);
                made
            }
        };
        Ok(Mount {
            target,
            volume,
            name,
            anonymous: ask.name.is_none(),
            read_only,
            // What a folder of it is filled with would be seen in all of it.
            fills: !no_copy && subpath.is_empty(),
            subpath,
        })
    }
}
