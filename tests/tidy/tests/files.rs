//! Sizes, words and places of files.

use std::path::Path;

use bulkhead_tidy::{files, rust_files, workspace};

/// A reader can hold a file of this length, just.
const LINES_MAX: usize = 800;

/// What may stand at the top of the repository.
const TOP: &[&str] = &[
    ".cargo",
    ".ci",
    ".clippy.toml",
    ".gitignore",
    ".rustfmt.toml",
    ".sqlx",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "core",
    "examples",
    "plugins",
    "policies",
    "sdk",
    "tests",
    "rust-toolchain.toml",
    "CHANGELOG.md",
];

/// Words with which code says that it is not finished, in two halves so that this file does not say them.
const UNFINISHED: &[(&str, &str)] = &[
    ("todo", "!("),
    ("unimplemented", "!("),
    ("dbg", "!("),
    ("#[ign", "ore"),
    ("FIX", "ME"),
    ("XXX", ":"),
    ("TO", "DO:"),
    ("TO", "DO("),
];

/// Where `unsafe` may stand, and why there.
const UNSAFE: &[(&str, &str)] = &[
    ("core/guest-agent/", "PID 1 without libraries: system calls are all it does"),
    ("core/guest-protocol/tests/", "counts the memory that decoding takes"),
    ("core/machine-qemu/", "starts processes with descriptors and a uid of their own"),
    ("core/image/", "hands a descriptor to the child that converts layers"),
    ("core/plugin/", "loads the native code that its compiler wrote"),
    ("core/sandbox/", "gives up rights in children"),
    ("core/store/", "starts the database as another user"),
    ("core/server/", "peer credentials of sockets"),
    ("core/xtask/", "peer credentials, adopting orphans"),
    ("tests/support/", "stops process groups"),
];

#[track_caller]
fn complain(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_can_be_held_by_a_reader() {
    complain(
        rust_files()
            .into_iter()
            .filter(|(_, text)| text.lines().count() > LINES_MAX)
            .map(|(path, text)| {
                format!("{} has {} lines, at most {LINES_MAX}", path.display(), text.lines().count())
            })
            .collect(),
    );
}

#[test]
fn nothing_is_left_unfinished() {
    let words: Vec<String> = UNFINISHED.iter().map(|(one, two)| format!("{one}{two}")).collect();
    let mut wrong = Vec::new();
    for (path, text) in rust_files() {
        for (number, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                wrong.push(format!("{}:{}: `{word}`", path.display(), number + 1));
            }
        }
    }
    complain(wrong);
}

#[test]
fn the_top_folder_holds_what_was_agreed() {
    let mut tops: Vec<String> = files()
        .iter()
        .filter_map(|path| path.components().next())
        .map(|first| first.as_os_str().to_string_lossy().into_owned())
        .filter(|first| !TOP.contains(&first.as_str()))
        .collect();
    tops.sort();
    tops.dedup();
    complain(tops);
}

#[test]
fn each_crate_takes_the_lints_and_versions_of_the_workspace() {
    let mut wrong = Vec::new();
    for path in files()
        .iter()
        .filter(|path| path.ends_with("Cargo.toml") && path.as_path() != Path::new("Cargo.toml"))
    {
        let text = std::fs::read_to_string(workspace().join(path)).unwrap();
        if !text.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{}: no `[lints] workspace = true`", path.display()));
        }
        let versions = text
            .lines()
            .skip_while(|line| !line.contains("dependencies"))
            .filter(|line| line.contains(" = \"") && !line.starts_with('#') || line.contains("version = \""));
        for line in versions.filter(|line| !line.starts_with("name") && !line.starts_with("path")) {
            wrong.push(format!("{}: `{line}` has a version of its own", path.display()));
        }
    }
    complain(wrong);
}

#[test]
fn unsafe_stands_where_it_must_and_says_why() {
    let word = format!("uns{}", "afe");
    let mut wrong = Vec::new();
    for (path, text) in rust_files() {
        let listed = UNSAFE.iter().any(|(place, _)| path.starts_with(place));
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let opens = [
                format!("{word} {{"),
                format!("{word} impl"),
                format!("{word} fn"),
                format!("{word} extern"),
            ];
            if !opens.iter().any(|one| code.contains(one.as_str())) {
                continue;
            }
            let place = format!("{}:{}", path.display(), index + 1);
            if !listed {
                wrong.push(format!("{place}: no row in UNSAFE for it"));
            }
            let before = lines[index.saturating_sub(12)..=index].iter();
            if !before.into_iter().any(|line| line.contains("SAFETY") || line.contains("# Safety")) {
                wrong.push(format!("{place}: no SAFETY comment"));
            }
        }
    }
    complain(wrong);
}

#[test]
fn no_path_of_a_build_machine_is_in_the_tree() {
    let needle = format!("/wo{}", "rk/");
    let mut wrong = Vec::new();
    for path in files() {
        if let Ok(text) = std::fs::read_to_string(workspace().join(&path))
            && text.contains(&needle)
        {
            wrong.push(path.display().to_string());
        }
    }
    complain(wrong);
}
