//! The files of a policy set: read from a folder, and what may be among them wherever they come from.

use crate::error::PolicyError;
use crate::load::Source;
use bulkhead_model::{Class, PolicyFiles};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Of one file.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// Policy files of a set, and cases of it.
pub const FILES_MAX: usize = 1000;
/// Of all files together.
pub const BYTES_MAX: usize = 8 << 20;
const NAME_BYTES_MAX: usize = 200;
/// The folder whose policies hold for every class, and the one of the test cases.
pub(crate) const BASE: &str = "base";
pub(crate) const CASES: &str = "cases";
/// Folders of a case's topic, each what its cases expect.
pub(crate) const EXPECTATIONS: [&str; 2] = ["ALLOW", "DENY"];

/// Reads `FOLDER/NAME.cedar` and `cases/TOPIC/{ALLOW,DENY}/SENTENCE.json` below a folder. What would be left unread is
/// refused, because a guard that nobody reads is worse than an error. Blocks on files.
pub fn read_folder(dir: &Path) -> Result<PolicyFiles, PolicyError> {
    let mut read = Reading { dir, files: PolicyFiles::new(), total: 0 };
    for (name, path) in entries(dir)? {
        if !path.is_dir() {
            if name.ends_with(".cedar") {
                return Err(layout(path, misplaced()));
            }
        } else if name == CASES {
            read.cases(&path)?;
        } else {
            read.policies(&name, &path)?;
        }
    }
    Ok(read.files)
}

/// Reads the cases of another folder than a set's own: `TOPIC/{ALLOW,DENY}/SENTENCE.json` below it.
pub fn read_cases(dir: &Path) -> Result<PolicyFiles, PolicyError> {
    let mut read = Reading { dir, files: PolicyFiles::new(), total: 0 };
    read.cases(dir)?;
    Ok(read.files)
}

struct Reading<'a> {
    dir: &'a Path,
    files: PolicyFiles,
    total: usize,
}

impl Reading<'_> {
    fn policies(&mut self, folder: &str, path: &Path) -> Result<(), PolicyError> {
        let mut some = false;
        for (name, path) in entries(path)? {
            if path.is_dir() {
                return Err(layout(path, "folders inside a class are not read"));
            }
            if name.ends_with(".cedar") {
                some = true;
                self.file(format!("{folder}/{name}"), path)?;
            }
        }
        if some {
            return Ok(());
        }
        Err(layout(
            path,
            "it has no policy file (NAME.cedar); a class without policies is a folder to delete",
        ))
    }

    fn cases(&mut self, path: &Path) -> Result<(), PolicyError> {
        for (topic, path) in entries(path)? {
            if !path.is_dir() {
                continue;
            }
            for (expected, path) in entries(&path)? {
                if !path.is_dir() || !EXPECTATIONS.contains(&expected.as_str()) {
                    return Err(layout(
                        path,
                        "a topic of cases has the folders `ALLOW` and `DENY`, nothing else",
                    ));
                }
                for (name, path) in entries(&path)? {
                    if !name.ends_with(".json") {
                        return Err(layout(path, "it is no case: those are files called SENTENCE.json"));
                    }
                    self.file(format!("{CASES}/{topic}/{expected}/{name}"), path)?;
                }
            }
        }
        Ok(())
    }

    fn file(&mut self, name: String, path: PathBuf) -> Result<(), PolicyError> {
        let io = |source| PolicyError::Io { path: path.clone(), source };
        if !fs::metadata(&path).map_err(io)?.is_file() {
            return Err(layout(path, "it is not a regular file"));
        }
        let mut bytes = Vec::new();
        let file = fs::File::open(&path).map_err(io)?;
        file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
        self.total += bytes.len();
        if self.total > BYTES_MAX || self.files.len() >= 2 * FILES_MAX {
            return Err(layout(self.dir, too_much()));
        }
        let text = String::from_utf8(bytes).map_err(|_| layout(path.clone(), "it is not UTF-8 text"))?;
        self.files.insert(name, text);
        Ok(())
    }
}

/// Sorted, without hidden ones, which editors and configuration mounts keep for themselves.
fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>, PolicyError> {
    let io = |source| PolicyError::Io { path: dir.into(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The policies among the files, in the order of folder and name, or what is wrong with a name or a size. `root`: where
/// messages say that the files are; empty where they are in no folder.
pub(crate) fn sources(files: &PolicyFiles, root: &Path) -> Result<Vec<Source>, PolicyError> {
    let (mut sources, mut cases) = (Vec::new(), 0);
    for (name, text) in files {
        let path = root.join(name);
        if text.len() > FILE_BYTES_MAX {
            return Err(layout(path, format!("it has {} bytes, at most {FILE_BYTES_MAX}", text.len())));
        }
        let parts: Vec<&str> = name.split('/').collect();
        let odd =
            |part: &&str| part.is_empty() || part.starts_with('.') || part.chars().any(char::is_control);
        if name.len() > NAME_BYTES_MAX || parts.iter().any(odd) {
            let shown: String = name.escape_debug().take(NAME_BYTES_MAX).collect();
            return Err(layout(shown, "a file cannot be called that"));
        }
        match parts.as_slice() {
            [CASES, _, expected, file] if EXPECTATIONS.contains(expected) && file.ends_with(".json") => {
                cases += 1;
            }
            [CASES, ..] => {
                let why = format!("cases are called {CASES}/TOPIC/ALLOW/SENTENCE.json or …/DENY/…");
                return Err(layout(path, why));
            }
            [folder, file] if file.ends_with(".cedar") => {
                let class: Option<Class> = match *folder {
                    BASE => None,
                    _ => Some(folder.parse().map_err(|error: bulkhead_model::vch::NameError| {
                        layout(root.join(folder), error.to_string())
                    })?),
                };
                sources.push(Source { path, class, text: text.clone() });
            }
            _ => return Err(layout(path, misplaced())),
        }
    }
    if !sources.iter().any(|source| source.class.is_none()) {
        return Err(layout(root, format!("there is no `{BASE}` folder with policies in it")));
    }
    let total: usize = files.values().map(String::len).sum();
    if sources.len() > FILES_MAX || cases > FILES_MAX || total > BYTES_MAX {
        return Err(layout(root, too_much()));
    }
    // Not as the whole names sort: a folder's name may go on where another's ends.
    sources.sort_by(|a, b| a.path.parent().cmp(&b.path.parent()).then_with(|| a.path.cmp(&b.path)));
    Ok(sources)
}

fn layout(path: impl Into<PathBuf>, why: impl Into<String>) -> PolicyError {
    PolicyError::Layout { path: path.into(), why: why.into() }
}

fn misplaced() -> String {
    format!("policy files belong into `{BASE}` or into the folder of a class, and are called NAME.cedar")
}

fn too_much() -> String {
    format!("at most {FILES_MAX} policy files, {FILES_MAX} cases and {BYTES_MAX} bytes in all")
}
