//! Feed of a mirror: the nodes of a registrar, and the changes that it tells.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use trunkline_registrar::{BoxFuture, Change, Feed, Mirror, Pause, Registration, ResolveError, Serving, Watch};
use trunkline_route::{Cause, Chain, Endpoint, NodeName, ServiceName};
use trunkline_stack::Mailbox;

use crate::client::{Session, Trouble};
use crate::wire::{self, MAX_NEWS, MessageError, News};

/// Most nodes of one registrar that are mirrored.
const MAX_NODES: usize = 100_000;
/// Time within which a registrar goes on telling the nodes that are announced.
const SILENT: Duration = Duration::from_secs(5);
/// Time that nodes have to announce themselves at a registrar that replaces another one.
const RETURNED: Duration = Duration::from_secs(2);

/// Registrar whose nodes are mirrored.
pub(crate) trait Source: fmt::Debug + Send + Sync + 'static {
    /// Begins to be told the nodes, and each change.
    fn told(&self) -> BoxFuture<'_, Result<Told, Trouble>>;

    /// Returns the mirror that all readers share.
    fn feed(&self) -> &Arc<Feed>;
}

/// Nodes of a registrar, and the changes of them, as they come.
pub(crate) enum Told {
    /// The registrar is this node.
    Here { watch: Watch, age: Duration },
    /// The registrar is another node.
    There { session: Session, mailbox: Mailbox, age: Duration },
}

impl Told {
    fn age(&self) -> Duration {
        match self {
            Self::Here { age, .. } | Self::There { age, .. } => *age,
        }
    }

    /// Returns the failure of a registrar that does not tell the nodes.
    fn silent(&self) -> Trouble {
        let cause = Cause::from(format!("it told nothing for {SILENT:?}"));
        Trouble::Unreachable(match self {
            Self::Here { .. } => cause,
            Self::There { session, .. } => session.failed(cause),
        })
    }

    /// Waits for the next changes.
    async fn next(&mut self) -> Result<Vec<Step>, Trouble> {
        match self {
            Self::Here { watch, .. } => Ok(Step::of(&watch.next().await).into_iter().collect()),
            Self::There { session, mailbox, .. } => {
                let message = tokio::select! {
                    message = mailbox.recv() => message,
                    () = session.closed() => None,
                };
                let Some(message) = message else {
                    return Err(Trouble::Unreachable(session.failed("the session ended".into())));
                };
                let news = wire::decode::<Vec<News>>(message.body()).and_then(|news| Step::all(&news));
                news.map_err(|error| Trouble::Unreachable(session.failed(Cause::new(error))))
            }
        }
    }
}

/// Change of a mirror.
enum Step {
    Set(Registration),
    Remove(NodeName),
    Current,
}

impl Step {
    fn of(change: &Change) -> Option<Self> {
        match change {
            Change::Joined(node) | Change::Changed(node) => Some(Self::Set(Registration::clone(node))),
            Change::Left(name) => Some(Self::Remove(name.clone())),
            Change::Current => Some(Self::Current),
            _ => None,
        }
    }

    fn all(news: &[News]) -> Result<Vec<Self>, MessageError> {
        if news.len() > MAX_NEWS {
            return Err(MessageError::TooMany { len: news.len(), what: "changes", most: MAX_NEWS });
        }
        let step = |news: &News| {
            Ok(match news {
                News::Announced(name, node) => Self::Set(node.registration(NodeName::new(name)?)?),
                News::Left(name) => Self::Remove(NodeName::new(name)?),
                News::Current => Self::Current,
            })
        };
        news.iter().map(step).collect()
    }
}

/// Returns how many steps a message of changes has.
#[cfg(feature = "fuzzing")]
pub(crate) fn steps(news: &[News]) -> Result<usize, MessageError> {
    Step::all(news).map(|steps| steps.len())
}

/// Returns a reader of the nodes of a registrar. All readers share one mirror.
pub(crate) fn watch<S: Source>(source: &Arc<S>) -> Watch {
    let fed = Arc::downgrade(source);
    source.feed().watch(|mirror| async move { feed(&fed, &mirror).await })
}

