//! Templates in which an image's disks are in place.

use crate::fixture::{Qemu, shell};
use bulkhead_machine::MachineSpec;
use bulkhead_machine::conformance::{
    BOOT_DEADLINE, Fixture, container, ended, greet, output, prepare, records, run, vch,
};
use bulkhead_machine::templates::{TemplateFacts, TemplateState};
use bulkhead_model::Digest;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

const LOOK: &str = "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/hostname; \
                    busybox head -c 16 /dev/urandom | busybox od -x; cat /etc/lower /etc/upper; \
                    echo mine > /etc/lower; cat /etc/lower; busybox ls -a / | busybox sort; \
                    busybox cat /proc/mounts; busybox ls /sys/class/net; busybox ls /sys/class/scsi_disk";

/// The image's shell, and two layers above it.
async fn image(fixture: &Qemu) -> Vec<Digest> {
    let mut layers = fixture.image(vch()).await.unwrap();
    for name in ["lower", "upper"] {
        layers.push(fixture.layer_with(vch(), name).await);
    }
    layers
}

/// Starts a container's machine and runs the script in it; returns what it wrote, and what the machine was cloned from.
async fn told(fixture: &Qemu, spec: &MachineSpec, script: &str) -> (String, String) {
    let back_end = fixture.back_end();
    assert!(back_end.machines.prepare(spec, BOOT_DEADLINE).await.unwrap());
    back_end.machines.start(spec).await.unwrap();
    let (mut agent, _) = greet(&back_end, spec).await.unwrap();
    run(&back_end, spec, &mut agent, shell(script)).await.unwrap();
    let told = records(&back_end, &spec.id, spec.run).await.unwrap();
    let template = back_end.machines.observe(&spec.id).await.unwrap().unwrap().template;
    ended(&back_end, &spec.id).await.unwrap();
    (output(&told, spec.run), template.unwrap_or_default())
}

async fn first_start(fixture: &Qemu, number: u8, layers: &[Digest]) -> MachineSpec {
    MachineSpec { layers: layers.to_vec(), ..prepare(fixture, &container(number)).await.unwrap() }
}

async fn of_images(fixture: &Qemu) -> Vec<TemplateFacts> {
    let mut all = fixture.back_end().machines.templates().await.unwrap();
    all.retain(|template| template.image.is_some());
    all
}

