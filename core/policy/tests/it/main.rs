//! The crate from outside: shipped policies by cases, what policies are told, what a bad set of files leads to.

#![expect(clippy::unwrap_used, reason = "clippy knows test functions as tests, not what they share")]

mod cases;
mod odd;
mod policies;
mod support;
