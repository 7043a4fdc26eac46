//! A request for a connection on its way through gateways, without any network.

use std::error::Error;

use trunkline_matcher::AccessPattern;
use trunkline_proxy::{Membership, Proxied, ProxyOpen, Transit, TransitRule, Verdict, decide};
use trunkline_route::NodeName;

fn main() -> Result<(), Box<dyn Error>> {
    let rule = |from: &str, to: &str| {
        Ok::<_, Box<dyn Error>>(TransitRule::new(AccessPattern::new(from)?, AccessPattern::new(to)?))
    };
    let outer = Transit { rules: vec![rule("app@.*", "db@.*")?], gateways: vec![] };
    let inner = Transit { rules: vec![rule("outer@dmz", "db@.*")?], gateways: vec![AccessPattern::new("outer@dmz")?] };
    let mut from: NodeName = "app@lab".parse()?;
    let mut open = ProxyOpen::new("db@internal".parse()?, 2);
    for (gateway, transit) in [("outer@dmz", &outer), ("inner@dmz", &inner), ("db@internal", &Transit::default())] {
        let own: NodeName = gateway.parse()?;
        match decide(&own, &from, open.clone(), transit, &Proxied::default(), Membership::Neither) {
            Verdict::Forward(next) => {
                println!("{own} passes on; {} more may", next.max_hop);
                (from, open) = (own, next);
            }
            Verdict::Target(flags) => println!("{own} is who was asked for; it may agree on {flags}"),
            Verdict::Refuse(refusal) => println!("{refusal}"),
        }
    }
    let (outer_name, guest, open) =
        ("outer@dmz".parse()?, "guest@lab".parse()?, ProxyOpen::new("db@internal".parse()?, 8));
    let uninvited = decide(&outer_name, &guest, open, &outer, &Proxied::default(), Membership::Neither);
    println!("{uninvited:?}");
    Ok(())
}
