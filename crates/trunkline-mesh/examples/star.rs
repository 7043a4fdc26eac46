//! Three members, of which one knows the addresses of the other two: all end up connected to one another.
//!
//! The network is a list of what each member asked for. `cargo run -p trunkline-mesh --example star`

#![expect(clippy::disallowed_methods, reason = "an example reads the clock")]

use std::collections::VecDeque;
use std::time::Instant;

use trunkline_mesh::{Mesh, Output, Settings, Way};
use trunkline_route::{Address, NodeName};

fn name(member: usize) -> NodeName {
    format!("n{member}@10.0.0.{member}").parse().expect("a node name")
}

fn address(member: usize) -> Address {
    format!("10.0.0.{member}:9932").parse().expect("an address")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let now = Instant::now();
    let mut members = Vec::new();
    for member in 0..3 {
        let settings = Settings {
            cluster: "lab".into(),
            name: name(member),
            incarnation: [member as u8; 16].into(),
            endpoints: vec![address(member)],
            is_hidden: false,
            is_leaf: false,
            seed: member as u64,
        };
        members.push(Mesh::new(settings, now)?);
    }
    members[2].set_routes(now, [address(0), address(1)]);

    let number = |name: &NodeName| (0..3).find(|member| self::name(*member) == *name).expect("one of the three");
    let mut connected = Vec::new();
    let mut messages = VecDeque::new();
    // A member that waits a moment before it dials is asked again in its own time.
    let mut time = now;
    while connected.len() < 3 {
        for at in 0..3 {
            while let Some(output) = members[at].poll(time) {
                match output {
                    Output::Learn(route) => {
                        let found = (0..3).filter(|member| address(*member) == route);
                        let found = found.map(|member| (name(member), route.clone())).collect();
                        members[at].learnt(time, &route, Ok(found));
                    }
                    Output::Dial(peer) | Output::DialDirectly(peer) => {
                        let to = number(&peer);
                        if !connected.contains(&(at.min(to), at.max(to))) {
                            println!("{} connects to {peer}", name(at));
                            connected.push((at.min(to), at.max(to)));
                            members[at].up(time, &peer, Way::Direct);
                            members[to].up(time, &name(at), Way::Direct);
                        }
                        members[at].dialled(time, &peer, Ok(()));
                    }
                    Output::Send { to, message } => messages.push_back((at, number(&to), message)),
                }
            }
        }
        match messages.pop_front() {
            Some((from, to, message)) => members[to].message(time, &name(from), &message)?,
            None => time = members.iter_mut().map(Mesh::next_time).min().expect("three members"),
        }
    }
    Ok(())
}
