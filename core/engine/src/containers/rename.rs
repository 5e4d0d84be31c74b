//! Rename: another name for the same container, whatever it does meanwhile.

use super::{event, names};
use crate::{Engine, EngineError, Session};
use bulkhead_model::Action;
use bulkhead_store::{Record, StoreError};

impl Engine {
    pub async fn rename(&self, session: &Session, text: &str, name: &str) -> Result<(), EngineError> {
        let (_, mut container, admitted) =
            self.admit_container(session, Action::ContainerRename, text).await?;
        names::check(name)?;
        if container.name == name {
            let why = "it has that name already".to_owned();
            return Err(EngineError::Invalid { what: "new name", value: name.into(), why });
        }
        let old = std::mem::replace(&mut container.name, name.to_owned());
        let old = format!("/{old}");
        let record = Record::at(self.now()).audit(admitted.audit).event(event(
            &container,
            "rename",
            &[("oldName", &old)],
        ));
        match self.store().rename_container(container.vch, &container.id, name, &record).await {
            Ok(_) => {}
            Err(StoreError::NameTaken { name, holder, .. }) => {
                let holder = holder.parse().map_err(|_| EngineError::InvalidName(name.clone()))?;
                return Err(EngineError::NameInUse { name, holder });
            }
            Err(StoreError::NotFound { .. }) => return Err(EngineError::NoSuchContainer(text.into())),
            Err(other) => return Err(other.into()),
        }
        self.0.feed.wake();
        self.drive(&container).wake();
        self.networks_changed();
        Ok(())
    }
}
