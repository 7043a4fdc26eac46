//! The number of files and sockets that the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};
use trunkline::{GateLimits, MAX_STREAMS};
use trunkline_config::Config;

/// Descriptors for what is always there: listeners, the log, the runtime, connections to the operations API.
const BASE: u64 = 320;

/// Raises the soft limit on open files to the hard one, and returns it; `None` stands for no limit. Many systems set the
/// soft limit to 1,024 for programs that cannot deal with more.
pub(crate) fn raise() -> Option<u64> {
    let found = getrlimit(Resource::Nofile);
    let mut raised = found;
    raised.current = raised.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => found.current,
    }
}

/// Returns how many descriptors a node needs to fill every place it has for callers before authentication and for the
/// connections of its forwards and services; links to peers take one more each.
fn needed(config: &Config) -> u64 {
    let streams = config.forwards.len() + usize::from(!config.services.is_empty());
    BASE + (GateLimits::default().slots + streams * MAX_STREAMS) as u64
}

/// Warns if the places of a node do not fit into the limit.
pub(crate) fn warn_if_few(limit: Option<u64>, config: &Config) {
    let needed = needed(config);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit on open files is lower than the places of this node: connections beyond it are not accepted; \
             raise it (`ulimit -Hn`, or `LimitNOFILE=` of a systemd unit)"
        );
    }
}
