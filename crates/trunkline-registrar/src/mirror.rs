//! Copy of what a registrar knows, and the changes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use trunkline_route::{Cause, Endpoint, NodeName, ServiceName};

use crate::{BoxFuture, Registration, ResolveError, Resolver, Serving};

/// Names that left and whose last change a [`Mirror`] remembers. A [`Watch`] that is further behind compares all nodes.
const MAX_LEFT: usize = 1024;

/// Change of what a registrar knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The node is announced, and was not before.
    Joined(Arc<Registration>),
    /// The announcement of the node is another one now.
    Changed(Arc<Registration>),
    /// The node is not announced any more.
    Left(NodeName),
    /// All nodes that the registrar announced at the last look were told. The first one comes after the nodes that were
    /// announced when the watch began, or when the registrar answers for the first time; a further one after each
    /// [`Change::Back`].
    Current,
    /// The registrar cannot be reached. What was told stays as it is until it is back.
    Lost,
    /// The registrar answers again. What changed meanwhile follows, and then [`Change::Current`].
    Back,
}

/// Nodes that a registrar announces, kept by whoever is told of the changes.
///
/// ```
/// use std::sync::Arc;
/// use trunkline_registrar::{Change, Mirror, Registration, Resolver};
/// use trunkline_route::{Address, Endpoint};
///
/// let mirror = Arc::new(Mirror::new());
/// let mut watch = mirror.watch();
/// let endpoints = vec![Endpoint::at(Address::new("10.0.0.5", 4370)?)];
/// let db = Registration::new("db@example.com".parse()?, endpoints.clone());
/// mirror.set(db.clone());
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// assert_eq!(mirror.resolve(&db.name).await?, endpoints);
/// assert_eq!(watch.next().await, Change::Joined(Arc::new(db.clone())));
/// assert_eq!(watch.next().await, Change::Current);
/// mirror.remove(&db.name);
/// assert_eq!(watch.next().await, Change::Left(db.name));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Mirror {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    nodes: BTreeMap<NodeName, Node>,
    /// Nodes that offer each service.
    offers: HashMap<ServiceName, BTreeSet<NodeName>>,
    /// Names that left, and the numbers of these changes; at most `max_left`.
    left: HashMap<NodeName, u64>,
    /// The same, by number.
    departed: BTreeMap<u64, NodeName>,
    max_left: usize,
    /// The last change of each name, by number.
    log: BTreeMap<u64, NodeName>,
    last: u64,
    /// Number of the latest change that is not in the log any more.
    cut: u64,
    /// All nodes that the registrar announces were told once.
    is_known: bool,
    is_lost: bool,
    /// Times that the registrar came back.
    returns: u64,
}

struct Node {
    registration: Arc<Registration>,
    changed: u64,
}

impl State {
    /// Notes a change of this name, whose last one was `before`.
    fn note(&mut self, name: &NodeName, before: Option<u64>) -> u64 {
        before.map(|before| self.log.remove(&before));
        self.last += 1;
        self.log.insert(self.last, name.clone());
        self.last
    }

    fn set(&mut self, registration: Registration) {
        let name = registration.name.clone();
        let known = self.nodes.get(&name);
        if known.is_some_and(|known| *known.registration == registration) {
            return;
        }
        let before = known.map(|known| known.changed).or_else(|| {
            let left = self.left.remove(&name)?;
            self.departed.remove(&left);
            Some(left)
        });
        let changed = self.note(&name, before);
        self.no_offers(&name);
        for offer in &registration.offers {
            self.offers.entry(offer.service.clone()).or_default().insert(name.clone());
        }
        self.nodes.insert(name, Node { registration: Arc::new(registration), changed });
    }

    /// Removes a node from the nodes that offer something.
    fn no_offers(&mut self, name: &NodeName) {
        let Some(known) = self.nodes.get(name) else { return };
        for offer in &known.registration.offers {
            if let Some(nodes) = self.offers.get_mut(&offer.service)
                && nodes.remove(name)
                && nodes.is_empty()
            {
                self.offers.remove(&offer.service);
            }
        }
    }

    fn remove(&mut self, name: &NodeName) {
        self.no_offers(name);
        let Some(known) = self.nodes.remove(name) else { return };
        let changed = self.note(name, Some(known.changed));
        self.left.insert(name.clone(), changed);
        self.departed.insert(changed, name.clone());
        if self.departed.len() > self.max_left
            && let Some((number, name)) = self.departed.pop_first()
        {
            self.log.remove(&number);
            self.left.remove(&name);
            self.cut = number;
        }
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self::new()
    }
}

impl Mirror {
    /// Returns a mirror of a registrar that announces no node.
    pub fn new() -> Self {
        Self::with(true, MAX_LEFT)
    }

