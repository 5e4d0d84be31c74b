//! Virtual container hosts.

pub(crate) mod certificates;
pub(crate) mod create;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod remove;
mod settings;
pub(crate) mod update;

use crate::view::{Endpoint, UsageView, VchView, VolumeStoreUsageView};
use bulkhead_engine::{VchUsage, VolumeStoreFacts};
use bulkhead_model::{Vch, VolumeStoreName};

fn store(facts: &VolumeStoreFacts) -> (VolumeStoreName, VolumeStoreUsageView) {
    let VolumeStoreFacts { name, volumes, volumes_bytes, .. } = facts;
    (name.clone(), VolumeStoreUsageView { volumes: *volumes, volumes_bytes: *volumes_bytes })
}

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
            volume_stores: usage.volume_stores.iter().map(store).collect(),
        },
        endpoints,
    }
}
