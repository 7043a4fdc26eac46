//! Places for the connections of the operations API.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Connections at once. When they are all there, one without a request gives way to the next.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// Requests under way at once. The rest of the connections are those without a request, so that there is always one that can
/// give way: callers without a token cannot keep one with a token out.
pub(crate) const MAX_REQUESTS: usize = 192;

/// The connections there are.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// In the order in which they came.
    connections: BTreeMap<u64, Connection>,
    requests: usize,
}

#[derive(Debug)]
struct Connection {
    address: Option<IpAddr>,
    /// Requests of a caller that may make them.
    requests: usize,
    gives_way: Arc<Notify>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection from this address; none for a Unix socket. When all are taken, the oldest connection
    /// without a request gives way, of the address that has most of them.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Place {
        let mut table = self.lock();
        if table.connections.len() >= MAX_CONNECTIONS {
            let silent = || table.connections.iter().filter(|(_, connection)| connection.requests == 0);
            let mut per_address = HashMap::<_, usize>::new();
            for (_, connection) in silent() {
                *per_address.entry(connection.address).or_default() += 1;
            }
            // `max_by_key` takes the last of equals.
            let oldest = silent().rev().max_by_key(|(_, connection)| per_address[&connection.address]);
            if let Some(number) = oldest.map(|(number, _)| *number)
                && let Some(oldest) = table.connections.remove(&number)
            {
                oldest.gives_way.notify_one();
            }
        }
        let (number, gives_way) = (table.next, Arc::<Notify>::default());
        table.next += 1;
        table.connections.insert(number, Connection { address, requests: 0, gives_way: gives_way.clone() });
        Place(Arc::new(Taken { places: self.clone(), number, address, gives_way }))
    }
}

/// A place of a connection, given back when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Place(Arc<Taken>);

#[derive(Debug)]
struct Taken {
    places: Arc<Places>,
    number: u64,
    address: Option<IpAddr>,
    gives_way: Arc<Notify>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.number);
    }
}

impl Place {
    /// The caller's address; none over a Unix socket.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Resolves when the connection must end at once.
    pub(crate) async fn gives_way(&self) {
        self.0.gives_way.notified().await;
    }

    /// Notes a request of a caller that may make it. `None` when too many are under way.
    pub(crate) fn request(&self) -> Option<Request> {
        let mut table = self.0.places.lock();
        if table.requests >= MAX_REQUESTS {
            return None;
        }
        let connection = table.connections.get_mut(&self.0.number)?;
        connection.requests += 1;
        table.requests += 1;
        Some(Request(self.clone()))
    }
}

/// A request under way; over when dropped.
#[derive(Debug)]
pub(crate) struct Request(Place);

impl Drop for Request {
    fn drop(&mut self) {
        let taken = &self.0.0;
        let mut table = taken.places.lock();
        table.requests -= 1;
        if let Some(connection) = table.connections.get_mut(&taken.number) {
            connection.requests -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn the_oldest_connection_without_a_request_gives_way_of_the_address_that_has_most() {
        let places = Arc::<Places>::default();
        let first = places.take(ip(1));
        let busy = places.take(ip(2));
        let request = busy.request().unwrap();
        let flood: Vec<_> = (2..MAX_CONNECTIONS).map(|_| places.take(ip(2))).collect();
        let _next = places.take(ip(1));
        let gone: Vec<_> = [&first, &busy]
            .into_iter()
            .chain(&flood)
            .map(|place| !places.lock().connections.contains_key(&place.0.number))
            .collect();
        assert_eq!(gone.iter().position(|gone| *gone), Some(2), "the first of the flood");
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        drop(request);
        assert_eq!(places.lock().requests, 0);
    }

    #[test]
    fn requests_have_a_limit_of_their_own_so_that_there_is_always_a_connection_that_gives_way() {
        let places = Arc::<Places>::default();
        let all: Vec<_> = (0..MAX_CONNECTIONS).map(|_| places.take(None)).collect();
        let mut requests: Vec<_> = all.iter().filter_map(Place::request).collect();
        assert_eq!(requests.len(), MAX_REQUESTS);
        let next = places.take(None);
        assert_eq!(places.lock().connections.len(), MAX_CONNECTIONS);
        assert!(next.request().is_none());
        requests.pop();
        assert!(next.request().is_some());
    }
}
