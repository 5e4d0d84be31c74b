use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn plan() -> LaunchPlan {
    LaunchPlan {
        qemu_binary: "/usr/bin/qemu-system-x86_64".into(),
        accelerator: Accelerator::Tcg,
        id: ContainerId::from_random([0xab; 32]),
        vcpus: 2,
        memory_mib: 512,
        origin: Origin::Boot,
        memory: 27,
        state: None,
        drives: drives(&[20, 21], 22, &[(26, false), (27, true)]),
        journal: 23,
        agent_socket: 24,
        qmp_socket: 25,
        nics: vec![(MacAddress([2, 0x42, 172, 17, 0, 2]), 26)],
    }
}

fn drives(layers: &[RawFd], own: RawFd, volumes: &[(RawFd, bool)]) -> Vec<(Drive, RawFd)> {
    let layers = layers.iter().enumerate().map(|(lun, fd)| (Drive::layer(lun), *fd));
    let volumes = volumes.iter().enumerate();
    let volumes = volumes.map(|(lun, (fd, read_only))| (Drive::volume(lun, *read_only), *fd));
    layers.chain([(Drive::own(), own)]).chain(volumes).collect()
}

fn text(plan: &LaunchPlan) -> Vec<String> {
    command_line(plan).into_iter().map(|argument| argument.into_string().unwrap()).collect()
}

/// A change here changes what a captured machine can be loaded into.
#[test]
fn the_whole_line() {
    let expected = include_str!("golden.txt");
    let line = text(&plan()).iter().fold(String::new(), |line, argument| {
        let between = if line.is_empty() {
            ""
        } else if argument.starts_with('-') {
            "\n"
        } else {
            " "
        };
        line + between + argument
    });
    assert_eq!(line, expected.trim_end(), "is it meant? Then golden.txt changes with it");
}

#[test]
fn with_kvm_only_accelerator_and_processor_differ() {
    let tcg = text(&plan());
    let kvm = text(&LaunchPlan { accelerator: Accelerator::Kvm, ..plan() });
    let differences: Vec<_> = tcg.iter().zip(&kvm).filter(|(a, b)| a != b).map(|(_, b)| b.as_str()).collect();
    assert_eq!(differences, ["kvm", "host,-vmx,-svm,pmu=off"]);
}

proptest! {
    /// Whatever a machine is made of, the line has the same shape, and what varies are numbers in it.
    #[test]
    fn only_numbers_vary(
        id in any::<[u8; 32]>(),
        vcpus in 1_u32..=255,
        memory_mib in 64_u64..1 << 20,
        layers in prop::collection::vec(3_i32..100_000, 0..=LAYERS_MAX),
        fds in any::<[u16; 4]>(),
        read_only in prop::collection::vec(any::<bool>(), 0..=VOLUMES_MAX),
    ) {
        let [disk, journal, agent_socket, qmp_socket] = fds.map(i32::from);
        let id = ContainerId::from_random(id);
        let volumes: Vec<_> = read_only.into_iter().enumerate().map(|(n, read_only)| (100_000 + n as i32, read_only)).collect();
        let drives = drives(&layers, disk, &volumes);
        let plan = LaunchPlan { id: id.clone(), vcpus, memory_mib, drives, journal, agent_socket, qmp_socket, ..plan() };
        let line = text(&plan);
        let digits_out = |argument: &String| -> String {
            argument.replace(id.as_str(), "ID").split(|c: char| c.is_ascii_digit()).filter(|p| !p.is_empty()).collect::<Vec<_>>().join("#")
        };
        let shapes: BTreeSet<_> = line.iter().map(digits_out).collect();
        let known: BTreeSet<_> = text(&self::plan()).iter().map(|a| a.replace(&"ab".repeat(32), id.as_str())).map(|a| digits_out(&a)).collect();
        prop_assert!(shapes.is_subset(&known), "{:?}", shapes.difference(&known).collect::<Vec<_>>());
        // Parsed back, it says what the plan says.
        let value = |flag: &str| line.iter().skip_while(|a| *a != flag).nth(1).cloned().unwrap();
        prop_assert_eq!(value("-smp"), plan.vcpus.to_string());
        prop_assert_eq!(value("-m"), format!("{}M,slots=16,maxmem={}M", plan.memory_mib, plan.memory_mib + (128 << 10)));
        let sets: Vec<_> = line.iter().filter_map(|a| a.strip_prefix("fd=")?.split_once(",set=")).collect();
        let of_volumes: Vec<i32> = sets.iter().filter(|(_, set)| set.len() == 4).map(|(fd, _)| fd.parse().unwrap()).collect();
        prop_assert_eq!(of_volumes, volumes.iter().map(|(fd, _)| *fd).collect::<Vec<_>>());
        let of_layers: Vec<i32> = sets.iter().filter(|(_, set)| set.len() == 2 || set.len() == 3).map(|(fd, _)| fd.parse().unwrap()).collect();
        prop_assert_eq!(&of_layers, &layers);
        let unique: BTreeSet<_> = sets.iter().map(|(_, set)| set).collect();
        prop_assert_eq!(unique.len(), plan.drives.len() + 1);
    }
}
