//! Text of an error together with its sources.

use std::error::Error;

/// Returns the texts of an error and of its sources in one text, from the outermost error to its first cause.
///
/// An error text says what failed and then, after `; `, what to do about it. The causes follow what failed, and the
/// advice of all errors follows the first cause:
///
/// ```
/// use trunkline_admin::report;
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("cannot listen at 127.0.0.1:80; choose another port")]
/// struct ListenError(#[source] std::io::Error);
///
/// let error = ListenError(std::io::Error::other("permission denied"));
/// assert_eq!(report(&error), "cannot listen at 127.0.0.1:80: permission denied; choose another port");
/// ```
pub fn report(error: &dyn Error) -> String {
    let (mut failed, mut advice) = (Vec::new(), Vec::new());
    let mut current = error;
    loop {
        let text = current.to_string();
        let Some(source) = current.source() else {
            failed.push(text);
            break;
        };
        match text.split_once("; ") {
            Some((what, remedy)) => {
                failed.push(what.to_owned());
                advice.push(remedy.to_owned());
            }
            None => failed.push(text),
        }
        current = source;
    }
    let advice: String = advice.iter().rev().map(|remedy| format!("; {remedy}")).collect();
    format!("{}{advice}", failed.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    fn layers(texts: &[&'static str]) -> Layer {
        let (text, rest) = texts.split_first().unwrap();
        Layer { text, source: (!rest.is_empty()).then(|| Box::new(layers(rest))) }
    }

    #[test]
    fn causes_follow_what_failed_and_advice_comes_last() {
        assert_eq!(report(&layers(&["one"])), "one");
        assert_eq!(report(&layers(&["one; do this"])), "one; do this");
        assert_eq!(report(&layers(&["one", "two", "three"])), "one: two: three");
        assert_eq!(report(&layers(&["one; a", "two", "three; c; d"])), "one: two: three; c; d; a");
        assert_eq!(report(&layers(&["one; a", "two; b", "three"])), "one: two: three; b; a");
    }
}
