//! Frames: an 8-byte header (`length u24 | type u8 | id u32`, big-endian) and the payload.

use std::ops::ControlFlow;

use bytes::{Buf, BufMut};

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 8;
/// The most payload bytes of a frame we send or take.
///
/// 64 KiB: a frame is buffered whole before it is acted on, so this bounds what an idle link can be made to hold.
pub const MAX_FRAME: usize = 64 * 1024;
/// The most body bytes one frame carries; a longer message continues in [`FRAG`] frames.
///
/// With its header it fills one TLS record of 16 KiB: what a control frame can have to wait for.
pub const MAX_PIECE: usize = 16 * 1024 - 32;

/// Asks for a [`PONG`]: `u64` opaque, `u64` sender's clock in µs.
pub const PING: u8 = 0x01;
/// Echoes a [`PING`]'s 16 bytes.
pub const PONG: u8 = 0x02;
/// Grants bytes: class `u8` (0 messages, 1 replies, 2 one mailbox, 3 one stream), bytes `u32`; the id names the mailbox
/// or the stream.
pub const CREDIT: u8 = 0x03;
/// The sender opens nothing new: code `u8`, last stream id `u32`, text.
pub const GOAWAY: u8 = 0x04;
/// The end: code `u8`, text.
pub const CLOSE: u8 = 0x05;
/// Outcomes of important messages: for each its number `u64` and the outcome `u8` (0 taken, 1 no such mailbox).
pub const OUTCOMES: u8 = 0x06;
/// Outcomes as in [`OUTCOMES`]: all that the receiver keeps. Sent once, at the beginning of a link.
pub const REPORT: u8 = 0x07;
/// Every important message below this number `u64` is settled for its sender.
pub const RELEASE: u8 = 0x08;
/// Binds the id (1 to 65,535) to the name in the payload, for this direction of this link.
pub const NAME: u8 = 0x09;
/// A message to the name of the id: flags `u8`, from `u16`, [number `u64`], [total `u32`], body.
pub const SEND: u8 = 0x10;
/// A call with the id: flags `u8`, to `u16`, from `u16`, timeout `u32` ms, [total `u32`], body.
pub const CALL: u8 = 0x11;
/// The answer to the call of the id: flags `u8`, status `u8`, [total `u32`], body.
pub const REPLY: u8 = 0x12;
/// The next piece of the message begun on the lane of the id (0 normal, 1 high).
pub const FRAG: u8 = 0x1f;
/// Opens the stream of the id, odd from who dialled the link and even from the other end: kind `u8`, timeout `u32` ms,
/// credit `u32` for the answering direction, what it is for.
pub const OPEN: u8 = 0x20;
/// The stream is open: credit `u32` for the asking direction.
pub const OPEN_OK: u8 = 0x21;
/// Refusal of a stream: code `u8`, the name of the node that refused, text.
pub const OPEN_ERR: u8 = 0x22;
/// Bytes of a stream.
pub const DATA: u8 = 0x23;
/// No more bytes come in this direction.
pub const FIN: u8 = 0x24;
/// The stream is over in both directions: code `u8`.
pub const RESET: u8 = 0x25;
/// Types from here on may be skipped by who does not know them.
pub const OPTIONAL: u8 = 0x80;

/// Goes ahead of normal messages.
pub const FLAG_HIGH: u8 = 0b0001;
/// The message is important and `number` is present.
pub const FLAG_IMPORTANT: u8 = 0b0010;
/// The body is a term in Erlang's external format.
pub const FLAG_TERM: u8 = 0b0100;
/// The body continues in [`FRAG`] frames and `total` is present.
pub const FLAG_FRAGMENT: u8 = 0b1000;

/// A broken rule of the frame layer; the link closes with `protocol_error`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ProtocolError(pub &'static str);

