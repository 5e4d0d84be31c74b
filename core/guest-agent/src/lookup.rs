//! Finding the program to run, with the failures worded as Docker's.

use crate::failure::{CODE_CANNOT_RUN, CODE_NOT_FOUND, Failure, reason};
use std::io;
use std::path::{Path, PathBuf};

/// Where to look if the environment has no PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What is at a path.
#[derive(Debug)]
pub enum Candidate {
    Program,
    Folder,
    /// It is there, or may be, and cannot be run.
    Denied(io::Error),
    Missing(io::Error),
}

/// `look` is asked about each path in turn.
pub fn find(name: &str, env: &[String], look: impl Fn(&Path) -> Candidate) -> Result<PathBuf, Failure> {
    let refuse = |code, why: &str| Err(Failure::new(code, format!("exec: \"{name}\": {why}")));
    if name.contains('/') {
        return match look(Path::new(name)) {
            Candidate::Program => Ok(PathBuf::from(name)),
            Candidate::Folder => refuse(CODE_CANNOT_RUN, "is a directory"),
            Candidate::Denied(error) => refuse(CODE_CANNOT_RUN, &reason(&error)),
            Candidate::Missing(error) => refuse(CODE_NOT_FOUND, &format!("stat {name}: {}", reason(&error))),
        };
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(PATH_DEFAULT);
    // As Docker, it passes over what cannot be run. An empty entry would mean the current folder; a program is not run just because it lies there.
    let mut candidates =
        path.split(':').filter(|folder| folder.starts_with('/')).map(|folder| Path::new(folder).join(name));
    match candidates.find(|candidate| matches!(look(candidate), Candidate::Program)) {
        Some(program) if !name.is_empty() => Ok(program),
        _ => refuse(CODE_NOT_FOUND, "executable file not found in $PATH"),
    }
}

/// Why exec itself refused a program that was found.
pub fn refused(program: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        // Its interpreter is missing.
        io::ErrorKind::NotFound => CODE_NOT_FOUND,
        _ => CODE_CANNOT_RUN,
    };
    Failure::new(code, format!("exec {}: {}", program.display(), reason(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(path: &Path) -> Candidate {
        match path.to_str().unwrap() {
            "/bin/sh" | "./run" => Candidate::Program,
            "/etc" | "/bin/folder" | "/bin/" => Candidate::Folder,
            "/bin/secret" | "/secret" => Candidate::Denied(io::Error::from_raw_os_error(libc::EACCES)),
            _ => Candidate::Missing(io::Error::from_raw_os_error(libc::ENOENT)),
        }
    }

    fn check(name: &str, path: &str, expect: Result<&str, (i32, &str)>) {
        let found = find(name, &[path.to_owned()], look);
        let expect = expect.map(PathBuf::from).map_err(|(code, message)| Failure::new(code, message));
        assert_eq!(found, expect, "{name}");
    }

    #[test]
    fn programs_are_found_on_the_path_or_by_path() {
        check("sh", "PATH=/usr/bin:/bin", Ok("/bin/sh"));
        check("sh", "HOME=/", Ok("/bin/sh"));
        check("/bin/sh", "PATH=/nowhere", Ok("/bin/sh"));
        check("./run", "PATH=", Ok("./run"));
    }

    #[test]
    fn what_cannot_be_run_is_said_in_dockers_words() {
        check("nope", "PATH=/bin", Err((127, r#"exec: "nope": executable file not found in $PATH"#)));
        check("", "PATH=/bin", Err((127, r#"exec: "": executable file not found in $PATH"#)));
        check("folder", "PATH=/bin", Err((127, r#"exec: "folder": executable file not found in $PATH"#)));
        check("/no", "PATH=/", Err((127, r#"exec: "/no": stat /no: no such file or directory"#)));
        check("secret", "PATH=/bin", Err((127, r#"exec: "secret": executable file not found in $PATH"#)));
        check("/secret", "PATH=/bin", Err((126, r#"exec: "/secret": permission denied"#)));
        check("/etc", "PATH=/bin", Err((126, r#"exec: "/etc": is a directory"#)));
    }

    #[test]
    fn a_missing_interpreter_counts_as_not_found() {
        let missing = refused(Path::new("/x"), &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(missing, Failure::new(127, "exec /x: no such file or directory"));
        assert_eq!(refused(Path::new("/x"), &io::Error::from_raw_os_error(libc::ENOEXEC)).code, 126);
    }
}
