//! The parameters in FINISH and ACCEPT: type `u8`, length `u16`, value.

use trunkline_route::{FlagTerms, LinkId, PeerFlags};

use super::HandshakeError;
use super::wire::Reader;

const MAX_MESSAGE: u8 = 1;
const MAX_FRAME: u8 = 2;
const DEAD_AFTER_MS: u8 = 4;
const LINK_CREDIT: u8 = 5;
const KNOWN_EPOCH: u8 = 6;
const HAVE_LINK: u8 = 7;
const REPLACES: u8 = 8;
const ABANDON: u8 = 9;
const EPOCH: u8 = 10;
const MAILBOX_CREDIT: u8 = 11;
const FLAGS_OFFERED: u8 = 12;
const FLAGS_REQUIRED: u8 = 13;
/// Types from here on may be skipped by who does not know them.
const OPTIONAL: u8 = 128;
const SOFTWARE: u8 = 130;
const LAST_LINK: u8 = 131;

/// Parameters that one end tells the other when a link is about to be established.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// The largest message body it takes, in bytes.
    pub max_message: u32,
    /// The largest frame it takes, header not counted, in bytes.
    pub max_frame: u32,
    /// Silence after which this end gives the link up, in milliseconds.
    pub dead_after_ms: u32,
    /// The credit it grants each class of the link at the start, in bytes.
    pub link_credit: u32,
    /// The credit it grants each mailbox at the start, in bytes.
    pub mailbox_credit: u32,
    /// The flags it offers, and those it demands.
    pub flags: FlagTerms,
    /// The newest epoch it saw between these two lives (initiator only; 0 for none).
    pub known_epoch: u64,
    /// The link of the newest epoch it saw (initiator only): proof that it is the same life, since nobody else knows it.
    pub last_link: Option<LinkId>,
    /// The live link it already holds (initiator only).
    pub have_link: Option<LinkId>,
    /// The live link this one is to replace (initiator only).
    pub replaces: Option<LinkId>,
    /// The initiator proves itself but wants no link: the attempt lost a race at its end.
    pub abandon: bool,
    /// The epoch of the link (responder only; 0 from the initiator).
    pub epoch: u64,
    /// Name and version of the software, for people.
    pub software: String,
}

impl Default for Params {
    /// Returns the values that absent parameters stand for.
    fn default() -> Self {
        Self {
            max_message: 64 * 1024,
            max_frame: 64 * 1024,
            dead_after_ms: 15_000,
            link_credit: 0,
            mailbox_credit: 0,
            flags: FlagTerms::default(),
            known_epoch: 0,
            last_link: None,
            have_link: None,
            replaces: None,
            abandon: false,
            epoch: 0,
            software: String::new(),
        }
    }
}

impl Params {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let mut put = |kind: u8, value: &[u8]| {
            out.push(kind);
            out.extend_from_slice(&(value.len() as u16).to_be_bytes());
            out.extend_from_slice(value);
        };
        put(MAX_MESSAGE, &self.max_message.to_be_bytes());
        put(MAX_FRAME, &self.max_frame.to_be_bytes());
        put(DEAD_AFTER_MS, &self.dead_after_ms.to_be_bytes());
        put(LINK_CREDIT, &self.link_credit.to_be_bytes());
        put(MAILBOX_CREDIT, &self.mailbox_credit.to_be_bytes());
        put(FLAGS_OFFERED, &self.flags.offered.to_bits().to_be_bytes());
        put(FLAGS_REQUIRED, &self.flags.required.to_bits().to_be_bytes());
        put(KNOWN_EPOCH, &self.known_epoch.to_be_bytes());
        put(EPOCH, &self.epoch.to_be_bytes());
        if let Some(id) = &self.last_link {
            put(LAST_LINK, &id.to_bytes());
        }
        if let Some(id) = &self.have_link {
            put(HAVE_LINK, &id.to_bytes());
        }
        if let Some(id) = &self.replaces {
            put(REPLACES, &id.to_bytes());
        }
        if self.abandon {
            put(ABANDON, &[]);
        }
        if !self.software.is_empty() {
            put(SOFTWARE, self.software.as_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HandshakeError> {
        let mut params = Self::default();
        let mut r = Reader(bytes);
        while !r.0.is_empty() {
            let (kind, len) = (r.u8()?, r.u16()?);
            let mut value = Reader(r.take(len.into())?);
            match kind {
                MAX_MESSAGE => params.max_message = u32::from_be_bytes(value.array()?),
                MAX_FRAME => params.max_frame = u32::from_be_bytes(value.array()?),
                DEAD_AFTER_MS => params.dead_after_ms = u32::from_be_bytes(value.array()?),
                LINK_CREDIT => params.link_credit = u32::from_be_bytes(value.array()?),
                MAILBOX_CREDIT => params.mailbox_credit = u32::from_be_bytes(value.array()?),
                FLAGS_OFFERED => params.flags.offered = PeerFlags::from_bits(u32::from_be_bytes(value.array()?)),
                FLAGS_REQUIRED => {
                    let bits = u32::from_be_bytes(value.array()?);
                    params.flags.required = PeerFlags::from_bits(bits);
                    if params.flags.required.to_bits() != bits {
                        return Err(HandshakeError::Malformed("a flag is required that this version does not know"));
                    }
                }
                KNOWN_EPOCH => params.known_epoch = u64::from_be_bytes(value.array()?),
                EPOCH => params.epoch = u64::from_be_bytes(value.array()?),
                LAST_LINK => params.last_link = Some(LinkId::new(value.array()?)),
                HAVE_LINK => params.have_link = Some(LinkId::new(value.array()?)),
                REPLACES => params.replaces = Some(LinkId::new(value.array()?)),
                ABANDON => params.abandon = true,
                SOFTWARE => {
                    let text = String::from_utf8_lossy(value.0);
                    params.software = trunkline_route::printable(&text).chars().take(64).collect();
                    continue;
                }
                _ if kind >= OPTIONAL => continue,
                _ => return Err(HandshakeError::Malformed("an unknown mandatory parameter")),
            }
            value.end()?;
        }
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn unknown_parameters_are_skipped_only_when_optional() {
        assert_eq!(Params::decode(&[200, 0, 1, 7]).unwrap(), Params::default());
        assert!(Params::decode(&[60, 0, 1, 7]).is_err());
        assert!(Params::decode(&[1, 0, 5, 0, 0, 0, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn p9_decoding_undoes_encoding(max_message: u32, epoch: u64, known: u64, last_link: Option<[u8; 16]>,
                                       have: Option<[u8; 16]>, replaces: Option<[u8; 16]>, abandon: bool, flags: (u32, u32),
                                       software in "[a-z/0-9.]{0,20}") {
            let flags = FlagTerms { offered: PeerFlags::from_bits(flags.0), required: PeerFlags::from_bits(flags.1) };
            let params = Params { max_message, epoch, known_epoch: known, last_link: last_link.map(LinkId::new),
                                  have_link: have.map(LinkId::new), replaces: replaces.map(LinkId::new), abandon, flags,
                                  software, ..Params::default() };
            prop_assert_eq!(Params::decode(&params.encode()).unwrap(), params);
        }

        #[test]
        fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Params::decode(&bytes);
        }
    }
}
