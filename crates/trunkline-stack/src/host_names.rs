//! Host names, and the addresses behind them.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use trunkline_route::{Destination, interleave};

use crate::{lock, now};

/// Time after which a dial to the next address of a host begins beside the one under way (RFC 8305 §5).
pub const STAGGER: Duration = Duration::from_millis(250);
/// Addresses of one host that are dialled at most.
const MAX_ADDRESSES: usize = 16;
/// Time that a lookup may take before the last known answer stands in for it.
const FRESH: Duration = Duration::from_millis(500);
/// Time for which the answer of a slow lookup can stand in for the next ones.
const KEPT: Duration = Duration::from_secs(300);
/// Host names of which such an answer is kept at most.
const MAX_KEPT: usize = 1024;
/// Host names looked up at once: each holds a thread of the runtime's blocking pool for as long as the resolver takes.
const MAX_RUNNING: usize = 64;

/// Addresses with port 0: an IPv6 address of one link (`fe80::…`) comes with its interface, and leads nowhere without.
type Found = Vec<SocketAddr>;
type Asked = Pin<Box<dyn Future<Output = io::Result<Found>> + Send>>;
type Answer = Result<Found, (io::ErrorKind, String)>;

/// The lookups of host names of one node.
///
/// A lookup goes on when nobody waits for it any more: a resolver whose first name server is dead answers after 5 s, which is
/// longer than a dial waits. Its answer stands in for later lookups of the name that are slow too, for up to five minutes.
/// Lookups of one name at one time are one. Answers that come quickly are not kept.
pub struct HostNames {
    ask: Box<dyn Fn(String) -> Asked + Send + Sync>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    running: HashMap<String, Running>,
    late: HashMap<String, Late>,
}

struct Running {
    answer: watch::Receiver<Option<Answer>>,
    task: AbortHandle,
}

struct Late {
    since: Instant,
    found: Found,
}

impl State {
    fn ended(&mut self, host: &str, answer: &Answer, is_slow: bool) {
        self.late.remove(host);
        if let Ok(found) = answer
            && is_slow
            && !found.is_empty()
        {
            if self.late.len() >= MAX_KEPT {
                self.late.retain(|_, late| late.since.elapsed() < KEPT);
            }
            if self.late.len() < MAX_KEPT {
                self.late.insert(host.to_owned(), Late { since: now(), found: found.clone() });
            }
        }
    }
}

impl HostNames {
    /// Returns lookups by the resolver of the operating system.
    pub fn of_the_system() -> Self {
        Self::asking(|host| Box::pin(async move { Ok(tokio::net::lookup_host((host.as_str(), 0)).await?.collect()) }))
    }

    fn asking(ask: impl Fn(String) -> Asked + Send + Sync + 'static) -> Self {
        Self { ask: Box::new(ask), state: Arc::default() }
    }

    /// Returns the socket addresses of a host with this port, in the resolver's order. An IPv6 address of one link has its
    /// interface. Waits as long as the resolver does; dropping the future leaves the lookup running.
    ///
    /// # Errors
    /// The resolver's.
    pub async fn lookup(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut found = self.found(host).await?;
        found.iter_mut().for_each(|address| address.set_port(port));
        Ok(found)
    }

