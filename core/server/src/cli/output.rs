//! The standard output.

use super::failure::{FAILED, Failure};
use serde::Serialize;
use std::io::Write as _;

/// A reader that goes away (`| head`) is no failure.
pub fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

pub fn line(line: &str) {
    text(&format!("{line}\n"));
}

pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let rendered =
        serde_json::to_string_pretty(value).map_err(|error| Failure::new(FAILED, error.to_string()))?;
    line(&rendered);
    Ok(())
}

/// Columns as wide as their widest cell, two blanks between.
pub fn table(header: &[&str], rows: &[Vec<String>]) {
    text(&render(header, rows));
}

fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            all.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in all {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// `8 GiB`, `1.5 MiB`.
pub fn bytes(count: u64) -> String {
    let (number, unit) = bulkhead_model::size::scaled(count);
    format!("{number} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["dev".into(), "1".into()], vec!["production".into(), "20".into()]];
        assert_eq!(render(&["NAME", "N"], &rows), "NAME        N\ndev         1\nproduction  20\n");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(512 << 20), "512 MiB");
        assert_eq!(bytes(1536 << 10), "1.5 MiB");
        assert_eq!(bytes(8 << 30), "8 GiB");
    }
}
