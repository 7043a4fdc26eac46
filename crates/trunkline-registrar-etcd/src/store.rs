//! Connection to one of the members of etcd at a time.

use std::error::Error as _;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{
    Channel, Client, Compare, CompareOp, ConnectOptions, Error, GetOptions, KeyValue, PutOptions, ResponseHeader,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions, WatchStream,
};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use trunkline_registrar::{RegisterError, ResolveError};
use trunkline_route::{Address, Cause};

use crate::settings::EtcdSettings;

/// Time in which all members together have to answer a read: a node gives a resolver 2 s.
const READ: Duration = Duration::from_millis(1800);
/// Shortest time in which one member has to answer a read.
const SHORTEST: Duration = Duration::from_millis(450);
/// Time in which one member has to answer a write, which waits for the disks of most of them.
const WRITE: Duration = Duration::from_secs(2);
/// Time between pings of a connection over which nothing comes. etcd closes connections that ping more often than each 5 s.
const PING: Duration = Duration::from_secs(10);
/// Time without an answer to a ping after which a member counts as lost.
const SILENT: Duration = Duration::from_secs(3);
/// Number of keys that are read at once.
const PAGE: i64 = 500;
/// Largest answer that is read: a page of the longest values, and their keys.
const MAX_ANSWER: usize = 64 << 20;

/// Error of etcd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// No member answered.
    #[error(transparent)]
    Unreachable(Cause),
    /// A member answered that it does not do what was asked.
    #[error("{0}")]
    Refused(String),
    /// The revision to begin with is compacted.
    #[error("the revision is compacted")]
    Compacted,
}

impl From<Trouble> for ResolveError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable(cause) => Self::Unreachable(cause),
            other => Self::Failed(other.to_string().into()),
        }
    }
}

impl From<Trouble> for RegisterError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Unreachable(cause) => Self::Unreachable(cause),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// State of the store at an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Id of the members together; another one is another store.
    pub(crate) cluster: u64,
    /// Number of the last change.
    pub(crate) revision: i64,
    /// Number of the leader's election. A member that starts alone has another one each time.
    pub(crate) term: u64,
}

impl Position {
    pub(crate) fn of(header: Option<&ResponseHeader>) -> Self {
        header.map_or(Self { cluster: 0, revision: 0, term: 0 }, |header| Self {
            cluster: header.cluster_id(),
            revision: header.revision(),
            term: header.raft_term(),
        })
    }
}

/// Key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Kv {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Lease with which it ends; 0 if it stays.
    pub(crate) lease: i64,
    /// Number of its last change.
    pub(crate) revision: i64,
}

impl From<&KeyValue> for Kv {
    fn from(kv: &KeyValue) -> Self {
        Self { key: kv.key().to_vec(), value: kv.value().to_vec(), lease: kv.lease(), revision: kv.mod_revision() }
    }
}

/// Condition of a write.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    /// The key is not there.
    Nothing,
    /// The key was not changed after this revision.
    Unchanged(i64),
}

/// Outcome of a write with a condition.
pub(crate) enum Put {
    Done,
    /// The condition does not hold: this stands there.
    Held(Kv),
    /// The condition does not hold: nothing stands there.
    Gone,
}

/// Failure of one member.
struct Failure {
    /// Number of the connection.
    number: u64,
    why: Why,
}

enum Why {
    /// Another member may answer.
    Member(Cause),
    /// All members would answer this.
    Final(Trouble),
}

/// Members of etcd, of which one is used until it fails.
pub(crate) struct Store {
    settings: EtcdSettings,
    open: Mutex<Open>,
    /// Lock held while a member is dialled.
    opening: tokio::sync::Mutex<()>,
    /// Number of connections that were given up.
    given_up: watch::Sender<u64>,
}

/// Connection to a member.
#[derive(Clone)]
struct Connection {
    /// Client that is answered by a member that has no leader as well, as far as it can.
    client: Client,
    channel: Channel,
}

#[derive(Default)]
struct Open {
    connection: Option<Connection>,
    /// Index of the member that is used, or is tried next.
    member: usize,
    /// Number of the connection.
    number: u64,
}

impl Store {
    pub(crate) fn new(settings: EtcdSettings) -> Self {
        let (open, opening) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { settings, open, opening, given_up: watch::Sender::new(0) }
    }

