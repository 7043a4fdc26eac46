//! Bodies of the fuzz targets of this crate. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use trunkline_route::{Address, Cookie};

use crate::message::{MAX_RECORDS, Message, Record, View, Welcome};

/// A target: its name, its body, which panics when something does not hold, and the inputs to begin with.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// The targets of this crate.
pub const TARGETS: &[Target] = &[("mesh_messages", mesh_messages, mesh_messages_seeds)];

/// Messages of the peer exchange: each is refused, or is within the limits and read back from what it is written as.
pub fn mesh_messages(bytes: &[u8]) {
    let Ok(message) = Message::decode(bytes) else { return };
    if let Message::Peers(records) = &message {
        assert!(records.len() <= MAX_RECORDS);
    }
    assert_eq!(Message::decode(&message.encode()), Ok(message));
}

/// Seeds of [`mesh_messages`]: a message of each kind.
pub fn mesh_messages_seeds() -> Vec<Vec<u8>> {
    let endpoints = ["10.0.0.1:9932", "[::1]:1"].iter().filter_map(|text| text.parse::<Address>().ok()).collect();
    let own =
        Record { name: "a@h".parse().expect("a node name"), incarnation: [7; 16].into(), endpoints, is_leaf: true };
    let hello = Message::Hello {
        cluster: "lab".into(),
        own: own.clone(),
        is_hidden: false,
        is_first: true,
        known: vec![1, u32::MAX],
    };
    let forget = Message::Forget { name: own.name.clone(), incarnation: own.incarnation };
    let view = View { connected: vec![own.name.clone()], routes: own.endpoints.clone() };
    let cookie = Cookie::new("a shared secret").expect("it is long enough");
    let welcome = Welcome { cluster: "lab".into(), cookie, routes: own.endpoints.clone() };
    let others = [
        Message::OtherCluster("other".into()),
        forget,
        Message::Ask,
        Message::View(view),
        Message::Join(own.name.clone()),
        Message::Welcome(welcome),
        Message::Refused("used".into()),
    ];
    let messages = [hello, Message::Peers(vec![own; 3])].into_iter().chain(others);
    messages.map(|message| message.encode()).collect()
}
