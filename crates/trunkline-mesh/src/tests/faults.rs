//! Clusters of all sizes under kills, restarts, partitions and lost messages.

use super::*;

/// Longest time until a cluster is whole after the last fault: one pause of a redial, and the time to tell all of it.
const WHOLE: Duration = Duration::from_secs(35);
/// Time after which the two ends of a connection notice that the network fell apart.
const NOTICED: Duration = Duration::from_secs(15);

impl World {
    /// Parts some nodes from the rest for a while, both ways. What is sent between them is lost, and connections go down when
    /// that lasts long enough.
    fn part(&mut self, some: &BTreeSet<usize>, time: Duration) {
        for a in some {
            for b in (0..self.nodes.len()).filter(|node| !some.contains(node)) {
                self.apart.insert(((*a).min(b), (*a).max(b)));
                for (by, of) in [(*a, b), (b, *a)] {
                    if let Some(old) = self.nodes[by].links.get(&of).copied().filter(|_| time > NOTICED) {
                        self.after(NOTICED, Event::Lost { by, life: self.nodes[by].life, of, old });
                    }
                }
            }
        }
        self.run_for(time);
        self.apart.clear();
    }

    /// Returns how much was sent since then by each node, in messages and bytes.
    fn sent_since(&self, (messages, bytes): (usize, usize)) -> (usize, usize) {
        let nodes = self.nodes.len();
        ((self.messages - messages) / nodes, (self.bytes - bytes) / nodes)
    }
}

/// Figures of one cluster.
#[derive(Debug, Clone, Copy)]
struct Figures {
    formed: Duration,
    /// Messages and bytes of each node until the cluster was whole for the first time.
    forming: (usize, usize),
    /// Time from the last fault until the cluster was whole.
    healed: Duration,
    /// Messages and bytes of each node for each fault.
    healing: (usize, usize),
}

/// Forms a cluster in which each node has a route to an earlier one, makes faults, and waits until it is whole again.
fn formed_and_healed(size: usize, seed: u64) -> Figures {
    let mut world = World::new(seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    // A message is lost when a connection has no credit left for it, which is rare.
    world.loss = 0.01;
    world.add(&[]);
    for node in 1..size {
        let seeds = node.min(3);
        world.add(&[rng.usize(..seeds)]);
    }
    let formed = world.until_full(Duration::from_secs(60));
    let forming = world.sent_since((0, 0));
    let (before, mut count) = ((world.messages, world.bytes), 0);
    for _ in 0..rng.usize(1..8) {
        if rng.u8(..4) == 0 {
            let part = rng.usize(1..=size / 2);
            let some = rng.choose_multiple(0..size, part).into_iter().collect();
            world.part(&some, Duration::from_millis(rng.u64(100..40_000)));
            count += part;
        } else {
            // One node stays, as the memory of the cluster.
            let node = rng.usize(1..size);
            if world.nodes[node].is_alive {
                world.kill(node);
            } else if rng.bool() {
                world.restart(node);
            } else {
                world.restart_with_book(node, Duration::from_secs(60));
            }
            world.run_for(Duration::from_millis(rng.u64(..3_000)));
            count += 1;
        }
    }
    for node in 0..size {
        if !world.nodes[node].is_alive {
            world.restart(node);
            count += 1;
        }
    }
    let healed = world.until_full(WHOLE);
    let (messages, bytes) = world.sent_since(before);
    Figures { formed, forming, healed, healing: (messages / count, bytes / count) }
}

#[test]
fn clusters_of_8_and_of_50_are_whole_again_after_any_faults_with_lost_messages() {
    for seed in 0..60 {
        formed_and_healed(8, seed);
    }
    formed_and_healed(50, 0);
}

#[test]
#[ignore = "takes minutes: cargo xtask soak simulated"]
fn clusters_of_all_sizes() {
    println!(
        "| nodes | clusters | whole after (median, longest) | messages, bytes of a node | whole after faults (median, longest) | messages, bytes of a node for a fault |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (size, seeds) in [(8, 10_000), (50, 100), (200, 3), (1_000, 1)] {
        let all: Vec<Figures> = (0..seeds).map(|seed| formed_and_healed(size, seed)).collect();
        let times = |of: fn(&Figures) -> Duration| {
            let mut times: Vec<Duration> = all.iter().map(of).collect();
            times.sort();
            format!("{:.0?}, {:.1?}", times[times.len() / 2], times[times.len() - 1])
        };
        let mean = |of: fn(&Figures) -> (usize, usize)| {
            let sum = all.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            format!("{}, {}", sum.0 / all.len(), sum.1 / all.len())
        };
        println!(
            "| {size} | {seeds} | {} | {} | {} | {} |",
            times(|figures| figures.formed),
            mean(|figures| figures.forming),
            times(|figures| figures.healed),
            mean(|figures| figures.healing),
        );
    }
}
