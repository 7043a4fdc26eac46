//! Answers to calls.

use std::ops::Deref;

use bytes::Bytes;
use trunkline_route::NodeName;

/// Answer to a call, and the node that gave it. It is used as its bytes.
///
/// ```
/// use trunkline::Answer;
///
/// let answer = Answer { node: "db@lab".parse()?, body: "42 rows".into() };
/// assert_eq!(answer, "42 rows");
/// assert_eq!(answer.len(), 7);
/// # Ok::<(), trunkline::NameError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Answer {
    /// Node that answered: of a call to `@service`, the one that was chosen.
    pub node: NodeName,
    /// The bytes of the answer.
    pub body: Bytes,
}

impl Deref for Answer {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.body
    }
}

impl AsRef<[u8]> for Answer {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl From<Answer> for Bytes {
    fn from(answer: Answer) -> Self {
        answer.body
    }
}

impl<T: ?Sized> PartialEq<T> for Answer
where
    Bytes: PartialEq<T>,
{
    fn eq(&self, other: &T) -> bool {
        self.body == *other
    }
}
