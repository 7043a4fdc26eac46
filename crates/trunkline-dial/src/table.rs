//! The static table: patterns, weights and routes, edited as a whole and read as snapshots.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use trunkline_matcher::{
    Entry, Needed, PatternError, PatternIndex, PatternTable, Refusal, RoutePattern, TableEdit, quoted, spelled_again,
};
use trunkline_route::{NetworkRoute, NodeName, ProxyRoute, ResolverId, Source, TlsProfileId};

/// Reason why a route was not added. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// The pattern does not compile.
    #[error("the pattern cannot be used")]
    BadPattern(#[from] PatternError),
    /// No node name matches the pattern.
    #[error(
        "no node name matches the pattern: {needed}, at byte {}, and no node name does; take it out of the pattern",
        .needed.span().start
    )]
    NoName {
        /// The character that the pattern needs, and its place.
        needed: Needed,
    },
    /// A route with this pattern exists; it is unchanged.
    #[error(
        "a route with the pattern {} exists; remove it first, or write the second one another way: {}",
        quoted(.0), quoted(&spelled_again(.0))
    )]
    Taken(String),
    /// The table takes no more; the text says why.
    #[error("{0}")]
    TableFull(String),
    /// The route asks a resolver the node does not have.
    #[error("unknown resolver {id}; known: {known}")]
    UnknownResolver {
        /// Resolver that the route names.
        id: ResolverId,
        /// Resolvers that the node has.
        known: String,
    },
    /// The route uses a TLS profile the node does not have.
    #[error("unknown TLS profile {id}; known: {known}")]
    UnknownTlsProfile {
        /// Profile that the route names.
        id: TlsProfileId,
        /// Profiles that the node has.
        known: String,
    },
}

/// Reason why a route was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No route has exactly this pattern.
    #[error("no route has exactly the pattern {}; removal takes the pattern's text, not a name it matches", quoted(.0))]
    Unknown(String),
}

/// A route that matches a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<R = NetworkRoute> {
    /// The pattern's text.
    pub pattern: Arc<str>,
    /// Weight of the route.
    pub weight: i64,
    /// The route.
    pub route: R,
}

/// A proxy route that matches a name.
pub type ProxyCandidate = Candidate<ProxyRoute>;

impl<R: Clone> Candidate<R> {
    fn of(entry: &Entry<R>) -> Self {
        Self { pattern: entry.pattern().as_str().into(), weight: entry.weight(), route: entry.value().clone() }
    }
}

impl Candidate {
    /// Returns true if a link with this policy was dialled over this route, not at an address found elsewhere.
    pub fn carries(&self, route: Option<&str>, resolver: Option<&ResolverId>) -> bool {
        let asked = match self.route.source() {
            Source::Direct { .. } => None,
            Source::Resolve { resolver, .. } => Some(resolver),
        };
        route == Some(&*self.pattern) && resolver == asked
    }
}

/// The ids routes may name.
#[derive(Debug, Clone, Default)]
struct Known {
    resolvers: BTreeSet<ResolverId>,
    profiles: BTreeSet<TlsProfileId>,
}

impl Known {
    fn check(&self, route: &NetworkRoute) -> Result<(), AddError> {
        if let Source::Resolve { resolver, .. } = route.source()
            && !self.resolvers.contains(resolver)
        {
            return Err(AddError::UnknownResolver { id: resolver.clone(), known: list(&self.resolvers) });
        }
        if let Some(id) = route.tls_profile()
            && !self.profiles.contains(id)
        {
            return Err(AddError::UnknownTlsProfile { id: id.clone(), known: list(&self.profiles) });
        }
        Ok(())
    }
}

fn list<T: ToString>(known: &BTreeSet<T>) -> String {
    if known.is_empty() { "none".into() } else { known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ") }
}

/// The static routes of a node. Readers never block; an edit is published whole or not at all.
#[derive(Debug, Default)]
pub struct RouteTable {
    table: PatternTable<NetworkRoute>,
    /// A table of their own: the same pattern may stand in both.
    proxies: PatternTable<ProxyRoute>,
    known: RwLock<Known>,
    /// The number of edits of either table that ended.
    edits: AtomicU64,
}

/// Values of the tables: [`NetworkRoute`] and [`ProxyRoute`].
pub trait TableRoute: private::Sealed {
    /// The demands it makes, which name resolvers and TLS profiles.
    fn demands_of(&self) -> &NetworkRoute;
}

mod private {
    pub trait Sealed {}
    impl Sealed for trunkline_route::NetworkRoute {}
    impl Sealed for trunkline_route::ProxyRoute {}
}

impl TableRoute for NetworkRoute {
    fn demands_of(&self) -> &NetworkRoute {
        self
    }
}

impl TableRoute for ProxyRoute {
    fn demands_of(&self) -> &NetworkRoute {
        self.target_route()
    }
}

/// One of the two tables under edit; see [`RouteTable::edit`].
#[derive(Debug)]
pub struct RouteEdit<'a, R = NetworkRoute> {
    table: TableEdit<'a, R>,
    known: &'a Known,
}

