//! Messages on the channel, as frames that find their own beginning.
//!
//! A virtio-serial port has no connections: whoever opens it may read the middle of what was sent to the one before.
//! So a frame is bytes without zeros between two zeros:
//!
//! ```text
//!   00 │ COBS( payload, checksum of payload ) │ 00
//! ```
//!
//! [COBS](https://doi.org/10.1109/90.769765) takes the zeros out at the price of one byte in 254. A frame that was cut
//! ends at the next zero at the latest, and no byte is looked at more than twice, whatever a hostile sender makes up.

use crate::checksum;
use postcard::ser_flavors::Flavor;
use serde::{Serialize, de::DeserializeOwned};
use std::ffi::CStr;

/// Longest payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

const BLOCK_BYTES_MAX: usize = 254;
const BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + checksum::BYTES;
const ENCODED_BYTES_MAX: usize = BODY_BYTES_MAX + BODY_BYTES_MAX / BLOCK_BYTES_MAX + 1;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a message of {bytes} bytes is longer than {PAYLOAD_BYTES_MAX}")]
    TooLong { bytes: usize },
    #[error("a message could not be encoded")]
    Encode(#[source] postcard::Error),
    #[error("a message could not be understood")]
    Decode(#[source] postcard::Error),
    #[error("{bytes} bytes follow the end of a message")]
    Trailing { bytes: usize },
}

/// The message as a whole frame, ready to be written.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::new();
    Encoder::default().append(message, &mut frame)?;
    Ok(frame)
}

/// Makes many frames with the same memory.
#[derive(Debug, Default)]
pub struct Encoder {
    body: Vec<u8>,
}

impl Encoder {
    /// Appends the message as a whole frame; nothing, if it fails.
    pub fn append<T: Serialize>(&mut self, message: &T, out: &mut Vec<u8>) -> Result<(), FrameError> {
        self.body.clear();
        postcard::serialize_with_flavor(message, Body(&mut self.body)).map_err(FrameError::Encode)?;
        if self.body.len() > PAYLOAD_BYTES_MAX {
            return Err(FrameError::TooLong { bytes: self.body.len() });
        }
        self.body.extend(checksum::of(&[&self.body]));
        out.reserve(self.body.len() + self.body.len() / BLOCK_BYTES_MAX + 3);
        out.push(0);
        stuff(&self.body, out);
        out.push(0);
        Ok(())
    }
}

/// Takes a message into memory that is there already.
struct Body<'a>(&'a mut Vec<u8>);

impl Flavor for Body<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// The message in a payload that [`Decoder::next_frame`] gave.
pub fn decode<T: DeserializeOwned>(payload: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(payload).map_err(FrameError::Decode)? {
        (message, []) => Ok(message),
        (_, rest) => Err(FrameError::Trailing { bytes: rest.len() }),
    }
}

/// Finds frames in a stream of bytes. Between calls it keeps less than one frame, plus what was pushed and not taken.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Everything before was taken or thrown away.
    start: usize,
    /// From `start` to here there is no zero.
    searched: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The payload of the next whole frame; `None` if more bytes are needed. What is not a frame is skipped.
    pub fn next_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            let unseen = self.buffer.get(self.searched..)?;
            let Some(zero) = first_zero(unseen).map(|at| self.searched + at) else {
                self.searched = self.buffer.len();
                if self.searched - self.start > ENCODED_BYTES_MAX {
                    self.reset();
                }
                return None;
            };
            let candidate = self.buffer.get(self.start..zero).unwrap_or_default();
            let payload = open(candidate);
            self.start = zero + 1;
            self.searched = self.start;
            if payload.is_some() {
                return payload;
            }
        }
    }

    /// Forgets a half frame: the other side went away.
    pub fn reset(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.searched = 0;
    }
}

fn open(candidate: &[u8]) -> Option<Vec<u8>> {
    if candidate.len() > ENCODED_BYTES_MAX {
        return None;
    }
    let mut body = unstuff(candidate)?;
    let sum = *body.last_chunk::<{ checksum::BYTES }>()?;
    body.truncate(body.len() - checksum::BYTES);
    (body.len() <= PAYLOAD_BYTES_MAX && checksum::of(&[&body]) == sum).then_some(body)
}

/// Appends `bytes` without zeros: blocks of a length byte (1 to 255) and one byte less of data; a block that is shorter
/// than the longest stands for its data and a zero, except the last.
fn stuff(mut bytes: &[u8], out: &mut Vec<u8>) {
    loop {
        let zero = first_zero(bytes);
        let mut rest = zero.and_then(|at| bytes.get(..at)).unwrap_or(bytes);
        while let Some((block, more)) = rest.split_at_checked(BLOCK_BYTES_MAX) {
            out.push(u8::MAX);
            out.extend_from_slice(block);
            rest = more;
        }
        out.push(u8::try_from(rest.len() + 1).unwrap_or(u8::MAX));
        out.extend_from_slice(rest);
        let Some(after) = zero.and_then(|at| bytes.get(at + 1..)) else { return };
        // Of zeros in a row, each further one is an empty block.
        let more = after.iter().take_while(|byte| **byte == 0).count();
        out.resize(out.len() + more, 1);
        bytes = after.get(more..).unwrap_or_default();
    }
}

