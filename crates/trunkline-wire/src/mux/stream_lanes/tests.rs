use std::task::Waker;

use bytes::BufMut;
use proptest::prelude::*;

use super::MAX_QUEUED;
use crate::frame::{self, Decoder, HEADER_LEN, Header, MAX_PIECE};
use crate::mux::{
    EARLY_DATA, How, Refused,
    tests::{Seen, Wire},
};

impl Wire {
    fn write(&mut self, id: u32, bytes: &[u8]) -> Option<usize> {
        self.out.write_stream(id, bytes, Waker::noop())
    }

    /// Opens streams with this credit beyond what may go early.
    fn streams(ids: &[u32], credit: u32) -> Self {
        let mut wire = Self::new();
        for id in ids {
            wire.out.open_stream(*id, 3, 0, 0, b"").unwrap();
            wire.out.credit_stream(*id, credit);
        }
        wire.pass().unwrap();
        wire.seen.streams.clear();
        wire
    }
}

/// Returns the answer of the reader to these frames.
fn told(frames: &[(u8, u32, &[u8])]) -> Result<Seen, &'static str> {
    let (mut wire, mut bytes) = (Wire::new(), Vec::new());
    for (kind, id, payload) in frames {
        frame::put(&mut bytes, *kind, *id, payload);
    }
    let fed = wire.decoder.feed(&bytes, |h, p| wire.inbound.frame(h, p, &mut wire.seen));
    fed.map(|_| wire.seen).map_err(|broken| broken.0)
}

