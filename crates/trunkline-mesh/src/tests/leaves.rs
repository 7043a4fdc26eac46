//! Leaves: members with one connection.

use super::*;

#[test]
fn a_leaf_keeps_one_connection_and_the_others_are_told_who_leads_to_it() {
    let mut world = World::star(5);
    world.leaves.insert(5);
    let dials = world.dials;
    let leaf = world.add(&[1, 2]);
    world.run_for(Duration::from_secs(120));
    let hub = |world: &World| world.nodes[leaf].mesh.neighbours();
    let leads_to_it = |world: &mut World, node: usize| world.nodes[node].mesh.gateways(&name(leaf));
    let first = number(&hub(&world)[0]);
    assert_eq!((hub(&world), world.dials - dials), (vec![name(first)], 1));
    for node in (0..5).filter(|node| *node != first) {
        assert_eq!(leads_to_it(&mut world, node), [name(first)], "{node}");
        let status = world.nodes[node].mesh.peer(world.clock(), &name(leaf)).unwrap();
        assert_eq!((status.role, status.is_up, status.next_dial), (Role::Leaf, false, None));
        assert!(world.nodes[node].mesh.is_led_to(&name(leaf)));
    }
    // The hub leads the leaf to everybody.
    assert_eq!(world.nodes[leaf].mesh.gateways(&name(first)), []);
    assert_eq!(world.nodes[leaf].mesh.gateways(&"unknown@lab".parse().unwrap()), [name(first)]);
    // No book has the leaf, and its own has its hub.
    let now = world.clock();
    assert!((0..5).all(|node| world.nodes[node].mesh.known(now).iter().all(|known| known.record.name != name(leaf))));
    assert_eq!(world.nodes[leaf].mesh.known(now).len(), 1);

    // A hello does not say that a leaf is known, so that each member tells of its own leaves again.
    let (now, other) = (world.clock(), 4);
    world.nodes[other].mesh.up(now, &"x@lab".parse().unwrap(), Way::Direct);
    let Some(Output::Send { message, .. }) = world.nodes[other].mesh.poll(now) else { panic!("no hello") };
    assert!(matches!(Message::decode(&message), Ok(Message::Hello { known, .. }) if known.len() == 4));
    world.nodes[other].mesh.down(now, &"x@lab".parse().unwrap(), true);

    // When the hub dies, the other route is taken, and everybody hears who leads to it now.
    world.kill(first);
    let dials = world.dials;
    world.run_for(Duration::from_secs(2));
    let second = if first == 1 { 2 } else { 1 };
    assert_eq!(hub(&world), [name(second)]);
    for node in (0..5).filter(|node| ![first, second].contains(node)) {
        assert_eq!(leads_to_it(&mut world, node).first(), Some(&name(second)));
    }
    // The one that came back is not taken as well.
    world.restart(first);
    world.run_for(Duration::from_secs(60));
    assert_eq!(hub(&world), [name(second)]);
    assert!(world.dials - dials < 40, "{}", world.dials - dials);
    // A leaf that is gone is forgotten when the member that led to it is.
    world.kill(leaf);
    world.run_for(100 * MS);
    world.kill(second);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[0].mesh.peer(world.clock(), &name(leaf)), None);
}

#[test]
fn a_leaf_whose_route_leads_to_a_node_of_no_cluster_takes_the_next_one() {
    let mut world = World::new(1);
    let [other, hub] = [world.add_to("other", &[]), world.add(&[])];
    world.leaves.insert(2);
    let leaf = world.add(&[other]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), []);
    let now = world.clock();
    world.nodes[leaf].mesh.set_routes(now, [at(other), at(hub)]);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), [name(hub)]);
}

/// Returns the name of a leaf, and its hello.
fn hello_of_a_leaf(life: u8) -> (NodeName, Vec<u8>) {
    let name: NodeName = "leaf@lab".parse().unwrap();
    let own = Record { name: name.clone(), incarnation: [life; 16].into(), endpoints: vec![], is_leaf: true };
    let hello = Message::Hello { cluster: "lab".into(), own, is_hidden: false, is_first: true, known: vec![] };
    (name, hello.encode())
}

/// Returns the neighbours that a node tells of somebody now.
fn told(mesh: &mut Mesh, now: Instant) -> BTreeSet<NodeName> {
    let outputs = std::iter::from_fn(|| mesh.poll(now));
    let is_peers = |message: &[u8]| matches!(Message::decode(message), Ok(Message::Peers(_)));
    let peers = outputs.filter_map(|output| match output {
        Output::Send { to, message } if is_peers(&message) => Some(to),
        _ => None,
    });
    peers.collect()
}

#[test]
fn a_leaf_that_takes_a_member_which_it_reached_through_others_before_is_told_of_to_all() {
    let mut world = World::star(4);
    let (leaf, hello) = hello_of_a_leaf(7);
    let now = world.clock();
    let mesh = &mut world.nodes[0].mesh;
    mesh.up(now, &leaf, Way::ThroughOthers);
    mesh.message(now, &leaf, &hello).unwrap();
    assert_eq!(told(mesh, now), BTreeSet::new(), "another member leads to it");
    mesh.down(now, &leaf, false);
    mesh.up(now, &leaf, Way::Direct);
    mesh.message(now, &leaf, &hello).unwrap();
    assert_eq!(told(mesh, now), (1..4).map(name).collect());
}