/// Mirror that a resolver looks at before it asks the registrar: from the second question on, so that a program which asks
/// once is not told all nodes.
#[derive(Default)]
pub(crate) struct Warm {
    was_asked: AtomicBool,
    watch: OnceLock<Watch>,
}

impl Warm {
    /// Returns the mirror, if it is as the registrar is.
    pub(crate) fn mirror<S: Source>(&self, source: &Arc<S>) -> Option<&Mirror> {
        if !self.was_asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        let mirror = self.watch.get_or_init(|| watch(source)).mirror();
        (mirror.is_known() && !mirror.is_lost()).then_some(&**mirror)
    }

    /// Returns the endpoints of a name that is in the mirror. An announcement that is new may not be there yet.
    pub(crate) fn resolve<S: Source>(&self, source: &Arc<S>, name: &NodeName) -> Option<Vec<Endpoint>> {
        Some(self.mirror(source)?.get(name)?.endpoints.clone())
    }

    /// Returns the nodes of a service that is in the mirror.
    pub(crate) fn serving<S: Source>(&self, source: &Arc<S>, service: &ServiceName) -> Option<Vec<Serving>> {
        Some(self.mirror(source)?.offering(service)).filter(|found| !found.is_empty())
    }
}

/// Feeds a mirror until the source is gone.
async fn feed<S: Source>(source: &Weak<S>, mirror: &Mirror) {
    let mut pause = Pause::default();
    loop {
        let told = match source.upgrade() {
            Some(source) => source.told().await,
            None => return,
        };
        let trouble = match told {
            Ok(told) => {
                pause = Pause::default();
                follow(told, mirror).await
            }
            Err(trouble) => trouble,
        };
        tracing::debug!(error = %Chain(&ResolveError::from(trouble)), "the nodes of a registrar are not told");
        mirror.lost();
        pause.wait().await;
    }
}

/// Feeds a mirror until the registrar is lost.
async fn follow(mut told: Told, mirror: &Mirror) -> Trouble {
    let longer = RETURNED.saturating_sub(told.age());
    match all(&mut told, longer).await {
        Ok(all) => mirror.replace(all.into_values()),
        Err(trouble) => return trouble,
    }
    let mut is_full = false;
    loop {
        let steps = match told.next().await {
            Ok(steps) => steps,
            Err(trouble) => return trouble,
        };
        for step in steps {
            match step {
                Step::Set(node) if mirror.len() < MAX_NODES || mirror.get(&node.name).is_some() => mirror.set(node),
                Step::Set(node) if !std::mem::replace(&mut is_full, true) => {
                    tracing::warn!(name = %node.name, "the registrar has more than {MAX_NODES} nodes; others are left out");
                }
                Step::Set(_) => {}
                Step::Remove(name) => mirror.remove(&name),
                Step::Current => {}
            }
        }
    }
}

/// Returns all nodes that are announced, by name, and for so long those that are announced meanwhile.
async fn all(told: &mut Told, longer: Duration) -> Result<BTreeMap<NodeName, Registration>, Trouble> {
    let mut all = BTreeMap::new();
    let (mut is_current, longer) = (false, tokio::time::sleep(longer));
    tokio::pin!(longer);
    loop {
        let steps = tokio::select! {
            biased;
            steps = told.next() => steps?,
            () = tokio::time::sleep(SILENT), if !is_current => return Err(told.silent()),
            () = &mut longer, if is_current => return Ok(all),
        };
        for step in steps {
            match step {
                Step::Set(node) if all.len() < MAX_NODES || all.contains_key(&node.name) => {
                    all.insert(node.name.clone(), node);
                }
                Step::Set(_) => {}
                Step::Remove(name) => drop(all.remove(&name)),
                Step::Current => is_current = true,
            }
        }
    }
}

/// Returns the nodes that a registrar announces now, by name.
pub(crate) async fn nodes(mut told: Told) -> Result<BTreeMap<NodeName, Registration>, Trouble> {
    all(&mut told, Duration::ZERO).await
}
