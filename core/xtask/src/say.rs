//! What the user sees while something takes long: named steps with their times, all on stderr.

use std::time::{Duration, Instant};

/// A named piece of work; tells its time when done.
pub struct Step {
    name: String,
    started: Instant,
}

impl Step {
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        eprintln!("==> {name}");
        Self { name, started: Instant::now() }
    }

    /// Ends the step; `result` says what came out of it.
    pub fn done(self, result: &str) {
        eprintln!("    {}: {result} ({})", self.name, seconds(self.started.elapsed()));
    }
}

/// One line below the current step.
pub fn note(text: &str) {
    for line in text.lines() {
        eprintln!("    {line}");
    }
}

/// `7.4 s` or `3 min 12 s`.
pub fn seconds(time: Duration) -> String {
    let whole = time.as_secs();
    if whole < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        assert_eq!(seconds(Duration::from_millis(7_440)), "7.4 s");
        assert_eq!(seconds(Duration::from_secs(192)), "3 min 12 s");
    }
}
