//! Why a test that passes at the Docker engine does not pass here.

use super::outcome::Outcome;
use super::table::Compared;

const SLOW: &str = "it waits for a time, not for what it wants to see; an emulated machine takes longer";
const LITTER: &str =
    "its suite takes a connection that another test left open for a failure of whichever test runs then";
const LINKS: &str = "links are names: their environment variables are not set, and `rm --link` is refused";
const WORDS: &str = "the refusal is in the words of newer engines: `container is running: stop the container before removing`";
const BINDS: &str = "a container has no files of the host: binds are refused";
const PIECES: &str = "what a terminal writes comes in pieces, and nobody promises which";
const IPV6: &str = "an IPv6 subnet without EnableIPv6 is refused, where the engine leaves it out";
const SWARM: &str = "swarm is not there";
const BUILD: &str = "`docker build` is not there yet";

/// Test and reason, sorted by test.
const KNOWN: &[(&str, &str)] = &[
    (
        "api_container_test.py::ContainerCPUTest::test_create_with_runtime",
        "`runc` is no runtime here, `bulkhead` is the only one",
    ),
    ("api_container_test.py::CreateContainerTest::test_create_with_links", LINKS),
    ("api_container_test.py::CreateContainerTest::test_create_with_restart_policy", WORDS),
    ("api_container_test.py::LinkTest::test_remove_link", LINKS),
    ("api_container_test.py::VolumeBindTest::test_create_with_binds_ro", BINDS),
    ("api_container_test.py::VolumeBindTest::test_create_with_binds_rw", BINDS),
    ("api_container_test.py::VolumeBindTest::test_create_with_mounts", BINDS),
    ("api_container_test.py::VolumeBindTest::test_create_with_mounts_ro", BINDS),
    ("api_container_test.py::VolumeBindTest::test_create_with_volume_mount", BINDS),
    (
        "api_image_test.py::CommitTest::test_commit",
        "images have no `ContainerConfig`: version 1.45 of the API dropped it",
    ),
    ("api_network_test.py::TestNetworks::test_connect_with_ipv6_address", IPV6),
    (
        "api_network_test.py::TestNetworks::test_create_check_duplicate",
        "names of networks are unique, as in engines from 25 on",
    ),
    ("api_network_test.py::TestNetworks::test_create_inspect_network_with_scope", SWARM),
    ("api_network_test.py::TestNetworks::test_create_network_attachable", SWARM),
    ("api_network_test.py::TestNetworks::test_create_network_ingress", SWARM),
    (
        "api_network_test.py::TestNetworks::test_create_with_driveropt",
        "the one network driver has no options",
    ),
    ("api_network_test.py::TestNetworks::test_create_with_ipv6_address", IPV6),
    (
        "api_network_test.py::TestNetworks::test_create_with_linklocal_ips",
        "what is link-local is dropped at every port",
    ),
    ("errors_test.py::ErrorsTest::test_api_error_parses_json", WORDS),
    ("models_containers_test.py::ContainerCollectionTest::test_run_with_volume", BINDS),
    (
        "models_containers_test.py::ContainerTest::test_exec_run_failed",
        "a program that is not there is 127, as in engines from 25 on",
    ),
    ("models_images_test.py::ImageCollectionTest::test_build", BUILD),
    ("models_images_test.py::ImageCollectionTest::test_build_with_error", BUILD),
    ("models_images_test.py::ImageCollectionTest::test_build_with_multiple_success", BUILD),
    ("models_images_test.py::ImageCollectionTest::test_build_with_success_build_output", BUILD),
    ("test_images.py::test_build_from_tar", BUILD),
    ("test_images.py::test_build_from_tar_stream", BUILD),
    ("test_images.py::test_build_image_invalid_platform", BUILD),
    ("test_images.py::test_prune_builds_default_options", BUILD),
    ("test_images.py::test_prune_builds_with_options", BUILD),
    ("test_images.py::test_prune_images", BUILD),
    (
        "test_images.py::test_prune_images_without_filters",
        "it wants nothing to prune; an unnamed image is left that the test before it prunes, once it has built one",
    ),
    ("test_images.py::test_pull_image_invalid_platform", "the refusal of a platform is in other words"),
];

/// The same for tests that sometimes pass.
const UNSTEADY: &[(&str, &str)] = &[
    ("api_container_test.py::AttachContainerTest::test_attach_stream_and_cancel", PIECES),
    ("api_container_test.py::RestartContainerTest::test_restart_with_low_timeout", SLOW),
    ("api_exec_test.py::ExecDemuxTest::test_exec_command_tty_stream_demux", PIECES),
    ("api_exec_test.py::ExecDemuxTest::test_exec_command_tty_stream_no_demux", PIECES),
    ("models_containers_test.py::ContainerTest::test_exec_run_success", SLOW),
    ("test_containers.py::test_capture_log_oneshot", SLOW),
    ("test_containers.py::test_top_with_ps_args", LITTER),
    ("test_execs.py::test_exec_inspect", SLOW),
    ("test_integration.py::test_get_archive", SLOW),
    ("test_integration.py::test_stdio_stdin", SLOW),
];

/// The reason for one test.
pub fn reason(test: &str) -> Option<&'static str> {
    KNOWN.iter().chain(UNSTEADY).find(|(name, _)| *name == test).map(|(_, reason)| *reason)
}

/// What differs without a reason, and reasons that nothing needs any more. Only for tests that ran.
pub fn problems(compared: &Compared) -> Vec<String> {
    let name = compared.suite.package;
    compared
        .tests()
        .filter_map(|(test, there, here)| {
            let differs = there == Outcome::Passed && here != Outcome::Passed;
            let is_unsteady = UNSTEADY.iter().any(|(name, _)| *name == test);
            match (differs, reason(test).filter(|_| differs || !is_unsteady)) {
                (true, None) => {
                    Some(format!("{name}: {test} {here} here and passes there: no reason is known"))
                }
                (false, Some(_)) => {
                    Some(format!("{name}: {test} has a reason in known.rs that it does not need"))
                }
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_has_one_reason() {
        for list in [KNOWN, UNSTEADY] {
            assert!(list.is_sorted_by(|(one, _), (next, _)| one < next));
        }
        assert!(UNSTEADY.iter().all(|(test, _)| !KNOWN.iter().any(|(other, _)| other == test)));
    }
}