    /// Returns a mirror of a registrar whose nodes are not known yet: they come by [`Mirror::replace`], and no
    /// [`Change::Current`] is told before.
    pub fn unknown() -> Self {
        Self::with(false, MAX_LEFT)
    }

    fn with(is_known: bool, max_left: usize) -> Self {
        let state = State {
            nodes: BTreeMap::new(),
            offers: HashMap::new(),
            left: HashMap::new(),
            departed: BTreeMap::new(),
            max_left,
            log: BTreeMap::new(),
            last: 0,
            cut: 0,
            is_known,
            is_lost: false,
            returns: 0,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    /// Adds a node, or replaces its announcement.
    pub fn set(&self, registration: Registration) {
        self.change(|state| state.set(registration));
    }

    /// Removes a node.
    pub fn remove(&self, name: &NodeName) {
        self.change(|state| state.remove(name));
    }

    /// Notes that the registrar cannot be reached. Its nodes stay.
    pub fn lost(&self) {
        if !self.is_lost() {
            self.change(|state| state.is_lost = true);
        }
    }

    /// Notes that the registrar answers again, and that all changes since it was lost were told.
    pub fn back(&self) {
        if self.is_lost() {
            self.change(|state| (state.is_lost, state.returns) = (false, state.returns + 1));
        }
    }

    /// Returns true once all nodes that the registrar announces were told, be it that there is none.
    pub fn is_known(&self) -> bool {
        self.lock().is_known
    }

    /// Replaces all nodes by what the registrar knows now, and notes that it answers.
    pub fn replace(&self, all: impl IntoIterator<Item = Registration>) {
        let all: BTreeMap<NodeName, Registration> =
            all.into_iter().map(|registration| (registration.name.clone(), registration)).collect();
        self.change(|state| {
            let gone: Vec<NodeName> = state.nodes.keys().filter(|name| !all.contains_key(*name)).cloned().collect();
            gone.iter().for_each(|name| state.remove(name));
            all.into_values().for_each(|registration| state.set(registration));
            state.is_known = true;
            state.returns += u64::from(std::mem::take(&mut state.is_lost));
        });
    }

    /// Returns true while somebody watches.
    pub fn is_watched(&self) -> bool {
        self.changed.receiver_count() > 0
    }

    /// Waits until nobody watches.
    pub async fn unwatched(&self) {
        self.changed.closed().await;
    }

    /// Returns true while the registrar cannot be reached, so that its nodes may be out of date.
    pub fn is_lost(&self) -> bool {
        self.lock().is_lost
    }

    /// Returns the announcement of a node.
    pub fn get(&self, name: &NodeName) -> Option<Arc<Registration>> {
        self.lock().nodes.get(name).map(|node| node.registration.clone())
    }

    /// Returns all announcements, by name.
    pub fn all(&self) -> Vec<Arc<Registration>> {
        self.lock().nodes.values().map(|node| node.registration.clone()).collect()
    }

    /// Returns how many nodes there are.
    pub fn len(&self) -> usize {
        self.lock().nodes.len()
    }

    /// Returns true if there is no node.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the nodes that serve a service, by name.
    pub fn offering(&self, service: &ServiceName) -> Vec<Serving> {
        let state = self.lock();
        let names = state.offers.get(service).into_iter().flatten();
        names.filter_map(|name| state.nodes.get(name)?.registration.serving(service)).collect()
    }

    /// Returns the nodes that lead to a name as gateways, by name.
    pub fn leading_to(&self, name: &NodeName) -> Vec<NodeName> {
        // Patterns are matched without the lock.
        let gateways: Vec<_> = self.all().into_iter().filter(|node| !node.leads_to.is_empty()).collect();
        let leads = |node: &&Arc<Registration>| node.leads_to.iter().any(|pattern| pattern.is_match(name.as_str()));
        gateways.iter().filter(leads).map(|node| node.name.clone()).collect()
    }

    /// Returns the nodes as changes, and then each change. A reader that is slow knows the same in the end: of several changes
    /// of one node since its last look it is told one that has the same effect, or none.
    pub fn watch(self: &Arc<Self>) -> Watch {
        Watch {
            changed: self.changed.subscribe(),
            mirror: self.clone(),
            seen: HashMap::new(),
            told: VecDeque::new(),
            last: 0,
            returns: self.lock().returns,
            is_lost: false,
            is_current: false,
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Mirror").field("nodes", &state.nodes.len()).field("is_lost", &state.is_lost).finish()
    }
}

impl Resolver for Mirror {
    fn resolve<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<Endpoint>, ResolveError>> {
        let found = self.get(name);
        Box::pin(async move { Ok(found.map(|found| found.endpoints.clone()).unwrap_or_default()) })
    }

    fn gateways<'a>(&'a self, name: &'a NodeName) -> BoxFuture<'a, Result<Vec<NodeName>, ResolveError>> {
        Box::pin(async move { Ok(self.leading_to(name)) })
    }

    fn serving<'a>(&'a self, service: &'a ServiceName) -> BoxFuture<'a, Result<Vec<Serving>, ResolveError>> {
        Box::pin(async move { Ok(self.offering(service)) })
    }

    fn nodes(&self) -> BoxFuture<'_, Result<Vec<Registration>, ResolveError>> {
        Box::pin(async move { Ok(self.all().iter().map(|node| Registration::clone(node)).collect()) })
    }

    fn stale(&self) -> Option<Cause> {
        self.is_lost().then(|| "the registrar cannot be reached".into())
    }
}

/// Reader of the changes of a [`Mirror`].
pub struct Watch {
    mirror: Arc<Mirror>,
    changed: watch::Receiver<()>,
    /// Announcements that were told.
    seen: HashMap<NodeName, Arc<Registration>>,
    /// Changes that are to be told.
    told: VecDeque<Change>,
    /// Number of the last change that was looked at.
    last: u64,
    returns: u64,
    is_lost: bool,
    is_current: bool,
}

impl Watch {
    /// Returns the mirror whose changes are told.
    pub fn mirror(&self) -> &Arc<Mirror> {
        &self.mirror
    }

    /// Waits for the next change. Dropping the future loses nothing. When nobody feeds the mirror any more, the last change is
    /// [`Change::Lost`], and the future does not end.
    pub async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.take() {
                return change;
            }
            // The mirror is held, so that the sender is there.
            let _ = self.changed.changed().await;
        }
    }