/// The search for a string's end goes by words, one with a closure by bytes: where machines are emulated, that is what
/// streams take most of their time for.
fn first_zero(bytes: &[u8]) -> Option<usize> {
    CStr::from_bytes_until_nul(bytes).ok().map(CStr::count_bytes)
}

fn unstuff(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes.len());
    while let Some((length, rest)) = bytes.split_first() {
        let (block, rest) = rest.split_at_checked(usize::from(*length).checked_sub(1)?)?;
        out.extend_from_slice(block);
        if *length != u8::MAX && !rest.is_empty() {
            out.push(0);
        }
        bytes = rest;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Reply, ReplyBody, Request, RequestBody};
    use proptest::prelude::*;

    fn take_all(decoder: &mut Decoder) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| decoder.next_frame()).collect()
    }

    fn signal(id: u32) -> Request {
        Request { id, body: RequestBody::Signal { number: 15 } }
    }

    #[test]
    fn a_message_comes_back() {
        let message = Reply { id: 7, body: ReplyBody::Refused { message: "no\0 and ü".to_owned() } };
        let frame = encode(&message).unwrap();
        let mut decoder = Decoder::default();
        for byte in &frame {
            decoder.push(&[*byte]);
        }
        let payloads = take_all(&mut decoder);
        assert_eq!(payloads.len(), 1);
        assert_eq!(decode::<Reply>(&payloads[0]).unwrap(), message);
    }

    #[test]
    fn the_longest_message_passes_and_a_longer_one_is_refused() {
        // Postcard puts three bytes of length before this many bytes.
        let mut bytes = vec![0xa5_u8; PAYLOAD_BYTES_MAX - 3];
        let frame = encode(&bytes).unwrap();
        assert!(frame.len() <= ENCODED_BYTES_MAX + 2);
        let mut decoder = Decoder::default();
        decoder.push(&frame);
        assert_eq!(decode::<Vec<u8>>(&decoder.next_frame().unwrap()).unwrap(), bytes);
        bytes.push(1);
        assert!(matches!(encode(&bytes), Err(FrameError::TooLong { .. })));
    }

    #[test]
    fn a_frame_that_was_cut_does_not_swallow_the_next() {
        let long = encode(&"x".repeat(5000)).unwrap();
        let next = encode(&signal(2)).unwrap();
        for cut in 0..long.len() - 1 {
            let mut decoder = Decoder::default();
            decoder.push(&long[..cut]);
            assert_eq!(take_all(&mut decoder).len(), 0);
            decoder.push(&next);
            let payloads = take_all(&mut decoder);
            assert_eq!(payloads.len(), 1, "cut at {cut}");
            assert_eq!(decode::<Request>(&payloads[0]).unwrap(), signal(2));
        }
    }

    #[test]
    fn an_endless_frame_takes_bounded_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..100 {
            decoder.push(&[1; 64 * 1024]);
            assert_eq!(decoder.next_frame(), None);
            assert!(decoder.buffer.len() <= ENCODED_BYTES_MAX + 64 * 1024);
        }
        decoder.push(&encode(&signal(3)).unwrap());
        assert_eq!(take_all(&mut decoder).len(), 1);
    }

    #[test]
    fn what_follows_a_message_is_an_error() {
        let mut payload = postcard::to_stdvec(&signal(1)).unwrap();
        payload.push(0);
        assert!(matches!(decode::<Request>(&payload), Err(FrameError::Trailing { bytes: 1 })));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..8)) {
            let mut decoder = Decoder::default();
            for piece in &pieces {
                decoder.push(piece);
                for payload in take_all(&mut decoder) {
                    let _ = decode::<Request>(&payload);
                }
            }
            let _ = decode::<Reply>(&pieces.concat());
        }

        #[test]
        fn stuffing_leaves_no_zero_and_comes_back(bytes in prop::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..1500)) {
            let mut stuffed = Vec::new();
            stuff(&bytes, &mut stuffed);
            prop_assert!(!stuffed.contains(&0));
            prop_assert_eq!(unstuff(&stuffed), Some(bytes));
        }

        #[test]
        fn frames_come_out_of_garbage(
            parts in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<u32>()), 1..6),
            step in 1_usize..50,
        ) {
            let mut stream = Vec::new();
            for (garbage, id) in &parts {
                stream.extend_from_slice(garbage);
                stream.extend(encode(&signal(*id)).unwrap());
            }
            let mut decoder = Decoder::default();
            let mut ids = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                ids.extend(take_all(&mut decoder).iter().filter_map(|payload| decode::<Request>(payload).ok()).map(|r| r.id));
            }
            prop_assert_eq!(ids, parts.iter().map(|(_, id)| *id).collect::<Vec<_>>());
        }
    }
}
