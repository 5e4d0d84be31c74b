//! From a decided spec to what the guest is told.

use bulkhead_guest_protocol::message::{Device, Interior, Limit, Limits, Process, Tmpfs};
use bulkhead_model::ContainerSpec;
use bulkhead_model::process::{self as model, SHM_BYTES_DEFAULT};
use bulkhead_model::volume::uses;

/// The container's own process. One beside it differs in its command, and where the user said so.
pub(crate) fn process(spec: &ContainerSpec) -> Process {
    let options = &spec.process;
    Process {
        args: [spec.entrypoint.clone(), spec.cmd.clone()].concat(),
        env: env(&spec.env, &spec.hostname, spec.stdio.tty),
        working_dir: spec.working_dir.clone(),
        user: spec.user.clone(),
        groups: options.groups.clone(),
        capabilities: options.bounding_set(spec.privileged),
        filtered: options.is_filtered(spec.privileged),
        no_new_privileges: options.no_new_privileges,
        limits: options.limits.iter().map(limit).collect(),
        oom_score_adj: options.oom_score_adj,
    }
}

/// With what every process in the container finds there, as in Docker, and without what was named without a value.
fn env(asked: &[String], hostname: &str, tty: bool) -> Vec<String> {
    let has = |name: &str| asked.iter().any(|entry| entry.split('=').next() == Some(name));
    let hostname = (!has("HOSTNAME")).then(|| format!("HOSTNAME={hostname}"));
    let term = (tty && !has("TERM")).then(|| "TERM=xterm".to_owned());
    asked.iter().filter(|entry| entry.contains('=')).cloned().chain(hostname).chain(term).collect()
}

pub(crate) fn interior(spec: &ContainerSpec) -> Interior {
    let options = &spec.process;
    Interior {
        privileged: spec.privileged,
        read_only: options.read_only,
        tmpfs: options.tmpfs.iter().map(tmpfs).collect(),
        devices: options.devices.iter().map(device).collect(),
        volumes: super::volumes::told(&spec.mounts, &uses(&spec.mounts)),
        shm_bytes: options.shm_bytes.unwrap_or(SHM_BYTES_DEFAULT),
        sysctls: options.all_sysctls().into_iter().collect(),
        masked_paths: options.masked(spec.privileged),
        read_only_paths: options.unwritable(spec.privileged),
        limits: limits(spec, spec.resources.vcpus()),
        init: options.init,
    }
}

/// In a machine with so many vCPUs, as it was started.
pub(crate) fn limits(spec: &ContainerSpec, vcpus: u32) -> Limits {
    let resources = &spec.resources;
    let is_part = resources.cpu_milli < vcpus.saturating_mul(1000);
    Limits {
        cpu_quota_milli: if is_part { resources.cpu_milli } else { 0 },
        memory_bytes: resources.memory_bytes,
        pids_max: spec.process.pids_max.unwrap_or(0),
        plugged_bytes: 0,
    }
}

fn limit(limit: &model::Limit) -> Limit {
    let number = |value: Option<u64>| value.unwrap_or(u64::MAX);
    Limit { resource: limit.resource.number(), soft: number(limit.soft), hard: number(limit.hard) }
}

fn device(device: &model::Device) -> Device {
    let model::Device { source, target, access } = device.clone();
    Device { source, target, access }
}

fn tmpfs(tmpfs: &model::Tmpfs) -> Tmpfs {
    let options = [
        tmpfs.size.as_ref().map(|size| format!("size={size}")),
        tmpfs.inodes.map(|count| format!("nr_inodes={count}")),
        tmpfs.mode.map(|mode| format!("mode={mode:o}")),
        tmpfs.uid.map(|uid| format!("uid={uid}")),
        tmpfs.gid.map(|gid| format!("gid={gid}")),
    ];
    Tmpfs {
        target: tmpfs.target.clone(),
        read_only: tmpfs.read_only,
        executable: tmpfs.executable,
        set_user_id: tmpfs.set_user_id,
        devices: tmpfs.devices,
        options: options.into_iter().flatten().collect::<Vec<_>>().join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_file_system_are_the_kernels() {
        let asked = model::Tmpfs {
            target: "/run".into(),
            size: Some("64m".into()),
            mode: Some(0o1770),
            gid: Some(5),
            executable: true,
            ..model::Tmpfs::default()
        };
        let told = tmpfs(&asked);
        assert_eq!(told.options, "size=64m,mode=1770,gid=5");
        assert!(told.executable && !told.devices && !told.read_only);
    }

    #[test]
    fn a_variable_without_a_value_is_not_there() {
        let asked = ["A=1", "GONE", "HOSTNAME"].map(str::to_owned);
        assert_eq!(env(&asked, "web", true), ["A=1", "TERM=xterm"]);
        assert_eq!(env(&[], "web", false), ["HOSTNAME=web"]);
    }

    #[test]
    fn no_limit_is_the_kernels_infinity() {
        let asked = model::Limit { resource: model::Resource::Core, soft: Some(0), hard: None };
        assert_eq!(limit(&asked), Limit { resource: 4, soft: 0, hard: u64::MAX });
    }

    #[test]
    fn a_quota_is_for_less_than_the_machine_has() {
        let id = "ab".repeat(32).parse().unwrap();
        let ask = bulkhead_model::ContainerAsk { cmd: Some(vec!["x".into()]), ..Default::default() };
        let mut spec =
            bulkhead_model::container::resolve(&id, &ask, &Default::default(), &Default::default()).unwrap();
        for (cpu_milli, vcpus, expect) in
            [(500, 1, 500), (1000, 1, 0), (1000, 2, 1000), (2000, 2, 0), (3000, 2, 0)]
        {
            spec.resources.cpu_milli = cpu_milli;
            assert_eq!(limits(&spec, vcpus).cpu_quota_milli, expect, "{cpu_milli} of {vcpus}");
        }
    }
}
