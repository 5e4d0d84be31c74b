//! Query parameters, read as dockerd reads them.

use crate::error::ApiError;

/// Most parameters of one request; `docker save` with many images is the longest honest one.
const PARAMETERS_MAX: usize = 512;

/// Decoded parameters in order; a name may come several times.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Of the part after `?`, or of a form body.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PARAMETERS_MAX {
                return Err(ApiError::bad(format!("more than {PARAMETERS_MAX} query parameters")));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            pairs.push((decode(name, true)?, decode(value, true)?));
        }
        Ok(Self(pairs))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Without all whose name is not `wanted`.
    pub fn only(mut self, wanted: impl Fn(&str) -> bool) -> Self {
        self.0.retain(|(name, _)| wanted(name));
        self
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The first value of that name that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
    }

    /// Empty, `0`, `no`, `false`, `none` and absence are false, all else is true.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    pub fn flag_or(&self, name: &str, absent: bool) -> bool {
        match self.get(name) {
            None => absent,
            Some(value) => {
                !matches!(value.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none")
            }
        }
    }

    pub fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.text(name) {
            None => Ok(None),
            Some(text) => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ApiError::bad(format!(
                    "invalid value `{}` for `{name}`: expected a number",
                    clip(text)
                ))),
            },
        }
    }
}

/// A user's text, short enough for an error message.
pub fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Undoes percent encoding. `plus`: whether `+` means a space (in queries, not in paths). Text that is not UTF-8
/// or holds control characters is refused: no name or value of the API has any.
pub fn decode(text: &str, plus: bool) -> Result<String, ApiError> {
    let wrong = || ApiError::bad(format!("invalid URL escape in `{}`", clip(text)));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = rest.next().and_then(hex_digit).ok_or_else(wrong)?;
                let low = rest.next().and_then(hex_digit).ok_or_else(wrong)?;
                bytes.push(high << 4 | low);
            }
            b'+' if plus => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let control = |c: char| c.is_control() && !(plus && matches!(c, '\n' | '\t' | '\r'));
    if text.chars().any(control) { Err(wrong()) } else { Ok(text) }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans_are_go_s() {
        let query = Query::parse("a=1&b=true&c=True&d=0&e=no&f=none&g=&h=False&i=yes").unwrap();
        for (name, expect) in [
            ("a", true),
            ("b", true),
            ("c", true),
            ("d", false),
            ("e", false),
            ("f", false),
            ("g", false),
            ("h", false),
            ("i", true),
            ("absent", false),
        ] {
            assert_eq!(query.flag(name), expect, "{name}");
        }
        assert!(query.flag_or("absent", true));
    }

    #[test]
    fn escapes_are_undone_once() {
        let query = Query::parse("name=a%2Fb+c&names=x&names=y%2525").unwrap();
        assert_eq!(query.get("name"), Some("a/b c"));
        assert_eq!(query.all("names"), ["x", "y%25"]);
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff", "a=%00"] {
            assert_eq!(Query::parse(bad).unwrap_err().status, 400, "{bad}");
        }
        assert_eq!(decode("a+b", false).unwrap(), "a+b");
    }
}