    /// Returns a reader that is told when a connection is given up: watches over it are given up as well.
    pub(crate) fn given_up(&self) -> watch::Receiver<u64> {
        self.given_up.subscribe()
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn members(&self) -> usize {
        self.settings.endpoints.len()
    }

    /// Time in which one member has to answer a read.
    fn read(&self) -> Duration {
        (READ / u32::try_from(self.members()).unwrap_or(1).max(1)).max(SHORTEST)
    }

    fn member(&self, member: usize) -> Result<&Address, Trouble> {
        self.settings.endpoints.get(member).ok_or_else(|| Trouble::Unreachable("etcd has no endpoint; name one".into()))
    }

    /// Returns the connection to the member in use, the member's index, and the connection's number.
    async fn connection(&self) -> Result<(Connection, usize, u64), Failure> {
        let in_use = |open: &Open| open.connection.clone().map(|connection| (connection, open.member, open.number));
        if let Some(used) = in_use(&self.open()) {
            return Ok(used);
        }
        let _opening = self.opening.lock().await;
        if let Some(used) = in_use(&self.open()) {
            return Ok(used);
        }
        let (member, number) = {
            let open = self.open();
            (open.member, open.number)
        };
        let failed = |why| Failure { number, why };
        let address = self.member(member).map_err(|trouble| failed(Why::Final(trouble)))?;
        let endpoint = endpoint(address, &self.settings);
        let endpoint = endpoint.map_err(|cause| failed(Why::Final(Trouble::Unreachable(at(address, cause)))))?;
        let channel = Channel::Tonic(endpoint.connect_lazy());
        let client = Client::from_channel(channel.clone(), Some(self.options())).await;
        let client = client.map_err(|error| failed(self.why(member, &error)))?;
        let connection = Connection { client, channel };
        self.open().connection = Some(connection.clone());
        Ok((connection, member, number))
    }

    fn options(&self) -> ConnectOptions {
        match &self.settings.user {
            Some(user) => ConnectOptions::new().with_user(&user.name, user.password.as_str()),
            None => ConnectOptions::new(),
        }
    }

    /// Gives a connection up and goes on to the next member, unless that was done.
    fn failed(&self, number: u64) {
        let mut open = self.open();
        if open.number == number {
            *open = Open { connection: None, member: (open.member + 1) % self.members().max(1), number: number + 1 };
            self.given_up.send_modify(|given_up| *given_up += 1);
        }
    }

    /// Returns whether another member may do better than this one.
    fn why(&self, member: usize, error: &Error) -> Why {
        let place = self.settings.endpoints.get(member).map(ToString::to_string).unwrap_or_default();
        let status = match error {
            Error::GRpcStatus(status) => status,
            error => return Why::Member(failed_at(place, error)),
        };
        let text = status.message();
        match status.code() {
            Code::OutOfRange if text.contains("compacted") => Why::Final(Trouble::Compacted),
            // A token that is over, of a member that restarted, or from before a change of users.
            Code::Unauthenticated => Why::Member(failed_at(place, error)),
            Code::InvalidArgument if text.contains("auth store is old") => Why::Member(failed_at(place, error)),
            Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound => {
                let user = match &self.settings.user {
                    Some(user) => format!("the user {}", user.name),
                    None => "a client without a user".to_owned(),
                };
                Why::Final(Trouble::Refused(format!("etcd at {place} refuses {user}: {text}")))
            }
            _ => Why::Member(failed_at(place, error)),
        }
    }

    /// Asks one member after the other, until one answers in time.
    async fn ask<T, F>(&self, within: Duration, ask: impl Fn(Connection) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = None;
        // A connection that ended meanwhile and a token that is over cost one more try; a member that hangs does not.
        let mut more = 1;
        for nth in 0.. {
            if nth >= self.members() + more {
                break;
            }
            let asked = async {
                let (connection, member, number) = self.connection().await?;
                ask(connection).await.map_err(|error| Failure { number, why: self.why(member, &error) })
            };
            let (member, number) = {
                let open = self.open();
                (open.member, open.number)
            };
            let failure = match tokio::time::timeout(within, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => {
                    more = 0;
                    Failure { number, why: Why::Member(at(self.member(member)?, "no answer in time")) }
                }
            };
            match failure.why {
                Why::Final(trouble) => return Err(trouble),
                Why::Member(cause) => {
                    self.failed(failure.number);
                    last = Some(cause);
                }
            }
        }
        Err(Trouble::Unreachable(last.unwrap_or_else(|| "etcd has no endpoint; name one".into())))
    }

    /// Returns the value of a key.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Kv>, Trouble> {
        self.get_with(key, GetOptions::new()).await
    }

