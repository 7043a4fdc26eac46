//! Limit on the files and sockets that the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};
use trunkline::{GateLimits, MAX_STREAMS};
use trunkline_config::Config;

/// Descriptors needed in any case: listeners, the log, the runtime, connections to the admin interface.
const BASE: u64 = 320;

/// Raises the soft limit on open files to the hard limit, and returns it; `None` means no limit. Many systems set the
/// soft limit to 1,024 for programs that cannot handle more.
pub(crate) fn raise() -> Option<u64> {
    let found = getrlimit(Resource::Nofile);
    let mut raised = found;
    raised.current = raised.maximum;
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => found.current,
    }
}

/// Returns the number of descriptors that a node needs if all slots for callers before authentication and for
/// connections of its forwards and services are in use. Each link to a peer needs one more.
fn needed(config: &Config) -> u64 {
    let streams = config.forwards.len() + usize::from(!config.services.is_empty());
    BASE + (GateLimits::default().slots + streams * MAX_STREAMS) as u64
}

/// Warns if the connection slots of the node exceed the limit on open files.
pub(crate) fn warn_if_few(limit: Option<u64>, config: &Config) {
    let needed = needed(config);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit on open files is lower than the number of connections this node may have: further ones are not accepted; \
             raise it (`ulimit -Hn`, or `LimitNOFILE=` of a systemd unit)"
        );
    }
}
