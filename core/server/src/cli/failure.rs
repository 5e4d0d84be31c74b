//! How a command fails: one line on the cause, one on the remedy, and a code that scripts can tell apart.

use crate::config::ConfigError;
use bulkhead_admin_api::{Problem, code};
use bulkhead_store::LockError;
use std::process::ExitCode;

/// Exit codes; 2 is also clap's.
pub const FAILED: u8 = 1;
pub const USAGE: u8 = 2;
pub const DENIED: u8 = 3;
pub const NOT_FOUND: u8 = 4;
pub const CONFLICT: u8 = 5;
pub const UNAVAILABLE: u8 = 6;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: u8,
    pub cause: String,
    pub remedy: Option<String>,
}

impl Failure {
    pub fn new(code: u8, cause: impl Into<String>) -> Self {
        Self { code, cause: cause.into(), remedy: None }
    }

    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub fn config(error: ConfigError) -> Self {
        let cause = format!("{:#}", anyhow::Error::from(error));
        Self::new(USAGE, cause).remedy("`bulkhead config example` prints every setting with its default")
    }

    pub fn report(self) -> ExitCode {
        eprintln!("bulkhead: {}", self.cause);
        if let Some(remedy) = &self.remedy {
            eprintln!("  remedy: {remedy}");
        }
        ExitCode::from(self.code)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let code = match (problem.status, &*problem.code) {
            (_, code::DENIED | code::NOT_AN_ADMIN) => DENIED,
            (_, code::NOT_FOUND) => NOT_FOUND,
            (_, code::CONFLICT | code::CHANGED) => CONFLICT,
            (_, code::UNAVAILABLE) | (503 | 504, _) => UNAVAILABLE,
            (_, code::INVALID) => USAGE,
            _ => FAILED,
        };
        Self { code, cause: problem.detail, remedy: problem.remedy }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let cause = format!("{error:#}");
        match error.downcast_ref::<LockError>() {
            Some(LockError::Held { .. }) => Self::new(CONFLICT, cause)
                .remedy("stop that server first, or give this one its own --data-dir"),
            Some(LockError::Io { .. }) | None => Self::new(FAILED, cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;

    #[test]
    fn each_kind_of_problem_has_its_code() {
        let of = |status: StatusCode, code: &str| Failure::from(Problem::new(status, code, "x")).code;
        assert_eq!(of(StatusCode::FORBIDDEN, code::DENIED), 3);
        assert_eq!(of(StatusCode::FORBIDDEN, code::NOT_AN_ADMIN), 3);
        assert_eq!(of(StatusCode::NOT_FOUND, code::NOT_FOUND), 4);
        assert_eq!(of(StatusCode::CONFLICT, code::CONFLICT), 5);
        assert_eq!(of(StatusCode::PRECONDITION_FAILED, code::CHANGED), 5);
        assert_eq!(of(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE), 6);
        assert_eq!(of(StatusCode::BAD_REQUEST, code::INVALID), 2);
        assert_eq!(of(StatusCode::INTERNAL_SERVER_ERROR, code::INTERNAL), 1);
    }
}
