//! What can be wrong with policies, said so that whoever wrote them finds the place.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why a policy set was refused. The one in force before stays.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// What is wrong with the folders and files themselves.
    #[error("{}{why}", before(path))]
    Layout { path: PathBuf, why: String },
    /// Every place that is wrong, file by file.
    #[error("{}", render(.0))]
    Invalid(Vec<Problem>),
    /// What the set's own cases say against it: name and failure of each.
    #[error("{}", render_cases(.0))]
    Cases(Vec<(String, String)>),
    /// The schema and the folders' names do not go together.
    #[error("the policy schema cannot be used: {why}")]
    Schema { why: String },
}

/// One place in one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The line itself.
    pub source_line: String,
    /// Length of what is meant, in characters; at least 1.
    pub length: usize,
    pub message: String,
    pub help: Option<String>,
}

const PROBLEMS_SHOWN: usize = 10;
/// A line of a minified or hostile file is not shown whole.
const LINE_CHARS_MAX: usize = 160;

impl Problem {
    pub(crate) fn is_at(&self, other: &Self) -> bool {
        (&self.file, self.line, self.column) == (&other.file, other.line, other.column)
    }

    /// Finds line and column of a byte offset.
    pub(crate) fn at(file: PathBuf, text: &str, offset: usize, length: usize, message: String) -> Self {
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let (before, after) = text.split_at(offset);
        let line_before = before.rsplit('\n').next().unwrap_or_default();
        let line_after = after.lines().next().unwrap_or_default();
        let meant = after.get(..length).unwrap_or(after).lines().next().unwrap_or_default();
        Self {
            file,
            line: before.matches('\n').count() + 1,
            column: line_before.chars().count() + 1,
            source_line: format!("{line_before}{line_after}"),
            length: meant.chars().count().max(1),
            message,
            help: None,
        }
    }
}

/// `file:line:column: message`, the line, a caret below, and what would help.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)?;
        // Tabs and control characters would move the caret.
        let flat: String = self.source_line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if self.column <= LINE_CHARS_MAX {
            let shown: String = flat.chars().take(LINE_CHARS_MAX).collect();
            let carets = "^".repeat(self.length.min(LINE_CHARS_MAX + 1 - self.column));
            writeln!(f, "  | {shown}")?;
            write!(f, "  | {}{carets}", " ".repeat(self.column - 1))?;
        } else {
            write!(f, "  | (a long line)")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  = help: {help}")?;
        }
        Ok(())
    }
}

/// Files of a draft are below nothing.
fn before(path: &Path) -> String {
    if path.as_os_str().is_empty() { String::new() } else { format!("{}: ", path.display()) }
}

fn render(problems: &[Problem]) -> String {
    let mut text: Vec<String> = problems.iter().take(PROBLEMS_SHOWN).map(ToString::to_string).collect();
    if problems.len() > PROBLEMS_SHOWN {
        text.push(format!("and {} more", problems.len() - PROBLEMS_SHOWN));
    }
    text.join("\n")
}

fn render_cases(failed: &[(String, String)]) -> String {
    let shown = failed.iter().take(PROBLEMS_SHOWN).map(|(name, why)| format!("case `{name}` fails: {why}"));
    let mut text: Vec<String> = shown.collect();
    if failed.len() > PROBLEMS_SHOWN {
        text.push(format!("and {} more", failed.len() - PROBLEMS_SHOWN));
    }
    text.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_what_is_meant() {
        let text = "permit (\n  principal,\täction\n);\n";
        let offset = text.find("äction").unwrap();
        let problem = Problem::at("a.cedar".into(), text, offset, "äction".len(), "what is this".into());
        let lines: Vec<String> = problem.to_string().lines().map(Into::into).collect();
        assert_eq!(
            lines,
            ["a.cedar:2:14: what is this", "  |   principal, äction", "  |              ^^^^^^"]
        );
    }

    #[test]
    fn odd_offsets_are_harmless() {
        for offset in 0..20 {
            for length in [0, 1, 100] {
                Problem::at("a".into(), "ä\n\r\n€x", offset, length, String::new()).to_string();
            }
        }
    }
}
