//! What a plugin may change of a container that is to be made. Each kind takes rights away or sets a figure; whether the
//! outcome may be is for the policies to say.

use crate::boot::{self, Boot};
use crate::capability::Capability;
use crate::container::{ContainerAsk, ContainerSpec, is_root};
use crate::process::Seccomp;
use crate::restart::RestartPolicy;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Least share of a vCPU, in thousandths.
const CPU_MILLI_MIN: u32 = 10;
const TEXT_BYTES_MAX: usize = 4096;

/// One change of a [`ContainerAsk`], and so of the container that comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Change {
    SetLabel {
        key: String,
        value: String,
    },
    RemoveLabel {
        key: String,
    },
    SetEnv {
        name: String,
        /// It may be a secret: decisions are kept without it.
        #[serde(default, skip_serializing)]
        value: String,
    },
    RemoveEnv {
        name: String,
    },
    SetCpuMilli {
        milli: u32,
    },
    SetMemoryMib {
        mib: u32,
    },
    SetPidsMax {
        pids: u32,
    },
    SetUser {
        user: String,
    },
    DropCapability {
        name: String,
    },
    DropPrivileged,
    MakeReadOnly,
    ForbidNewPrivileges,
    DefaultSeccomp,
    SetRestartPolicy {
        #[serde(flatten)]
        policy: RestartPolicy,
    },
    DemandColdBoot,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{change}` cannot be: {why}")]
pub struct ChangeError {
    pub change: String,
    pub why: String,
}

impl Change {
    /// Makes the change. `spec` is what comes of `ask` so far; what comes of it afterwards has to be worked out anew.
    pub fn apply(&self, ask: &mut ContainerAsk, spec: &ContainerSpec) -> Result<(), ChangeError> {
        let wrong = |why: &str| Err(ChangeError { change: self.to_string(), why: why.into() });
        match self {
            Change::SetLabel { key, value } => {
                if key.is_empty() || key.len() + value.len() > TEXT_BYTES_MAX {
                    return wrong("a label has a name, and 4 KiB at most");
                }
                if key == boot::LABEL {
                    return wrong("this label is the engine's own; there is `demand-cold-boot`");
                }
                ask.labels.insert(key.clone(), value.clone());
            }
            Change::RemoveLabel { key } => {
                if key == boot::LABEL {
                    return wrong("this label is the engine's own");
                }
                ask.labels.remove(key);
            }
            Change::SetEnv { name, value } => {
                check_env(name, value).or_else(wrong)?;
                ask.env.retain(|entry| name_of(entry) != name);
                ask.env.push(format!("{name}={value}"));
            }
            Change::RemoveEnv { name } => {
                check_env(name, "").or_else(wrong)?;
                ask.env.retain(|entry| name_of(entry) != name);
                // A name alone takes the image's away.
                if spec.env.iter().any(|entry| name_of(entry) == name) {
                    ask.env.push(name.clone());
                }
            }
            Change::SetCpuMilli { milli } => {
                if *milli < CPU_MILLI_MIN {
                    return wrong("10 thousandths of a vCPU are the least");
                }
                ask.cpu_milli = Some(*milli);
            }
            Change::SetMemoryMib { mib } => ask.memory_bytes = Some(u64::from(*mib) << 20),
            Change::SetPidsMax { pids } => {
                let more = spec.process.pids_max.is_some_and(|now| now < *pids);
                if *pids == 0 || more {
                    return wrong("it may only have fewer processes than it could have, and one at least");
                }
                ask.process.pids_max = Some(*pids);
            }
            Change::SetUser { user } => {
                if user.is_empty() {
                    return wrong("nobody is named: root is `0`");
                }
                let root = |user: &str| {
                    is_root(user) || user.split_once(':').is_some_and(|(_, group)| is_root(group))
                };
                if user.len() > TEXT_BYTES_MAX || (root(user) && !is_root(&spec.user)) {
                    return wrong("who is not root does not become root, nor of its group");
                }
                ask.user = Some(user.clone());
            }
            Change::DropCapability { name } => self.drop_capability(name, ask)?,
            Change::DropPrivileged => ask.privileged = false,
            Change::MakeReadOnly => ask.process.read_only = true,
            Change::ForbidNewPrivileges => ask.process.no_new_privileges = true,
            Change::DefaultSeccomp => ask.process.seccomp = Seccomp::Default,
            Change::SetRestartPolicy { policy } => ask.restart = *policy,
            Change::DemandColdBoot => {
                ask.labels.insert(boot::LABEL.into(), Boot::Cold.as_str().into());
            }
        }
        Ok(())
    }

    /// Whether it is so in what comes of the changed ask.
    pub fn check_done(&self, after: &ContainerSpec) -> Result<(), ChangeError> {
        match self {
            Change::RemoveLabel { key } if after.labels.contains_key(key) => {
                Err(ChangeError { change: self.to_string(), why: "the label is the image's".into() })
            }
            _ => Ok(()),
        }
    }

    fn drop_capability(&self, name: &str, ask: &mut ContainerAsk) -> Result<(), ChangeError> {
        let wrong = |why: String| ChangeError { change: self.to_string(), why };
        if ask.privileged {
            return Err(wrong("a privileged container has all; there is `drop-privileged`".into()));
        }
        let capability: Capability = name.parse().map_err(|error| wrong(format!("{error}")))?;
        let (add, drop) = (&mut ask.process.cap_add, &mut ask.process.cap_drop);
        add.some.remove(&capability);
        drop.some.insert(capability);
        Ok(())
    }
}

fn name_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(name, _)| name)
}

fn check_env<'a>(name: &str, value: &str) -> Result<(), &'a str> {
    match name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        true => Err("a variable has a name without `=`, and no zero byte"),
        false if name.len() + value.len() > TEXT_BYTES_MAX => Err("a variable has 4 KiB at most"),
        false => Ok(()),
    }
}

/// As it is told to people; values of variables are not.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::SetLabel { key, value } => write!(f, "label {key}={value}"),
            Change::RemoveLabel { key } => write!(f, "no label {key}"),
            Change::SetEnv { name, .. } => write!(f, "variable {name}"),
            Change::RemoveEnv { name } => write!(f, "no variable {name}"),
            Change::SetCpuMilli { milli } => write!(f, "{} CPUs", f64::from(*milli) / 1000.0),
            Change::SetMemoryMib { mib } => write!(f, "{mib} MiB of memory"),
            Change::SetPidsMax { pids } => write!(f, "at most {pids} processes"),
            Change::SetUser { user } => write!(f, "user {user}"),
            Change::DropCapability { name } => write!(f, "no capability {name}"),
            Change::DropPrivileged => f.write_str("not privileged"),
            Change::MakeReadOnly => f.write_str("a read-only root file system"),
            Change::ForbidNewPrivileges => f.write_str("no new privileges"),
            Change::DefaultSeccomp => f.write_str("the default seccomp filter"),
            Change::SetRestartPolicy { policy } => write!(f, "restart policy {}", policy.name()),
            Change::DemandColdBoot => f.write_str("a cold boot"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::resolve;
    use crate::{ContainerId, ImageConfig, VchSettings};

    fn image() -> ImageConfig {
        ImageConfig {
            cmd: vec!["sh".into()],
            env: vec!["PATH=/bin".into(), "HOME=/".into()],
            user: "www".into(),
            labels: [("of".to_owned(), "image".to_owned())].into(),
            ..ImageConfig::default()
        }
    }

    /// What a container is after the changes, each judged by what the ones before it left.
    fn after(ask: ContainerAsk, changes: &[Change]) -> Result<ContainerSpec, String> {
        let id = ContainerId::from_random([7; 32]);
        let mut ask = ask;
        let resolved = |ask: &ContainerAsk| resolve(&id, ask, &image(), &VchSettings::default());
        for change in changes {
            let spec = resolved(&ask).map_err(|error| error.to_string())?;
            change.apply(&mut ask, &spec).map_err(|error| error.to_string())?;
            let after = resolved(&ask).map_err(|error| error.to_string())?;
            change.check_done(&after).map_err(|error| error.to_string())?;
        }
        resolved(&ask).map_err(|error| error.to_string())
    }

    #[test]
    fn changes_are_what_the_container_is() {
        let ask = ContainerAsk {
            privileged: true,
            env: vec!["A=b".into()],
            labels: [("team".to_owned(), "a".to_owned())].into(),
            ..ContainerAsk::default()
        };
        let spec = after(
            ask,
            &[
                Change::SetLabel { key: "cost".into(), value: "low".into() },
                Change::RemoveLabel { key: "team".into() },
                Change::SetEnv { name: "A".into(), value: "c".into() },
                Change::RemoveEnv { name: "HOME".into() },
                Change::SetCpuMilli { milli: 250 },
                Change::SetMemoryMib { mib: 64 },
                Change::SetPidsMax { pids: 100 },
                Change::SetUser { user: "1000".into() },
                Change::DropPrivileged,
                Change::DropCapability { name: "net_raw".into() },
                Change::MakeReadOnly,
                Change::ForbidNewPrivileges,
                Change::DemandColdBoot,
            ],
        )
        .unwrap();
        assert_eq!(spec.labels.get("cost").map(String::as_str), Some("low"));
        assert!(!spec.labels.contains_key("team") && spec.labels.contains_key("of"));
        assert!(
            spec.env.contains(&"A=c".to_owned()) && !spec.env.contains(&"HOME=/".to_owned()),
            "{:?}",
            spec.env
        );
        assert_eq!((spec.resources.cpu_milli, spec.resources.memory_bytes), (250, 64 << 20));
        assert_eq!((spec.process.pids_max, spec.user.as_str()), (Some(100), "1000"));
        assert!(!spec.privileged && spec.process.read_only && spec.process.no_new_privileges);
        assert_eq!((spec.process.cap_drop.names(), spec.boot), (vec!["CAP_NET_RAW".to_owned()], Boot::Cold));
    }

    #[test]
    fn what_would_widen_or_cannot_be_is_refused() {
        let privileged = ContainerAsk { privileged: true, ..ContainerAsk::default() };
        let few = ContainerAsk::default();
        let labelled = ContainerAsk {
            labels: [("of".to_owned(), "client".to_owned())].into(),
            ..ContainerAsk::default()
        };
        let mut bounded = ContainerAsk::default();
        bounded.process.pids_max = Some(10);
        for (ask, change, why) in [
            (&few, Change::SetUser { user: "root:0".into() }, "does not become root"),
            (&few, Change::SetUser { user: String::new() }, "nobody is named"),
            (&few, Change::SetUser { user: "www:0".into() }, "nor of its group"),
            (&labelled, Change::RemoveLabel { key: "of".into() }, "is the image's"),
            (&few, Change::SetLabel { key: String::new(), value: "x".into() }, "has a name"),
            (&few, Change::SetLabel { key: boot::LABEL.into(), value: "clone".into() }, "engine's own"),
            (&few, Change::RemoveLabel { key: boot::LABEL.into() }, "engine's own"),
            (&few, Change::RemoveLabel { key: "of".into() }, "is the image's"),
            (&few, Change::SetEnv { name: "A=".into(), value: "x".into() }, "without `=`"),
            (&few, Change::SetEnv { name: "A".into(), value: "x".repeat(5000) }, "4 KiB"),
            (&few, Change::SetCpuMilli { milli: 9 }, "are the least"),
            (&few, Change::SetMemoryMib { mib: 5 }, "minimum memory limit"),
            (&few, Change::SetPidsMax { pids: 0 }, "one at least"),
            (&bounded, Change::SetPidsMax { pids: 11 }, "fewer processes"),
            (&few, Change::DropCapability { name: "FLY".into() }, "unknown capability"),
            (&privileged, Change::DropCapability { name: "NET_RAW".into() }, "drop-privileged"),
        ] {
            let error = after(ask.clone(), std::slice::from_ref(&change)).unwrap_err();
            assert!(error.contains(why), "{change}: {error}");
        }
    }

    #[test]
    fn values_of_variables_are_not_kept() {
        let change = Change::SetEnv { name: "TOKEN".into(), value: "secret".into() };
        let kept = serde_json::to_string(&change).unwrap();
        assert!(kept.contains("TOKEN") && !kept.contains("secret") && !change.to_string().contains("secret"));
        assert!(serde_json::from_str::<Change>(&kept).is_ok());
    }
}
