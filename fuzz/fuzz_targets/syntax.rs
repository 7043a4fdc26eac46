//! Any text is a pattern, or is refused at a place inside it.
//!
//! The first line is the pattern, and the rest is a name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trunkline_matcher::{AccessPattern, RoutePattern};

fuzz_target!(|text: &str| {
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let whole = AccessPattern::new(pattern);
    match RoutePattern::new(pattern) {
        Ok(anywhere) => {
            assert_eq!(anywhere.as_str(), pattern);
            let found = anywhere.is_match(name);
            // One of the two may go over a size limit by itself.
            if let Ok(whole) = whole {
                assert!(found || !whole.is_match(name), "{pattern:?} matches all of {name:?} and is not found in it");
            }
        }
        Err(error) => {
            let span = error.span();
            assert!(span.start <= span.end && span.end <= pattern.len(), "{span:?} of {pattern:?}");
            assert!(pattern.is_char_boundary(span.start) && pattern.is_char_boundary(span.end), "{span:?}");
            assert_eq!(error.to_string().lines().count(), 1);
            assert_eq!(error.caret().lines().count(), 2);
        }
    }
});
