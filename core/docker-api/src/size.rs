//! Sizes as people write them: `10m`, `1.5GiB`, `512`.

/// Bytes of a size whose letters count in steps of `step`, 1000 or 1024, whatever stands behind the letter.
pub fn parse(text: &str, step: f64) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let bare = bare.strip_suffix('i').unwrap_or(bare);
    let digits = bare.trim_end_matches(['k', 'm', 'g', 't', 'p']);
    let power = match bare.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let digits = digits.strip_suffix(' ').unwrap_or(digits);
    if !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let bytes = digits.parse::<f64>().ok()? * step.powi(power);
    if !(0.0..9.2e18).contains(&bytes) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was just seen to fit")]
    Some(bytes as u64)
}

/// For people: `8GiB`, `1.5MiB`.
pub fn human(bytes: u64) -> String {
    let (number, unit) = bulkhead_model::size::scaled(bytes);
    format!("{number}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told() {
        for (bytes, text) in [(0, "0B"), (16 << 30, "16GiB"), (3 << 19, "1.5MiB"), (1 << 50, "1024TiB")] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("512", 512), ("1k", 1024), ("1.5GiB", 3 << 29), ("2 mb", 2 << 20), ("0", 0)] {
            assert_eq!(parse(text, 1024.0), Some(bytes), "{text}");
        }
        assert_eq!(parse("10m", 1000.0), Some(10_000_000));
        for text in ["", "x", "-1", "1x", "1kk", "1e9", "inf", "99999p", "1.2.3"] {
            assert_eq!(parse(text, 1024.0), None, "{text}");
        }
    }
}
