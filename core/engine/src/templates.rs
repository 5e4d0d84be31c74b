//! Templates: what machines are cloned from. They belong to the installation, not to a VCH.

use crate::{Engine, EngineError};
use bulkhead_machine::templates::TemplateFacts;
use bulkhead_model::vch::VchName;
use bulkhead_model::{Action, Caller};
use bulkhead_policy::Subject;

/// A template, and whose image it has the disks of.
#[derive(Debug)]
pub struct TemplateReport {
    pub facts: TemplateFacts,
    /// `None` also for a VCH that is gone by now.
    pub vch: Option<VchName>,
}

impl Engine {
    /// All that there are, by name.
    pub async fn templates(&self, caller: &Caller) -> Result<Vec<TemplateReport>, EngineError> {
        self.admit_operator(caller, Action::TemplateList, Subject::Platform).await?;
        let all = self.back_end().machines.templates().await?;
        let vchs = self.store().vchs().await?;
        let report = |facts: TemplateFacts| {
            let owner = facts.image.as_ref().and_then(|image| vchs.iter().find(|vch| vch.id == image.vch));
            TemplateReport { vch: owner.map(|vch| vch.name.clone()), facts }
        };
        Ok(all.into_iter().map(report).collect())
    }

    /// Makes the template for machines with that many vCPUs whose containers may take so many bytes of memory, or finds
    /// it. Returns when it is there.
    pub async fn template_build(
        &self,
        caller: &Caller,
        vcpus: u32,
        memory_bytes: u64,
    ) -> Result<TemplateReport, EngineError> {
        let most = self.back_end().machines.capabilities().clone();
        let invalid =
            |what, value: u64, why| Err(EngineError::Invalid { what, value: value.to_string(), why });
        if vcpus == 0 || vcpus > most.vcpus_max {
            return invalid("vCPUs", vcpus.into(), format!("this host has 1 to {}", most.vcpus_max));
        }
        if memory_bytes > most.host_memory_bytes {
            return invalid(
                "memory",
                memory_bytes,
                format!("this host has {} bytes", most.host_memory_bytes),
            );
        }
        let admitted = self.admit_operator(caller, Action::TemplateBuild, Subject::Platform).await?;
        self.store().insert_audit(None, self.now(), &admitted.audit).await?;
        let name = self.back_end().machines.build_template(vcpus, memory_bytes).await?;
        let all = self.back_end().machines.templates().await?;
        let built = all.into_iter().find(|template| template.name == name);
        let facts = built.ok_or(EngineError::NoSuchTemplate(name))?;
        Ok(TemplateReport { facts, vch: None })
    }

    /// Throws one away. Machines that were cloned from it go on.
    pub async fn template_remove(&self, caller: &Caller, name: &str) -> Result<(), EngineError> {
        let admitted = self.admit_operator(caller, Action::TemplateRemove, Subject::Platform).await?;
        self.store().insert_audit(None, self.now(), &admitted.audit).await?;
        match self.back_end().machines.remove_template(name).await? {
            true => Ok(()),
            false => Err(EngineError::NoSuchTemplate(name.to_owned())),
        }
    }
}
