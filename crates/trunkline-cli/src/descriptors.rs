//! Limit on the files and sockets that the process may have open.

use rustix::process::{Resource, getrlimit, setrlimit};
use trunkline_admin::file_descriptors;
use trunkline_config::Config;

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

/// Warns if the connection slots of the node exceed the limit on open files.
pub(crate) fn warn_if_few(limit: Option<u64>, config: &Config) {
    let needed = file_descriptors(config);
    if let Some(limit) = limit.filter(|limit| *limit < needed) {
        tracing::warn!(
            limit,
            needed,
            "the limit on open files is lower than the number of connections this node may have: further ones are not accepted; \
             raise it (`ulimit -Hn`, or `LimitNOFILE=` of a systemd unit)"
        );
    }
}
