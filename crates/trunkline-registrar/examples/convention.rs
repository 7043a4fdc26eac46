//! Implements a custom resolver that derives the port from the name.

use trunkline_registrar::{BoxFuture, ResolveError, Resolver};
use trunkline_route::{Address, Cause, Endpoint, NodeName};

#[derive(Debug)]
struct ByTrailingDigits;

impl Resolver for ByTrailingDigits {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        let digits: String = name.name().chars().rev().take_while(char::is_ascii_digit).collect();
        let offset: u16 = digits.chars().rev().collect::<String>().parse().unwrap_or(0);
        let address = Address::new(name.host(), 4370 + offset).map_err(|e| ResolveError::Failed(Cause::new(e)));
        Box::pin(async move { Ok(vec![Endpoint::at(address?)]) })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name: NodeName = "worker12@10.0.0.7".parse()?;
    for endpoint in ByTrailingDigits.resolve(&name).await? {
        println!("{name} is at {}", endpoint.address);
    }
    Ok(())
}
