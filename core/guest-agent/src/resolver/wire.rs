//! DNS messages (RFC 1035, 4.1), as much as a resolver needs that answers for a few names and passes the rest on.
//!
//! What arrives here was written by the container or by a server that it chose: lengths are checked, nothing is
//! followed, and what is not understood is no question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const HEADER_BYTES: usize = 12;
/// Of one message over UDP with EDNS, as large as resolvers commonly ask for.
pub const UDP_BYTES_MAX: usize = 4096;
const NAME_BYTES_MAX: usize = 255;
pub const TYPE_A: u16 = 1;
pub const TYPE_PTR: u16 = 12;
pub const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// Names come and go with containers.
const TTL_S: u32 = 5;

pub const NO_ERROR: u8 = 0;
pub const SERVER_FAILURE: u8 = 2;
pub const NOT_IMPLEMENTED: u8 = 4;

/// The one question of a query.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// Lower case, labels with dots between them.
    pub name: String,
    pub kind: u16,
    /// Where it ends in the message.
    end: usize,
}

/// `None`: not a plain query for one name.
pub fn question(message: &[u8]) -> Option<Question> {
    let [_, _, flags, _, many, one, ..] = message.get(..HEADER_BYTES)? else { return None };
    // A query, of the standard kind; one question.
    if flags & 0b1111_1000 != 0 || (*many, *one) != (0, 1) {
        return None;
    }
    let mut at = HEADER_BYTES;
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        // The two highest bits mean another kind of label, which a query has no use for.
        if length > 63 || name.len() + length > NAME_BYTES_MAX {
            return None;
        }
        if !name.is_empty() {
            name.push('.');
        }
        let label = message.get(at..at + length)?;
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        at += length;
    }
    let short = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (kind, class) = (short(at)?, short(at + 2)?);
    (class == CLASS_IN).then_some(Question { name, kind, end: at + 4 })
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` asks about.
pub fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let digit = |text: &str| Some(text).filter(|text| text.len() == 1)?.chars().next()?.to_digit(16);
        let digits: Option<Vec<u32>> = digits.split('.').rev().map(digit).collect();
        let digits = digits.filter(|digits| digits.len() == 32)?;
        let number = digits.into_iter().fold(0_u128, |number, digit| number << 4 | u128::from(digit));
        return Some(Ipv6Addr::from(number).into());
    }
    let mut octets = name.strip_suffix(".in-addr.arpa")?.split('.').rev().map(str::parse::<u8>);
    let mut next = || octets.next()?.ok();
    let address = Ipv4Addr::new(next()?, next()?, next()?, next()?);
    octets.next().is_none().then_some(address.into())
}

pub enum Data<'a> {
    Address(IpAddr),
    Name(&'a str),
}

/// An answer to the question of `query`.
pub fn answer(query: &[u8], question: &Question, data: &[Data<'_>]) -> Vec<u8> {
    let mut message = reply(query, question.end, NO_ERROR, data.len());
    for data in data {
        // The name is the one at the place of the question.
        message.extend([0xc0, 12]);
        let (kind, bytes) = match data {
            Data::Address(IpAddr::V4(address)) => (TYPE_A, address.octets().to_vec()),
            Data::Address(IpAddr::V6(address)) => (TYPE_AAAA, address.octets().to_vec()),
            Data::Name(name) => (TYPE_PTR, labels(name)),
        };
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message.extend(TTL_S.to_be_bytes());
        message.extend(u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
        message.extend(bytes);
    }
    message
}

/// An answer that says what went wrong.
pub fn failure(query: &[u8], code: u8) -> Vec<u8> {
    let end = question(query).map_or(HEADER_BYTES, |question| question.end);
    reply(query, end, code, 0)
}

fn reply(query: &[u8], end: usize, code: u8, answers: usize) -> Vec<u8> {
    let has_question = end > HEADER_BYTES;
    let mut message = query.get(..2).unwrap_or(&[0, 0]).to_vec();
    let wants_recursion = query.get(2).copied().unwrap_or(0) & 1;
    // An answer; recursion is there.
    message.extend([0x80 | wants_recursion, 0x80 | code]);
    message.extend(u16::from(has_question).to_be_bytes());
    message.extend(u16::try_from(answers).unwrap_or_default().to_be_bytes());
    message.extend([0; 4]);
    message.extend(query.get(HEADER_BYTES..end).unwrap_or_default());
    message
}

fn labels(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = label.as_bytes().get(..label.len().min(63)).unwrap_or_default();
        bytes.push(u8::try_from(label.len()).unwrap_or_default());
        bytes.extend(label);
    }
    bytes.push(0);
    bytes
}

/// Whether `reply` answers what `query` asked, under the same number.
pub fn belongs(query: &[u8], reply: &[u8]) -> bool {
    let Some(question) = question(query) else { return false };
    let same = |range: std::ops::Range<usize>| {
        query.get(range.clone()).is_some_and(|part| reply.get(range) == Some(part))
    };
    let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    // Some servers answer a question that they do not understand without it.
    let bare = reply.len() == HEADER_BYTES;
    is_reply && same(0..2) && (bare || same(HEADER_BYTES..question.end))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(labels(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        message
    }

    #[test]
    fn a_question_is_read() {
        let asked = question(&query("Web.Example", TYPE_A)).unwrap();
        assert_eq!((asked.name.as_str(), asked.kind), ("web.example", TYPE_A));
        let whole = query("web", TYPE_A);
        for length in 0..whole.len() {
            assert_eq!(question(&whole[..length]), None, "{length} bytes");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        let mut two = whole.clone();
        two[5] = 2;
        let mut reply = whole;
        reply[2] |= 0x80;
        for odd in [pointer, two, reply, vec![0xff; 600]] {
            assert_eq!(question(&odd), None);
        }
    }

    #[test]
    fn an_answer_has_the_question_and_the_address() {
        let query = query("web", TYPE_A);
        let asked = question(&query).unwrap();
        let message = answer(&query, &asked, &[Data::Address([172, 17, 0, 2].into())]);
        assert!(belongs(&query, &message));
        assert_eq!(message[..8], [0x12, 0x34, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(message[message.len() - 4..], [172, 17, 0, 2]);
        let failed = failure(&query, SERVER_FAILURE);
        assert_eq!(failed[3] & 0xf, SERVER_FAILURE);
        assert!(belongs(&query, &failed));
        assert_eq!(failure(&[], NOT_IMPLEMENTED).len(), HEADER_BYTES);
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse("2.0.17.172.in-addr.arpa"), Some([172, 17, 0, 2].into()));
        let six = format!("2{}.d.f.ip6.arpa", ".0".repeat(29));
        assert_eq!(reverse(&six), "fd00::2".parse().ok());
        assert_eq!(reverse("2.0.ip6.arpa"), None);
        for odd in ["0.17.172.in-addr.arpa", "1.2.0.17.172.in-addr.arpa", "x.0.17.172.in-addr.arpa", "web"] {
            assert_eq!(reverse(odd), None);
        }
    }

    #[test]
    fn a_reply_to_another_question_is_not_taken() {
        let asked = query("web", TYPE_A);
        let other = query("db", TYPE_A);
        let reply = answer(&other, &question(&other).unwrap(), &[]);
        assert!(!belongs(&asked, &reply));
        assert!(!belongs(&asked, &asked), "a query is no reply");
    }
}
