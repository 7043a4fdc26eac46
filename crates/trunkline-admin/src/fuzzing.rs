//! Bodies of this crate's fuzz targets. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{
    AddProxyRoute, AddRoute, ApplicationRequest, Body, DisconnectRequest, EndForward, ForwardRequest, MessageRequest,
    PingRequest, RemoveRoute, SpawnRequest, StopApplication, TraceRequest,
};

/// Fuzz target: its name, its body, which panics when a property is violated, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All fuzz targets of this crate.
pub const TARGETS: &[Target] = &[("admin_bodies", admin_bodies, admin_bodies_seeds)];

/// Parses any bytes as a request body of each kind. A body that is accepted must be equal after it is serialized and
/// parsed again.
pub fn admin_bodies(bytes: &[u8]) {
    stable::<AddProxyRoute>(bytes);
    stable::<AddRoute>(bytes);
    stable::<ApplicationRequest>(bytes);
    stable::<DisconnectRequest>(bytes);
    stable::<EndForward>(bytes);
    stable::<ForwardRequest>(bytes);
    stable::<PingRequest>(bytes);
    stable::<RemoveRoute>(bytes);
    stable::<SpawnRequest>(bytes);
    stable::<StopApplication>(bytes);
    stable::<TraceRequest>(bytes);
    if let Some(message) = stable::<MessageRequest>(bytes)
        && let Ok(body) = message.body.bytes()
    {
        assert_eq!(Body::new(&body).bytes(), Ok(body));
    }
}

fn stable<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let written = serde_json::to_vec(&value).expect("a request can be written");
    assert_eq!(serde_json::from_slice::<T>(&written).ok().as_ref(), Some(&value));
    Some(value)
}

/// Returns an example of each request body.
pub fn admin_bodies_seeds() -> Vec<Vec<u8>> {
    let route = json!({
        "match": "^db@", "weight": 7, "host": "10.0.0.1", "port": 4370, "tls": true,
        "flags": { "require": ["monitor"], "link": false }, "atom_mapping": { "a": "b" }, "override": { "port": 1 }
    });
    let bodies = [
        json!({ "route": route, "save": true }),
        json!({ "route": { "match": "x", "proxy": "gate@dmz", "max_hop": 3, "target": { "tls": true } } }),
        json!({ "match": "^db@", "save": false }),
        json!({ "listen": "127.0.0.1:0", "name": "db@h", "service": "sql" }),
        json!({ "name": "db@h", "timeout_ms": 1000, "now": true }),
        json!({ "name": "db@h", "mailbox": "echo", "body": { "base64": "/wA=" }, "important": true }),
        json!({ "name": "db@h", "mailbox": "echo", "body": { "text": "hello" } }),
        json!({ "name": "db@h", "program": "count", "input": "x", "until_end": true }),
        json!({ "name": "db@h", "application": "shop" }),
        json!({ "application": "shop" }),
    ];
    bodies.iter().map(|body| body.to_string().into_bytes()).collect()
}
