//! Why a container could not be started, with the code that the user sees.

use std::fmt;
use std::io;

/// Something of ours did not work, as Docker counts it.
pub const CODE_INTERNAL: i32 = 125;
/// The program cannot be run.
pub const CODE_CANNOT_RUN: i32 = 126;
/// There is no such program.
pub const CODE_NOT_FOUND: i32 = 127;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: i32,
    pub message: String,
}

impl Failure {
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(CODE_INTERNAL, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Says what was being done when a system call failed.
pub trait Doing<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::internal(format!("{what}: {}", reason(&error))))
    }
}

/// The error as the C library and Docker word it: `permission denied`, without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// For what cannot be answered to anybody: the console.
pub fn report(outcome: io::Result<()>) {
    if let Err(error) = outcome {
        eprintln!("bulkhead agent: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_dockers_do() {
        let error = Err::<(), _>(io::Error::from_raw_os_error(libc::EACCES)).doing("open `x`").unwrap_err();
        assert_eq!(error, Failure::internal("open `x`: permission denied"));
    }
}
