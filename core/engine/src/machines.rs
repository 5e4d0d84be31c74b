//! Machines as an operator sees them: of all tenants, with what they take of the host and how their start went.

use crate::driver::Phase;
use crate::{Engine, EngineError};
use bulkhead_machine::{Condition, MachineCost, MachineFacts};
use bulkhead_model::vch::VchName;
use bulkhead_model::{Action, Caller, Container};
use bulkhead_policy::Subject;
use futures_util::future::try_join_all;

/// A machine that runs, and whose it is.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineReport {
    pub vch: VchName,
    pub container: Container,
    pub facts: MachineFacts,
    /// `None`: it ended while it was looked at.
    pub cost: Option<MachineCost>,
    /// Of its container's last start; none, if that was before this server came.
    pub phases: Vec<Phase>,
}

impl Engine {
    /// All that run, by VCH and name.
    pub async fn machines(&self, caller: &Caller) -> Result<Vec<MachineReport>, EngineError> {
        self.admit_operator(caller, Action::MachineList, Subject::Platform).await?;
        let containers = self.store().containers_of_server(self.0.fence.server).await?;
        self.reports(containers).await
    }

    /// The one of a container, by the container's id, name, or an id's beginning.
    pub async fn machine(&self, caller: &Caller, text: &str) -> Result<MachineReport, EngineError> {
        self.admit_operator(caller, Action::MachineList, Subject::Platform).await?;
        let mut containers = self.store().containers_of_server(self.0.fence.server).await?;
        let exact = |container: &Container| container.id.as_str() == text || container.name == text;
        let begins = |container: &Container| !text.is_empty() && container.id.as_str().starts_with(text);
        match containers.iter().any(exact) {
            true => containers.retain(exact),
            false => containers.retain(begins),
        }
        if containers.len() > 1 {
            return Err(EngineError::AmbiguousContainer(text.into()));
        }
        let container = containers.pop().ok_or_else(|| EngineError::NoSuchContainer(text.into()))?;
        let id = container.id.clone();
        let reports = self.reports(vec![container]).await?;
        reports.into_iter().next().ok_or(EngineError::NotRunning(id))
    }

    async fn reports(&self, containers: Vec<Container>) -> Result<Vec<MachineReport>, EngineError> {
        let vchs = self.store().vchs().await?;
        let found = try_join_all(containers.into_iter().map(|container| async {
            let vch = vchs.iter().find(|vch| vch.id == container.vch).map(|vch| vch.name.clone());
            let facts = self.back_end().machines.observe(&container.id).await?;
            let runs = facts.filter(|facts| matches!(facts.condition, Condition::Running { .. }));
            let (Some(vch), Some(facts)) = (vch, runs) else { return Ok::<_, EngineError>(None) };
            let cost = self.back_end().machines.cost(&container.id).await?;
            let driver = self.0.drivers.get(&container.id);
            let phases = driver.map(|driver| driver.last_start.phases()).unwrap_or_default();
            Ok(Some(MachineReport { vch, container, facts, cost, phases }))
        }));
        let mut reports: Vec<_> = found.await?.into_iter().flatten().collect();
        let key = |report: &MachineReport| (report.vch.to_string(), report.container.name.clone());
        reports.sort_by_key(key);
        Ok(reports)
    }
}
