//! Processes as the kernel lists them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use crate::root;

/// Living processes below one, with their command lines.
pub fn below(ancestor: u32) -> Vec<(u32, String)> {
    let mut parents = HashMap::new();
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    for pid in all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some((parent, alive)) = parent_of(pid)
            && alive
        {
            parents.insert(pid, parent);
        }
    }
    let mut found: Vec<u32> =
        parents.keys().copied().filter(|&pid| is_below(pid, ancestor, &parents)).collect();
    found.sort_unstable();
    found.into_iter().map(|pid| (pid, command_line(pid))).collect()
}

fn is_below(pid: u32, ancestor: u32, parents: &HashMap<u32, u32>) -> bool {
    let chain = std::iter::successors(parents.get(&pid).copied(), |one| parents.get(one).copied());
    // Process ids are reused, so a chain read while it changes could be a circle.
    chain.take(1_000).any(|one| one == ancestor)
}

fn parent_of(pid: u32) -> Option<(u32, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let alive = !matches!(fields.next()?, "Z" | "X");
    Some((fields.next()?.parse().ok()?, alive))
}

fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    text.chars().take(200).collect()
}

/// Processes that name files below a folder, have it as their working folder, or hold such files open.
pub fn working_in(folder: &Path) -> Vec<u32> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|&pid| works_in(Path::new(&format!("/proc/{pid}")), folder)).collect()
}

fn works_in(process: &Path, folder: &Path) -> bool {
    let words = fs::read(process.join("cmdline")).unwrap_or_default();
    let needle = format!("{}/", folder.display());
    if String::from_utf8_lossy(&words).contains(&needle) {
        return true;
    }
    let points_there = |link: &Path| fs::read_link(link).is_ok_and(|path| path.starts_with(folder));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    points_there(&process.join("cwd")) || open.into_iter().any(|file| points_there(&file.path()))
}

/// Ends a process for certain, as root if need be.
pub fn end(pid: u32) {
    if let Ok(mut command) = root::command("kill", "to end what a test left behind") {
        // It may have ended by itself in the meantime.
        let _ = root::run(command.args(["-KILL", &pid.to_string()]));
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_forgotten_child_is_found_and_where_it_works() {
        let folder = std::env::temp_dir().join(format!("bulkhead-works-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut child = Command::new("sleep").arg("61").current_dir(&folder).spawn().unwrap();
        let pid = child.id();
        assert!(below(std::process::id()).iter().any(|(one, words)| *one == pid && words.contains("sleep")));
        assert_eq!(working_in(&folder), [pid]);
        end(pid);
        child.wait().unwrap();
        assert!(!below(std::process::id()).iter().any(|(one, _)| *one == pid));
        fs::remove_dir_all(&folder).unwrap();
    }
}