    /// Returns the value of a key as one member knows it, which needs no leader for that.
    pub(crate) async fn get_from_one(&self, key: &str) -> Result<Option<Kv>, Trouble> {
        self.get_with(key, GetOptions::new().with_serializable()).await
    }

    async fn get_with(&self, key: &str, options: GetOptions) -> Result<Option<Kv>, Trouble> {
        let answer = self.ask(self.read(), |mut at| {
            let (key, options) = (key.to_owned(), options.clone());
            async move { at.client.get(key, Some(options)).await }
        });
        Ok(answer.await?.kvs().first().map(Kv::from))
    }

    /// Returns the present position.
    pub(crate) async fn position(&self, key: &str) -> Result<Position, Trouble> {
        let answer = self.ask(WRITE, |mut at| {
            let key = key.to_owned();
            async move { at.client.get(key, Some(GetOptions::new().with_keys_only())).await }
        });
        Ok(Position::of(answer.await?.header()))
    }

    /// Returns whether a key was at a revision as it is remembered. `false` also if that is not known any more.
    pub(crate) async fn was(&self, kv: &Kv, at_revision: i64) -> Result<bool, Trouble> {
        let answer = self.ask(WRITE, |mut at| {
            let (key, options) = (kv.key.clone(), GetOptions::new().with_revision(at_revision));
            async move { at.client.get(key, Some(options)).await }
        });
        match answer.await {
            Ok(answer) => Ok(answer.kvs().first().is_some_and(|was| {
                was.mod_revision() == kv.revision && was.lease() == kv.lease && was.value() == kv.value
            })),
            Err(Trouble::Compacted) => Ok(false),
            Err(trouble) => Err(trouble),
        }
    }

    /// Returns all keys under a prefix and their values at one revision.
    pub(crate) async fn list(&self, prefix: &str) -> Result<(Vec<Kv>, Position), Trouble> {
        let (mut all, mut from, mut position) = (Vec::new(), prefix.as_bytes().to_vec(), None::<Position>);
        let end = end_of(prefix);
        loop {
            let mut options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
            options = options.with_sort(SortTarget::Key, SortOrder::Ascend);
            if let Some(Position { revision, .. }) = position {
                options = options.with_revision(revision);
            }
            let answer = self.ask(WRITE, |at| {
                let (from, options) = (from.clone(), options.clone());
                async move { at.client.kv_client().max_decoding_message_size(MAX_ANSWER).get(from, Some(options)).await }
            });
            let mut answer = answer.await?;
            let position = *position.get_or_insert_with(|| Position::of(answer.header()));
            let is_more = answer.more();
            all.extend(answer.take_kvs().iter().map(Kv::from));
            match all.last().filter(|_| is_more) {
                Some(last) => from = [last.key.as_slice(), b"\0"].concat(),
                None => return Ok((all, position)),
            }
        }
    }

    /// Opens a watch of the keys under a prefix, from a revision on.
    pub(crate) async fn watch(&self, prefix: &str, from: i64) -> Result<WatchStream, Trouble> {
        self.watch_with(prefix, WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify())
            .await
    }

    async fn watch_with(&self, key: &str, options: WatchOptions) -> Result<WatchStream, Trouble> {
        let opened = self.ask(WRITE, |at| {
            let (key, options, client) = (key.to_owned(), options.clone(), self.options().with_require_leader(true));
            async move {
                // A member that has no leader is not told of changes, and has to say so.
                let client = Client::from_channel(at.channel, Some(client)).await?;
                let mut watches = client.watch_client().max_decoding_message_size(MAX_ANSWER);
                let mut stream = watches.watch(key, Some(options)).await?;
                // The first message says that the watch is there, or that it is refused.
                let created = stream.message().await?.ok_or_else(|| Error::WatchError("it ended at once".into()))?;
                Ok((stream, created))
            }
        });
        let (stream, created) = opened.await?;
        match (created.canceled(), created.compact_revision()) {
            (false, _) => Ok(stream),
            (true, 0) => Err(Trouble::Refused(format!("etcd refuses to watch {key}: {}", created.cancel_reason()))),
            (true, _) => Err(Trouble::Compacted),
        }
    }

    /// Returns the cause of an error of a watch.
    pub(crate) fn watch_failed(error: &Error) -> Cause {
        failed_at("a member", error)
    }

