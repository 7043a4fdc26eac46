//! Connection and request limits of the operations API.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Maximum number of connections. When it is reached, a connection without a request is closed for the next one.
pub(crate) const MAX_CONNECTIONS: usize = 256;
/// Maximum number of requests in progress. It is lower than the number of connections, so that there is always a
/// connection without a request to close: callers without a token cannot block one that has it.
pub(crate) const MAX_REQUESTS: usize = 192;

/// Table of all connections.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// Connections in the order in which they were accepted.
    connections: BTreeMap<u64, Connection>,
    requests: usize,
}

#[derive(Debug)]
struct Connection {
    address: Option<IpAddr>,
    /// Number of requests in progress of a caller that is authorized.
    requests: usize,
    gives_way: Arc<Notify>,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot for a connection from this address, which is `None` for a Unix socket. If all slots are taken, the
    /// oldest connection without a request is closed, chosen from the address that has most of them.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Place {
        let mut table = self.lock();
        if table.connections.len() >= MAX_CONNECTIONS {
            let silent = || table.connections.iter().filter(|(_, connection)| connection.requests == 0);
            let mut per_address = HashMap::<_, usize>::new();
            for (_, connection) in silent() {
                *per_address.entry(connection.address).or_default() += 1;
            }
            // `max_by_key` returns the last of equal elements.
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

/// Slot of a connection, freed when the last clone is dropped.
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
    /// Returns the caller's address; `None` over a Unix socket.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Resolves when the connection must be closed at once.
    pub(crate) async fn gives_way(&self) {
        self.0.gives_way.notified().await;
    }

    /// Counts a request of an authorized caller. Returns `None` if too many are in progress.
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

/// Request in progress; ends when dropped.
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
    fn the_oldest_idle_connection_of_the_address_with_most_connections_is_closed() {
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
        assert_eq!(gone.iter().position(|gone| *gone), Some(2), "the oldest connection of the flooding address");
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1);
        drop(request);
        assert_eq!(places.lock().requests, 0);
    }

    #[test]
    fn the_request_limit_is_lower_so_that_an_idle_connection_can_always_be_closed() {
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
