//! Handshake messages as bytes. Integers are big-endian; `lv` is a length byte and that many bytes.

use trunkline_route::{CloseCode, Incarnation, NodeName, RejectCode, printable};

use super::{HandshakeError, MAX_BODY};

pub(super) const HELLO1: u8 = 1;
pub(super) const HELLO2: u8 = 2;
pub(super) const REJECT: u8 = 3;
pub(super) const FINISH: u8 = 4;
pub(super) const ACCEPT: u8 = 5;
pub(super) const CLOSE: u8 = 6;

/// Bytes of every MAC.
pub(super) const MAC_LEN: usize = 32;
/// The most versions a HELLO1 may offer.
const MAX_VERSIONS: usize = 16;
/// A REJECT cannot hold a dialer off for longer than this.
const MAX_RETRY_AFTER_MS: u16 = 2000;

/// Purpose of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// A link between two nodes.
    Node,
    /// A link inside a stream, through other nodes.
    Inner,
    /// A session with a registrar, outside the registry of links.
    Registrar,
    /// Only to see whether a node answers and can prove itself: the caller wants no link.
    Probe,
}

impl Mode {
    fn to_byte(self) -> u8 {
        match self {
            Self::Node => 1,
            Self::Inner => 2,
            Self::Registrar => 3,
            Self::Probe => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Node),
            2 => Some(Self::Inner),
            3 => Some(Self::Registrar),
            4 => Some(Self::Probe),
            _ => None,
        }
    }
}

/// A reader over one message body. Every take is checked.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], HandshakeError> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(HandshakeError::Malformed("a message is cut short"))?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], HandshakeError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub(super) fn u8(&mut self) -> Result<u8, HandshakeError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, HandshakeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn lv(&mut self) -> Result<&'a [u8], HandshakeError> {
        let n = self.u8()?;
        self.take(n.into())
    }

    pub(super) fn text(&mut self) -> Result<&'a str, HandshakeError> {
        std::str::from_utf8(self.lv()?).map_err(|_| HandshakeError::Malformed("a text is not UTF-8"))
    }

    pub(super) fn end(&self) -> Result<(), HandshakeError> {
        if self.0.is_empty() { Ok(()) } else { Err(HandshakeError::Malformed("bytes after the end of a message")) }
    }
}

pub(super) fn put_lv(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= 255);
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Cuts a text to 255 bytes at a character boundary.
fn cut(text: &str) -> &str {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello1 {
    pub(super) versions: Vec<u16>,
    pub(super) mode: Option<Mode>,
    pub(super) incarnation: Incarnation,
    pub(super) nonce: [u8; 16],
    pub(super) from: NodeName,
    pub(super) to: String,
    pub(super) label: String,
    pub(super) share: Vec<u8>,
}

impl Hello1 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![HELLO1, self.versions.len() as u8];
        for version in &self.versions {
            out.extend_from_slice(&version.to_be_bytes());
        }
        out.push(self.mode.map_or(0, Mode::to_byte));
        out.extend_from_slice(&self.incarnation.to_bytes());
        out.extend_from_slice(&self.nonce);
        put_lv(&mut out, self.from.as_str().as_bytes());
        put_lv(&mut out, self.to.as_bytes());
        put_lv(&mut out, cut(&self.label).as_bytes());
        put_lv(&mut out, &self.share);
        out
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, HandshakeError> {
        let mut r = Reader(body);
        if body.len() > MAX_BODY || r.u8()? != HELLO1 {
            return Err(HandshakeError::Malformed("HELLO1 expected"));
        }
        let count = usize::from(r.u8()?);
        if count == 0 || count > MAX_VERSIONS {
            return Err(HandshakeError::Malformed("HELLO1 offers no or too many versions"));
        }
        let versions = (0..count).map(|_| r.u16()).collect::<Result<_, _>>()?;
        let mode = Mode::from_byte(r.u8()?);
        let (incarnation, nonce) = (Incarnation::new(r.array()?), r.array()?);
        let from = NodeName::new(r.text()?).map_err(|_| HandshakeError::Malformed("HELLO1 is from no node name"))?;
        let (to, label) = (r.text()?.to_owned(), r.text()?.to_owned());
        let share = r.lv()?.to_vec();
        r.end()?;
        Ok(Self { versions, mode, incarnation, nonce, from, to, label, share })
    }
}

