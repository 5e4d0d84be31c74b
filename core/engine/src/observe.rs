//! What happens in the engine, for whoever counts it.

use crate::driver::Phase;
use bulkhead_model::Action;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The policies were asked.
    Decided { action: Action, allowed: bool },
    /// A policy could not be evaluated, which denied; its `@id`.
    PolicyFailed { policy: String },
    /// A plugin was asked, and said this ([`bulkhead_model::plugin::Said::as_str`]).
    Reviewed { binding: String, said: &'static str, took: Duration },
    /// A container's process runs, so long after its machine was begun.
    Started { took: Duration },
    /// So long a part of a container's start took.
    Phase(Phase),
    /// A run ended before its process ran.
    StartFailed,
}

/// Is told, and must not take long.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Happening) + Send + Sync>);

impl Observer {
    pub fn new(observe: impl Fn(Happening) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    pub(crate) fn tell(&self, happening: Happening) {
        (self.0)(happening);
    }
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Observer")
    }
}
