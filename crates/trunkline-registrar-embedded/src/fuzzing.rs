//! Bodies of this crate's fuzz targets. `fuzz/README.md` lists them; `tests/tests/claims/parsers.rs` runs them.

use trunkline_matcher::AccessPattern;
use trunkline_registrar::{Offer, Registration};
use trunkline_route::{Address, Endpoint, NodeName, ServiceName, Version};

use crate::feed;
use crate::wire::{
    self, MAX_ENDPOINTS, MAX_GATEWAYS, MAX_NEWS, MAX_ROUTES, MAX_SERVING, News, Request, Response, WireEndpoint,
    WireNode,
};

/// Fuzz target: its name, its body, which panics when a property is violated, and its seed inputs.
pub type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All fuzz targets of this crate.
pub const TARGETS: &[Target] = &[("registrar", registrar, registrar_seeds)];

/// Parses any bytes as messages of a registrar session. An accepted message must be equal after it is encoded and
/// decoded again, and its lists must be bounded.
pub fn registrar(bytes: &[u8]) {
    if let Ok(request) = wire::decode::<Request>(bytes) {
        if let Request::Register(node) = &request {
            let named = node.registration(name());
            let _ = named.map(|named| assert_eq!(WireNode::from(&named).registration(name()), Ok(named)));
            listed(&node.endpoints);
        }
        assert_eq!(wire::decode::<Request>(&wire::encode(&request)), Ok(request));
    }
    if let Ok(news) = wire::decode::<Vec<News>>(bytes) {
        let _ = feed::steps(&news).map(|steps| assert!(steps <= MAX_NEWS));
        assert_eq!(wire::decode::<Vec<News>>(&wire::encode(&news)), Ok(news));
    }
    if let Ok(response) = wire::decode::<Response>(bytes) {
        match &response {
            Response::Endpoints(endpoints) | Response::Taken(endpoints) => listed(endpoints),
            Response::Gateways(names) => {
                let _ = wire::gateways(names).map(|names| assert!(names.len() <= MAX_GATEWAYS));
            }
            Response::Routes(found) => {
                let _ = wire::routes(found).map(|found| assert!(found.len() <= MAX_ROUTES));
            }
            Response::Serving(found) => {
                let _ = wire::serving(found).map(|found| assert!(found.len() <= MAX_SERVING));
            }
            _ => {}
        }
        assert_eq!(wire::decode::<Response>(&wire::encode(&response)), Ok(response));
    }
}

fn name() -> NodeName {
    NodeName::new("db@example.com").expect("it is a name")
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
    let service = ServiceName::new("postgres").expect("it is a service");
    let offer = Offer { tags: vec!["eu".into()], ..Offer::new(service.clone()) };
    let leads_to = AccessPattern::new("db@.*").expect("it is a pattern");
    let node = Registration::new(name(), vec![endpoint.clone()]).leading_to(vec![leads_to]).offering(vec![offer]);
    let serving = node.serving(&service).into_iter().collect();
    let requests = [
        Request::Register(WireNode::from(&node)),
        Request::Serving("postgres".into()),
        Request::Routes,
        Request::Resolve("db@example.com".into()),
        Request::Gateways("db@example.com".into()),
        Request::Watch,
    ];
    let news = vec![
        News::Announced("db@example.com".into(), WireNode::from(&node)),
        News::Left("db@example.com".into()),
        News::Current,
    ];
    let responses = [
        Response::Registered,
        Response::Taken(endpoints()),
        Response::Watching { age_ms: 300 },
        Response::Endpoints(endpoints()),
        Response::Refused("no such thing".into()),
        Response::Gateways(vec!["gate@dmz".into()]),
        Response::Serving(wire::wire_serving(&service, serving)),
        Response::Routes(endpoints().into_iter().map(|at| ("^db@".into(), at)).collect()),
    ];
    let messages = requests.iter().map(wire::encode).chain(responses.iter().map(wire::encode));
    messages.chain([wire::encode(&news)]).collect()
}
