//! What operators see of a running server: logs, metrics, health.

mod health;
mod logs;
mod metrics;
mod request;

pub use health::{Readiness, router};
pub use logs::start_logs;
pub use metrics::Metrics;
pub use request::{Observed, observe};
