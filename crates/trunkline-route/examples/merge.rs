//! Merge of a route's own fields, a resolver's answer and the node's defaults into one attempt.

use trunkline_route::{
    Address, Cookie, Defaults, Endpoint, EndpointOverride, Host, NetworkRoute, NodeName, ResolverId,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name: NodeName = "staging-1@example.com".parse()?;
    let route = NetworkRoute::resolved_by(ResolverId::new("production")?)
        .overriding(EndpointOverride {
            host: Some(Host::new("gateway.example.com")?),
            tls: Some(true),
            ..EndpointOverride::default()
        })
        .build();
    let answer = Endpoint { tls: Some(false), ..Endpoint::at(Address::new("10.1.2.3", 4370)?) };
    let attempt = route.attempt(&name, Some(&answer), &Defaults::new(Cookie::new("a shared secret")?));
    println!("{:#?}", attempt.expect("there is an answer"));
    Ok(())
}
