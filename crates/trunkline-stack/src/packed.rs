//! Messages that a node sends itself, as they wait in a mailbox. No I/O, no clock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use trunkline_route::How;

use crate::local_account::LocalAccount;
use crate::message::{Message, Replier, Sender};

/// Most bytes of bodies that share a chunk. A message that a program keeps holds its chunk.
pub(crate) const CHUNK: usize = 16 * 1024;
/// Entries for which room is kept when all are read.
const KEPT: usize = 1024;

/// Body of a message on its way into a mailbox.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    /// Bytes to be copied.
    Copied(&'a [u8]),
    /// Bytes to be shared.
    Shared(&'a Bytes),
}

impl Body<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Copied(body) => body.len(),
            Self::Shared(body) => body.len(),
        }
    }
}

/// Message on its way into a mailbox.
pub(crate) struct Parcel<'a> {
    /// Sender, if it gave itself a name.
    pub(crate) from: Option<Arc<Sender>>,
    pub(crate) body: Body<'a>,
    pub(crate) how: How,
    pub(crate) call: Option<Replier>,
}

struct Entry {
    from: Option<Arc<Sender>>,
    len: usize,
    how: How,
    call: Option<Replier>,
}

/// Messages of the node itself for one mailbox, in order. A sender appends the bodies to chunks, and the reader cuts them out:
/// so the two change no reference count of each other, and no memory of one body is taken here and given back there.
pub(crate) struct Packed {
    account: Arc<LocalAccount>,
    entries: VecDeque<Entry>,
    /// The chunk that the next body is in, and those behind it. A body does not cross the end of its chunk.
    chunk: Bytes,
    chunks: VecDeque<Bytes>,
    /// The chunk that bodies are appended to.
    open: Vec<u8>,
    /// Messages and bytes that were read and not told yet.
    taken: (u64, u64),
}

impl Packed {
    pub(crate) fn new(account: Arc<LocalAccount>) -> Self {
        Self {
            account,
            entries: VecDeque::new(),
            chunk: Bytes::new(),
            chunks: VecDeque::new(),
            open: Vec::new(),
            taken: (0, 0),
        }
    }

    pub(crate) fn account(&self) -> &LocalAccount {
        &self.account
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn push(&mut self, parcel: Parcel<'_>) {
        let Parcel { from, body, how, call } = parcel;
        match body {
            Body::Copied(body) => {
                if self.open.len() + body.len() > CHUNK {
                    self.close_chunk();
                }
                self.open.extend_from_slice(body);
            }
            Body::Shared(body) if body.is_empty() => {}
            Body::Shared(body) => {
                self.close_chunk();
                self.chunks.push_back(body.clone());
            }
        }
        self.entries.push_back(Entry { from, len: body.len(), how, call });
    }

    /// Makes ready for other messages, once all are read.
    pub(crate) fn reset(&mut self) {
        self.entries.shrink_to(KEPT);
        self.chunks.shrink_to(0);
    }

    fn close_chunk(&mut self) {
        if !self.open.is_empty() {
            self.chunks.push_back(std::mem::take(&mut self.open).into());
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Message> {
        let Entry { from, len, how, call } = self.entries.pop_front()?;
        if self.chunk.len() < len {
            self.chunk = self.chunks.pop_front().unwrap_or_else(|| std::mem::take(&mut self.open).into());
        }
        let body = if len == self.chunk.len() { std::mem::take(&mut self.chunk) } else { self.chunk.split_to(len) };
        self.taken.0 += 1;
        self.taken.1 += len as u64;
        if self.entries.is_empty() {
            self.settle();
        }
        Some(Message::new(from.unwrap_or_else(|| self.account.nobody().clone()), body, how, call))
    }

    fn settle(&mut self) {
        let (messages, bytes) = std::mem::take(&mut self.taken);
        if messages > 0 {
            self.account.taken(messages, bytes);
        }
    }
}

impl Drop for Packed {
    /// Gives the credit of what nobody will read any more back as well.
    fn drop(&mut self) {
        while self.pop().is_some() {}
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trunkline_route::Cookie;

    use super::*;
    use crate::{LinkInfo, LinkState};

    fn packed() -> Packed {
        let info = LinkInfo::local("a@h".parse().unwrap(), [7; 16], Cookie::new("a cookie of some length").unwrap());
        let sender = Sender { node: info.peer.clone(), name: "".into(), mapping: None, flags: info.flags };
        Packed::new(Arc::new(LocalAccount::new(&Arc::new(LinkState::new(info)), &Arc::new(sender))))
    }

    proptest! {
        #[test]
        fn every_body_comes_out_whole_and_in_order(
            steps in prop::collection::vec(prop_oneof![
                3 => (any::<bool>(), prop_oneof![Just(0), 1usize..100, 5_000usize..20_000]).prop_map(Some),
                2 => Just(None),
            ], 0..60),
        ) {
            let (mut packed, mut expected) = (packed(), VecDeque::new());
            for (n, step) in steps.into_iter().enumerate() {
                let Some((shared, len)) = step else {
                    prop_assert_eq!(packed.pop().map(|message| message.into_parts().0), expected.pop_front());
                    continue;
                };
                let bytes = Bytes::from(vec![n as u8; len]);
                let body = if shared { Body::Shared(&bytes) } else { Body::Copied(&bytes) };
                packed.push(Parcel { from: None, body, how: How::default(), call: None });
                expected.push_back(bytes);
                if packed.is_empty() {
                    packed.reset();
                }
            }
            for body in expected {
                prop_assert_eq!(packed.pop().unwrap().into_parts().0, body);
            }
            prop_assert!(packed.is_empty());
        }
    }

    #[test]
    fn bodies_share_a_chunk_of_limited_size() {
        let mut packed = packed();
        for _ in 0..100 {
            packed.push(Parcel { from: None, body: Body::Copied(&[1; 1000]), how: How::default(), call: None });
        }
        assert!(packed.chunks.len() >= 5 && packed.chunks.iter().all(|chunk| chunk.len() <= CHUNK));
    }
}