    async fn found(&self, host: &str) -> io::Result<Found> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, 0)]);
        }
        let (mut answer, late) = self.join(host)?;
        let fresh = async {
            let told = answer.wait_for(Option::is_some).await.ok().and_then(|answer| answer.clone());
            let lost = || (io::ErrorKind::Other, "the lookup failed unexpectedly; this is a bug".into());
            told.unwrap_or_else(|| Err(lost())).map_err(|(kind, text)| io::Error::new(kind, text))
        };
        match late {
            None => fresh.await,
            Some(late) => timeout(FRESH, fresh).await.unwrap_or(Ok(late)),
        }
    }

    /// Returns the socket addresses of a host in the order in which they are to be dialled, the families in turn: at most 16,
    /// without repeats.
    ///
    /// # Errors
    /// The resolver's, and [`io::ErrorKind::NotFound`] when the host has no address.
    pub async fn addresses(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let found = self.lookup(host, port).await?.into_iter().map(Destination::from).collect();
        let order: Vec<_> = interleave(found, MAX_ADDRESSES).iter().filter_map(Destination::socket).collect();
        if order.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the host name has no address"));
        }
        Ok(order)
    }

    /// Begins a lookup, or joins the one under way.
    fn join(&self, host: &str) -> io::Result<(watch::Receiver<Option<Answer>>, Option<Found>)> {
        let mut state = lock(&self.state);
        let late = state.late.get(host).filter(|late| late.since.elapsed() < KEPT).map(|late| late.found.clone());
        if let Some(running) = state.running.get(host) {
            return Ok((running.answer.clone(), late));
        }
        if state.running.len() >= MAX_RUNNING {
            return Err(io::Error::other(format!(
                "{MAX_RUNNING} host names are looked up already, none of which has an answer"
            )));
        }
        let (tell, answer) = watch::channel(None);
        let (asked, host, began) = ((self.ask)(host.to_owned()), host.to_owned(), now());
        let task = tokio::spawn({
            let (shared, host) = (self.state.clone(), host.clone());
            async move {
                let running = RunningUntilDropped(shared.clone(), host.clone());
                let answer = asked.await.map_err(|error| (error.kind(), error.to_string()));
                lock(&shared).ended(&host, &answer, began.elapsed() > FRESH);
                drop(running);
                tell.send_replace(Some(answer));
            }
        });
        state.running.insert(host, Running { answer: answer.clone(), task: task.abort_handle() });
        Ok((answer, late))
    }
}

/// A lookup that counts as running until this is dropped, however its task ends.
struct RunningUntilDropped(Arc<Mutex<State>>, String);

impl Drop for RunningUntilDropped {
    fn drop(&mut self) {
        lock(&self.0).running.remove(&self.1);
    }
}

impl Drop for HostNames {
    fn drop(&mut self) {
        // The end of a task takes the lock.
        let running = std::mem::take(&mut lock(&self.state).running);
        for running in running.values() {
            running.task.abort();
        }
    }
}

impl fmt::Debug for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostNames").finish_non_exhaustive()
    }
}

