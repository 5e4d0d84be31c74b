//! The keys that take a client off a terminal, and leave the process running.

use crate::error::ApiError;
use crate::query::clip;
use futures_util::future::BoxFuture;

/// `ctrl-p,ctrl-q`.
const DEFAULT: [u8; 2] = [0x10, 0x11];

/// Looks for the keys in what is typed. A beginning of them is held back, and passed on once it leads nowhere.
#[derive(Debug, Clone)]
pub struct DetachKeys {
    keys: Vec<u8>,
    held: usize,
}

/// How a client may leave a terminal.
pub struct Leave {
    pub keys: DetachKeys,
    /// To be waited for when it did: writes down that it left.
    pub told: BoxFuture<'static, ()>,
}

/// What came of some typing.
#[derive(Debug, PartialEq, Eq)]
pub struct Typed {
    pub data: Vec<u8>,
    pub detached: bool,
}

impl DetachKeys {
    /// A list of letters and `ctrl-` with a letter or one of `@ [ \\ ] ^ _`, with commas; `None`: the default.
    pub fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let keys = match text.filter(|text| !text.is_empty()) {
            None => DEFAULT.to_vec(),
            Some(text) => text
                .split(',')
                .map(key)
                .collect::<Option<Vec<u8>>>()
                .ok_or_else(|| ApiError::bad(format!("Invalid detach keys ({}) provided", clip(text))))?,
        };
        Ok(Self { keys, held: 0 })
    }

    pub fn type_in(&mut self, data: &[u8]) -> Typed {
        let mut out = Vec::with_capacity(data.len());
        for &byte in data {
            if self.keys.get(self.held) == Some(&byte) {
                self.held += 1;
                if self.held == self.keys.len() {
                    return Typed { data: out, detached: true };
                }
                continue;
            }
            out.extend_from_slice(self.keys.get(..self.held).unwrap_or_default());
            self.held = usize::from(self.keys.first() == Some(&byte));
            if self.held == 1 && self.keys.len() == 1 {
                return Typed { data: out, detached: true };
            }
            if self.held == 0 {
                out.push(byte);
            }
        }
        Typed { data: out, detached: false }
    }
}

fn key(word: &str) -> Option<u8> {
    if let [single] = word.as_bytes() {
        return Some(*single);
    }
    match word.strip_prefix("ctrl-")?.as_bytes() {
        [letter @ b'a'..=b'z'] => Some(letter - b'a' + 1),
        b"@" => Some(0),
        b"[" => Some(27),
        b"\\" => Some(28),
        b"]" => Some(29),
        b"^" => Some(30),
        b"_" => Some(31),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: Option<&str>, pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut all = Vec::new();
        for piece in pieces {
            let typed = keys.type_in(piece);
            all.extend(typed.data);
            if typed.detached {
                return (all, true);
            }
        }
        (all, false)
    }

    #[test]
    fn keys_detach_also_in_pieces() {
        assert_eq!(typed(None, &[b"ls\r\x10", b"\x11"]), (b"ls\r".to_vec(), true));
        assert_eq!(typed(Some("ctrl-a,x"), &[b"\x01x"]), (vec![], true));
        assert_eq!(typed(Some("q"), &[b"abcq"]), (b"abc".to_vec(), true));
    }

    #[test]
    fn what_leads_nowhere_is_passed_on() {
        assert_eq!(typed(None, &[b"\x10", b"a"]), (b"\x10a".to_vec(), false));
        assert_eq!(typed(None, &[b"\x10\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(typed(None, &[b"\x11"]), (b"\x11".to_vec(), false));
    }

    #[test]
    fn wrong_keys_are_refused() {
        for wrong in ["ctrl-", "ctrl-1", "ab", "ctrl-a,,b", "alt-x"] {
            let error = DetachKeys::parse(Some(wrong)).unwrap_err();
            assert_eq!(error.message, format!("Invalid detach keys ({wrong}) provided"));
        }
    }
}