/// A frame header.
///
/// ```
/// use trunkline_wire::frame::{HEADER_LEN, Header, PING};
///
/// let mut bytes = Vec::new();
/// Header { len: 16, kind: PING, id: 0 }.put(&mut bytes);
/// assert_eq!(bytes, [0, 0, 16, PING, 0, 0, 0, 0]);
/// assert_eq!(bytes.len(), HEADER_LEN);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the payload.
    pub len: usize,
    /// One of the type constants.
    pub kind: u8,
    /// Subject of the frame; its meaning depends on the type.
    pub id: u32,
}

impl Header {
    /// Writes the header.
    pub fn put(self, out: &mut Vec<u8>) {
        debug_assert!(self.len < 1 << 24);
        out.put_u64(((self.len as u64) << 40) | (u64::from(self.kind) << 32) | u64::from(self.id));
    }

    fn get(mut bytes: &[u8]) -> Self {
        let word = bytes.get_u64();
        Self { len: (word >> 40) as usize, kind: (word >> 32) as u8, id: word as u32 }
    }
}

/// Writes a whole frame.
pub fn put(out: &mut Vec<u8>, kind: u8, id: u32, payload: &[u8]) {
    Header { len: payload.len(), kind, id }.put(out);
    out.extend_from_slice(payload);
}

/// A text with a length byte, cut to 255 bytes at a character boundary.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    out.push(end as u8);
    out.extend_from_slice(&text.as_bytes()[..end]);
}

/// Reads a text written by [`put_text`], with which the bytes end.
pub fn get_text(mut bytes: &[u8]) -> Result<String, ProtocolError> {
    let text = take_text(&mut bytes)?;
    if bytes.is_empty() { Ok(text) } else { Err(ProtocolError("a text is cut short")) }
}

/// Reads a text written by [`put_text`], [`printable`](trunkline_route::printable) since it may be logged.
pub fn take_text(bytes: &mut &[u8]) -> Result<String, ProtocolError> {
    const CUT: ProtocolError = ProtocolError("a text is cut short");
    let len = usize::from(bytes.try_get_u8().map_err(|_| CUT)?);
    let (text, rest) = bytes.split_at_checked(len).ok_or(CUT)?;
    *bytes = rest;
    let text = std::str::from_utf8(text).map_err(|_| ProtocolError("a text is not UTF-8"))?;
    Ok(trunkline_route::printable(text))
}

/// Cuts a byte stream into frames, whatever its chunks. Holds at most one incomplete frame, unless paused.
///
/// ```
/// use trunkline_wire::frame::{self, Decoder, Flow};
///
/// let mut bytes = Vec::new();
/// frame::put(&mut bytes, frame::DATA, 1, b"hello");
/// let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
/// for chunk in bytes.chunks(3) {
///     decoder.feed(chunk, |header, payload| {
///         frames.push((header.kind, header.id, payload.to_vec()));
///         Ok(Flow::Continue(()))
///     })?;
/// }
/// assert_eq!(frames, [(frame::DATA, 1, b"hello".to_vec())]);
/// assert!(!decoder.is_mid_frame());
/// # Ok::<(), frame::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    rest: Vec<u8>,
}

/// Answer of the handler of a frame: go on, or pause and keep what follows for later.
pub type Flow = ControlFlow<()>;

