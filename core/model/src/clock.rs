//! Time as an argument.

use chrono::{DateTime, TimeZone, Utc};
use std::fmt;
use std::sync::Arc;

/// Where the time of day comes from. Cloning shares the source.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    pub fn new(source: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The machine's own clock.
    pub fn system() -> Self {
        Self::new(Utc::now)
    }

    /// A clock that stands still, for tests.
    pub fn fixed(unix_seconds: i64) -> Self {
        let at = Utc.timestamp_opt(unix_seconds, 0).single().unwrap_or_default();
        Self::new(move || at)
    }

    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