impl<R: TableRoute> RouteEdit<'_, R> {
    /// Adds a route.
    ///
    /// # Errors
    /// [`AddError`]; the table under edit is unchanged by this call.
    pub fn add(&mut self, pattern: &str, route: impl Into<R>, weight: i64) -> Result<(), AddError> {
        let route = route.into();
        self.known.check(route.demands_of())?;
        let pattern = RoutePattern::new(pattern)?;
        if let Some(needed) = pattern.needs_other_than(NodeName::can_contain) {
            return Err(AddError::NoName { needed });
        }
        self.table.insert(pattern, weight, route).map_err(|error| match error.refusal() {
            Refusal::Taken => AddError::Taken(error.pattern().as_str().into()),
            _ => AddError::TableFull(error.to_string()),
        })
    }

    /// Adds routes with their patterns and weights, in this order.
    ///
    /// # Errors
    /// The first pattern that cannot be added, with the reason; those before it are added.
    pub fn add_all(&mut self, routes: impl IntoIterator<Item = (String, R, i64)>) -> Result<(), (String, AddError)> {
        for (pattern, route, weight) in routes {
            if let Err(error) = self.add(&pattern, route, weight) {
                return Err((pattern, error));
            }
        }
        Ok(())
    }

    /// Removes the route with exactly this pattern.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`] when there is none.
    pub fn remove(&mut self, pattern: &str) -> Result<(), RemoveError> {
        self.table.remove(pattern).map(drop).ok_or_else(|| RemoveError::Unknown(pattern.into()))
    }

    /// The weight and the route with exactly this pattern.
    pub fn get(&self, pattern: &str) -> Option<(i64, &R)> {
        self.table.get(pattern).map(|entry| (entry.weight(), entry.value()))
    }

    /// Removes every route.
    pub fn clear(&mut self) {
        self.table.clear();
    }
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets routes name these resolvers and TLS profiles.
    pub fn set_known(
        &self,
        resolvers: impl IntoIterator<Item = ResolverId>,
        profiles: impl IntoIterator<Item = TlsProfileId>,
    ) {
        let known = Known { resolvers: resolvers.into_iter().collect(), profiles: profiles.into_iter().collect() };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Checks that the ids a route names are known, without adding it.
    ///
    /// # Errors
    /// [`AddError::UnknownResolver`] or [`AddError::UnknownTlsProfile`].
    pub fn check(&self, route: &NetworkRoute) -> Result<(), AddError> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).check(route)
    }

    /// Adds one route.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add(&self, pattern: &str, route: impl Into<NetworkRoute>, weight: i64) -> Result<(), AddError> {
        let route = route.into();
        self.edit(|table| table.add(pattern, route, weight))
    }

    /// Removes the route with exactly this pattern. Live connections stay up.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove(&self, pattern: &str) -> Result<(), RemoveError> {
        self.edit(|table| table.remove(pattern))
    }

    /// Makes many changes at once: readers see all of them or, when the closure fails, none. The closure must not
    /// edit this table again.
    ///
    /// # Errors
    /// The closure's.
    pub fn edit<T, E>(&self, change: impl FnOnce(&mut RouteEdit<'_>) -> Result<T, E>) -> Result<T, E> {
        self.edit_in(&self.table, change)
    }

    /// Edits the proxy routes; see [`RouteTable::edit`].
    ///
    /// # Errors
    /// The closure's.
    pub fn edit_proxies<T, E>(
        &self,
        change: impl FnOnce(&mut RouteEdit<'_, ProxyRoute>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.edit_in(&self.proxies, change)
    }

    fn edit_in<R: Clone, T, E>(
        &self,
        table: &PatternTable<R>,
        change: impl FnOnce(&mut RouteEdit<'_, R>) -> Result<T, E>,
    ) -> Result<T, E> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        let edited = table.edit(|table| change(&mut RouteEdit { table: table.reborrow(), known: &known }));
        self.edits.fetch_add(1, Ordering::Release);
        edited
    }

    /// Returns the generation of the routes and proxy routes, which is never 0. Whatever was read from this table after a
    /// call of this method still holds while the method returns the same number.
    pub fn generation(&self) -> u64 {
        self.edits.load(Ordering::Acquire) + 1
    }

    /// The routes as they stand, by descending weight, then in the order added.
    pub fn snapshot(&self) -> Arc<PatternIndex<NetworkRoute>> {
        self.table.snapshot()
    }

    /// Adds a proxy route.
    ///
    /// # Errors
    /// [`AddError`]; nothing changed.
    pub fn add_proxy(&self, pattern: &str, route: ProxyRoute, weight: i64) -> Result<(), AddError> {
        self.edit_proxies(|table| table.add(pattern, route, weight))
    }

    /// Removes the proxy route with exactly this pattern. Live connections stay up.
    ///
    /// # Errors
    /// [`RemoveError::Unknown`]; nothing changed.
    pub fn remove_proxy(&self, pattern: &str) -> Result<(), RemoveError> {
        self.edit_proxies(|table| table.remove(pattern))
    }

    /// The proxy routes as they stand, by descending weight, then in the order added.
    pub fn proxies(&self) -> Arc<PatternIndex<ProxyRoute>> {
        self.proxies.snapshot()
    }

    /// The proxy routes that match a name and lead to it, best first.
    pub fn matching_proxies(&self, name: &NodeName) -> Vec<ProxyCandidate> {
        let snapshot = self.proxies();
        let matching = snapshot.matches(name.as_str()).into_iter().flatten();
        matching.filter(|entry| entry.value().leads_to(name)).map(Candidate::of).collect()
    }

    /// The routes that match a name, best first.
    pub fn matching(&self, name: &NodeName) -> Vec<Candidate> {
        let snapshot = self.snapshot();
        // A node's name is never longer than the table looks up.
        snapshot.matches(name.as_str()).into_iter().flatten().map(Candidate::of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(port: u16) -> NetworkRoute {
        NetworkRoute::direct("127.0.0.1", port).unwrap().build()
    }

    #[test]
    fn a_pattern_that_no_name_can_match_is_not_added() {
        let table = RouteTable::new();
        let refused = |pattern: &str| table.add(pattern, route(1), 1).unwrap_err();
        assert!(matches!(refused("^db@\n"), AddError::NoName { needed } if needed.character() == '\n'));
        let text = refused("db\u{200b}@").to_string();
        assert!(text.contains(r"'\u{200b}' (U+200B), at byte 2"), "{text}");
        assert!(refused(r"^db\s").to_string().contains("no node name"));
        assert_eq!(table.snapshot().len(), 0);
        assert!(table.add(r"^db[\s-]", route(1), 1).is_ok());
        let proxy = ProxyRoute::via("gate@h".parse().unwrap());
        assert!(matches!(table.add_proxy("db ", proxy, 1), Err(AddError::NoName { .. })));
    }

    #[test]
    fn p36_a_taken_pattern_leaves_the_table_as_it_was() {
        let table = RouteTable::new();
        table.add("a", route(1), 10).unwrap();
        assert_eq!(table.add("a", route(2), 99), Err(AddError::Taken("a".into())));
        let found = table.matching(&"a@h".parse().unwrap());
        assert_eq!((found.len(), found[0].weight), (1, 10));
        assert_eq!(found[0].route, route(1));
    }

    #[test]
    fn an_edit_that_fails_changes_nothing_and_old_snapshots_stay() {
        let table = RouteTable::new();
        table.add("a", route(1), 10).unwrap();
        let before = table.snapshot();
        let failed = table.edit(|edit| {
            edit.remove("a").unwrap();
            edit.add("b", route(2), 1)?;
            edit.add("(", route(3), 1)
        });
        assert!(matches!(failed, Err(AddError::BadPattern(_))));
        assert_eq!(table.snapshot().len(), 1);
        table.edit(|edit| edit.remove("a")).unwrap();
        assert_eq!((before.len(), table.snapshot().len()), (1, 0));
        assert_eq!(table.remove("a"), Err(RemoveError::Unknown("a".into())));
    }

    #[test]
    fn every_edit_of_either_table_has_a_generation_of_its_own() {
        let table = RouteTable::new();
        let mut seen = std::collections::BTreeSet::from([table.generation()]);
        let mut is_new = || seen.insert(table.generation());
        table.add("a", route(1), 10).unwrap();
        assert!(is_new());
        table.add_proxy("b", ProxyRoute::via("gate@h".parse().unwrap()), 10).unwrap();
        assert!(is_new());
        table.remove("a").unwrap();
        assert!(is_new());
        table.remove_proxy("b").unwrap();
        assert!(is_new());
        assert!(!is_new(), "no edit, no generation");
    }

    #[test]
    fn ids_nobody_registered_are_refused_by_name() {
        let table = RouteTable::new();
        let id = ResolverId::new("production").unwrap();
        let asking = NetworkRoute::resolved_by(id.clone()).build();
        let error = table.add("a", asking.clone(), 1).unwrap_err();
        assert_eq!(error.to_string(), "unknown resolver production; known: none");
        table.set_known([id], []);
        table.add("a", asking, 1).unwrap();
        let profile = TlsProfileId::new("partner").unwrap();
        let with = NetworkRoute::direct("h", 1).unwrap().tls(true).tls_profile(profile).build();
        assert!(matches!(table.add("b", with, 1), Err(AddError::UnknownTlsProfile { .. })));
    }
}
