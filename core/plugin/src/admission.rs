//! The admission point: what is asked of a plugin there, and what comes back.

use crate::admission::bindings::bulkhead::plugin::types::CallInfo;
use crate::answer;
use crate::call::{Called, Limits};
use crate::host::Plugin;
use crate::question::Asked;
use bulkhead_model::plugin::Said;

/// Made from `sdk/wit`.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../sdk/wit/plugin", "../../sdk/wit/admission"],
        world: "bulkhead:admission/admission",
    });
}

/// What a plugin says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// `Allow`, `Change` or `Deny`.
    pub said: Said,
    pub warnings: Vec<String>,
}

impl Plugin {
    /// Asks what it says to a request; waits for its turn where many ask.
    pub async fn review(
        &self,
        settings: &serde_json::Value,
        asked: &Asked,
        limits: &Limits,
    ) -> Called<Review> {
        let Asked { info, request, changeable } = asked.clone();
        let info = CallInfo { settings: settings.to_string(), ..info };
        let asked = self.call(limits, None, move |points, store| {
            let admission = points.admission.as_ref();
            let admission = admission.ok_or_else(|| wasmtime::Error::msg("it is not asked at admission"))?;
            let plugin = admission.instantiate(&mut *store).map_err(crate::host::not_started)?;
            plugin.bulkhead_admission_admit().call_review(store, &info, &request)
        });
        asked.await.and_then(|said| answer::read(said, changeable))
    }
}
