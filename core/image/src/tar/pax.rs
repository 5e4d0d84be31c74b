//! Pax extended headers: `length key=value\n`, over and over (POSIX `pax(1)`, "pax Extended Header").

use super::Mtime;
use super::header::{Header, owner};
use crate::layer_error::{LayerError, shown};
use crate::limits::LayerLimits;

const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";
/// The largest size that the header's own field holds.
const HEADER_SIZE_MAX: u64 = 0o77_777_777_777;

#[derive(Debug, Default)]
pub(super) struct PaxRecords {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Mtime>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<PaxSparse>,
}

/// GNU's three ways to say that a file is sparse.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub major: u64,
    pub minor: u64,
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Versions 0.0 and 0.1; in 1.0 the map stands before the content.
    pub map: Vec<(u64, u64)>,
    offset: Option<u64>,
}

impl PaxRecords {
    pub fn parse(mut body: &[u8], limits: &LayerLimits) -> Result<Self, LayerError> {
        let mut records = Self::default();
        let mut xattr_bytes = 0;
        while !body.is_empty() {
            let (key, value) = record(&mut body)?;
            if let Some(name) = key.strip_prefix(XATTR_PREFIX) {
                xattr_bytes += name.len() + value.len();
                if xattr_bytes > limits.xattr_bytes {
                    let limit = format!("{} bytes", limits.xattr_bytes);
                    return Err(LayerError::limit("the extended attributes of a file", limit));
                }
                records.add_xattr(name, value)?;
            } else {
                records.add(key, value, limits)?;
            }
        }
        Ok(records)
    }

    fn add_xattr(&mut self, name: &[u8], value: &[u8]) -> Result<(), LayerError> {
        if self.xattrs.iter().any(|(known, _)| known == name) {
            return Err(LayerError::refused(format!("the attribute {} is given twice", shown(name))));
        }
        self.xattrs.push((name.to_vec(), value.to_vec()));
        Ok(())
    }

    fn add(&mut self, key: &[u8], value: &[u8], limits: &LayerLimits) -> Result<(), LayerError> {
        // An empty value takes a record of an earlier header away; there is none.
        if value.is_empty() {
            return Ok(());
        }
        let number = || decimal(value, key);
        let small = || owner(i64::try_from(decimal(value, key)?).unwrap_or(i64::MAX));
        match key {
            b"path" => once(&mut self.path, key, value.to_vec())?,
            b"linkpath" => once(&mut self.link, key, value.to_vec())?,
            b"size" => once(&mut self.size, key, number()?)?,
            b"uid" => once(&mut self.uid, key, small()?)?,
            b"gid" => once(&mut self.gid, key, small()?)?,
            b"mtime" => once(&mut self.mtime, key, time(value)?)?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.get_or_insert_default().add(key, value, limits)?;
                }
            }
        }
        Ok(())
    }

    /// The body's size. Readers that trust different fields would see different archives.
    pub fn size(&self, header: &Header) -> Result<u64, LayerError> {
        let stated = header.size()?;
        match self.size {
            None => Ok(stated),
            Some(size) if size == stated => Ok(size),
            // Does not fit there: writers put zero or the largest number.
            Some(size) if size > HEADER_SIZE_MAX && (stated == 0 || stated == HEADER_SIZE_MAX) => Ok(size),
            Some(size) => Err(LayerError::refused(format!(
                "an entry has {size} bytes by its pax header, {stated} by its header"
            ))),
        }
    }

    /// A global header may carry comments, nothing that would change later entries: many readers do not apply it.
    pub fn refuse_as_global(&self) -> Result<(), LayerError> {
        let changes = self.path.is_some()
            || self.link.is_some()
            || self.size.is_some()
            || self.uid.is_some()
            || self.gid.is_some()
            || self.mtime.is_some()
            || self.sparse.is_some()
            || !self.xattrs.is_empty();
        if changes {
            Err(LayerError::refused("a global pax header changes the entries behind it"))
        } else {
            Ok(())
        }
    }
}

impl PaxSparse {
    fn add(&mut self, key: &[u8], value: &[u8], limits: &LayerLimits) -> Result<(), LayerError> {
        match key {
            b"major" => self.major = decimal(value, key)?,
            b"minor" => self.minor = decimal(value, key)?,
            b"name" => once(&mut self.name, key, value.to_vec())?,
            b"size" | b"realsize" => once(&mut self.real_size, key, decimal(value, key)?)?,
            b"offset" => once(&mut self.offset, key, decimal(value, key)?)?,
            b"numbytes" => {
                let offset =
                    self.offset.take().ok_or_else(|| LayerError::refused("a sparse map lacks an offset"))?;
                self.map.push((offset, decimal(value, key)?));
            }
            b"map" => {
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next() {
                    let length = numbers
                        .next()
                        .ok_or_else(|| LayerError::refused("a sparse map ends in the middle"))?;
                    self.map.push((decimal(offset, key)?, decimal(length, key)?));
                }
            }
            // The number of pieces, which the map shows itself.
            b"numblocks" => {}
            other => return Err(LayerError::refused(format!("sparse record {} is unknown", shown(other)))),
        }
        if self.name.as_ref().is_some_and(|name| name.len() > limits.name_bytes) {
            return Err(LayerError::limit("the length of a name", limits.name_bytes));
        }
        Ok(())
    }
}

/// Takes one record off the front.
fn record<'a>(body: &mut &'a [u8]) -> Result<(&'a [u8], &'a [u8]), LayerError> {
    let wrong = || LayerError::refused("a pax record is malformed");
    let space = body.iter().take(10).position(|&byte| byte == b' ').ok_or_else(wrong)?;
    let (digits, _) = body.split_at(space);
    let length = usize::try_from(decimal(digits, b"length")?).map_err(|_| wrong())?;
    let (whole, rest) = body.split_at_checked(length).ok_or_else(wrong)?;
    let text = whole.get(space + 1..).and_then(|text| text.strip_suffix(b"\n")).ok_or_else(wrong)?;
    let equals = text.iter().position(|&byte| byte == b'=').ok_or_else(wrong)?;
    let (key, value) = text.split_at(equals);
    if key.is_empty() {
        return Err(wrong());
    }
    *body = rest;
    Ok((key, value.get(1..).unwrap_or_default()))
}

fn once<T>(slot: &mut Option<T>, key: &[u8], value: T) -> Result<(), LayerError> {
    if slot.is_some() {
        return Err(LayerError::refused(format!("the pax record {} is given twice", shown(key))));
    }
    *slot = Some(value);
    Ok(())
}

pub(super) fn decimal(text: &[u8], what: &[u8]) -> Result<u64, LayerError> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| LayerError::refused(format!("the pax record {} is not a number", shown(what))))
}

/// Seconds with a fraction, perhaps negative. What is finer than a nanosecond is cut.
fn time(text: &[u8]) -> Result<Mtime, LayerError> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |&byte| byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default(), b"mtime")?;
    let mut seconds =
        i64::try_from(seconds).map_err(|_| LayerError::refused("a time does not fit in 64 bits"))?;
    let fraction = parts.next().unwrap_or_default();
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = fraction.get(at).copied().unwrap_or(b'0');
        if !digit.is_ascii_digit() {
            return Err(LayerError::refused("the pax record `mtime` is not a number"));
        }
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    if negative {
        seconds = -seconds;
        if nanoseconds > 0 {
            seconds -= 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    Ok(Mtime { seconds, nanoseconds })
}
