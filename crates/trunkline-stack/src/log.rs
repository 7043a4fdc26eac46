//! Log lines about one connection, as many as its own level allows.

/// The target of every line about one connection. Whether a line is made is decided by the connection's own level,
/// so a subscriber lets the target through as a whole, at `trace`, and still sees the one connection only.
pub const CONNECTION_TARGET: &str = "trunkline::connection";

/// Says something about a connection, if its own level allows: `log_connection!(&info, Debug, "what", field = value)`.
/// The line carries the peer, the link and the route.
#[macro_export]
macro_rules! log_connection {
    ($info:expr, Error, $($rest:tt)*) => { $crate::log_connection!(@ $info, Error, ERROR, $($rest)*) };
    ($info:expr, Warn, $($rest:tt)*) => { $crate::log_connection!(@ $info, Warn, WARN, $($rest)*) };
    ($info:expr, Info, $($rest:tt)*) => { $crate::log_connection!(@ $info, Info, INFO, $($rest)*) };
    ($info:expr, Debug, $($rest:tt)*) => { $crate::log_connection!(@ $info, Debug, DEBUG, $($rest)*) };
    ($info:expr, Trace, $($rest:tt)*) => { $crate::log_connection!(@ $info, Trace, TRACE, $($rest)*) };
    (@ $info:expr, $own:ident, $level:ident, $what:literal $(, $($fields:tt)*)?) => {{
        let info: &$crate::LinkInfo = $info;
        if info.logs($crate::LogLevel::$own) {
            $crate::tracing::event!(
                target: $crate::CONNECTION_TARGET,
                $crate::tracing::Level::$level,
                peer = %info.peer,
                link = info.short_id(),
                route = info.route_name(),
                $($($fields)*,)?
                $what
            );
        }
    }};
}
