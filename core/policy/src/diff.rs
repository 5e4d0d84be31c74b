//! What differs between two texts, line by line, as `diff -u` has it.

/// Lines around a change.
const AROUND: usize = 3;
/// Cells of the table; above, what differs is told as a whole.
const CELLS_MAX: usize = 4_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Same,
    Removed,
    Added,
}

/// Empty where the texts are the same. Without the header lines.
pub fn unified_diff(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let script = script(&old, &new);
    let mut out = String::new();
    let mut from = 0;
    while let Some(first) = find(&script, from, |kind| kind != Kind::Same) {
        let begin = first.saturating_sub(AROUND).max(from);
        let mut last = first;
        while let Some(next) = find(&script, last + 1, |kind| kind != Kind::Same) {
            if next - last > 2 * AROUND {
                break;
            }
            last = next;
        }
        let end = (last + AROUND + 1).min(script.len());
        hunk(&script, begin, end, &mut out);
        from = end;
    }
    out
}

fn find(script: &[(Kind, &str)], from: usize, wanted: impl Fn(Kind) -> bool) -> Option<usize> {
    let rest = script.iter().enumerate().skip(from);
    rest.into_iter().find(|(_, (kind, _))| wanted(*kind)).map(|(index, _)| index)
}

fn hunk(script: &[(Kind, &str)], begin: usize, end: usize, out: &mut String) {
    let count = |lines: &[(Kind, &str)], but: Kind| lines.iter().filter(|(kind, _)| *kind != but).count();
    let (before, lines) =
        (script.get(..begin).unwrap_or_default(), script.get(begin..end).unwrap_or_default());
    let range = |but: Kind| {
        let (start, length) = (count(before, but), count(lines, but));
        format!("{},{length}", if length == 0 { start } else { start + 1 })
    };
    out.push_str(&format!("@@ -{} +{} @@\n", range(Kind::Added), range(Kind::Removed)));
    for (kind, line) in lines {
        let sign = match kind {
            Kind::Same => ' ',
            Kind::Removed => '-',
            Kind::Added => '+',
        };
        out.push(sign);
        out.push_str(line);
        out.push('\n');
    }
}

/// Each line once, as it is removed, added or kept.
fn script<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(Kind, &'a str)> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let a = old_rest.get(..old_rest.len() - tail).unwrap_or_default();
    let b = new_rest.get(..new_rest.len() - tail).unwrap_or_default();
    let same = |line: &&'a str| (Kind::Same, *line);
    let mut script: Vec<_> = old.iter().take(head).map(same).collect();
    script.extend(middle(a, b));
    script.extend(old.iter().skip(old.len() - tail).map(same));
    script
}

/// By the longest common subsequence.
fn middle<'a>(a: &[&'a str], b: &[&'a str]) -> Vec<(Kind, &'a str)> {
    let width = b.len() + 1;
    if (a.len() + 1).saturating_mul(width) > CELLS_MAX {
        let removed = a.iter().map(|line| (Kind::Removed, *line));
        return removed.chain(b.iter().map(|line| (Kind::Added, *line))).collect();
    }
    // Length of the longest common subsequence of the rests from (i, j) on.
    let mut table = vec![0_u32; (a.len() + 1) * width];
    let at = |table: &[u32], i: usize, j: usize| table.get(i * width + j).copied().unwrap_or(0);
    for (i, left) in a.iter().enumerate().rev() {
        for (j, right) in b.iter().enumerate().rev() {
            let longest = match left == right {
                true => at(&table, i + 1, j + 1) + 1,
                false => at(&table, i + 1, j).max(at(&table, i, j + 1)),
            };
            if let Some(cell) = table.get_mut(i * width + j) {
                *cell = longest;
            }
        }
    }
    let (mut i, mut j, mut script) = (0, 0, Vec::new());
    loop {
        match (a.get(i), b.get(j)) {
            (Some(left), Some(right)) if left == right => {
                script.push((Kind::Same, *left));
                (i, j) = (i + 1, j + 1);
            }
            (Some(left), right) if right.is_none() || at(&table, i + 1, j) >= at(&table, i, j + 1) => {
                script.push((Kind::Removed, *left));
                i += 1;
            }
            (_, Some(right)) => {
                script.push((Kind::Added, *right));
                j += 1;
            }
            _ => return script,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_with_what_is_around() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("20\n", "20\n21\n");
        let diff = unified_diff(&old, &new);
        assert!(diff.starts_with("@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"), "{diff}");
        assert!(diff.ends_with("@@ -18,3 +18,4 @@\n 18\n 19\n 20\n+21\n"), "{diff}");
        assert_eq!(unified_diff(&old, &old), "");
        assert_eq!(unified_diff("", "a\n"), "@@ -0,0 +1,1 @@\n+a\n");
        assert_eq!(unified_diff("a\n", ""), "@@ -1,1 +0,0 @@\n-a\n");
    }

    proptest::proptest! {
        /// Applied to the old text, the script gives the new one.
        #[test]
        fn nothing_is_lost(old in "[abc\n]{0,40}", new in "[abc\n]{0,40}") {
            let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
            let script = script(&old, &new);
            let but = |unwanted: Kind| -> Vec<&str> {
                script.iter().filter(|(kind, _)| *kind != unwanted).map(|(_, line)| *line).collect()
            };
            proptest::prop_assert_eq!(but(Kind::Added), old);
            proptest::prop_assert_eq!(but(Kind::Removed), new);
        }
    }
}
