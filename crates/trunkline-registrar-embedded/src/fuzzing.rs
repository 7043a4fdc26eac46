//! Bodies of this crate's fuzz targets. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use trunkline_route::{Address, Endpoint, Version};

use crate::wire::{self, MAX_ENDPOINTS, MAX_GATEWAYS, Request, Response, WireEndpoint};

/// Fuzz target: its name, its body, which panics when a property is violated, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All fuzz targets of this crate.
pub const TARGETS: &[Target] = &[("registrar", registrar, registrar_seeds)];

/// Parses any bytes as messages of a registrar session. An accepted message must be equal after it is encoded and
/// decoded again, and its lists must be bounded.
pub fn registrar(bytes: &[u8]) {
    if let Ok(request) = wire::decode::<Request>(bytes) {
        if let Request::Register(endpoints, patterns) = &request {
            let _ = wire::patterns(patterns);
            listed(endpoints);
        }
        assert_eq!(wire::decode::<Request>(&wire::encode(&request)), Ok(request));
    }
    if let Ok(response) = wire::decode::<Response>(bytes) {
        match &response {
            Response::Endpoints(endpoints) => listed(endpoints),
            Response::Gateways(names) => {
                let _ = wire::gateways(names).map(|names| assert!(names.len() <= MAX_GATEWAYS));
            }
            _ => {}
        }
        assert_eq!(wire::decode::<Response>(&wire::encode(&response)), Ok(response));
    }
}

fn listed(wire: &[WireEndpoint]) {
    let Ok(endpoints) = wire::endpoints(wire) else { return };
    assert!(endpoints.len() <= MAX_ENDPOINTS);
    for endpoint in endpoints {
        assert_eq!(Endpoint::try_from(&WireEndpoint::from(&endpoint)), Ok(endpoint));
    }
}

/// Returns an example of each message.
pub fn registrar_seeds() -> Vec<Vec<u8>> {
    let endpoint = Endpoint {
        address: Address::new("10.0.0.1", 4370).expect("it is an address"),
        tls: Some(true),
        version: Some(Version::native(1)),
    };
    let endpoints = || vec![WireEndpoint::from(&endpoint)];
    let requests = [
        Request::Register(endpoints(), vec!["db@.*".into()]),
        Request::Resolve("db@example.com".into()),
        Request::Gateways("db@example.com".into()),
    ];
    let responses = [
        Response::Registered,
        Response::Taken,
        Response::Endpoints(endpoints()),
        Response::Refused("no such thing".into()),
        Response::Gateways(vec!["gate@dmz".into()]),
    ];
    requests.iter().map(wire::encode).chain(responses.iter().map(wire::encode)).collect()
}
