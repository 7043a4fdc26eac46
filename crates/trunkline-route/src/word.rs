/// Error returned when a text is none of the words of a setting.
///
/// ```
/// use trunkline_route::Fallback;
///
/// let error = "sometimes".parse::<Fallback>().unwrap_err();
/// assert_eq!(error.to_string(), "\"sometimes\" is not a fallback; write never, on_miss or on_failure");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not {setting}; write {known}")]
pub struct UnknownWord {
    given: String,
    setting: &'static str,
    known: &'static str,
}

impl UnknownWord {
    /// Creates the error about a text, of which the first 80 characters are kept. `setting` has an article, for example
    /// "a log level"; `known` lists the words.
    pub(crate) fn new(given: &str, setting: &'static str, known: &'static str) -> Self {
        Self { given: given.chars().take(80).collect(), setting, known }
    }

    /// Returns the text, at most 80 characters of it.
    pub fn given(&self) -> &str {
        &self.given
    }
}
