//! Services that a node serves with others.

use trunkline_route::{NodeName, ServiceName};

/// Weight of an [`Offer`] that has none.
pub const DEFAULT_OFFER_WEIGHT: u16 = 100;
/// Largest number of services that a node may announce.
pub const MAX_OFFERS: usize = 64;
/// Largest number of tags of one service of a node.
pub const MAX_TAGS: usize = 16;
/// Bytes that the services of a node may take with their tags.
pub const MAX_OFFERS_BYTES: usize = 8 << 10;

/// Service that a node serves, as one of several nodes.
///
/// ```
/// use trunkline_registrar::{Offer, check_offers};
///
/// let offer = Offer { weight: 50, tags: vec!["eu".into()], ..Offer::new("postgres".parse()?) };
/// check_offers(&[offer.clone()])?;
/// assert!(check_offers(&[Offer { tags: vec!["a b".into()], ..offer }]).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name of the service.
    pub service: ServiceName,
    /// Weight: nodes with a higher one are used first, and one with 0 is not used any more. Default:
    /// [`DEFAULT_OFFER_WEIGHT`].
    pub weight: u16,
    /// Tags by which some of the nodes can be asked for, such as `eu`; each has the form of a service's name.
    pub tags: Vec<String>,
}

impl Offer {
    /// Returns an offer with the default weight and no tags.
    pub fn new(service: ServiceName) -> Self {
        Self { service, weight: DEFAULT_OFFER_WEIGHT, tags: Vec::new() }
    }

    /// Returns about how many bytes it takes in an announcement.
    pub fn bytes(&self) -> usize {
        self.service.as_str().len() + 3 + self.tags.iter().map(|tag| tag.len() + 1).sum::<usize>()
    }
}

/// Node that serves a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Name of the node.
    pub node: NodeName,
    /// Weight; see [`Offer::weight`].
    pub weight: u16,
    /// Tags; see [`Offer::tags`].
    pub tags: Vec<String>,
}

/// Error returned when a node may not announce these services.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// More than [`MAX_OFFERS`] services.
    #[error("{0} services are to be announced; a node announces at most {MAX_OFFERS}")]
    TooMany(usize),
    /// More than [`MAX_TAGS`] tags.
    #[error("the service {service} has {len} tags; at most {MAX_TAGS} are allowed")]
    TooManyTags {
        /// Name of the service.
        service: ServiceName,
        /// Number of tags.
        len: usize,
    },
    /// More than [`MAX_OFFERS_BYTES`] bytes.
    #[error("the services take {0} bytes with their tags; at most {MAX_OFFERS_BYTES} are allowed; use shorter tags")]
    TooLong(usize),
    /// A tag has another form than the name of a service.
    #[error("the tag {tag:?} of the service {service} cannot be used; one has 1 to 128 bytes, no spaces, `@` or `#`")]
    Tag {
        /// Name of the service.
        service: ServiceName,
        /// The tag, cut to 80 characters.
        tag: String,
    },
}

/// Checks what a node is to announce, so that every registrar takes it.
///
/// # Errors
/// [`OfferError`].
pub fn check_offers(offers: &[Offer]) -> Result<(), OfferError> {
    if offers.len() > MAX_OFFERS {
        return Err(OfferError::TooMany(offers.len()));
    }
    for Offer { service, tags, .. } in offers {
        if tags.len() > MAX_TAGS {
            return Err(OfferError::TooManyTags { service: service.clone(), len: tags.len() });
        }
        if let Some(tag) = tags.iter().find(|tag| ServiceName::new(tag).is_err()) {
            let tag = tag.chars().take(80).collect();
            return Err(OfferError::Tag { service: service.clone(), tag });
        }
    }
    match offers.iter().map(Offer::bytes).sum() {
        bytes if bytes > MAX_OFFERS_BYTES => Err(OfferError::TooLong(bytes)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_in_excess_and_tags_that_are_none_are_refused() {
        let offer = |tags: Vec<String>| Offer { tags, ..Offer::new("s".parse().unwrap()) };
        assert_eq!(check_offers(&vec![offer(vec![]); 65]), Err(OfferError::TooMany(65)));
        assert!(matches!(check_offers(&[offer(vec!["t".into(); 17])]), Err(OfferError::TooManyTags { len: 17, .. })));
        assert_eq!(check_offers(&vec![offer(vec!["t".repeat(128); 16]); 4]), Err(OfferError::TooLong(8272)));
        assert!(matches!(check_offers(&[offer(vec!["".into()])]), Err(OfferError::Tag { .. })));
        assert_eq!(check_offers(&vec![offer(vec!["t".into(); 16]); 64]), Ok(()));
    }
}
