//! The figures as a Markdown document.

use super::facts::{Bulkhead, Machine};
use super::figures::{Row, Summary, number, table};

/// Everything that the document is made of.
#[derive(Debug)]
pub struct Report {
    pub machine: Machine,
    pub load_after: f64,
    pub client_version: String,
    pub bulkhead: Bulkhead,
    pub dockerd: Vec<String>,
    pub decisions: usize,
    pub runs: usize,
    pub rows: Vec<Row>,
    pub acts: Vec<(String, Vec<f64>)>,
}

impl Report {
    /// Each number of each row.
    pub fn json(&self) -> String {
        let row = |row: &Row| {
            serde_json::json!({
                "what": row.what, "unit": row.unit.word(), "bulkhead": row.bulkhead, "dockerd": row.dockerd,
            })
        };
        let rows: Vec<_> = self.rows.iter().map(row).collect();
        let report = serde_json::json!({
            "machine": self.machine.lines, "accelerator": self.bulkhead.accelerator, "rows": rows,
        });
        format!("{report:#}")
    }

    pub fn markdown(&self) -> String {
        let mut text = format!(
            "# Bulkhead beside dockerd\n\n\
             Written by `cargo xtask bench --write`: both engines on one machine, asked by the same docker CLI, each \
             measurement at one and then at the other, {} runs after one that warms up. Times are better small, rates \
             large; the ratio is of the medians.\n\n{}\n",
            self.runs,
            self.accelerator(),
        );
        if let Some(busy) = &self.machine.busy {
            text.push_str(&format!("\n**Not a quiet machine**: {busy}.\n"));
        }
        text.push_str("\n## Figures\n\n");
        text.push_str(&table(&self.rows));
        text.push_str(
            "\nPhases lie between the client's start and end and the engine's own `create`, `start`, `die` and \
             `destroy` events (`timeNano`). Rates of `exec` and `docker logs` are those of the whole command, its \
             start included.\n",
        );
        text.push_str("\n## Where the time goes in Bulkhead\n\nThe acts of the containers' drivers in the runs above, by the server's log:\n\n");
        text.push_str(&self.act_table());
        text.push_str(
            "\n`start-machine` clones and loads a machine, `greet` is the wait for its agent's first answer. \
             `start-process` is the guest too: it takes its disks, mounts them and starts the process. Between \
             `record-running` and `record-exit` the process runs. All else is work of the host.\n",
        );
        text.push_str(&section("Machine", &self.machine_lines()));
        let mut ours = self.bulkhead.lines.clone();
        ours.push(format!("each request decided and on record: {} decisions at the end", self.decisions));
        text.push_str(&section("Bulkhead", &ours));
        text.push_str(&section("dockerd", &self.dockerd));
        text.push_str(&section("What is different", &DIFFERENCES.map(str::to_owned)));
        text
    }

    fn accelerator(&self) -> String {
        match self.bulkhead.accelerator.as_str() {
            "kvm" => "Bulkhead's machines ran on **KVM**.".to_owned(),
            name => format!(
                "Bulkhead's machines ran **emulated** ({name}): there is no KVM on this machine. That decides every \
                 figure in which the guest has a part, and these say nothing about a machine with KVM. Of the memory that \
                 an idle one has of its own, some 46 MiB, 22 to 28 are translated code, 17 QEMU's, and 6 written by \
                 its guest (decision 0011)."
            ),
        }
    }

    fn machine_lines(&self) -> Vec<String> {
        let more = [
            format!("load after the last run: {:.1}", self.load_after),
            format!("docker CLI {}", self.client_version),
        ];
        self.machine.lines.iter().cloned().chain(more).collect()
    }

    fn act_table(&self) -> String {
        let mut text = "| act | ms (min / median / max) |\n|---|---|\n".to_owned();
        for (act, ms) in &self.acts {
            if let Some(all) = Summary::of(ms) {
                let numbers = [all.minimum, all.median, all.maximum].map(number).join(" / ");
                text.push_str(&format!("| `{act}` | {numbers} |\n"));
            }
        }
        text
    }
}

const DIFFERENCES: [&str; 7] = [
    "a container: a machine with a kernel of its own, cloned from one that has booted, or cloned ahead of need where there was a pause | processes on the kernel that is there",
    "a container's disk: a file of its own above read-only layer disks | a folder, joined with the layers' by overlayfs",
    "state: a database that waits for the disk, with an audit entry and a decision for each request | files",
    "a volume: a disk file with an ext4 of its own in the guest, below it the host's page cache, and a sync goes down to the host's disk | a folder of the host's file system",
    "a log: a journal that the machine's own QEMU process writes, at most 16 MiB kept | a JSON line for each line, at most 64 MB kept",
    "the image: the same archive, this machine's busybox, loaded into both by `docker load`",
    "networks: the default one at either side for starts, many at once and the figures of networks; none (`--network none`) for all else",
];

fn section(title: &str, lines: &[String]) -> String {
    let lines: String =
        lines.iter().map(|line| format!("- {}\n", line.replace(" | ", "; dockerd: "))).collect();
    format!("\n## {title}\n\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::super::figures::Unit;
    use super::*;

    fn report(accelerator: &str, busy: Option<&str>) -> Report {
        Report {
            machine: Machine { lines: vec!["memory: 4 GiB".into()], busy: busy.map(str::to_owned) },
            load_after: 0.5,
            client_version: "20.10".into(),
            bulkhead: Bulkhead { accelerator: accelerator.into(), lines: vec!["version 1".into()] },
            dockerd: vec!["storage driver overlay2".into()],
            decisions: 60,
            runs: 5,
            rows: vec![Row {
                what: "exec".into(),
                unit: Unit::Milliseconds,
                bulkhead: vec![100.0],
                dockerd: vec![50.0],
            }],
            acts: vec![("greet".into(), vec![3.0, 1.0]), ("never".into(), Vec::new())],
        }
    }

    #[test]
    fn the_accelerator_and_a_busy_machine_stand_before_the_figures() {
        let text = report("tcg", Some("load 9")).markdown();
        let head = text.split("## Figures").next().unwrap();
        assert!(
            head.contains("**emulated** (tcg)") && head.contains("**Not a quiet machine**: load 9."),
            "{head}"
        );
        let text = report("kvm", None).markdown();
        assert!(
            text.contains("on **KVM**") && !text.contains("emulated") && !text.contains("quiet"),
            "{text}"
        );
    }

    #[test]
    fn figures_acts_and_settings_of_both_are_there() {
        let text = report("kvm", None).markdown();
        for wanted in [
            "| exec | ms | 100 / 100 / 100 | 50.0 / 50.0 / 50.0 | 2.00 : 1 |",
            "| `greet` | 1.00 / 2.00 / 3.00 |",
            "- memory: 4 GiB\n- load after the last run: 0.5\n- docker CLI 20.10\n",
            "- each request decided and on record: 60 decisions at the end\n",
            "## dockerd\n\n- storage driver overlay2\n",
            "cloned ahead of need where there was a pause; dockerd: processes on",
        ] {
            assert!(text.contains(wanted), "no `{wanted}` in:\n{text}");
        }
        assert!(!text.contains("never"), "{text}");
    }

    #[test]
    fn programs_get_every_number() {
        let told: serde_json::Value = serde_json::from_str(&report("kvm", None).json()).unwrap();
        assert_eq!(told["accelerator"], "kvm");
        let row = serde_json::json!({ "what": "exec", "unit": "ms", "bulkhead": [100.0], "dockerd": [50.0] });
        assert_eq!(told["rows"], serde_json::json!([row]));
    }
}