    /// Opens a watch of one key, which tells what happens to it after a revision.
    pub(crate) async fn watch_key(&self, key: &str, after: i64) -> Result<WatchStream, Trouble> {
        self.watch_with(key, WatchOptions::new().with_start_revision(after + 1)).await
    }

    /// Puts a value with a lease if `when` holds.
    pub(crate) async fn put(&self, when: When, key: &str, value: &[u8], lease: i64) -> Result<Put, Trouble> {
        let when = match when {
            When::Nothing => Compare::create_revision(key, CompareOp::Equal, 0),
            When::Unchanged(revision) => Compare::mod_revision(key, CompareOp::Equal, revision),
        };
        let txn = Txn::new()
            .when([when])
            .and_then([TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)))])
            .or_else([TxnOp::get(key, None)]);
        let answer = self.ask(WRITE, |mut at| {
            let txn = txn.clone();
            async move { at.client.txn(txn).await }
        });
        let answer = answer.await?;
        if answer.succeeded() {
            return Ok(Put::Done);
        }
        let held = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(Kv::from),
            _ => None,
        });
        Ok(held.map_or(Put::Gone, Put::Held))
    }

    /// Returns a new lease of this many seconds.
    pub(crate) async fn grant(&self, seconds: i64) -> Result<i64, Trouble> {
        Ok(self.ask(WRITE, |mut at| async move { at.client.lease_grant(seconds, None).await }).await?.id())
    }

    /// Renews a lease. Returns false if it is over.
    pub(crate) async fn renew(&self, lease: i64) -> Result<bool, Trouble> {
        let renewed = self.ask(WRITE, |mut at| async move {
            match at.client.lease_keep_alive(lease).await {
                Ok(_) => Ok(true),
                Err(Error::LeaseKeepAliveError(_)) => Ok(false),
                Err(error) => Err(error),
            }
        });
        renewed.await
    }

    /// Ends a lease, and with it what was put with it.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Trouble> {
        self.ask(WRITE, |mut at| async move { at.client.lease_revoke(lease).await }).await.map(drop)
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), Trouble> {
        let deleted = self.ask(WRITE, |mut at| {
            let key = key.to_owned();
            async move { at.client.delete(key, None).await }
        });
        deleted.await.map(drop)
    }
}

/// Returns the end of the range of keys with a prefix, which does not end with the largest byte.
fn end_of(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    end
}

/// Failure at a member.
#[derive(Debug, thiserror::Error)]
#[error("etcd at {at}")]
struct FailedAt {
    at: String,
    source: Cause,
}

fn at(at: impl ToString, source: impl Into<Cause>) -> Cause {
    Cause::new(FailedAt { at: at.to_string(), source: source.into() })
}

/// Returns the cause of an error of the client, which hides the causes of it.
fn failed_at(place: impl ToString, error: &Error) -> Cause {
    let inner: &dyn std::error::Error = match error {
        Error::GRpcStatus(status) if status.source().is_none() => return at(place, status.message().to_owned()),
        Error::GRpcStatus(status) => status,
        Error::TransportError(error) => error,
        Error::IoError(error) => error,
        error => return at(place, error.to_string()),
    };
    // The outer ones say "transport error" and the like.
    let mut text = inner.to_string();
    let mut source = inner.source();
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    at(place, text)
}

/// Error about a file of certificates.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read")]
struct Unreadable {
    path: String,
    source: io::Error,
}

fn pem(path: &Path) -> Result<Vec<u8>, Cause> {
    fs::read(path).map_err(|source| Cause::new(Unreadable { path: path.display().to_string(), source }))
}

/// Returns how a member is connected to. The files are read each time, so that renewed certificates are taken up.
fn endpoint(address: &Address, settings: &EtcdSettings) -> Result<Endpoint, Cause> {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(Cause::new)?;
    let endpoint = endpoint
        .connect_timeout(WRITE)
        .http2_keep_alive_interval(PING)
        .keep_alive_timeout(SILENT)
        .keep_alive_while_idle(true);
    let Some(tls) = &settings.tls else { return Ok(endpoint) };
    let mut config = match &tls.roots {
        Some(roots) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem(roots)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(pem(certificate)?, pem(key)?));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name.as_str());
    }
    endpoint.tls_config(config).map_err(Cause::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_of_a_prefix_ends_before_the_next_prefix() {
        assert_eq!(end_of("/trunkline/nodes/"), b"/trunkline/nodes0");
    }
}