/// Dials addresses in their order and returns the first success. The next dial begins when the one before has failed, or
/// beside it after [`STAGGER`]; dials that are not needed any more are dropped.
///
/// # Errors
/// Every dial's, in the order in which they failed.
pub async fn first_of<T, E, F: Future<Output = Result<T, E>>>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    mut dial: impl FnMut(SocketAddr) -> F,
) -> Result<T, Vec<E>> {
    let mut rest = addresses.into_iter();
    let mut live: Vec<Pin<Box<F>>> = Vec::new();
    let mut failed = Vec::new();
    let mut next = rest.next();
    while next.is_some() || !live.is_empty() {
        let stagger = next.take().map(|address| live.push(Box::pin(dial(address)))).map(|()| sleep(STAGGER));
        let mut turn = pin!(async {
            match stagger {
                Some(stagger) => stagger.await,
                None => std::future::pending().await,
            }
        });
        let outcome = poll_fn(|cx| {
            for at in 0..live.len() {
                if let Poll::Ready(outcome) = live[at].as_mut().poll(cx) {
                    drop(live.remove(at));
                    return Poll::Ready(Some(outcome));
                }
            }
            turn.as_mut().poll(cx).map(|()| None)
        });
        match outcome.await {
            Some(Ok(won)) => return Ok(won),
            Some(Err(error)) => failed.push(error),
            None => {}
        }
        next = rest.next();
    }
    Err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7))
    }

    /// Names whose resolver takes so long and counts its questions; the answer is the number of the question.
    fn slow(took: Duration) -> (HostNames, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let names = HostNames::asking(move |_| {
            let n = count.fetch_add(1, Ordering::Relaxed) + 1;
            Box::pin(async move {
                sleep(took).await;
                Ok(vec![at(n as u8)])
            })
        });
        (names, asked)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_too_late_for_one_lookup_is_used_by_the_next() {
        let (names, asked) = slow(5_000 * MS);
        assert!(timeout(2_000 * MS, names.lookup("h", 7)).await.is_err());
        // One that comes meanwhile joins it.
        let began = now();
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(1)]);
        assert_eq!((began.elapsed(), asked.load(Ordering::Relaxed)), (3_000 * MS, 1));
        // The next one asks again, and does not wait for long.
        let began = now();
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(1)]);
        assert_eq!((began.elapsed(), asked.load(Ordering::Relaxed)), (FRESH, 2));
        // Its own answer stands in from then on, and not for ever.
        sleep(5_000 * MS).await;
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(2)]);
        sleep(5_000 * MS + KEPT).await;
        let began = now();
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(4)]);
        assert_eq!(began.elapsed(), 5_000 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn quick_answers_are_not_kept_and_addresses_are_not_asked_for() {
        let (names, asked) = slow(10 * MS);
        assert_eq!(names.lookup("10.0.0.9", 7).await.unwrap(), [at(9)]);
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(1)]);
        assert_eq!(names.lookup("h", 7).await.unwrap(), [at(2)]);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(lock(&names.state).late.is_empty() && lock(&names.state).running.is_empty());
        assert_eq!(names.addresses("h", 7).await.unwrap(), [at(3)]);
    }

    #[tokio::test]
    async fn an_address_of_one_link_keeps_its_interface() {
        // The loopback interface is the first one of every Linux machine.
        let found = HostNames::of_the_system().addresses("fe80::1%lo", 7).await.unwrap();
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[fe80::1%1]:7"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_answers_kept_are_bounded_and_a_failure_ends_one() {
        let (names, _) = slow(1_000 * MS);
        let names = Arc::new(names);
        for round in 0..=MAX_KEPT / MAX_RUNNING {
            let mut all = tokio::task::JoinSet::new();
            for n in 0..=MAX_RUNNING {
                let names = names.clone();
                all.spawn(async move { names.lookup(&format!("h{round}-{n}"), 7).await.is_ok() });
            }
            // One more than may be looked up at once.
            assert_eq!(all.join_all().await.into_iter().filter(|is_ok| !is_ok).count(), 1);
        }
        assert_eq!(lock(&names.state).late.len(), MAX_KEPT);
        assert!(lock(&names.state).running.is_empty());

        let fails =
            HostNames::asking(|_| Box::pin(async { Err(io::Error::new(io::ErrorKind::NotFound, "no such name")) }));
        lock(&fails.state).late.insert("h".into(), Late { since: now(), found: vec![at(1)] });
        let error = fails.lookup("h", 7).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::NotFound, "no such name".into()));
        assert!(lock(&fails.state).late.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_dialled_beside_one_that_does_not_answer() {
        let began = now();
        let dialled = Mutex::new(Vec::new());
        // The first never answers, the second refuses at once, the third takes a while, the fourth is not needed.
        let dial = |address: SocketAddr| {
            lock(&dialled).push((address, began.elapsed()));
            async move {
                match address {
                    first if first == at(1) => std::future::pending().await,
                    second if second == at(2) => Err("refused"),
                    third => {
                        sleep(100 * MS).await;
                        Ok(third)
                    }
                }
            }
        };
        assert_eq!(first_of([at(1), at(2), at(3), at(4)], dial).await, Ok(at(3)));
        assert_eq!(*lock(&dialled), [(at(1), Duration::ZERO), (at(2), STAGGER), (at(3), STAGGER)]);
        let none = first_of([at(1), at(2)], |address| async move { Err::<(), _>(address) }).await;
        assert_eq!(none, Err(vec![at(1), at(2)]));
        assert_eq!(first_of([], |_| async { Err::<(), ()>(()) }).await, Err(vec![]));
    }
}
