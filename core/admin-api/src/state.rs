//! What the handlers work with.

use crate::error::Problem;
use crate::view::{ClientCertificate, Endpoint, EndpointKind, PolicyStatusView};
use bulkhead_engine::Engine;
use bulkhead_model::{Vch, VchId};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Longest wait for the listeners to follow a change.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(5);

/// The listeners of every VCH as they are now.
pub type Endpoints = watch::Receiver<BTreeMap<VchId, Vec<Endpoint>>>;

/// Makes a certificate for a client of a VCH, with the name that its caller will have.
pub type CertificateIssuer = Arc<dyn Fn(&Vch, &str) -> Result<ClientCertificate, Problem> + Send + Sync>;

/// Tells which policies are in force now.
pub type PolicyStatus = Arc<dyn Fn() -> PolicyStatusView + Send + Sync>;

#[derive(Clone)]
pub struct AdminState {
    pub engine: Engine,
    pub policies: PolicyStatus,
    pub endpoints: Endpoints,
    pub certificates: CertificateIssuer,
}

impl fmt::Debug for AdminState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

impl AdminState {
    pub(crate) fn endpoints_of(&self, vch: VchId) -> Vec<Endpoint> {
        self.endpoints.borrow().get(&vch).cloned().unwrap_or_default()
    }

    /// To wait with [`Self::endpoints_changed`] for what comes after now.
    pub(crate) fn endpoints_now(&self) -> Endpoints {
        let mut endpoints = self.endpoints.clone();
        endpoints.mark_unchanged();
        endpoints
    }

    /// Waits until the listeners were looked at again and are those of the VCH as it is now, for a while.
    pub(crate) async fn endpoints_changed(mut endpoints: Endpoints, vch: &Vch) {
        let tcp = |listen: &Option<String>| listen.as_ref().map(|listen| format!("tcp://{listen}"));
        let (tls, plain) = (vch.settings.tls_listen.is_some(), tcp(&vch.settings.insecure_listen));
        let follow = async {
            endpoints.changed().await.ok();
            // A look that began before the change tells of what was.
            let ours = |all: &BTreeMap<VchId, Vec<Endpoint>>| {
                let shown = all.get(&vch.id).map(Vec::as_slice).unwrap_or_default();
                let of = |kind| shown.iter().find(|endpoint| endpoint.kind == kind);
                of(EndpointKind::Tls).is_some() == tls
                    && of(EndpointKind::InsecureTcp).map(|endpoint| endpoint.host.clone()) == plain
            };
            endpoints.wait_for(ours).await.map(drop)
        };
        if tokio::time::timeout(FOLLOW_TIMEOUT, follow).await.is_err() {
            tracing::warn!("the listeners did not follow a change in time");
        }
    }

    /// Waits until the listeners of a VCH are there (or gone), so that the client's next command finds it so. Gives up
    /// after a while: a listener that cannot be opened tells its own story in `inspect`.
    pub(crate) async fn endpoints_follow(&self, vch: VchId, present: bool) {
        let mut endpoints = self.endpoints.clone();
        let follow = endpoints.wait_for(|all| all.contains_key(&vch) == present);
        if tokio::time::timeout(FOLLOW_TIMEOUT, follow).await.is_err() {
            tracing::warn!(vch.id = %vch, "the listeners did not follow a change in time");
        }
    }
}
