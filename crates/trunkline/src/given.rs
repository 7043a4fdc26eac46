//! Static routes that the registrar hands out: added while the lease is held, beside the user's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::watch;
use tokio::task::AbortHandle;
use trunkline_dial::{AddError, Sessions};
use trunkline_registrar::GivenRoute;
use trunkline_route::{Chain, NetworkRoute};

/// Weight of such a route.
const WEIGHT: i64 = 0;

/// Routes of the registrar that are in the table, by pattern.
type Added = BTreeMap<String, NetworkRoute>;

/// Adds the routes that are handed out now, and follows their changes until the lease ends.
pub(crate) fn follow(sessions: &Arc<Sessions>, mut routes: watch::Receiver<Vec<GivenRoute>>) -> AbortHandle {
    let mut added = Added::new();
    let now = routes.borrow_and_update().clone();
    apply(sessions, &mut added, &now);
    tokio::spawn(changes(Arc::downgrade(sessions), added, routes)).abort_handle()
}

async fn changes(sessions: Weak<Sessions>, mut added: Added, mut routes: watch::Receiver<Vec<GivenRoute>>) {
    while routes.changed().await.is_ok() {
        let wanted = routes.borrow_and_update().clone();
        let Some(sessions) = sessions.upgrade() else { return };
        apply(&sessions, &mut added, &wanted);
    }
    if let Some(sessions) = sessions.upgrade() {
        apply(&sessions, &mut added, &[]);
    }
}

/// Makes the routes of the registrar in the table those that are wanted.
fn apply(sessions: &Arc<Sessions>, added: &mut Added, wanted: &[GivenRoute]) {
    let mut routes = BTreeMap::new();
    for given in wanted {
        match route(given) {
            Ok(_) if routes.contains_key(&given.pattern) => {
                tracing::warn!(
                    pattern = given.pattern,
                    "a route of the registrar is left out: another one has its pattern"
                );
            }
            Ok(route) => drop(routes.insert(given.pattern.clone(), route)),
            Err(error) => {
                tracing::warn!(pattern = given.pattern, error = %Chain(&error), "a route of the registrar is none")
            }
        }
    }
    let mut is_changed = false;
    added.retain(|pattern, route| {
        let stays = routes.get(pattern) == Some(route);
        if !stays {
            // A route of the user that took its place stays.
            let table = sessions.routes().snapshot();
            let is_there = table.get(pattern).is_some_and(|entry| entry.weight() == WEIGHT && entry.value() == route);
            is_changed |= is_there && sessions.routes().remove(pattern).is_ok();
        }
        stays
    });
    for (pattern, route) in routes {
        if added.contains_key(&pattern) {
            continue;
        }
        match sessions.routes().add(&pattern, route.clone(), WEIGHT) {
            Ok(()) => {
                is_changed = true;
                added.insert(pattern, route);
            }
            Err(AddError::Taken(_)) => {
                tracing::warn!(pattern, "a route of the registrar is left out: the node has one with this pattern");
            }
            Err(error) => {
                tracing::warn!(pattern, error = %Chain(&error), "a route of the registrar is left out");
            }
        }
    }
    if is_changed {
        sessions.routes_changed();
    }
}

fn route(given: &GivenRoute) -> Result<NetworkRoute, trunkline_route::EndpointError> {
    let at = &given.endpoint;
    let mut route = NetworkRoute::direct(at.address.host.as_str(), at.address.port.get())?;
    if let Some(tls) = at.tls {
        route = route.tls(tls);
    }
    if let Some(version) = &at.version {
        route = route.version(version.clone());
    }
    Ok(route.into())
}
