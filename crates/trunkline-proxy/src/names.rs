//! Short texts on the wire: a length u8 and the bytes.

/// Appends a text, cut to 255 bytes at a character boundary. A node's name always fits.
pub(crate) fn put(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.floor_char_boundary(255)];
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

/// Takes a text from the front; `None` when there is none.
pub(crate) fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b str> {
    let (&len, rest) = bytes.split_first()?;
    let (text, rest) = rest.split_at_checked(len.into())?;
    *bytes = rest;
    std::str::from_utf8(text).ok()
}
