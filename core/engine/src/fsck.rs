//! Looking for what belongs to nobody, and for what somebody should have and has not.
//!
//! Much of it is so for a moment while something starts or ends. So what is found is looked at again a little later, and
//! only what was there both times is told.

use crate::volumes::stores;
use crate::{Engine, EngineError};
use bulkhead_machine::Condition;
use bulkhead_machine::inventory::{Found, Kind};
use bulkhead_model::lifecycle::Status;
use bulkhead_model::{Action, Caller, Container, Vch};
use bulkhead_policy::Subject;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// Until it is looked again.
const SETTLE: Duration = Duration::from_secs(3);

/// Something that should not be, or should be and is not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// `disk`, `tap`, `address` …
    pub kind: String,
    /// Whose it is, or was: an id, or the beginning of one.
    pub of: String,
    /// In words.
    pub what: String,
}

impl Engine {
    /// All that does not fit together, of this server.
    pub async fn fsck(&self, caller: &Caller) -> Result<Vec<Finding>, EngineError> {
        self.admit_operator(caller, Action::VchList, Subject::Platform).await?;
        let first = self.misfits().await?;
        if first.is_empty() {
            return Ok(Vec::new());
        }
        tokio::time::sleep(SETTLE).await;
        let second = self.misfits().await?;
        Ok(first.intersection(&second).cloned().collect())
    }

    async fn misfits(&self) -> Result<BTreeSet<Finding>, EngineError> {
        // What there is first, whose it is after: what was just made has its row by then.
        let found = self.back_end().inventory.found().await?;
        let owners = self.owners().await?;
        let mut misfits: BTreeSet<Finding> =
            found.iter().filter(|one| !owners.has(one)).map(orphan).collect();
        let of = |kind: Kind| -> HashSet<&str> {
            found.iter().filter(|one| one.kind == kind).map(|one| one.of.as_str()).collect()
        };
        let disks = of(Kind::Disk);
        for vch in self.store().vchs().await? {
            self.volumes_that_misfit(&vch, &mut misfits).await?;
        }
        let places = self.back_end().machines.places().await?;
        for container in &owners.rows {
            if let Err(error) = places.check(&container.placement) {
                misfits.insert(finding("placement", container.id.as_str(), &error.to_string()));
            }
            let id = container.id.as_str();
            let runs = matches!(container.status, Status::Running { .. });
            if runs && !disks.contains(id) {
                misfits.insert(finding("disk", id, "it runs, and its disk is not there"));
            }
            if runs && !self.has_machine(container).await? {
                misfits.insert(finding("machine", id, "it runs, and its machine is not there"));
            }
            if matches!(container.status, Status::Created | Status::Exited { .. }) {
                for place in container.endpoints.iter().filter(|place| place.lease.is_some()) {
                    let text =
                        format!("it does not run, and has an address on network {}", place.wish.network);
                    misfits.insert(finding("address", id, &text));
                }
                for port in &container.published {
                    let text = format!("it does not run, and has port {} of the host", port.host_port);
                    misfits.insert(finding("port", id, &text));
                }
            }
        }
        Ok(misfits)
    }

    /// Disks without a volume, and volumes without a disk, wherever the VCH has places for them.
    async fn volumes_that_misfit(
        &self,
        vch: &Vch,
        misfits: &mut BTreeSet<Finding>,
    ) -> Result<(), EngineError> {
        let mut found = HashSet::new();
        for folder in std::iter::once(None).chain(stores::folders(&vch.settings).into_iter().map(Some)) {
            found.extend(self.back_end().disks.volumes(vch.id, folder).await?);
        }
        let kept = self.store().kept_volumes(vch.id).await?;
        for id in found.iter().filter(|id| !kept.iter().any(|at| at.id == **id)) {
            misfits.insert(finding("volume", &id.to_string(), "a disk that nobody in the database has"));
        }
        for volume in self.store().volumes(vch.id).await?.iter().filter(|one| !found.contains(&one.id)) {
            let text = format!("volume {}: its disk is not there", volume.name);
            misfits.insert(finding("volume", &volume.id.to_string(), &text));
        }
        Ok(())
    }

    async fn has_machine(&self, container: &Container) -> Result<bool, EngineError> {
        let found = self.back_end().machines.observe(&container.id).await?;
        Ok(found.is_some_and(|found| matches!(found.condition, Condition::Running { .. })))
    }

    async fn owners(&self) -> Result<Owners, EngineError> {
        let mut owners = Owners::default();
        for vch in self.store().vchs().await? {
            owners.vchs.push(vch.id.0.simple().to_string());
            let networks = self.store().networks(vch.id).await?;
            owners.networks.extend(networks.iter().map(|network| network.id.to_string()));
        }
        owners.rows = self.store().containers_of_server(self.0.fence.server).await?;
        Ok(owners)
    }
}

/// Who may have something.
#[derive(Debug, Default)]
struct Owners {
    vchs: Vec<String>,
    networks: Vec<String>,
    rows: Vec<Container>,
}

impl Owners {
    fn has(&self, found: &Found) -> bool {
        let any = |ids: &[String]| !found.of.is_empty() && ids.iter().any(|id| id.starts_with(&found.of));
        match found.kind {
            Kind::Machine | Kind::Process | Kind::Disk | Kind::Journal => {
                self.rows.iter().any(|container| container.id.as_str() == found.of)
            }
            Kind::Namespace | Kind::Uplink => any(&self.vchs),
            Kind::Bridge => any(&self.networks),
            Kind::Tap | Kind::Rule => {
                let places = self.rows.iter().flat_map(|container| &container.endpoints);
                let leased = places.filter(|place| place.lease.is_some());
                any(&leased.map(|place| place.id.to_string()).collect::<Vec<_>>())
            }
        }
    }
}

fn orphan(found: &Found) -> Finding {
    let name = &found.name;
    finding(found.kind.as_str(), &found.of, &format!("{name}: nobody in the database has it"))
}

fn finding(kind: &str, of: &str, what: &str) -> Finding {
    Finding { kind: kind.to_owned(), of: of.to_owned(), what: what.to_owned() }
}
