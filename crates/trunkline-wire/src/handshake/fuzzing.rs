//! Bodies of the fuzz targets of the handshake.

use trunkline_route::{CloseCode, Cookie, FlagTerms, NodeName, PeerFlags, RejectCode, Role};
use zeroize::Zeroizing;

use super::wire::{self, Hello1, Hello2};
use super::{
    Credential, HandshakeError, Hello, Initiator, InitiatorConfig, MAX_BODY, Mode, Params, Responder, ResponderConfig,
};
use crate::pake::{Pake, Spake2};

/// A key exchange without cryptography: quick, and the same at every run. What the handshake adds to it is real.
struct Plain(Vec<u8>);

impl Pake for Plain {
    fn start(role: Role, secret: &[u8], initiator: &[u8], responder: &[u8]) -> (Self, Vec<u8>) {
        (Self([secret, b"/", initiator, b"/", responder].concat()), vec![role as u8; 33])
    }

    fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (share.len() == 33).then(|| Zeroizing::new(self.0))
    }
}

fn name(text: &str) -> NodeName {
    text.parse().expect("it is a name")
}

fn cookie() -> Cookie {
    Cookie::new("a cookie both ends hold").expect("it is long enough")
}

fn credentials(_: &NodeName, _: &str) -> Credential {
    Credential::Cookie(cookie())
}

/// Messages of the handshake, PARAMS without its seal included: any bytes are one or refused, and each is read back from
/// what it is written as.
pub fn handshake(bytes: &[u8]) {
    if let Ok(hello) = Hello1::decode(bytes) {
        let again = hello.encode();
        assert!(hello.mode.is_none() || again == bytes);
        assert_eq!(Hello1::decode(&again), Ok(hello));
    }
    if let Ok((hello, bare, _)) = Hello2::decode(bytes) {
        assert_eq!(hello.encode(), bare);
    }
    if bytes.len() <= MAX_BODY {
        for refusal in [wire::decode_reject(bytes), wire::decode_close(bytes)] {
            if let Ok(HandshakeError::Rejected { text, .. } | HandshakeError::Closed { text, .. }) = &refusal {
                assert!(!text.contains(char::is_control) && text.chars().count() <= 255);
            }
        }
    }
    for kind in [wire::FINISH, wire::ACCEPT] {
        if let Ok((params, mac)) = wire::decode_sealed(kind, bytes) {
            assert_eq!(wire::encode_sealed(kind, params, &mac), bytes);
            read_params(params);
        }
    }
    read_params(bytes);
}

fn read_params(bytes: &[u8]) {
    let Ok(params) = Params::decode(bytes) else { return };
    assert!(!params.software.contains(char::is_control) && params.software.chars().count() <= 64);
    assert_eq!(Params::decode(&params.encode()), Ok(params));
}

/// One of each message.
pub(crate) fn handshake_seeds() -> Vec<Vec<u8>> {
    let hello1 = Hello1 {
        versions: vec![1, 2],
        mode: Some(Mode::Node),
        incarnation: [1; 16].into(),
        nonce: [2; 16],
        from: name("a@h"),
        to: "b@h".into(),
        label: "2026-11".into(),
        share: vec![3; 33],
    };
    let hello2 =
        Hello2 { version: 1, incarnation: [1; 16].into(), nonce: [2; 16], name: name("b@h"), share: vec![3; 33] };
    let params = Params {
        flags: FlagTerms { offered: PeerFlags::ALL, required: PeerFlags::from_bits(1) },
        have_link: Some([4; 16].into()),
        replaces: Some([5; 16].into()),
        abandon: true,
        software: "trunkline 0.1".into(),
        ..Params::default()
    };
    let params = params.encode();
    vec![
        hello1.encode(),
        [hello2.encode(), vec![6; wire::MAC_LEN]].concat(),
        wire::encode_reject(RejectCode::Throttled, 1000, "later"),
        wire::encode_close(CloseCode::NameInUse, "a text"),
        wire::encode_sealed(wire::FINISH, &params, &[7; wire::MAC_LEN]),
        wire::encode_sealed(wire::ACCEPT, &params, &[7; wire::MAC_LEN]),
        params,
    ]
}

/// Whole handshakes in which one message is another than the one that was sent. The first byte chooses the message and how
/// it is changed: replaced, or by pairs of a place and what is added there. Nobody who holds the cookie takes it.
pub fn proof(bytes: &[u8]) {
    let Some((&how, change)) = bytes.split_first() else { return };
    let (index, replaced) = (how % 4, how & 4 != 0);
    let (mut step, mut changed) = (0, false);
    let outcome = run(|message| {
        if step == index {
            let sent = message.clone();
            if replaced {
                *message = change.to_vec();
            } else {
                for pair in change.chunks_exact(3) {
                    let at = usize::from(u16::from_be_bytes([pair[0], pair[1]]));
                    let len = message.len().max(1);
                    if let Some(byte) = message.get_mut(at % len) {
                        *byte ^= pair[2];
                    }
                }
            }
            changed = *message != sent;
        }
        step += 1;
    });
    let taken = outcome.is_ok();
    assert_eq!(taken, !changed, "message {index}: {outcome:?}");
    // The key exchange itself takes any share.
    if replaced && index == 0 {
        let _ = Responder::<Spake2>::new(responder(), [7; 32]).hello1(change, &credentials);
    }
}

fn responder() -> ResponderConfig {
    ResponderConfig::new(name("b@h"), [2; 16], [12; 16])
}

/// Runs a handshake; `on_the_way` may change each of its four messages.
fn run(mut on_the_way: impl FnMut(&mut Vec<u8>)) -> Result<(), HandshakeError> {
    let config = InitiatorConfig::new(name("a@h"), Some(name("b@h")), cookie(), [1; 16], [11; 16]);
    let (mut initiator, mut message) = Initiator::<Plain>::new(config, [7; 32]);
    let mut answering = Responder::<Plain>::new(responder(), [7; 32]);
    on_the_way(&mut message);
    let (Hello::Answer(mut message) | Hello::Reject(mut message, _)) = answering.hello1(&message, &credentials)?;
    on_the_way(&mut message);
    initiator.hello2(&message)?;
    let mut message = initiator.finish(&Params::default())?;
    on_the_way(&mut message);
    answering.finish(&message)?;
    let mut message = answering.accept(&Params { epoch: 5, ..Params::default() })?;
    on_the_way(&mut message);
    initiator.accept(&message)?;
    Ok(())
}

/// Each message, changed at one place, and replaced by itself.
pub(crate) fn proof_seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..4).map(|index| vec![index, 0, 40, 1]).collect();
    let mut index = 4;
    // It takes what it sent.
    let _ = run(|message| {
        seeds.push([&[index][..], message].concat());
        index += 1;
    });
    seeds
}
