use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trunkline_route::{Cookie, NetworkRoute};

use super::*;
use crate::exec::Found;
use crate::pair::{OnOffer, Retire};
use crate::sessions::MAX_DIALS;

const PEER: Incarnation = Incarnation::new([2; 16]);
const BUDGET: Duration = Duration::from_secs(15);
/// A link that came up and had none before it.
const NOTHING_BEFORE: Up<Fake> = Up { replaced: None, elders: Vec::new() };

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Lesser than the node's own name `m@h`.
fn lesser() -> NodeName {
    "a@h".parse().unwrap()
}

fn greater() -> NodeName {
    "z@h".parse().unwrap()
}

fn id(n: u8) -> LinkId {
    LinkId::new([n; 16])
}

#[derive(Debug, Clone)]
struct Fake {
    id: LinkId,
    discarded: Arc<AtomicUsize>,
}

impl PartialEq for Fake {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Handle for Fake {
    fn id(&self) -> LinkId {
        self.id
    }

    fn incarnation(&self) -> Incarnation {
        PEER
    }
}

impl SessionLink for Fake {
    fn retire(&self, _: bool) {}

    fn discard(&self) {
        self.discarded.fetch_add(1, Ordering::SeqCst);
    }
}

fn link(n: u8) -> Fake {
    Fake { id: id(n), discarded: Arc::default() }
}

fn link_ref(n: u8, epoch: u64) -> LinkRef {
    LinkRef { id: id(n), epoch, incarnation: PEER, dialled: true }
}

fn registry() -> Arc<Registry<Fake>> {
    Registry::new("m@h".parse().unwrap())
}

fn failed(name: &NodeName) -> NoRoute {
    NoRoute { target: name.clone(), reason: Reason::Stopped, attempts: vec![] }
}

/// Dials, each of which is under the test's control from its beginning to its end.
#[derive(Clone)]
struct Dials {
    begun: mpsc::UnboundedSender<Dialled>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    count: Arc<AtomicUsize>,
}

struct Dialled {
    flight: FlightId,
    replace: bool,
    end: oneshot::Sender<Flown<Fake>>,
}

struct UnderWay(Arc<AtomicUsize>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Dials {
    fn new() -> (Self, mpsc::UnboundedReceiver<Dialled>) {
        let (begun, dials) = mpsc::unbounded_channel();
        (Self { begun, under_way: Arc::default(), most: Arc::default(), count: Arc::default() }, dials)
    }

    fn dial(&self, flight: FlightId, replace: bool) -> impl Future<Output = Flown<Fake>> + Send + use<> {
        let this = self.clone();
        async move {
            this.count.fetch_add(1, Ordering::SeqCst);
            this.most.fetch_max(this.under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let _under_way = UnderWay(this.under_way);
            let (end, ended) = oneshot::channel();
            let _ = this.begun.send(Dialled { flight, replace, end });
            ended.await.expect("the dial was dropped: it panics")
        }
    }

    fn connect(&self, registry: &Arc<Registry<Fake>>, name: &NodeName) -> JoinHandle<Result<Fake, NoRoute>> {
        self.connect_if(registry, name, None, |_| true)
    }

    fn connect_if(
        &self,
        registry: &Arc<Registry<Fake>>,
        name: &NodeName,
        given: Option<NetworkRoute>,
        satisfies: impl Fn(&Fake) -> bool + Send + Sync + 'static,
    ) -> JoinHandle<Result<Fake, NoRoute>> {
        let (registry, name, dials) = (registry.clone(), name.clone(), self.clone());
        tokio::spawn(async move {
            let dial = move |flight, replace| dials.dial(flight, replace);
            registry.connect(&name, &Aim { route: given, ..Aim::any(BUDGET) }, satisfies, dial).await
        })
    }

    fn under_way(&self) -> usize {
        self.under_way.load(Ordering::SeqCst)
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Registry<Fake> {
    fn len(&self) -> usize {
        self.by_name.len()
    }

    fn waiting(&self, name: &NodeName) -> usize {
        self.with(name, |entry| entry.peer.flight().map_or(0, |(_, callers)| callers)).unwrap_or(0)
    }

    /// A dial of this flight that goes well, up to the last step.
    fn bring_up(self: &Arc<Self>, name: &NodeName, flight: FlightId, n: u8, replace: bool) -> Option<Fake> {
        let ticket = self.may_finish(name, flight, id(n), PEER, replace)?;
        let epoch = ticket.claims().known_epoch + 1;
        self.accepted(name, flight, link_ref(n, epoch))?;
        self.install(name, link(n)).then(|| link(n))
    }

    fn inbound(&self, name: &NodeName, n: u8) -> Verdict<Fake> {
        self.offer(name, id(n), PEER, Some(Claims::default()), None)
    }
}

async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn route(port: u16) -> NetworkRoute {
    NetworkRoute::direct("127.0.0.1", port).unwrap().build()
}

#[tokio::test(start_paused = true)]
async fn p26_many_callers_share_one_dial_and_its_link() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let callers: Vec<_> = (0..20).map(|_| dials.connect(&registry, &name)).collect();
    let dial = begun.recv().await.unwrap();
    settle().await;
    assert_eq!(registry.waiting(&name), 20);
    let up = registry.bring_up(&name, dial.flight, 1, dial.replace).unwrap();
    let _ = dial.end.send(Ok(Found::Link(up)));
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(link(1)));
    }
    assert_eq!(dials.connect(&registry, &name).await.unwrap(), Ok(link(1)));
    assert_eq!((dials.count(), registry.links().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn p26_all_callers_get_the_failure_and_no_entry_stays() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let callers: Vec<_> = (0..20).map(|_| dials.connect(&registry, &name)).collect();
    let dial = begun.recv().await.unwrap();
    settle().await;
    let _ = dial.end.send(Err(failed(&name)));
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Err(failed(&name)));
    }
    assert_eq!((dials.count(), registry.len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn p27_a_caller_that_goes_hurts_nobody_and_the_last_one_ends_the_dial() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let mut callers: Vec<_> = (0..3).map(|_| dials.connect(&registry, &name)).collect();
    let mut dial = begun.recv().await.unwrap();
    settle().await;
    for left in [2, 1] {
        callers.remove(0).abort();
        settle().await;
        assert_eq!((registry.waiting(&name), dials.under_way()), (left, 1));
    }
    assert!(!dial.end.is_closed());
    callers.remove(0).abort();
    timeout(ms(1), dial.end.closed()).await.expect("the dial ends at once");
    settle().await;
    assert_eq!((dials.under_way(), registry.len()), (0, 0));
    let next = dials.connect(&registry, &name);
    let _ = begun.recv().await.expect("the next caller starts anew").end.send(Err(failed(&name)));
    assert_eq!(next.await.unwrap(), Err(failed(&name)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_more_time_does_not_fail_with_a_dial_that_had_less() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let within = |time| {
        let (registry, name, dials) = (registry.clone(), name.clone(), dials.clone());
        tokio::spawn(async move {
            let dial = move |flight, replace| dials.dial(flight, replace);
            registry.connect(&name, &Aim::any(time), |_| true, dial).await
        })
    };
    let hurried = within(ms(100));
    let first = begun.recv().await.unwrap();
    let (patient, as_hurried) = (within(BUDGET), within(ms(100)));
    settle().await;
    let out_of_time = NoRoute { target: name.clone(), reason: Reason::OutOfTime, attempts: Vec::new() };
    assert!(first.end.send(Err(out_of_time.clone())).is_ok());
    assert_eq!(hurried.await.unwrap(), Err(out_of_time.clone()));
    assert_eq!(as_hurried.await.unwrap(), Err(out_of_time));
    let second = begun.recv().await.unwrap();
    let up = registry.bring_up(&name, second.flight, 1, second.replace).unwrap();
    assert!(second.end.send(Ok(Found::Link(up))).is_ok());
    assert_eq!(patient.await.unwrap(), Ok(link(1)));
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_another_route_does_not_get_the_others_failure() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let first = dials.connect(&registry, &name);
    let dial = begun.recv().await.unwrap();
    let others: Vec<_> = (1..=8).map(|port| dials.connect_if(&registry, &name, Some(route(port)), |_| true)).collect();
    settle().await;
    let _ = dial.end.send(Err(failed(&name)));
    assert_eq!(first.await.unwrap(), Err(failed(&name)));
    for _ in 0..8 {
        let dial = begun.recv().await.expect("each gets a dial of its own");
        let _ = dial.end.send(Err(failed(&name)));
    }
    for other in others {
        assert_eq!(other.await.unwrap(), Err(failed(&name)));
    }
    assert_eq!((dials.count(), dials.most.load(Ordering::SeqCst)), (9, 1));
}

#[tokio::test(start_paused = true)]
async fn a_live_link_that_does_not_satisfy_is_replaced() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let caller = dials.connect(&registry, &name);
    let dial = begun.recv().await.unwrap();
    assert!(!dial.replace);
    let _ = dial.end.send(Ok(Found::Link(registry.bring_up(&name, dial.flight, 1, false).unwrap())));
    caller.await.unwrap().unwrap();

    let caller = dials.connect_if(&registry, &name, None, |link| link.id == id(2));
    let dial = begun.recv().await.unwrap();
    assert!(dial.replace);
    let ticket = registry.may_finish(&name, dial.flight, id(2), PEER, true).unwrap();
    assert_eq!(ticket.claims().replaces, Some(id(1)));
    let old = registry.accepted(&name, dial.flight, link_ref(2, 2)).unwrap();
    assert_eq!(old.replaced, Some((link(1), Retire { id: id(1), alive: true })));
    assert!(registry.install(&name, link(2)));
    let _ = dial.end.send(Ok(Found::Link(link(2))));
    assert_eq!(caller.await.unwrap(), Ok(link(2)));
    assert!(!registry.down(&name, id(1)), "the old one is not live any more");
    assert_eq!(registry.get(&name), Some(link(2)));
}

#[tokio::test(start_paused = true)]
async fn a_link_by_a_lesser_route_is_taken_as_the_dial_made_it() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let callers: Vec<_> = (0..2).map(|_| dials.connect_if(&registry, &name, None, |_| false)).collect();
    let dial = begun.recv().await.unwrap();
    settle().await;
    let _ = dial.end.send(Ok(Found::Link(registry.bring_up(&name, dial.flight, 1, false).unwrap())));
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(link(1)));
    }
    assert_eq!(dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_inbound_link_overtakes_a_dial_without_finish() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let callers: Vec<_> = (0..3).map(|_| dials.connect(&registry, &name)).collect();
    let mut dial = begun.recv().await.unwrap();
    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(1));
    timeout(ms(1), dial.end.closed()).await.expect("the own dial ends");
    registry.stand(&name, link(7));
    settle().await;
    assert_eq!(registry.get(&name), None, "provisional");
    assert_eq!(
        registry.confirmed(&name, id(7), |new, old| assert!(new.id == id(7) && old.is_none())),
        Some(NOTHING_BEFORE)
    );
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(link(7)));
    }
    assert_eq!(dials.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_provisional_link_that_dies_makes_the_callers_dial_again_at_once() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let caller = dials.connect(&registry, &name);
    begun.recv().await.unwrap();
    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(1));
    registry.stand(&name, link(7));
    settle().await;
    assert!(!registry.down(&name, id(7)));
    let dial = timeout(ms(1), begun.recv()).await.expect("at once").unwrap();
    let _ = dial.end.send(Ok(Found::Link(registry.bring_up(&name, dial.flight, 1, false).unwrap())));
    assert_eq!(caller.await.unwrap(), Ok(link(1)));
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_begins_while_a_link_is_provisional_waits_for_it() {
    let (registry, name, (dials, _begun)) = (registry(), lesser(), Dials::new());
    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(1));
    let caller = dials.connect(&registry, &name);
    settle().await;
    registry.stand(&name, link(7));
    assert_eq!(registry.confirmed(&name, id(7), |_, _| {}), Some(NOTHING_BEFORE));
    assert_eq!((caller.await.unwrap(), dials.count()), (Ok(link(7)), 0));
}

