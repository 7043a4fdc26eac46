//! Body of the fuzz target of this crate. `fuzz/README.md` lists it; `tests/tests/claims/parsers.rs` runs it.

use std::sync::Arc;

use trunkline_route::{Cookie, LogLevel, PeerFlags, Role};
use trunkline_stack::{LinkInfo, Mailboxes};
use trunkline_wire::frame::{Decoder, Flow};
use trunkline_wire::fuzzing::{WINDOW, conversation};

use crate::byte_stream::RESETS;
use crate::native::Peers;
use crate::receiver::Receiver;
use crate::shell::lock;

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("receiver", receiver, receiver_seeds)];

/// Feeds frames to a link with mailboxes, streams and important delivery, but no socket: any bytes are accepted or refused,
/// and what is written in return is legal. The first byte is the length of the chunks in which the rest arrives; the second
/// says at which end, and whether mailboxes are read and streams accepted.
pub fn receiver(bytes: &[u8]) {
    let Some((&[chunk, how], wire)) = bytes.split_first_chunk() else { return };
    let role = if how & 1 == 0 { Role::Initiator } else { Role::Responder };
    let mailboxes = Arc::new(Mailboxes::default());
    let cookie = Cookie::new("a cookie both ends hold").expect("it is long enough");
    let info = LinkInfo {
        role,
        log_level: LogLevel::Off,
        ..LinkInfo::local("a@h".parse().expect("it is a name"), [0; 16], cookie)
    };
    let mut mailbox = mailboxes.register("in").expect("the name is free");
    if how & 2 != 0 {
        mailboxes.accept_streams(Some(Arc::new(|incoming| drop(incoming.accept()))));
    }
    let shared = Arc::new(Peers::new(RESETS).link(info, WINDOW, WINDOW));
    let mut receiver = Receiver::new(&[], shared.clone(), mailboxes, None, None);
    let mut peer = Decoder::default();
    for piece in wire.chunks(usize::from(chunk).max(1)) {
        let taken = receiver.take(piece).is_ok() && receiver.settle().is_ok();
        while how & 4 != 0
            && let Some(message) = mailbox.try_recv()
        {
            assert!(message.body().len() <= WINDOW.max_message);
            let _ = message.term();
            message.reply("taken");
        }
        let mut out = lock(&shared.out);
        while let Some((id, bytes)) = out.outbox.next_due() {
            receiver.granted_mailbox(id, bytes);
            out.outbox.grant_mailbox(id, bytes);
        }
        let answers: Vec<_> = std::iter::from_fn(|| out.outbox.take()).collect();
        drop(out);
        for chunk in answers {
            let fed = peer.feed(&chunk, |_, _| Ok(Flow::Continue(())));
            assert_eq!(fed, Ok(Flow::Continue(())), "it writes what nobody may");
        }
        if !taken {
            return;
        }
    }
}

/// One of each frame, read and not read.
pub fn receiver_seeds() -> Vec<Vec<u8>> {
    let wire = conversation(PeerFlags::ALL);
    [[255, 7], [16, 1], [3, 7]].map(|head| [&head[..], &wire].concat()).to_vec()
}