/// Waits until the templates of images are as they should be, within the time of a boot.
async fn becomes(fixture: &Qemu, what: impl Fn(&[TemplateFacts]) -> bool) -> Vec<TemplateFacts> {
    let look = async {
        loop {
            let all = of_images(fixture).await;
            if what(&all) {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(BOOT_DEADLINE, look).await {
        Ok(all) => all,
        Err(_) => panic!("it stays at {:?}", of_images(fixture).await),
    }
}

fn is_whole(template: &TemplateFacts) -> bool {
    template.state == TemplateState::Loaded && template.disk_used_bytes > 0
}

/// Starts containers of an image until it has a template, and returns its name.
async fn made(fixture: &Qemu, numbers: [u8; 2], layers: &[Digest]) -> String {
    let before = of_images(fixture).await;
    for number in numbers {
        let (said, _) = told(fixture, &first_start(fixture, number, layers).await, "echo there").await;
        assert_eq!(said, "there\n");
    }
    let is_new = |one: &&TemplateFacts| is_whole(one) && before.iter().all(|other| other.name != one.name);
    let all = becomes(fixture, |all| all.iter().any(|one| is_new(&one))).await;
    all.iter().find(is_new).unwrap().name.clone()
}

fn folder(fixture: &Qemu, name: &str) -> PathBuf {
    fixture.folder().join("templates").join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_of_one_are_like_any_other_and_leave_it_as_it_is() {
    let fixture = Qemu::with_image_templates(2).await;
    let layers = image(&fixture).await;
    let (usual, of_class) = told(&fixture, &first_start(&fixture, 1, &layers).await, LOOK).await;
    assert!(of_images(&fixture).await.is_empty(), "one start is no reason");
    let (_, again) = told(&fixture, &first_start(&fixture, 2, &layers).await, LOOK).await;
    assert_eq!(of_class, again);
    let listed = becomes(&fixture, |all| all.iter().any(is_whole)).await;
    let [template] = &listed[..] else { panic!("{listed:?}") };
    let facts = template.image.as_ref().unwrap();
    assert_eq!((facts.vch, facts.layers), (vch(), 3));
    let digests = || {
        ["memory", "state", "disk"]
            .map(|file| Digest::of(&fs::read(folder(&fixture, &template.name).join(file)).unwrap()))
    };
    let before = digests();
    let mut all = vec![usual];
    for number in [3, 4] {
        let (said, from) = told(&fixture, &first_start(&fixture, number, &layers).await, LOOK).await;
        assert_eq!(from, template.name);
        all.push(said);
    }
    let lines: Vec<Vec<&str>> = all.iter().map(|text| text.lines().collect()).collect();
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        for (own, others) in lines[one].iter().zip(&lines[other]).take(3) {
            assert_ne!(own, others, "{all:?}");
        }
    }
    // The end of what is random is how long it was.
    assert_eq!(lines[0][3..7], ["0000020", "lower", "upper", "mine"]);
    assert_eq!(lines[0][3..], lines[1][3..]);
    assert_eq!(lines[0][3..], lines[2][3..]);
    assert_eq!(digests(), before);
    // Another size of disk is another template's.
    let other = first_start(&fixture, 5, &layers).await;
    fixture.back_end().disks.delete_disk(vch(), other.placement.disk_of(&other.id)).await.unwrap();
    fixture.back_end().disks.create_disk(vch(), other.placement.disk_of(&other.id), 128 << 20).await.unwrap();
    let (said, from) = told(&fixture, &other, "cat /etc/upper").await;
    assert_eq!((said.as_str(), from), ("upper\n", of_class));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_run_has_the_disk_of_the_first_and_the_next_server_the_template() {
    let mut fixture = Qemu::with_image_templates(1).await;
    let layers = image(&fixture).await;
    let name = made(&fixture, [1, 2], &layers).await;
    let first = first_start(&fixture, 3, &layers).await;
    let (_, from) = told(&fixture, &first, "echo kept > /kept; busybox sync").await;
    assert_eq!(from, name);
    fixture.reopen().await.unwrap();
    assert_eq!(of_images(&fixture).await[0].state, TemplateState::OnDisk);
    fixture.back_end().machines.delete(&first.id).await.unwrap();
    let (said, from) = told(&fixture, &MachineSpec { run: 2, ..first }, "cat /kept /etc/upper").await;
    assert_eq!(said, "kept\nupper\n");
    assert_ne!(from, name);
    // One start is reason enough to load it.
    let (_, from) = told(&fixture, &first_start(&fixture, 4, &layers).await, "exit 0").await;
    assert_ne!(from, name);
    becomes(&fixture, |all| all.iter().any(is_whole)).await;
    let (said, from) = told(&fixture, &first_start(&fixture, 5, &layers).await, "cat /etc/upper").await;
    assert_eq!((said.as_str(), from), ("upper\n", name));
    // Whoever wants none has none.
    fixture.set_image_templates(0);
    fixture.reopen().await.unwrap();
    let left = || fs::read_dir(fixture.folder().join("templates")).unwrap().count();
    becomes(&fixture, |all| all.is_empty() && left() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_costs_a_clone_of_the_class() {
    let mut fixture = Qemu::with_image_templates(1).await;
    let layers = image(&fixture).await;
    let name = made(&fixture, [1, 2], &layers).await;
    fixture.qemu.close().await;
    let disk = OpenOptions::new().write(true).open(folder(&fixture, &name).join("disk")).unwrap();
    disk.write_all_at(b"damage", 8 << 20).unwrap();
    let at = |fixture: &Qemu| {
        fs::metadata(folder(fixture, &name).join("capture.json")).and_then(|found| found.modified()).ok()
    };
    let before = at(&fixture);
    fixture.reopen().await.unwrap();
    let (said, from) = told(&fixture, &first_start(&fixture, 3, &layers).await, "cat /etc/upper").await;
    assert!(said == "upper\n" && from != name, "{from}");
    becomes(&fixture, |all| all.iter().any(is_whole) && at(&fixture).is_some_and(|at| Some(at) != before))
        .await;

    // A state that no hypervisor loads, under a digest that is right.
    fixture.qemu.close().await;
    let folder = folder(&fixture, &name);
    let mut state = fs::read(folder.join("state")).unwrap();
    state.truncate(4096);
    fs::write(folder.join("state"), &state).unwrap();
    let digest = Digest::of(&[&4096_u64.to_le_bytes()[..], &0_u64.to_le_bytes(), &state].concat());
    let facts = fs::read_to_string(folder.join("capture.json")).unwrap();
    let mut facts: serde_json::Value = serde_json::from_str(&facts).unwrap();
    facts["state"] = digest.to_string().into();
    fs::write(folder.join("capture.json"), facts.to_string()).unwrap();
    fixture.reopen().await.unwrap();
    told(&fixture, &first_start(&fixture, 4, &layers).await, "exit 0").await;
    becomes(&fixture, |all| all.iter().any(is_whole)).await;
    // The disk is the template's by then: the journal of its file system makes it whole.
    let (said, from) = told(&fixture, &first_start(&fixture, 5, &layers).await, "cat /etc/upper").await;
    assert!(
        said == "upper\n" && !from.is_empty() && from != name,
        "{said} {from} {:?}",
        of_images(&fixture).await
    );
    let listed = of_images(&fixture).await;
    assert!(matches!(listed[0].state, TemplateState::Failed { .. }) && !folder.exists(), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_goes_with_a_layer() {
    let fixture = Qemu::with_image_templates(2).await;
    let layers = image(&fixture).await;
    let name = made(&fixture, [1, 2], &layers).await;
    fixture.back_end().disks.delete_layer(vch(), &layers[2]).await.unwrap();
    becomes(&fixture, |all| all.is_empty() && !folder(&fixture, &name).exists()).await;
    // The same layer once more is another file, and asks for another template.
    let layers = image(&fixture).await;
    let (said, from) = told(&fixture, &first_start(&fixture, 3, &layers).await, "cat /etc/upper").await;
    assert!(said == "upper\n" && from != name);
    assert_ne!(made(&fixture, [4, 5], &layers).await, name);
}

#[tokio::test(flavor = "multi_thread")]
async fn those_that_were_not_used_for_longest_give_way() {
    let fixture = Qemu::with_image_templates(2).await;
    let layers = image(&fixture).await;
    let [one, two, three] = [&layers[..1], &layers[..2], &layers[..]];
    let first = made(&fixture, [1, 2], one).await;
    let second = made(&fixture, [3, 4], two).await;
    let (_, from) = told(&fixture, &first_start(&fixture, 5, one).await, "exit 0").await;
    assert_eq!(from, first);
    let third = made(&fixture, [6, 7], three).await;
    let mut names: Vec<_> = of_images(&fixture).await.into_iter().map(|one| one.name).collect();
    names.sort();
    let mut expected = [first.clone(), third.clone()];
    expected.sort();
    assert_eq!(names, expected);
    // In use, and thrown away by name.
    assert!(fixture.back_end().machines.remove_template(&first).await.unwrap());
    assert!(!folder(&fixture, &first).exists() && !folder(&fixture, &second).exists());
}
