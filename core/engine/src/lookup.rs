//! From what a client typed to what the store has.

use crate::{Engine, EngineError, Session};
use bulkhead_model::{Container, Image, Reference, VchId};
use bulkhead_store::StoreError;

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        use bulkhead_model::Reason;
        use bulkhead_model::reason::Rule;
        match error {
            StoreError::Stale { .. } => EngineError::Fenced,
            StoreError::VolumeHeld { name, by } => EngineError::VolumeHeld { name, by },
            StoreError::Limit { name, unit, limit, used, requested } => {
                let text = format!("{used} {unit} are in use, {requested} more would pass {limit}");
                let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                EngineError::Limit(Box::new(
                    Reason::new(Rule::Limit(name.into()), name, text)
                        .number("limit", signed(limit), unit)
                        .number("used", signed(used), unit)
                        .number("requested", signed(requested), unit),
                ))
            }
            StoreError::VolumeStoreFull { store, limit, used, requested } => {
                let name = format!("volume_stores.{store}.bytes_max");
                let text = format!(
                    "volumes in store {store} have {used} bytes, {requested} more would pass its {limit}"
                );
                let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                EngineError::Limit(Box::new(
                    Reason::new(Rule::Limit(name.clone()), name, text)
                        .number("limit", signed(limit), "bytes")
                        .number("used", signed(used), "bytes")
                        .number("requested", signed(requested), "bytes"),
                ))
            }
            StoreError::VolumeStoreInUse { store, volumes } => EngineError::Conflict(format!(
                "volume store {store} has {volumes} volumes, and they are where they are: it cannot go or get another \
                 folder before they are removed"
            )),
            other => EngineError::Store(other),
        }
    }
}

impl Engine {
    /// By full id, name (with or without the slash that Docker shows), or an id's beginning.
    pub(crate) async fn find(&self, vch: VchId, text: &str) -> Result<Container, EngineError> {
        let bare = text.strip_prefix('/').unwrap_or(text);
        match self.store().find_container(vch, bare).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchContainer(text.into())),
            Err(StoreError::Ambiguous { .. }) => Err(EngineError::AmbiguousContainer(text.into())),
            other => Ok(other?),
        }
    }

    /// By reference, by id, or an id's beginning.
    pub(crate) async fn find_image(&self, session: &Session, text: &str) -> Result<Image, EngineError> {
        let missing = || EngineError::NoSuchImage(text.into());
        if let Some(hex) = text.strip_prefix("sha256:") {
            return self.image_by_id(session.vch, hex, text).await;
        }
        if let Ok(reference) = text.parse::<Reference>() {
            match self.store().image_by_reference(session.vch, &reference.or_latest()).await {
                Err(StoreError::NotFound { .. }) => {}
                other => return Ok(other?),
            }
        }
        let hex = (4..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if hex { self.image_by_id(session.vch, text, text).await } else { Err(missing()) }
    }

    async fn image_by_id(&self, vch: VchId, hex: &str, text: &str) -> Result<Image, EngineError> {
        match self.store().find_image(vch, hex).await {
            Err(StoreError::NotFound { .. }) => Err(EngineError::NoSuchImage(text.into())),
            Err(StoreError::Ambiguous { .. }) => Err(EngineError::AmbiguousImage(text.into())),
            other => Ok(other?),
        }
    }
}