type Frames<'a> = &'a [(u8, u32, &'a [u8])];

const OPEN: &[u8] = &[3, 0, 0, 0, 9, 0, 0, 1, 0, b'x'];

#[test]
fn what_happens_to_a_stream_arrives_as_it_was_said() {
    let mut wire = Wire::new();
    wire.out.open_stream(1, 3, 9, 256, b"x").unwrap();
    wire.out.accept_stream(2, 7, 1_000);
    wire.write(2, b"bytes").unwrap();
    wire.out.finish_stream(2);
    wire.out.grant_stream(2, 70_000);
    wire.out.refuse_stream(4, 5, "hop@host", "why");
    wire.out.reset_stream(1, 6);
    wire.pass().unwrap();
    let seen: Vec<_> = wire.seen.streams.iter().map(|(id, event)| (*id, event.as_str())).collect();
    assert_eq!(
        seen,
        [
            (1, "Open { kind: 3, timeout_ms: 9, credit: 256, data: [120] }"),
            (2, "Opened { credit: 7 }"),
            (2, "Credit(70000)"),
            (4, "Refused { code: 5, hop: \"hop@host\", text: \"why\" }"),
            (1, "Reset { code: 6 }"),
            (2, "Data([98, 121, 116, 101, 115])"),
            (2, "Fin"),
        ]
    );
    wire.out.go_away(0, "");
    assert_eq!(wire.out.open_stream(3, 3, 9, 256, b"x"), Err(Refused::Draining));
}

#[test]
fn broken_rules_of_streams_are_named() {
    let cases: &[(Frames<'_>, &str)] = &[
        (&[(frame::OPEN, 2, OPEN)], "a stream is opened out of order"),
        (&[(frame::OPEN, 3, OPEN), (frame::OPEN, 3, OPEN)], "a stream is opened out of order"),
        (&[(frame::OPEN, 3, OPEN), (frame::OPEN, 1, OPEN)], "a stream is opened out of order"),
        (&[(frame::OPEN, 1, &OPEN[..8])], "a frame is cut short"),
        (&[(frame::OPEN, 1, OPEN), (frame::OPEN_OK, 1, &[0; 4])], "a stream was never opened"),
        (&[(frame::OPEN_OK, 2, &[0; 3])], "a frame is cut short"),
        (&[(frame::OPEN_ERR, 2, &[0, 5, b'x'])], "a text is cut short"),
        (&[(frame::OPEN, 1, OPEN), (frame::DATA, 3, b"x")], "a stream was never opened"),
        (&[(frame::DATA, 0, b"x")], "a stream was never opened"),
        (&[(frame::OPEN, 1, OPEN), (frame::DATA, 1, b"")], "a stream carries an empty frame"),
        (&[(frame::OPEN, 1, OPEN), (frame::FIN, 1, b"x")], "the end of a stream is followed by more"),
        (&[(frame::OPEN, 1, OPEN), (frame::RESET, 1, b"")], "a frame is cut short"),
        (&[(frame::CREDIT, 1, &[3, 0, 0, 0, 1])], "a stream was never opened"),
    ];
    for (frames, expected) in cases {
        assert_eq!(told(frames).err(), Some(*expected), "{frames:?}");
    }
    assert_eq!(told(&[(frame::OPEN, 5, OPEN), (frame::DATA, 1, b"late")]).unwrap().bytes[&1], b"late");
}

#[test]
fn p10_a_stream_takes_what_there_is_credit_and_room_for() {
    let mut wire = Wire::streams(&[1, 3], 1_000);
    // What may go early counts as credit from the beginning.
    let early = EARLY_DATA as usize;
    for id in [1, 3] {
        assert_eq!(wire.write(id, &vec![0; early]), Some(early));
    }
    wire.pass().unwrap();
    assert_eq!(wire.write(1, &[0; 700]), Some(700));
    assert_eq!(wire.write(1, &[0; 700]), Some(300));
    assert_eq!(wire.write(1, &[0; 700]), Some(0));
    assert_eq!(wire.write(5, b"x"), None, "it was never opened");
    wire.out.credit_stream(1, 10);
    assert_eq!(wire.write(1, &[0; 700]), Some(10));
    wire.out.credit_stream(3, u32::MAX);
    assert_eq!(wire.write(3, &[0; 1_000_000]), Some(MAX_QUEUED));
    wire.pass().unwrap();
    assert_eq!((wire.seen.bytes[&1].len(), wire.seen.bytes[&3].len()), (early + 1_010, early + MAX_QUEUED));
    assert!(wire.write(3, &[0; 1_000_000]).unwrap() > MAX_QUEUED - 100, "there is room again");
    wire.out.finish_stream(1);
    assert_eq!(wire.write(1, b"x"), None);
    wire.out.reset_stream(3, 0);
    assert_eq!(wire.write(3, b"x"), None);
    wire.pass().unwrap();
    assert!(!wire.out.has_ready() && wire.seen.bytes[&3].len() == early + MAX_QUEUED, "what was queued was dropped");
}

#[test]
fn streams_and_messages_take_turns_and_control_waits_for_one_chunk() {
    let mut wire = Wire::streams(&[1, 3, 5], u32::MAX);
    for id in [1, 3, 5] {
        wire.write(id, &[0; MAX_QUEUED]).unwrap();
    }
    for _ in 0..6 {
        wire.out.send("m", "", &[0; 16_000], How::default()).unwrap();
    }
    wire.pass().unwrap();
    // Two frames are a turn.
    let mut turns = wire.seen.order.clone();
    turns.dedup();
    let round = [0, 1, 3, 5];
    for (at, turn) in turns.iter().take(12).enumerate() {
        assert_eq!(turn, &round[(at + 4 - round.iter().position(|id| *id == turns[0]).unwrap()) % 4], "{turns:?}");
    }
    let mut wire = Wire::streams(&[1], u32::MAX);
    wire.write(1, &[0; MAX_QUEUED]).unwrap();
    let chunk = wire.out.take().unwrap();
    assert!(chunk.len() <= 2 * (HEADER_LEN + MAX_PIECE));
    wire.out.ping(frame::PING, &[0; 16]);
    assert_eq!(wire.out.take().unwrap().len(), HEADER_LEN + 16);
}

#[derive(Debug, Clone)]
enum Do {
    Write(u32, usize),
    Credit(u32, u32),
    Finish(u32),
    Message(usize),
    Pass,
}

fn doing() -> impl Strategy<Value = Do> {
    let id = prop::sample::select(vec![1u32, 3, 5]);
    prop_oneof![
        6 => (id.clone(), 0usize..60_000).prop_map(|(id, len)| Do::Write(id, len)),
        2 => (id.clone(), 0u32..100_000).prop_map(|(id, bytes)| Do::Credit(id, bytes)),
        1 => id.prop_map(Do::Finish),
        2 => (0usize..20_000).prop_map(Do::Message),
        3 => Just(Do::Pass),
    ]
}

proptest! {
    #[test]
    fn p9_what_is_written_arrives_in_order_whatever_else_goes(all in prop::collection::vec(doing(), 1..80)) {
        let mut wire = Wire::streams(&[1, 3, 5], 40_000);
        let (mut written, mut credit, mut finished) = ([(); 6].map(|()| Vec::new()), [40_000 + u64::from(EARLY_DATA); 6], [false; 6]);
        for (n, what) in all.into_iter().enumerate() {
            match what {
                Do::Write(id, len) => {
                    let (at, bytes) = (id as usize, vec![n as u8; len]);
                    let taken = wire.write(id, &bytes);
                    prop_assert_eq!(taken.is_none(), finished[at]);
                    let taken = taken.unwrap_or(0);
                    prop_assert!(taken <= len && taken as u64 <= credit[at]);
                    credit[at] -= taken as u64;
                    written[at].extend_from_slice(&bytes[..taken]);
                }
                Do::Credit(id, bytes) => {
                    wire.out.credit_stream(id, bytes);
                    if !finished[id as usize] {
                        credit[id as usize] += u64::from(bytes);
                    }
                }
                Do::Finish(id) => {
                    wire.out.finish_stream(id);
                    finished[id as usize] = true;
                }
                Do::Message(len) => drop(wire.out.send("m", "", &vec![0; len], How::default())),
                Do::Pass => wire.pass().unwrap(),
            }
        }
        wire.pass().unwrap();
        for id in [1u32, 3, 5] {
            let read = wire.seen.bytes.get(&id).cloned().unwrap_or_default();
            prop_assert_eq!(&read, &written[id as usize]);
            let ends: Vec<_> = wire.seen.streams.iter().filter(|(of, event)| *of == id && event == "Fin").collect();
            prop_assert_eq!(ends.len(), usize::from(finished[id as usize]));
        }
    }

    #[test]
    fn reading_frames_of_streams_is_total(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0x20u8..0x26, id in 0u32..6) {
        let mut wire = Wire::new();
        let mut out = Vec::new();
        Header { len: bytes.len(), kind, id }.put(&mut out);
        out.put_slice(&bytes);
        let _ = Decoder::default().feed(&out, |h, p| wire.inbound.frame(h, p, &mut wire.seen));
    }
}