/// Returns the name and the cookie label that a HELLO1 claims. Neither is proven.
pub fn claim(body: &[u8]) -> Result<(NodeName, String), HandshakeError> {
    let hello1 = Hello1::decode(body)?;
    Ok((hello1.from, hello1.label))
}

/// HELLO2 without its MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hello2 {
    pub(super) version: u16,
    pub(super) incarnation: Incarnation,
    pub(super) nonce: [u8; 16],
    pub(super) name: NodeName,
    pub(super) share: Vec<u8>,
}

impl Hello2 {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![HELLO2];
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.incarnation.to_bytes());
        out.extend_from_slice(&self.nonce);
        put_lv(&mut out, self.name.as_str().as_bytes());
        put_lv(&mut out, &self.share);
        out
    }

    /// The message, its bytes without the MAC, and the MAC.
    pub(super) fn decode(body: &[u8]) -> Result<(Self, &[u8], [u8; MAC_LEN]), HandshakeError> {
        let mut r = Reader(body);
        if body.len() > MAX_BODY || r.u8()? != HELLO2 {
            return Err(HandshakeError::Malformed("HELLO2 expected"));
        }
        let version = r.u16()?;
        let (incarnation, nonce) = (Incarnation::new(r.array()?), r.array()?);
        let name = NodeName::new(r.text()?).map_err(|_| HandshakeError::Malformed("HELLO2 has no node name"))?;
        let share = r.lv()?.to_vec();
        let mac = r.array()?;
        r.end()?;
        Ok((Self { version, incarnation, nonce, name, share }, &body[..body.len() - MAC_LEN], mac))
    }
}

pub(super) fn encode_reject(code: RejectCode, retry_after_ms: u16, text: &str) -> Vec<u8> {
    let mut out = vec![REJECT, code.to_byte()];
    out.extend_from_slice(&retry_after_ms.to_be_bytes());
    put_lv(&mut out, cut(text).as_bytes());
    out
}

pub(super) fn decode_reject(body: &[u8]) -> Result<HandshakeError, HandshakeError> {
    let mut r = Reader(body);
    r.take(1)?;
    let code = RejectCode::from_byte(r.u8()?);
    let retry_after_ms = r.u16()?.min(MAX_RETRY_AFTER_MS);
    let text = printable(r.text()?);
    r.end()?;
    Ok(HandshakeError::Rejected { code, retry_after_ms, text })
}

pub(super) fn encode_close(code: CloseCode, text: &str) -> Vec<u8> {
    let mut out = vec![CLOSE, code.to_byte()];
    put_lv(&mut out, cut(text).as_bytes());
    out
}

pub(super) fn decode_close(body: &[u8]) -> Result<HandshakeError, HandshakeError> {
    let mut r = Reader(body);
    r.take(1)?;
    let code = CloseCode::from_byte(r.u8()?);
    let text = printable(r.text()?);
    r.end()?;
    Ok(HandshakeError::Closed { code, text })
}

/// FINISH or ACCEPT: a type byte, `u16` length and parameters, a MAC.
pub(super) fn encode_sealed(kind: u8, params: &[u8], mac: &[u8; MAC_LEN]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&(params.len() as u16).to_be_bytes());
    out.extend_from_slice(params);
    out.extend_from_slice(mac);
    out
}

pub(super) fn decode_sealed(kind: u8, body: &[u8]) -> Result<(&[u8], [u8; MAC_LEN]), HandshakeError> {
    let mut r = Reader(body);
    if body.len() > MAX_BODY || r.u8()? != kind {
        return Err(HandshakeError::Malformed("FINISH or ACCEPT expected"));
    }
    let len = r.u16()?;
    let params = r.take(len.into())?;
    let mac = r.array()?;
    r.end()?;
    Ok((params, mac))
}
