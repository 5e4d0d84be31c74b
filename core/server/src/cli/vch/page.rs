//! What `bulkhead vch inspect` shows.

use super::super::output;
use bulkhead_admin_api::view::VchView;

/// All about a VCH, a line each.
pub fn of(vch: &VchView) -> String {
    let settings = &vch.settings;
    let limit = |limit: Option<u64>| limit.map_or_else(|| "no limit".to_owned(), output::bytes);
    let uids: Vec<String> = settings.socket_uids.iter().map(u32::to_string).collect();
    let mut lines = vec![
        ("name", vch.name.clone()),
        ("id", vch.id.clone()),
        ("class", vch.class.to_string()),
        ("tenant", vch.tenant.clone()),
        ("created", vch.created_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)),
        (
            "containers",
            format!(
                "{} ({} running), at most {}",
                vch.usage.containers, vch.usage.running, settings.containers_max
            ),
        ),
        (
            "memory in use",
            format!(
                "{}, at most {}",
                output::bytes(vch.usage.memory_bytes),
                limit(settings.memory_bytes_max)
            ),
        ),
        ("images", vch.usage.images.to_string()),
        (
            "volumes",
            format!(
                "{} of {}, at most {} of {}",
                vch.usage.volumes,
                output::bytes(vch.usage.volumes_bytes),
                settings.volumes_max,
                limit(settings.volumes_bytes_max)
            ),
        ),
        ("volume size", output::bytes(settings.volume_bytes)),
        ("default memory", output::bytes(settings.default_memory_bytes)),
        (
            "default cpus",
            format!("{}.{:03}", settings.default_cpu_milli / 1000, settings.default_cpu_milli % 1000),
        ),
        ("container disk", output::bytes(settings.disk_bytes)),
        ("container log", output::bytes(settings.log_bytes)),
        ("boot", settings.boot.to_string()),
        (
            "socket users",
            if uids.is_empty() {
                "root and admins".into()
            } else {
                format!("root, admins, {}", uids.join(", "))
            },
        ),
    ];
    for (name, store) in &settings.volume_stores {
        let usage = vch.usage.volume_stores.get(name);
        lines.push((
            "volume store",
            format!(
                "{name}: {} of {}, at most {}, in {}",
                usage.map_or(0, |usage| usage.volumes),
                output::bytes(usage.map_or(0, |usage| usage.volumes_bytes)),
                limit(store.bytes_max),
                store.folder.as_ref().map_or_else(
                    || "the server's data folder".to_owned(),
                    |folder| folder.display().to_string()
                ),
            ),
        ));
    }
    for endpoint in &vch.endpoints {
        let state = endpoint
            .problem
            .as_ref()
            .map_or_else(String::new, |problem| format!(" (does not listen: {problem})"));
        lines.push(("endpoint", format!("{}{state}", endpoint.host)));
    }
    lines.iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect()
}
