//! Sizes for people.

/// In the largest unit, a power of 1024, that leaves at least 1; with one decimal, cut off, where it is not 0.
pub fn scaled(bytes: u64) -> (String, &'static str) {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if whole < 1024 {
            break;
        }
        tenths = (whole % 1024) * 10 / 1024;
        whole /= 1024;
        unit = next;
    }
    (if tenths == 0 { whole.to_string() } else { format!("{whole}.{tenths}") }, unit)
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn the_largest_unit_is_taken() {
        for (bytes, number, unit) in [
            (0, "0", "B"),
            (1023, "1023", "B"),
            (3 << 19, "1.5", "MiB"),
            (16 << 30, "16", "GiB"),
            (1 << 50, "1024", "TiB"),
        ] {
            assert_eq!(scaled(bytes), (number.to_owned(), unit));
        }
    }
}
