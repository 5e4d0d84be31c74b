//! How a container's machine comes to life.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The label by which a container asks for one of them: `docker run --label bulkhead.boot=cold`.
pub const LABEL: &str = "bulkhead.boot";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Boot {
    /// As a copy of a machine that has booted already, where the back end has such: in a moment, and in less memory, as
    /// what nobody changed is there once for all.
    #[default]
    Clone,
    /// From its kernel's first instruction. It shares no memory with other machines, and its kernel has chosen by itself
    /// where it lies and what its secrets are.
    Cold,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to boot: expected clone or cold")]
pub struct BootError(pub String);

impl Boot {
    pub fn as_str(self) -> &'static str {
        match self {
            Boot::Clone => "clone",
            Boot::Cold => "cold",
        }
    }

    /// What is left of two wishes: nobody takes away the isolation that another asked for.
    #[must_use]
    pub fn and(self, other: Boot) -> Boot {
        match (self, other) {
            (Boot::Clone, Boot::Clone) => Boot::Clone,
            (Boot::Cold, _) | (_, Boot::Cold) => Boot::Cold,
        }
    }
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Boot {
    type Err = BootError;
    fn from_str(text: &str) -> Result<Self, BootError> {
        match text {
            "clone" => Ok(Boot::Clone),
            "cold" => Ok(Boot::Cold),
            other => Err(BootError(other.chars().take(40).collect())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isolation_that_anybody_asked_for_stays() {
        for (one, other, both) in [
            (Boot::Clone, Boot::Clone, Boot::Clone),
            (Boot::Clone, Boot::Cold, Boot::Cold),
            (Boot::Cold, Boot::Clone, Boot::Cold),
        ] {
            assert_eq!(one.and(other), both);
        }
    }

    #[test]
    fn words_are_read_back_and_others_refused() {
        for boot in [Boot::Clone, Boot::Cold] {
            assert_eq!(boot.to_string().parse(), Ok(boot));
        }
        assert!("warm".parse::<Boot>().unwrap_err().to_string().contains("clone or cold"));
    }
}
