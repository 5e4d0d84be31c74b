//! Sizes and CPU numbers as docker's users write them.

/// `512m`, `8g`, `1048576`, `1.5GiB`: bytes; units are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a size: expected a number with b, k, m, g or t, like 512m");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    // Thousandths of the unit, so that there is no rounding in between.
    let thousandths = thousandths(digits).ok_or_else(wrong)?;
    u64::try_from((u128::from(thousandths) << shift) / 1000).map_err(|_| wrong())
}

/// `1`, `0.5`: thousandths of a CPU.
pub fn cpu_milli(text: &str) -> Result<u32, String> {
    thousandths(text.trim())
        .and_then(|milli| u32::try_from(milli).ok())
        .filter(|milli| *milli > 0)
        .ok_or_else(|| format!("`{text}` is not a number of CPUs: expected one like 2 or 0.5"))
}

fn thousandths(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if fraction.is_empty()
        || fraction.len() > 3
        || ![whole, fraction].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
    {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<3}").parse().ok()?;
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expect) in [
            ("512m", 512 << 20),
            ("8g", 8 << 30),
            ("1048576", 1 << 20),
            ("1.5GiB", 3 << 29),
            ("0", 0),
            ("2TB", 2 << 40),
        ] {
            assert_eq!(bytes(text), Ok(expect), "{text}");
        }
        for text in ["", "m", "-1m", "1x", "1.m", "1.0001g", "1e3", "99999999999t", "½g"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus() {
        assert_eq!(cpu_milli("1"), Ok(1000));
        assert_eq!(cpu_milli("0.5"), Ok(500));
        for text in ["0", "", "-1", "1.0001", "x", "99999999999"] {
            assert!(cpu_milli(text).is_err(), "{text}");
        }
    }
}