impl Decoder {
    /// Hands every complete frame to `handle`, in order. A pause keeps the rest; feed an empty slice to resume.
    ///
    /// # Errors
    /// [`ProtocolError`] from the handler, or for a frame over [`MAX_FRAME`], before its payload is buffered.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut handle: impl FnMut(Header, &[u8]) -> Result<Flow, ProtocolError>,
    ) -> Result<Flow, ProtocolError> {
        let mut bytes = bytes;
        if !self.rest.is_empty() {
            // What was kept holds whole frames only after a pause; then the frame that was cut is completed, and
            // the rest is read where it lies.
            loop {
                let (used, flow) = parse(&self.rest, &mut handle)?;
                self.rest.drain(..used);
                if flow.is_break() {
                    self.rest.extend_from_slice(bytes);
                    return Ok(flow);
                }
                if self.rest.is_empty() {
                    self.rest = Vec::new();
                    break;
                }
                let missing = self.missing().min(bytes.len());
                if missing == 0 {
                    return Ok(flow);
                }
                let (head, tail) = bytes.split_at(missing);
                self.rest.extend_from_slice(head);
                bytes = tail;
            }
        }
        let (used, flow) = parse(bytes, &mut handle)?;
        self.rest.extend_from_slice(&bytes[used..]);
        Ok(flow)
    }

    /// Returns the number of bytes that the cut frame lacks: of its header, or, when that is whole, of its payload.
    fn missing(&self) -> usize {
        match self.rest.get(..HEADER_LEN) {
            None => HEADER_LEN - self.rest.len(),
            Some(header) => (HEADER_LEN + Header::get(header).len).saturating_sub(self.rest.len()),
        }
    }

    /// Keeps bytes for later, while paused.
    pub fn keep(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// Returns true if the stream stopped in the middle of a frame.
    pub fn is_mid_frame(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Returns true if a whole frame was kept, or the header of one that [`Decoder::feed`] will refuse.
    pub fn has_frame(&self) -> bool {
        let header = self.rest.get(..HEADER_LEN).map(Header::get);
        header.is_some_and(|header| header.len > MAX_FRAME || self.rest.len() >= HEADER_LEN + header.len)
    }
}

fn parse(
    mut bytes: &[u8],
    handle: &mut impl FnMut(Header, &[u8]) -> Result<Flow, ProtocolError>,
) -> Result<(usize, Flow), ProtocolError> {
    let all = bytes.len();
    while bytes.len() >= HEADER_LEN {
        let header = Header::get(bytes);
        if header.len > MAX_FRAME {
            return Err(ProtocolError("a frame is over the limit"));
        }
        let Some(payload) = bytes.get(HEADER_LEN..HEADER_LEN + header.len) else { break };
        let flow = handle(header, payload)?;
        bytes = &bytes[HEADER_LEN + header.len..];
        if flow.is_break() {
            return Ok((all - bytes.len(), flow));
        }
    }
    Ok((all - bytes.len(), Flow::Continue(())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn p9_frames_come_out_as_they_went_in_whatever_the_chunks(
            frames in proptest::collection::vec((any::<u8>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300)), 0..20),
            cuts in proptest::collection::vec(1usize..400, 1..60),
        ) {
            let mut wire = vec![];
            for (kind, id, payload) in &frames {
                put(&mut wire, *kind, *id, payload);
            }
            let mut decoder = Decoder::default();
            let (mut out, mut rest, mut cuts) = (vec![], &wire[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (head, tail) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                let flow = decoder.feed(head, |header, payload| {
                    out.push((header.kind, header.id, payload.to_vec()));
                    Ok(if out.len() % 3 == 0 { Flow::Break(()) } else { Flow::Continue(()) })
                });
                let mut flow = flow.unwrap();
                while flow.is_break() {
                    flow = decoder.feed(&[], |header, payload| {
                        out.push((header.kind, header.id, payload.to_vec()));
                        Ok(Flow::Continue(()))
                    }).unwrap();
                }
                rest = tail;
            }
            prop_assert_eq!(out, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn decoding_is_total_and_holds_no_more_than_a_frame(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut decoder = Decoder::default();
            let _ = decoder.feed(&bytes, |_, _| Ok(Flow::Continue(())));
            prop_assert!(decoder.rest.len() <= MAX_FRAME + HEADER_LEN);
        }

        #[test]
        fn texts_read_as_written_but_for_what_nobody_sees(text in "\\PC{0,300}") {
            let mut out = vec![];
            put_text(&mut out, &text);
            prop_assert!(trunkline_route::printable(&text).starts_with(&get_text(&out).unwrap()));
        }
    }

    #[test]
    fn an_oversized_frame_is_refused_at_its_header() {
        let mut wire = vec![];
        Header { len: MAX_FRAME + 1, kind: SEND, id: 0 }.put(&mut wire);
        assert!(Decoder::default().feed(&wire, |_, _| Ok(Flow::Continue(()))).is_err());
    }
}