    /// Returns the next change, if there is one now.
    pub fn take(&mut self) -> Option<Change> {
        if self.told.is_empty() {
            self.look();
        }
        self.told.pop_front()
    }

    /// Looks at what changed since the last look.
    fn look(&mut self) {
        self.changed.mark_unchanged();
        let state = self.mirror.lock();
        let is_back = state.returns != self.returns;
        if (is_back || state.is_lost) && !self.is_lost {
            self.told.push_back(Change::Lost);
        }
        (self.is_lost, self.returns) = (state.is_lost, state.returns);
        if is_back {
            self.is_current = false;
            self.told.push_back(Change::Back);
        }
        let of = |name: &NodeName| state.nodes.get(name).map(|node| node.registration.clone());
        let names: Vec<NodeName> = if self.last < state.cut {
            let gone = self.seen.keys().filter(|name| !state.nodes.contains_key(*name));
            gone.chain(state.nodes.keys()).cloned().collect()
        } else {
            state.log.range(self.last + 1..).map(|(_, name)| name.clone()).collect()
        };
        for name in names {
            let change = match (of(&name), self.seen.get(&name)) {
                (Some(now), Some(seen)) if *seen == now => continue,
                (Some(now), seen) => {
                    let change = if seen.is_some() { Change::Changed } else { Change::Joined };
                    self.seen.insert(name, now.clone());
                    change(now)
                }
                (None, Some(_)) => {
                    self.seen.remove(&name);
                    Change::Left(name)
                }
                (None, None) => continue,
            };
            self.told.push_back(change);
        }
        self.last = state.last;
        if state.is_known && (is_back || !state.is_lost) && !std::mem::replace(&mut self.is_current, true) {
            self.told.push_back(Change::Current);
        }
        // It was back for a while, and is lost again.
        if is_back && state.is_lost {
            self.told.push_back(Change::Lost);
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trunkline_route::Address;

    use super::*;
    use crate::Offer;

    fn name(node: u8) -> NodeName {
        format!("n{node}@lab").parse().unwrap()
    }

    fn announced(node: u8, port: u16) -> Registration {
        // Of the ports, the second and third also tell a service.
        let offers = if port > 1 { vec![Offer::new(service(port))] } else { Vec::new() };
        Registration::new(name(node), vec![Endpoint::at(Address::new("10.0.0.1", port).unwrap())]).offering(offers)
    }

    fn service(port: u16) -> ServiceName {
        format!("s{port}").parse().unwrap()
    }

    #[derive(Debug, Clone)]
    enum Step {
        Set(u8, u16),
        Remove(u8),
        Lost,
        Back,
        Replace(Vec<(u8, u16)>),
        /// A reader takes so many changes.
        Read(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let node = || (0_u8..12, 1_u16..4);
        prop_oneof![
            4 => node().prop_map(|(node, port)| Step::Set(node, port)),
            4 => (0_u8..12).prop_map(Step::Remove),
            1 => Just(Step::Lost),
            1 => Just(Step::Back),
            1 => proptest::collection::vec(node(), 0..8).prop_map(Step::Replace),
            3 => (1_u8..6).prop_map(Step::Read),
        ]
    }

    /// Reader that believes what it is told.
    struct Reader {
        watch: Watch,
        nodes: BTreeMap<NodeName, Arc<Registration>>,
        is_lost: bool,
        is_current: bool,
        /// The last change was [`Change::Current`].
        is_told_all: bool,
    }

    impl Reader {
        fn new(mirror: &Arc<Mirror>) -> Self {
            Self {
                watch: mirror.watch(),
                nodes: BTreeMap::new(),
                is_lost: false,
                is_current: false,
                is_told_all: false,
            }
        }

        /// Takes one change, and checks that it follows from what was told before.
        fn read(&mut self) -> bool {
            let change = self.watch.take();
            self.is_told_all = change == Some(Change::Current);
            match change {
                None => return false,
                Some(Change::Joined(node)) => assert!(self.nodes.insert(node.name.clone(), node).is_none()),
                Some(Change::Changed(node)) => {
                    let before = self.nodes.insert(node.name.clone(), node.clone());
                    assert!(before.is_some_and(|before| before != node));
                }
                Some(Change::Left(name)) => assert!(self.nodes.remove(&name).is_some()),
                Some(Change::Current) => assert!(!std::mem::replace(&mut self.is_current, true)),
                Some(Change::Lost) => assert!(!std::mem::replace(&mut self.is_lost, true)),
                Some(Change::Back) => {
                    assert!(std::mem::take(&mut self.is_lost));
                    self.is_current = false;
                }
            }
            true
        }
    }

    proptest! {
        #[test]
        fn a_reader_knows_what_the_mirror_knows_after_any_history(
            steps in proptest::collection::vec(step(), 0..200),
            max_left in 0_usize..4,
            is_known in any::<bool>(),
        ) {
            let mirror = Arc::new(Mirror::with(is_known, max_left));
            let (mut slow, mut swift) = (Reader::new(&mirror), Reader::new(&mirror));
            let mut is_known = is_known;
            for step in steps {
                match step {
                    Step::Set(node, port) => mirror.set(announced(node, port)),
                    Step::Remove(node) => mirror.remove(&name(node)),
                    Step::Lost => mirror.lost(),
                    Step::Back => mirror.back(),
                    Step::Replace(all) => {
                        is_known = true;
                        mirror.replace(all.into_iter().map(|(node, port)| announced(node, port)));
                    }
                    Step::Read(times) => (0..times).for_each(|_| { let _ = slow.read(); }),
                }
                while swift.read() {
                    if swift.is_told_all {
                        let nodes: Vec<_> = swift.nodes.values().cloned().collect();
                        prop_assert_eq!(nodes, mirror.all());
                    }
                }
                for service in [service(2), service(3)] {
                    let all = mirror.all();
                    let offering: Vec<_> = all.iter().filter_map(|node| node.serving(&service)).collect();
                    prop_assert_eq!(mirror.offering(&service), offering);
                }
                prop_assert!(mirror.lock().left.len() <= max_left && mirror.lock().log.len() <= 12 + max_left);
            }
            while slow.read() || swift.read() {}
            let late = &mut Reader::new(&mirror);
            while late.read() {}
            for reader in [&slow, &swift, late] {
                let nodes: Vec<_> = reader.nodes.values().cloned().collect();
                prop_assert_eq!(nodes, mirror.all());
                prop_assert_eq!(reader.is_lost, mirror.is_lost());
                prop_assert!(reader.is_current || !is_known || mirror.is_lost());
            }
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_by_each_change() {
        let mirror = Arc::new(Mirror::unknown());
        let mut watch = mirror.watch();
        let reader = tokio::spawn(async move { [watch.next().await, watch.next().await, watch.next().await] });
        tokio::task::yield_now().await;
        mirror.replace([announced(1, 1)]);
        tokio::task::yield_now().await;
        mirror.lost();
        let joined = Change::Joined(Arc::new(announced(1, 1)));
        assert_eq!(reader.await.unwrap(), [joined, Change::Current, Change::Lost]);
    }

    #[tokio::test]
    async fn gateways_are_those_whose_patterns_match_the_whole_name() {
        let mirror = Mirror::new();
        for (node, pattern) in [(1, "db@.*"), (2, "db"), (3, ".*@example[.]com")] {
            mirror.set(announced(node, 1).leading_to(vec![pattern.parse().unwrap()]));
        }
        assert_eq!(mirror.gateways(&"db@example.com".parse().unwrap()).await, Ok(vec![name(1), name(3)]));
        mirror.remove(&name(1));
        assert_eq!(mirror.gateways(&"db@example.com".parse().unwrap()).await, Ok(vec![name(3)]));
        assert_eq!(mirror.resolve(&name(1)).await, Ok(vec![]));
    }
}
