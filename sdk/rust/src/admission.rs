//! The admission point: may this be done, and with which changes.

use crate::admission_bindings::bulkhead::admission::types as wit;
use crate::{About, Call};
use serde::de::DeserializeOwned;

pub use crate::admission_bindings::bulkhead::admission::types::VolumeSpec as Volume;
pub use crate::admission_bindings::bulkhead::admission::types::{
    Change, ExecSpec as Exec, NetworkSpec as Network, Usage,
};
pub use crate::bindings::bulkhead::plugin::types::{
    ContainerSpec as Container, Image, Label, Mount, Origin, Port, Protocol,
};

/// A plugin that is asked before something is made or done. What it does not write is allowed.
pub trait Admission {
    /// How it is set. `deny_unknown_fields` tells an operator of a wrong name.
    type Settings: DeserializeOwned;
    const ABOUT: About;

    /// Beyond what the type says of settings: a problem each, by JSON pointer.
    fn check(_settings: &Self::Settings) -> Vec<(String, String)> {
        Vec::new()
    }

    /// The only one that may answer with changes.
    fn container_create(_settings: &Self::Settings, _call: &Call, _container: &Container) -> Review {
        Review::allow()
    }

    /// As `container_create`, for who wants to know what the VCH would use after it.
    fn container_create_with(
        settings: &Self::Settings,
        call: &Call,
        container: &Container,
        _usage_after: &Usage,
    ) -> Review {
        Self::container_create(settings, call, container)
    }

    /// A container that is there, as it would be. A plugin that lowers something at its creation refuses here what is above
    /// it.
    fn container_update(_settings: &Self::Settings, _call: &Call, _container: &Container) -> Review {
        Review::allow()
    }

    fn container_exec(_settings: &Self::Settings, _call: &Call, _exec: &Exec) -> Review {
        Review::allow()
    }

    fn image_pull(_settings: &Self::Settings, _call: &Call, _image: &Image) -> Review {
        Review::allow()
    }

    fn volume_create(_settings: &Self::Settings, _call: &Call, _volume: &Volume) -> Review {
        Review::allow()
    }

    fn network_create(_settings: &Self::Settings, _call: &Call, _network: &Network) -> Review {
        Review::allow()
    }
}

/// What a plugin says: it allows unless it denies, and a denial wins over changes.
#[derive(Debug, Default)]
pub struct Review {
    pub changes: Vec<(Change, String)>,
    pub denials: Vec<Denial>,
    /// Shown to whoever makes or updates a container; kept with the decision in any case.
    pub warnings: Vec<String>,
}

/// A reason to deny.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Stable, for programs.
    pub code: String,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// What would make it a yes.
    pub remedy: Option<String>,
}

impl Review {
    pub fn allow() -> Self {
        Self::default()
    }

    /// Denies. Several reasons may be given.
    #[must_use]
    pub fn deny(mut self, code: &str, message: impl Into<String>) -> Self {
        self.denials.push(Denial { code: code.into(), message: message.into(), remedy: None });
        self
    }

    /// Denies, and says what would make it a yes.
    #[must_use]
    pub fn deny_with(mut self, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = Some(remedy.into());
        self.denials.push(Denial { code: code.into(), message: message.into(), remedy });
        self
    }

    #[must_use]
    pub fn warn(mut self, text: impl Into<String>) -> Self {
        self.warnings.push(text.into());
        self
    }

    /// Changes the container that is to be made; `why` is kept with the decision.
    #[must_use]
    pub fn change(mut self, change: Change, why: impl Into<String>) -> Self {
        self.changes.push((change, why.into()));
        self
    }

    #[must_use]
    pub fn set_label(self, key: &str, value: &str, why: &str) -> Self {
        self.change(Change::SetLabel(Label { key: key.into(), value: value.into() }), why)
    }
}

impl Container {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
    }

    /// As the guest resolves its user.
    pub fn is_root(&self) -> bool {
        let name = self.user.split(':').next().unwrap_or_default();
        name.is_empty() || name == "root" || name.parse::<u64>() == Ok(0)
    }
}

/// A container to begin tests with: one of `image`, as `docker run` makes it, in a VCH with the usual defaults.
impl Default for Container {
    fn default() -> Self {
        Self {
            name: String::new(),
            image: Image {
                reference: "docker.io/library/busybox:latest".into(),
                pinned: false,
                id: Some(format!("sha256:{}", "0".repeat(64))),
                origins: Vec::new(),
                labels: Vec::new(),
            },
            entrypoint: Vec::new(),
            cmd: vec!["sh".into()],
            env: vec!["PATH".into()],
            labels: Vec::new(),
            user: String::new(),
            working_dir: "/".into(),
            hostname: "test".into(),
            cpu_milli: 1000,
            memory_mib: 512,
            disk_mib: 8192,
            privileged: false,
            read_only: false,
            no_new_privileges: false,
            seccomp_unconfined: false,
            cap_add: Vec::new(),
            cap_drop: Vec::new(),
            pids_max: None,
            restart_policy: "no".into(),
            auto_remove: false,
            cold_boot: false,
            networks: vec!["bridge".into()],
            ports: Vec::new(),
            mounts: Vec::new(),
        }
    }
}

/// A call to begin tests with.
pub fn test_call() -> Call {
    Call {
        decision: "test".into(),
        vch: "test".into(),
        tenant: "test".into(),
        class: "test".into(),
        principal: "uid:1000".into(),
        now_ms: 1_700_000_000_000,
        seed: 1,
        settings: "{}".into(),
    }
}

/// What the macro calls.
#[doc(hidden)]
pub mod glue {
    use super::*;
    use crate::bindings::bulkhead::plugin::types::PluginError;
    use crate::bindings::exports::bulkhead::plugin::lifecycle::SettingsProblem;
    use crate::settings;

    pub fn check_settings<P: Admission>(text: &str) -> Result<(), Vec<SettingsProblem>> {
        settings::check(text, P::check)
    }

    pub fn review<P: Admission>(call: &Call, request: &wit::Request) -> Result<wit::Verdict, PluginError> {
        let settings: P::Settings = settings::read(&call.settings).map_err(PluginError::Settings)?;
        let usage = &request.usage_after;
        let review = match &request.subject {
            wit::Subject::ContainerCreate(container) => {
                P::container_create_with(&settings, call, container, usage)
            }
            wit::Subject::ContainerUpdate(container) => P::container_update(&settings, call, container),
            wit::Subject::ContainerExec(exec) => P::container_exec(&settings, call, exec),
            wit::Subject::ImagePull(image) => P::image_pull(&settings, call, image),
            wit::Subject::VolumeCreate(volume) => P::volume_create(&settings, call, volume),
            wit::Subject::NetworkCreate(network) => P::network_create(&settings, call, network),
        };
        Ok(review.into())
    }

    impl From<Review> for wit::Verdict {
        fn from(review: Review) -> Self {
            let Review { changes, denials, warnings } = review;
            let outcome = if !denials.is_empty() {
                let denial = |denial: Denial| wit::Denial {
                    code: denial.code,
                    message: denial.message,
                    remedy: denial.remedy,
                };
                wit::Outcome::Deny(denials.into_iter().map(denial).collect())
            } else if !changes.is_empty() {
                let change = |(change, why)| wit::ReasonedChange { change, why };
                wit::Outcome::Change(changes.into_iter().map(change).collect())
            } else {
                wit::Outcome::Allow
            };
            Self { outcome, warnings }
        }
    }
}
