//! Numbers of several runs, and how they read beside the peer's.

/// What a number of a row counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Microseconds,
    /// Less is better.
    Milliseconds,
    /// Less is better.
    Mebibytes,
    /// Of one core's time; less is better.
    Percent,
    /// More is better.
    MibPerSecond,
    /// Of whatever a row counts; more is better.
    PerSecond,
}

impl Unit {
    pub fn word(self) -> &'static str {
        match self {
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Mebibytes => "MiB",
            Self::Percent => "% of a core",
            Self::MibPerSecond => "MiB/s",
            Self::PerSecond => "1/s",
        }
    }
}

/// Several runs of the same thing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub minimum: f64,
    pub median: f64,
    pub maximum: f64,
}

impl Summary {
    /// `None` without a single number.
    pub fn of(numbers: &[f64]) -> Option<Self> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (minimum, maximum) = (*sorted.first()?, *sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        let median = f64::midpoint(*sorted.get(lower)?, *sorted.get(upper)?);
        Some(Self { minimum, median, maximum })
    }

    fn cell(&self) -> String {
        format!("{} / {} / {}", number(self.minimum), number(self.median), number(self.maximum))
    }
}

/// The same thing measured at both.
#[derive(Debug, Clone)]
pub struct Row {
    pub what: String,
    pub unit: Unit,
    pub bulkhead: Vec<f64>,
    pub dockerd: Vec<f64>,
}

impl Row {
    /// Bulkhead's and dockerd's, if there are numbers of both.
    pub fn medians(&self) -> Option<(f64, f64)> {
        Some((Summary::of(&self.bulkhead)?.median, Summary::of(&self.dockerd)?.median))
    }
}

/// A Markdown table with a line for each row; a row that has no number at one of both says so.
pub fn table(rows: &[Row]) -> String {
    let mut text = "| measured | unit | Bulkhead (min / median / max) | dockerd (min / median / max) | Bulkhead : dockerd |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let (ours, theirs) = (Summary::of(&row.bulkhead), Summary::of(&row.dockerd));
        let cell = |summary: Option<Summary>| summary.map_or_else(|| "-".to_owned(), |one| one.cell());
        let ratio = match row.medians() {
            Some((ours, theirs)) if theirs > 0.0 => format!("{} : 1", number(ours / theirs)),
            _ => "-".to_owned(),
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {ratio} |\n",
            row.what,
            row.unit.word(),
            cell(ours),
            cell(theirs)
        ));
    }
    text
}

/// Three digits that mean something: more would be noise.
pub fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_whatever_the_order() {
        let summary = |numbers: &[f64]| Summary::of(numbers);
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0]), Some(Summary { minimum: 3.0, median: 3.0, maximum: 3.0 }));
        assert_eq!(summary(&[9.0, 1.0, 2.0]), Some(Summary { minimum: 1.0, median: 2.0, maximum: 9.0 }));
        assert_eq!(summary(&[4.0, 1.0, 2.0, 8.0]), Some(Summary { minimum: 1.0, median: 3.0, maximum: 8.0 }));
    }

    #[test]
    fn a_row_has_both_and_the_ratio_of_their_medians() {
        let row = |bulkhead: &[f64], dockerd: &[f64]| Row {
            what: "exec".into(),
            unit: Unit::Milliseconds,
            bulkhead: bulkhead.to_vec(),
            dockerd: dockerd.to_vec(),
        };
        let lines = |rows: &[Row]| table(rows).lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            lines(&[row(&[1234.5, 250.0, 300.0], &[100.0, 99.0, 1.234])]),
            ["| exec | ms | 250 / 300 / 1234 | 1.23 / 99.0 / 100 | 3.03 : 1 |"]
        );
        assert_eq!(lines(&[row(&[], &[1.0])]), ["| exec | ms | - | 1.00 / 1.00 / 1.00 | - |"]);
        assert_eq!(
            lines(&[row(&[1.0], &[0.0])]),
            ["| exec | ms | 1.00 / 1.00 / 1.00 | 0.00 / 0.00 / 0.00 | - |"]
        );
    }
}