#[test]
fn a_leaf_that_became_a_full_member_is_dialled_again() {
    let mut world = World::star(2);
    let (leaf, hello) = hello_of_a_leaf(7);
    let now = world.clock();
    let mesh = &mut world.nodes[0].mesh;
    mesh.up(now, &leaf, Way::Direct);
    mesh.message(now, &leaf, &hello).unwrap();
    mesh.down(now, &leaf, false);
    let later = now + Duration::from_secs(5);
    let dials =
        |mesh: &mut Mesh| std::iter::from_fn(|| mesh.poll(later)).any(|output| output == Output::Dial(leaf.clone()));
    assert!(!dials(mesh));
    let other = |incarnation: u8, is_leaf| Record {
        name: leaf.clone(),
        incarnation: [incarnation; 16].into(),
        endpoints: vec![at(9)],
        is_leaf,
    };
    // The same instance is a leaf, whoever says that it is none.
    for (incarnation, is_dialled) in [(7, false), (8, true)] {
        let message = Message::Peers(vec![other(incarnation, false)]).encode();
        mesh.message(later, &name(1), &message).unwrap();
        assert_eq!(dials(mesh), is_dialled);
    }
}

#[test]
fn a_member_that_invents_leaves_fills_no_book_and_does_not_keep_others_out() {
    let mut world = World::star(2);
    let record = |name: String| Record {
        name: name.parse().unwrap(),
        incarnation: [9; 16].into(),
        endpoints: vec![at(60_000)],
        is_leaf: true,
    };
    let now = world.clock();
    let mesh = &mut world.nodes[0].mesh;
    let tell = |mesh: &mut Mesh, names: &mut dyn Iterator<Item = String>| {
        mesh.message(now, &name(1), &Message::Peers(names.map(record).collect()).encode()).unwrap();
    };
    for batch in 0..20 {
        tell(mesh, &mut (0..200).map(|n| format!("x{batch}-{n}@lab")));
    }
    assert_eq!(mesh.peers(now).len(), MAX_UNPROVEN + 1);
    tell(mesh, &mut ["honest@lab".to_owned()].into_iter());
    let honest: NodeName = "honest@lab".parse().unwrap();
    assert!(mesh.is_led_to(&honest));
    // The addresses that others tell of a leaf are dropped, so that nobody is sent there.
    assert_eq!(mesh.addresses(&honest), []);
    assert_eq!(mesh.peers(now).len(), MAX_UNPROVEN + 1);
    // A leaf cannot be forgotten where it is not connected, and is a member again when it is told of.
    assert_eq!(mesh.forget(now, &honest), Err(ForgetError::Leaf { name: honest.clone(), hub: name(1) }));
    let forget = Message::Forget { name: honest.clone(), incarnation: [9; 16].into() }.encode();
    mesh.message(now, &name(1), &forget).unwrap();
    assert!(!mesh.is_led_to(&honest));
    tell(mesh, &mut ["honest@lab".to_owned()].into_iter());
    assert!(mesh.is_led_to(&honest));
}

#[test]
fn a_leaf_takes_what_its_routes_lead_to_and_nobody_else_that_it_knows() {
    let mut world = World::star(4);
    world.leaves.insert(4);
    let leaf = world.add(&[1]);
    let known = world.nodes[0].mesh.known(world.clock());
    let now = world.clock();
    world.nodes[leaf].mesh.remember(now, known);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), [name(1)]);
    // With another route, it stays until the connection is lost.
    let now = world.clock();
    world.nodes[leaf].mesh.set_routes(now, [at(2)]);
    world.run_for(Duration::from_secs(5));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), [name(1)]);
    world.kill(2);
    world.kill(1);
    world.restart(1);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), []);
    world.restart(2);
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.nodes[leaf].mesh.neighbours(), [name(2)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// After any kills and restarts of hubs, a leaf has one connection to a hub of its routes, and all others know which.
    #[test]
    fn any_sequence_of_kills_and_restarts_leaves_a_leaf_with_one_hub_that_all_know(
        seed in any::<u64>(),
        faults in prop::collection::vec((1usize..5, 0u64..3_000), 0..20),
    ) {
        let mut world = World::new(seed);
        world.add(&[]);
        for _ in 1..5 {
            world.add(&[0]);
        }
        world.leaves.insert(5);
        world.add(&[1, 2, 3]);
        world.until_full(Duration::from_secs(5));
        // The message by which a hub tells of its leaf at once may be lost.
        world.loss = 0.02;
        for (node, pause) in faults {
            if world.nodes[node].is_alive { world.kill(node) } else { world.restart(node) }
            world.run_for(Duration::from_millis(pause));
        }
        for node in 1..5 {
            if !world.nodes[node].is_alive {
                world.restart(node);
            }
        }
        world.run_for(Duration::from_secs(600));
        let hubs = world.nodes[5].mesh.neighbours();
        prop_assert_eq!(hubs.len(), 1);
        for node in (0..5).filter(|node| *node != number(&hubs[0])) {
            let gateways = world.nodes[node].mesh.gateways(&name(5));
            prop_assert!(gateways.first() == Some(&hubs[0]), "{}: {:?} and {:?}", node, gateways, hubs);
        }
    }
}
