//! Virtual container hosts.

pub(crate) mod certificates;
pub(crate) mod create;
pub(crate) mod decisions;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod remove;

use crate::view::{Endpoint, UsageView, VchView};
use bulkhead_engine::VchUsage;
use bulkhead_model::Vch;

fn view(vch: Vch, usage: &VchUsage, endpoints: Vec<Endpoint>) -> VchView {
    VchView {
        id: vch.id.to_string(),
        name: vch.name.to_string(),
        tenant: vch.tenant,
        class: vch.class,
        created_at: vch.created_at,
        deleting: vch.deleting,
        settings: vch.settings,
        usage: UsageView {
            containers: usage.containers,
            running: usage.running,
            memory_bytes: usage.memory_bytes,
            images: usage.images,
            volumes: usage.volumes,
            volumes_bytes: usage.volumes_bytes,
        },
        endpoints,
    }
}
