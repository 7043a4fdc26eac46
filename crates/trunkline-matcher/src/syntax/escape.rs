//! Parser for escapes.

use regex_syntax::hir::{Hir, Look};

use super::{Parser, hir};
use crate::error::{Fault, PatternErrorKind};

impl Parser<'_> {
    /// Reads an escape outside a class.
    pub(super) fn escaped(&mut self) -> Result<(), Fault> {
        let look = match self.rest().as_bytes().get(1) {
            Some(b'A') => Look::Start,
            Some(b'z') => Look::End,
            Some(b'b') => Look::WordAscii,
            Some(b'B') => Look::WordAsciiNegate,
            Some(b'Q') => {
                self.quoted();
                return Ok(());
            }
            _ => {
                if let Some(class) = self.escaped_class()? {
                    self.push(hir::to_hir(class));
                } else {
                    let code = self.escaped_char()?;
                    match char::from_u32(code) {
                        Some(c) => self.push_char(c),
                        // A surrogate occurs in no string.
                        None => self.push(Hir::fail()),
                    }
                }
                return Ok(());
            }
        };
        self.at += 2;
        self.push(Hir::look(look));
        Ok(())
    }

    /// Reads `\Q…\E`, or `\Q…` up to the end.
    fn quoted(&mut self) {
        let body = &self.rest()[2..];
        let (quoted, len) = match body.split_once(r"\E") {
            Some((quoted, _)) => (quoted, quoted.len() + 2),
            None => (body, body.len()),
        };
        self.at += 2 + len;
        for c in quoted.chars() {
            self.push_char(c);
        }
    }

    /// Reads an escape that stands for one code point, surrogates included.
    pub(super) fn escaped_char(&mut self) -> Result<u32, Fault> {
        let start = self.at;
        self.bump();
        let Some(c) = self.bump() else {
            return Err(self.fault(PatternErrorKind::TrailingBackslash, start));
        };
        let code = match c {
            '0'..='7' => self.octal(c),
            'x' => self.hexadecimal(),
            'a' => Some(0x07),
            'f' => Some(0x0c),
            'n' => Some(0x0a),
            'r' => Some(0x0d),
            't' => Some(0x09),
            'v' => Some(0x0b),
            c if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(c.into()),
            _ => None,
        };
        code.ok_or_else(|| self.fault(PatternErrorKind::BadEscape, start))
    }

    /// Reads up to three octal digits. One digit alone would be a back-reference, unless it is zero.
    fn octal(&mut self, first: char) -> Option<u32> {
        let mut code = first.to_digit(8)?;
        let mut digits = 1;
        while digits < 3
            && let Some(digit) = self.peek().and_then(|c| c.to_digit(8))
        {
            self.bump();
            code = code * 8 + digit;
            digits += 1;
        }
        (first == '0' || digits > 1).then_some(code)
    }

    /// Reads two hexadecimal digits, or any number of them in braces.
    fn hexadecimal(&mut self) -> Option<u32> {
        let first = self.bump()?;
        if first != '{' {
            let high = first.to_digit(16)?;
            let low = self.bump()?.to_digit(16)?;
            return Some(high * 16 + low);
        }
        let mut code = None;
        loop {
            match self.bump()? {
                '}' => return code,
                c => {
                    let next = code.unwrap_or(0) * 16 + c.to_digit(16)?;
                    code = Some(next).filter(|&code| code <= char::MAX.into());
                    code?;
                }
            }
        }
    }
}
