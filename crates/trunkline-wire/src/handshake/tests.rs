use proptest::prelude::*;
use trunkline_route::{Cookie, NodeName, Role};
use zeroize::Zeroizing;

use super::*;
use crate::pake::{Pake, Spake2};

/// Shares are the secret's digest and the names: fast, and wrong in no way the machines could notice.
struct FakePake(Vec<u8>);

impl Pake for FakePake {
    fn start(role: Role, secret: &[u8], a: &[u8], b: &[u8]) -> (Self, Vec<u8>) {
        (Self([secret, b"/", a, b"/", b].concat()), vec![role as u8; 33])
    }

    fn finish(self, share: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        (share.len() == 33).then(|| Zeroizing::new(self.0))
    }
}

const A: &str = "a@host";
const B: &str = "b@host";

fn cookie(text: &str) -> Cookie {
    Cookie::new(format!("cookie-{text}")).unwrap()
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

#[derive(Clone)]
struct Setup {
    initiator: InitiatorConfig,
    responder: ResponderConfig,
    exporters: (Exporter, Exporter),
    responder_cookie: Cookie,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            initiator: InitiatorConfig::new(name(A), Some(name(B)), cookie("1"), [1; 16], [11; 16]),
            responder: ResponderConfig::new(name(B), [2; 16], [12; 16]),
            exporters: ([7; 32], [7; 32]),
            responder_cookie: cookie("1"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Outcome {
    initiator: Option<(Verified, Accepted)>,
    responder: Option<Offer>,
    errors: Vec<HandshakeError>,
}

/// Runs a whole handshake; `tamper(index, message)` sees every message on its way.
fn run<P: Pake>(setup: &Setup, mut tamper: impl FnMut(usize, &mut Vec<u8>)) -> Outcome {
    let mut outcome = Outcome::default();
    let result = (|| -> Result<(), HandshakeError> {
        let (mut i, mut message) = Initiator::<P>::new(setup.initiator.clone(), setup.exporters.0);
        let mut r = Responder::<P>::new(setup.responder.clone(), setup.exporters.1);
        tamper(0, &mut message);
        let credentials = |_: &NodeName, _: &str| Credential::Cookie(setup.responder_cookie.clone());
        let (Hello::Answer(mut message) | Hello::Reject(mut message, _)) = r.hello1(&message, &credentials)?;
        tamper(1, &mut message);
        let verified = i.hello2(&message)?;
        let mut message = i.finish(&Params::default())?;
        tamper(2, &mut message);
        let offer = r.finish(&message)?;
        let mut message = r.accept(&Params { epoch: 5, ..Params::default() })?;
        outcome.responder = Some(offer);
        tamper(3, &mut message);
        let accepted = i.accept(&message)?;
        outcome.initiator = Some((verified, accepted));
        Ok(())
    })();
    outcome.errors.extend(result.err());
    outcome
}

#[test]
fn p1_both_ends_up_agree_on_everything() {
    for outcome in [run::<Spake2>(&Setup::default(), |_, _| ()), run::<FakePake>(&Setup::default(), |_, _| ())] {
        let ((verified, accepted), offer) = (outcome.initiator.unwrap(), outcome.responder.unwrap());
        assert_eq!(verified.link_id, offer.link_id);
        assert_eq!((verified.name, offer.from), (name(B), name(A)));
        assert_eq!((verified.incarnation, offer.incarnation), ([2; 16].into(), [1; 16].into()));
        assert_eq!((verified.version, offer.version), (1, 1));
        assert_eq!(accepted.params.epoch, 5);
    }
}

#[test]
fn p2_any_changed_byte_is_refused() {
    let lengths: Vec<usize> = {
        let mut lengths = vec![];
        run::<FakePake>(&Setup::default(), |_, m| lengths.push(m.len()));
        lengths
    };
    for (message, len) in lengths.into_iter().enumerate() {
        for at in 0..len {
            let outcome = run::<FakePake>(&Setup::default(), |index, bytes| {
                if index == message {
                    bytes[at] ^= 0x01;
                }
            });
            assert!(outcome.initiator.is_none(), "message {message} byte {at}");
            assert!(message == 3 || outcome.responder.is_none(), "message {message} byte {at}");
        }
    }
}

#[test]
fn p3_a_wrong_cookie_name_or_exporter_is_refused_by_both() {
    let wrong_cookie = Setup { responder_cookie: cookie("2"), ..Setup::default() };
    let wrong_exporter = Setup { exporters: ([7; 32], [8; 32]), ..Setup::default() };
    for setup in [wrong_cookie, wrong_exporter] {
        let outcome = run::<Spake2>(&setup, |_, _| ());
        assert_eq!(outcome.errors, [HandshakeError::WrongCookie]);
        assert!(outcome.initiator.is_none() && outcome.responder.is_none());
    }
    let mut wrong_name = Setup::default();
    wrong_name.responder.name = name("c@host");
    let outcome = run::<Spake2>(&wrong_name, |_, _| ());
    assert_eq!(outcome.errors, [HandshakeError::WrongName { expected: name(B), actual: "c@host".into() }]);
}

#[test]
fn a_responder_also_refuses_a_caller_without_the_cookie() {
    let setup = Setup::default();
    let mut r = Responder::<FakePake>::new(setup.responder.clone(), [7; 32]);
    let (_, hello1) = Initiator::<FakePake>::new(setup.initiator.clone(), [7; 32]);
    r.hello1(&hello1, &|_: &NodeName, _: &str| Credential::Cookie(cookie("2"))).unwrap();
    let forged = wire::encode_sealed(wire::FINISH, &Params::default().encode(), &[9; 32]);
    assert_eq!(r.finish(&forged), Err(HandshakeError::WrongCookie));
}

#[test]
fn a_responder_that_lies_about_its_name_is_refused() {
    let mut setup = Setup::default();
    setup.responder.name = name("x@host");
    let (mut i, hello1) = Initiator::<FakePake>::new(setup.initiator.clone(), [7; 32]);
    let mut learned = wire::Hello1::decode(&hello1).unwrap();
    learned.to = "x@host".into();
    let mut r = Responder::<FakePake>::new(setup.responder, [7; 32]);
    let credentials = |_: &NodeName, _: &str| Credential::Cookie(cookie("1"));
    let Hello::Answer(hello2) = r.hello1(&learned.encode(), &credentials).unwrap() else { panic!("rejected") };
    assert!(matches!(i.hello2(&hello2), Err(HandshakeError::WrongName { .. })));
}

#[test]
fn p4_reflected_and_replayed_messages_never_reach_up() {
    let setup = Setup::default();
    // Reflection: the caller's own HELLO1 comes back.
    let (mut i, hello1) = Initiator::<Spake2>::new(setup.initiator.clone(), [7; 32]);
    assert!(i.hello2(&hello1).is_err());
    // A node that reaches itself is told so, by its incarnation.
    let mut r =
        Responder::<Spake2>::new(ResponderConfig { incarnation: [1; 16].into(), ..setup.responder.clone() }, [7; 32]);
    let credentials = |_: &NodeName, _: &str| Credential::Cookie(cookie("1"));
    let answer = r.hello1(&hello1, &credentials).unwrap();
    assert!(matches!(answer, Hello::Reject(_, RejectCode::Myself)));
    // Another node of the caller's name is told so, whatever the listener allows.
    let twin = ResponderConfig { name: setup.initiator.from.clone(), ..setup.responder.clone() };
    let mut r = Responder::<Spake2>::new(twin, [7; 32]);
    let (mut i, to_itself) = {
        let initiator = InitiatorConfig { to: Some(setup.initiator.from.clone()), ..setup.initiator.clone() };
        Initiator::<Spake2>::new(initiator, [7; 32])
    };
    let Hello::Reject(reject, RejectCode::NotAllowed) = r.hello1(&to_itself, &credentials).unwrap() else { panic!() };
    let error = i.hello2(&reject).unwrap_err().to_string();
    assert!(error.contains("has the same name as the caller"), "{error}");
    // Replay of a whole recorded session into a new responder: FINISH fails.
    let mut recorded = vec![];
    run::<Spake2>(&setup, |_, m| recorded.push(m.clone()));
    let mut r = Responder::<Spake2>::new(setup.responder.clone(), [7; 32]);
    r.hello1(&recorded[0], &credentials).unwrap();
    assert_eq!(r.finish(&recorded[2]), Err(HandshakeError::WrongCookie));
    // Replay of the responder's side into a new initiator.
    let (mut i, _) = Initiator::<Spake2>::new(setup.initiator, [7; 32]);
    assert_eq!(i.hello2(&recorded[1]), Err(HandshakeError::WrongCookie));
}

#[test]
fn p5_the_highest_common_version_is_chosen_and_stripping_is_detected() {
    let mut setup = Setup::default();
    setup.initiator.versions = vec![3, 2, 1];
    setup.responder.versions = vec![2, 1];
    assert_eq!(run::<FakePake>(&setup, |_, _| ()).initiator.unwrap().0.version, 2);
    let stripped = run::<FakePake>(&setup, |index, message| {
        if index == 0 {
            let mut hello = wire::Hello1::decode(message).unwrap();
            hello.versions = vec![1];
            *message = hello.encode();
        }
    });
    assert_eq!(stripped.errors, [HandshakeError::WrongCookie]);
    setup.responder.versions = vec![9];
    let none = run::<FakePake>(&setup, |_, _| ());
    assert_eq!(none.errors, [HandshakeError::Version { offered: "TLK/3, TLK/2, TLK/1".into() }]);
}

#[test]
fn messages_out_of_order_end_the_handshake() {
    let setup = Setup::default();
    let (mut i, _) = Initiator::<FakePake>::new(setup.initiator.clone(), [7; 32]);
    assert!(i.finish(&Params::default()).is_err());
    let (mut i, _) = Initiator::<FakePake>::new(setup.initiator, [7; 32]);
    assert!(i.accept(&[wire::ACCEPT, 0, 0]).is_err());
    let mut r = Responder::<FakePake>::new(setup.responder, [7; 32]);
    assert!(r.finish(&[wire::FINISH, 0, 0]).is_err());
}

#[test]
fn a_name_with_a_character_that_nobody_sees_is_malformed() {
    let (_, hello1) = Initiator::<FakePake>::new(Setup::default().initiator, [7; 32]);
    let mut hello = wire::Hello1::decode(&hello1).unwrap();
    hello.from = "d\u{2602}b@host".parse().unwrap();
    let visible = hello.encode();
    assert_eq!(wire::Hello1::decode(&visible).unwrap().from, hello.from);
    for hidden in ["\u{200b}", "\u{202e}", "\u{2066}", "\u{feff}"] {
        let at = visible.windows(3).position(|bytes| bytes == "\u{2602}".as_bytes()).unwrap();
        let mut bytes = visible.clone();
        bytes[at..at + 3].copy_from_slice(hidden.as_bytes());
        let decoded = wire::Hello1::decode(&bytes).map(drop);
        assert_eq!(decoded, Err(HandshakeError::Malformed("HELLO1 is from no node name")), "{hidden:?}");
    }
}

#[test]
fn a_reject_cannot_hold_a_dialer_off_for_long() {
    let (mut i, _) = Initiator::<FakePake>::new(Setup::default().initiator, [7; 32]);
    let reject = wire::encode_reject(RejectCode::Throttled, 60_000, "go\u{7}a\u{202e}way");
    assert_eq!(
        i.hello2(&reject),
        Err(HandshakeError::Rejected {
            code: RejectCode::Throttled,
            retry_after_ms: 2000,
            text: "go\u{fffd}a\u{fffd}way".into()
        })
    );
}

#[test]
fn an_abandoned_attempt_still_proves_itself() {
    let setup = Setup::default();
    let (mut i, hello1) = Initiator::<FakePake>::new(setup.initiator, [7; 32]);
    let mut r = Responder::<FakePake>::new(setup.responder, [7; 32]);
    let credentials = |_: &NodeName, _: &str| Credential::Cookie(cookie("1"));
    let Hello::Answer(hello2) = r.hello1(&hello1, &credentials).unwrap() else { panic!("rejected") };
    i.hello2(&hello2).unwrap();
    assert!(r.finish(&i.abandon().unwrap()).unwrap().params.abandon);
}

#[test]
fn a_registrar_session_learns_the_name() {
    let mut setup = Setup::default();
    setup.initiator.to = None;
    setup.initiator.mode = Mode::Registrar;
    setup.responder.mode = Mode::Registrar;
    assert_eq!(run::<Spake2>(&setup, |_, _| ()).initiator.unwrap().0.name, name(B));
    setup.responder.mode = Mode::Node;
    assert!(matches!(run::<Spake2>(&setup, |_, _| ()).errors[..], [HandshakeError::Rejected { .. }]));
}

#[test]
fn a_probe_learns_the_name_and_a_link_does_not() {
    let mut setup = Setup::default();
    setup.initiator.to = None;
    setup.initiator.mode = Mode::Probe;
    let (mut i, hello1) = Initiator::<Spake2>::new(setup.initiator.clone(), [7; 32]);
    let mut r = Responder::<Spake2>::new(setup.responder.clone(), [7; 32]);
    let credentials = |_: &NodeName, _: &str| Credential::Cookie(cookie("1"));
    let Hello::Answer(hello2) = r.hello1(&hello1, &credentials).unwrap() else { panic!("rejected") };
    assert_eq!(i.hello2(&hello2).unwrap().name, name(B));
    assert!(r.finish(&i.abandon().unwrap()).unwrap().params.abandon);

    setup.initiator.mode = Mode::Node;
    let (_, hello1) = Initiator::<Spake2>::new(setup.initiator, [7; 32]);
    let mut r = Responder::<Spake2>::new(setup.responder, [7; 32]);
    let Hello::Reject(_, code) = r.hello1(&hello1, &credentials).unwrap() else { panic!("answered") };
    assert_eq!(code, RejectCode::WrongName);
}

proptest! {
    #[test]
    fn p9_hello1_decodes_what_it_encodes(versions in proptest::collection::vec(any::<u16>(), 1..16),
                                         nonce: [u8; 16], label in "[a-z]{0,40}", to in "[a-z]{1,9}@[a-z]{1,9}") {
        let hello = wire::Hello1 { versions, mode: Some(Mode::Node), incarnation: nonce.into(), nonce, from: name(A), to, label,
                                   share: vec![3; 33] };
        prop_assert_eq!(wire::Hello1::decode(&hello.encode()).unwrap(), hello);
    }

    #[test]
    fn any_bytes_are_survived_by_both_ends(bytes in proptest::collection::vec(any::<u8>(), 0..MAX_BODY + 9)) {
        let setup = Setup::default();
        let (mut i, _) = Initiator::<FakePake>::new(setup.initiator, [7; 32]);
        prop_assert!(i.hello2(&bytes).is_err());
        let mut r = Responder::<FakePake>::new(setup.responder, [7; 32]);
        let _ = r.hello1(&bytes, &|_: &NodeName, _: &str| Credential::NotAllowed);
        prop_assert!(r.finish(&bytes).is_err());
    }
}