#[tokio::test(start_paused = true)]
async fn the_greater_names_finish_stands_and_the_lesser_one_is_refused() {
    for (name, verdict) in [(lesser(), Verdict::Refuse(OnOffer::LostTie)), (greater(), Verdict::Accept(1))] {
        let (registry, (dials, mut begun)) = (registry(), Dials::new());
        let caller = dials.connect(&registry, &name);
        let dial = begun.recv().await.unwrap();
        let _ticket = registry.may_finish(&name, dial.flight, id(1), PEER, false).unwrap();
        assert_eq!(registry.inbound(&name, 7), verdict);
        let accepted = registry.accepted(&name, dial.flight, link_ref(1, 1));
        assert_eq!(accepted.is_some(), verdict != Verdict::Accept(1));
        caller.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_tie_the_peers_link_is_waited_for_and_then_dialled_again() {
    let (registry, name, (dials, mut begun)) = (registry(), greater(), Dials::new());
    let caller = dials.connect(&registry, &name);
    let dial = begun.recv().await.unwrap();
    let _ = dial.end.send(Ok(Found::Adopt));
    assert!(timeout(ms(4900), begun.recv()).await.is_err());
    let dial = timeout(ms(200), begun.recv()).await.expect("after five seconds").unwrap();
    let _ = dial.end.send(Ok(Found::Adopt));
    settle().await;
    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(1));
    registry.stand(&name, link(7));
    registry.confirmed(&name, id(7), |_, _| {}).unwrap();
    assert_eq!(caller.await.unwrap(), Ok(link(7)));
}

#[tokio::test(start_paused = true)]
async fn adoptions_that_come_to_nothing_end() {
    let (registry, name, (dials, mut begun)) = (registry(), greater(), Dials::new());
    let caller = dials.connect(&registry, &name);
    for _ in 0..MAX_DIALS {
        let _ = begun.recv().await.unwrap().end.send(Ok(Found::Adopt));
    }
    assert_eq!(caller.await.unwrap().unwrap_err().reason, Reason::OutOfTime);
    assert_eq!(registry.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_finish_at_a_time_and_a_dropped_ticket_gives_it_back() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let _caller = dials.connect(&registry, &name);
    let flight = begun.recv().await.unwrap().flight;
    let ticket = registry.may_finish(&name, flight, id(1), PEER, false).unwrap();
    assert!(registry.may_finish(&name, flight, id(2), PEER, false).is_none());
    drop(ticket);
    assert!(registry.may_finish(&name, flight, id(2), PEER, false).is_some());
    assert!(registry.may_finish(&name, flight + 1, id(3), PEER, false).is_none(), "no flight of this entry");
    assert!(registry.may_finish(&greater(), flight, id(3), PEER, false).is_none());
    assert_eq!(registry.len(), 1, "asking makes no entry");
}

#[tokio::test(start_paused = true)]
async fn an_accepted_link_that_is_never_installed_leaves_nothing_standing() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let _caller = dials.connect(&registry, &name);
    let flight = begun.recv().await.unwrap().flight;
    let ticket = registry.may_finish(&name, flight, id(1), PEER, false).unwrap();
    assert!(registry.accepted(&name, flight, link_ref(1, 1)).is_some());
    drop(ticket);
    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(2), "not up");
    assert!(!registry.install(&name, link(1)), "it came too late");
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_is_never_installed_leaves_the_old_link_up() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let caller = dials.connect(&registry, &name);
    let dial = begun.recv().await.unwrap();
    let _ = dial.end.send(Ok(Found::Link(registry.bring_up(&name, dial.flight, 1, false).unwrap())));
    caller.await.unwrap().unwrap();
    let _caller = dials.connect_if(&registry, &name, None, |_| false);
    let flight = begun.recv().await.unwrap().flight;
    let ticket = registry.may_finish(&name, flight, id(2), PEER, true).unwrap();
    registry.accepted(&name, flight, link_ref(2, 2)).unwrap();
    drop(ticket);
    let claims = Claims { have_link: Some(id(1)), ..Claims::default() };
    assert_eq!(registry.offer(&name, id(8), PEER, Some(claims), None), Verdict::Refuse(OnOffer::Duplicate));
    assert_eq!(registry.get(&name), Some(link(1)));
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_date_is_discarded() {
    let (registry, name) = (registry(), lesser());
    let late = link(1);
    assert!(!registry.install(&name, late.clone()));
    registry.stand(&name, late.clone());
    assert_eq!((late.discarded.load(Ordering::SeqCst), registry.len()), (2, 0));

    assert_eq!(registry.inbound(&name, 7), Verdict::Accept(1));
    let standing = link(7);
    registry.stand(&name, standing.clone());
    assert_eq!(registry.inbound(&name, 8), Verdict::Accept(2));
    assert_eq!(standing.discarded.load(Ordering::SeqCst), 1, "the newer offer takes its place");
    assert_eq!(registry.confirmed(&name, id(7), |_, _| panic!("it is gone")), None);
    assert_eq!(registry.confirmed(&name, id(8), |_, _| panic!("it does not stand")), None);
    assert_eq!(registry.get(&name), None);
    assert_eq!(registry.inbound(&name, 9), Verdict::Accept(3), "epochs are remembered");
}

#[tokio::test(start_paused = true)]
async fn another_life_is_let_in_when_the_old_link_is_silent() {
    let (registry, name) = (registry(), lesser());
    registry.inbound(&name, 7);
    registry.stand(&name, link(7));
    registry.confirmed(&name, id(7), |_, _| {}).unwrap();
    let reborn =
        |challenged| registry.offer(&name, id(9), Incarnation::new([9; 16]), Some(Claims::default()), challenged);
    assert_eq!(reborn(None), Verdict::Challenge(link(7)));
    assert_eq!(reborn(Some((id(7), true))), Verdict::Refuse(OnOffer::NameInUse));
    assert_eq!(reborn(Some((id(7), false))), Verdict::Accept(1));
    registry.stand(&name, link(9));
    let old = registry.confirmed(&name, id(9), |_, old| assert_eq!(old, Some((&link(7), false)))).unwrap();
    assert_eq!(old.replaced, Some((link(7), Retire { id: id(7), alive: false })));
    assert!(registry.down(&name, id(9)));
    assert_eq!(registry.get(&name), None);
}

#[tokio::test(start_paused = true)]
async fn a_dial_that_panics_fails_its_callers_and_no_others() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let callers: Vec<_> = (0..5).map(|_| dials.connect(&registry, &name)).collect();
    let other = dials.connect_if(&registry, &name, Some(route(1)), |_| true);
    let dial = begun.recv().await.unwrap();
    settle().await;
    drop(dial.end);
    for caller in callers {
        assert_eq!(caller.await.unwrap().unwrap_err().reason, Reason::Panicked);
    }
    let _ = begun.recv().await.unwrap().end.send(Err(failed(&name)));
    assert_eq!(other.await.unwrap(), Err(failed(&name)));
    assert_eq!(registry.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failure_while_the_peer_comes_gives_the_peers_link() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let caller = dials.connect(&registry, &name);
    let dial = begun.recv().await.unwrap();
    let _ = dial.end.send(Err(failed(&name)));
    registry.inbound(&name, 7);
    registry.stand(&name, link(7));
    registry.confirmed(&name, id(7), |_, _| {}).unwrap();
    assert_eq!(caller.await.unwrap(), Ok(link(7)));
}

#[tokio::test(start_paused = true)]
async fn entries_do_not_grow_with_names_that_cannot_be_reached() {
    let registry = registry();
    for n in 0..100_000 {
        let name: NodeName = format!("n{n}@h").parse().unwrap();
        let target = name.clone();
        let dial = move |_, _| std::future::ready(Err(failed(&target)));
        registry.connect(&name, &Aim::any(BUDGET), |_| true, dial).await.unwrap_err();
    }
    assert_eq!(registry.len(), 0);
}

#[test]
fn entries_that_hold_a_memory_are_bounded_and_the_longest_unused_go() {
    let registry = registry();
    let name = |n: usize| NodeName::new(format!("n{n}@h")).unwrap();
    for n in 0..2 {
        registry.inbound(&name(n), 1);
    }
    registry.stand(&name(0), link(1));
    registry.confirmed(&name(0), id(1), |_, _| {}).unwrap();
    registry.down(&name(1), id(1));
    for n in 2..MAX_ENTRIES + 1000 {
        assert_eq!(registry.inbound(&name(n), 1), Verdict::Accept(1));
        registry.down(&name(n), id(1));
    }
    assert!(registry.len() <= MAX_ENTRIES);
    assert_eq!(registry.get(&name(0)), Some(link(1)), "a live one never goes");
    assert_eq!(registry.inbound(&name(1), 2), Verdict::Accept(1), "forgotten");
    assert_eq!(registry.inbound(&name(MAX_ENTRIES), 2), Verdict::Accept(2), "remembered");
}

#[test]
fn a_runtime_that_shuts_down_does_not_lock_up() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let entered = runtime.enter();
    let caller = dials.connect(&registry, &name);
    drop(entered);
    runtime.block_on(begun.recv()).unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    assert!(caller.is_finished());
    assert_eq!((dials.under_way(), registry.len()), (0, 0));
    let _entered = handle.enter();
    let aim = Aim::any(BUDGET);
    let mut late = Box::pin(registry.connect(&name, &aim, |_| true, |_, _| std::future::pending()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(late.as_mut().poll(&mut context).is_ready());
    drop(late);
    assert_eq!(registry.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn p26_p27_hold_under_contention() {
    let (registry, name, (dials, mut begun)) = (registry(), lesser(), Dials::new());
    let peer = tokio::spawn({
        let (registry, name) = (registry.clone(), name.clone());
        async move {
            let mut n = 0u8;
            while let Some(dial) = begun.recv().await {
                n = n.wrapping_add(1);
                let result = match n % 4 {
                    0 => Err(failed(&name)),
                    1 => continue,
                    2 if registry.inbound(&name, n) != Verdict::Full => {
                        registry.stand(&name, link(n));
                        registry.confirmed(&name, id(n), |_, _| {});
                        Err(failed(&name))
                    }
                    _ => match registry.bring_up(&name, dial.flight, n, dial.replace) {
                        Some(up) => Ok(Found::Link(up)),
                        None => Ok(Found::Adopt),
                    },
                };
                let _ = dial.end.send(result);
                registry.down(&name, id(n));
            }
        }
    });
    for round in 0..300u64 {
        let callers: Vec<_> = (0..8).map(|_| dials.connect(&registry, &name)).collect();
        for (n, caller) in callers.into_iter().enumerate() {
            let goes = (n as u64 + round).is_multiple_of(3) || round.is_multiple_of(5);
            if goes {
                caller.abort();
            }
            let ended = timeout(Duration::from_secs(60), caller).await.expect("nobody hangs");
            assert!(ended.is_ok() || goes, "a caller panicked");
        }
    }
    assert_eq!(dials.most.load(Ordering::SeqCst), 1, "dials of one name overlap");
    drop(dials);
    peer.await.unwrap();
    assert_eq!(registry.waiting(&name), 0);
}

#[test]
fn a_dial_speaks_for_callers_that_want_the_same() {
    let aim = Aim::any(BUDGET);
    assert!(aim.covers(&aim) && aim.covers(&Aim::any(BUDGET / 2)) && !Aim::any(BUDGET / 2).covers(&aim));
    let others = [
        Aim { route: Some(route(1)), ..aim.clone() },
        Aim { directly: true, ..aim.clone() },
        Aim { cookie: Some(Cookie::new("a cookie of its own").unwrap()), ..aim.clone() },
    ];
    for other in others {
        assert!(other.covers(&other) && !aim.covers(&other) && !other.covers(&aim), "{other:?}");
    }
}
