//! Join tokens: one secret by which one machine becomes a member of a cluster, once.
//!
//! A token names its issuer, and only the issuer takes it. Its secret is a cookie for one name, which nobody else may use:
//! the handshake proves it, and the connection that it makes is no membership. Over that connection the issuer hands out
//! the cookie of the cluster, and the token is used.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use trunkline_route::{Address, Cookie, NodeName};
use zeroize::Zeroizing;

use crate::message::{FNV, fnv};

/// Begin of the text of a token.
const PREFIX: &str = "trunkline-join-1-";
/// Longest text of a token that is read, in bytes.
const MAX_TEXT: usize = 4096;
/// Longest validity of a token.
pub const MAX_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Time after the end of a token for which the reason of its refusal is told.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Tokens that one node keeps, those included that are used, expired or revoked.
pub const MAX_TOKENS: usize = 256;
/// Random bytes of a token: its id and its secret.
pub(crate) const RANDOM: usize = ID + 32;
const ID: usize = 8;

/// Token for one machine to join a cluster. The text form is one word; whoever has it can join.
///
/// `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Name of the cluster.
    pub cluster: String,
    /// Name of the member that issued the token, and that takes it.
    pub issuer: NodeName,
    /// Addresses of that member, in the order to try.
    pub addresses: Vec<Address>,
    /// End of the validity, in whole seconds.
    pub expires: SystemTime,
    id: [u8; ID],
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, issuer, expires, .. } = self;
        f.debug_struct("JoinToken")
            .field("id", &self.id())
            .field("cluster", cluster)
            .field("issuer", issuer)
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

/// Error returned for a text that is no join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is no join token, or a part of one; it begins with `trunkline-join-1-` and is one word, as `trunkline cluster token` prints it"
)]
pub struct JoinTokenError;

#[derive(Serialize, Deserialize)]
struct Wire {
    cluster: String,
    issuer: String,
    addresses: Vec<(String, u16)>,
    expires: u64,
    id: [u8; ID],
    secret: Zeroizing<Vec<u8>>,
}

impl JoinToken {
    /// Returns the id of the token, 16 hexadecimal digits. It is no secret.
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    /// Returns the name under which the machine that joins shows the token.
    pub fn guest(&self) -> NodeName {
        guest(&self.id, &self.issuer)
    }

    /// Returns the secret of the token, as the cookie that the guest proves.
    pub fn cookie(&self) -> Cookie {
        cookie(&self.secret)
    }
}

impl JoinToken {
    /// Returns the text of the token, one word. It is a secret.
    pub fn expose(&self) -> String {
        let wire = Wire {
            cluster: self.cluster.clone(),
            issuer: self.issuer.as_str().to_owned(),
            addresses: self.addresses.iter().map(|at| (at.host.as_str().to_owned(), at.port.get())).collect(),
            expires: seconds(self.expires),
            id: self.id,
            secret: self.secret.clone(),
        };
        let mut bytes = postcard::to_stdvec(&wire).expect("a vector takes whatever is written");
        bytes.extend(check(&bytes).to_be_bytes());
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&bytes))
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim().strip_prefix(PREFIX).filter(|text| text.len() <= MAX_TEXT).ok_or(JoinTokenError)?;
        let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).map_err(|_| JoinTokenError)?);
        let (bytes, sum) = bytes.split_last_chunk().ok_or(JoinTokenError)?;
        if check(bytes).to_be_bytes() != *sum {
            return Err(JoinTokenError);
        }
        let wire: Wire = postcard::from_bytes(bytes).map_err(|_| JoinTokenError)?;
        let address = |(host, port): &(String, u16)| Address::new(host.clone(), *port).map_err(|_| JoinTokenError);
        Ok(Self {
            issuer: NodeName::new(&wire.issuer).map_err(|_| JoinTokenError)?,
            addresses: wire.addresses.iter().map(address).collect::<Result<_, _>>()?,
            cluster: wire.cluster,
            expires: UNIX_EPOCH.checked_add(Duration::from_secs(wire.expires)).ok_or(JoinTokenError)?,
            id: wire.id,
            secret: wire.secret,
        })
    }
}

/// Returns the number by which a text that was cut or mistyped is found.
fn check(bytes: &[u8]) -> u32 {
    fnv(FNV, bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cookie(secret: &[u8]) -> Cookie {
    Cookie::new(hex(secret)).expect("a secret has 32 bytes")
}

fn guest(id: &[u8], issuer: &NodeName) -> NodeName {
    NodeName::new(format!("join-{}@{}", hex(id), issuer.host())).unwrap_or_else(|_| {
        // The host of the issuer leaves no room: the name only has to be well-formed, and nobody is dialled by it.
        NodeName::new(format!("join-{}@joins", hex(id))).expect("the name is well-formed")
    })
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Reason why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinRefusal {
    /// The token was used.
    #[error(
        "the token was used by {0}; a token is for one machine, so make another one with `trunkline cluster token`"
    )]
    Used(String),
    /// The validity of the token is over.
    #[error("the token has expired; make another one with `trunkline cluster token`")]
    Expired,
    /// The token was revoked.
    #[error("the token was revoked; ask for another one")]
    Revoked,
    /// Another member has the name. The token can still be used.
    #[error(
        "a member of the cluster has the name {0}; choose another one, or have that one forgotten with `trunkline cluster forget`"
    )]
    NameTaken(NodeName),
    /// The issuer does not know the token.
    #[error("the token is not known here; make another one with `trunkline cluster token`")]
    Unknown,
}

/// State of a token, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenStatus {
    /// Id of the token.
    pub id: String,
    /// End of the validity.
    pub expires: SystemTime,
    /// Reason why it would be refused; `None` if it can be used.
    pub refusal: Option<JoinRefusal>,
}

/// Token as its issuer keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Issued {
    id: [u8; ID],
    secret: Zeroizing<Vec<u8>>,
    /// Seconds since 1970.
    expires: u64,
    used_by: Option<String>,
    is_revoked: bool,
}

impl Issued {
    fn refusal(&self, today: SystemTime) -> Option<JoinRefusal> {
        match &self.used_by {
            Some(name) => Some(JoinRefusal::Used(name.clone())),
            None if self.is_revoked => Some(JoinRefusal::Revoked),
            None => (seconds(today) >= self.expires).then_some(JoinRefusal::Expired),
        }
    }
}

/// Tokens that a node issued.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Tokens(Vec<Issued>);

impl Tokens {
    /// Issues a token; `None` if there are as many as there may be.
    pub(crate) fn issue(
        &mut self,
        of: (&str, &NodeName, &[Address]),
        valid: Duration,
        random: [u8; RANDOM],
        today: SystemTime,
    ) -> Option<JoinToken> {
        if self.0.len() >= MAX_TOKENS {
            return None;
        }
        let (id, secret) = random.split_first_chunk::<ID>()?;
        let expires = seconds(today) + valid.min(MAX_VALIDITY).as_secs();
        let issued =
            Issued { id: *id, secret: Zeroizing::new(secret.to_vec()), expires, used_by: None, is_revoked: false };
        let (cluster, issuer, addresses) = of;
        let token = JoinToken {
            cluster: cluster.to_owned(),
            issuer: issuer.clone(),
            addresses: addresses.to_vec(),
            expires: UNIX_EPOCH + Duration::from_secs(expires),
            id: issued.id,
            secret: issued.secret.clone(),
        };
        self.0.push(issued);
        Some(token)
    }

    /// Drops the tokens whose refusal nobody is told any more.
    pub(crate) fn drop_old(&mut self, today: SystemTime) {
        let oldest = seconds(today).saturating_sub(REMEMBERED.as_secs());
        self.0.retain(|token| token.expires >= oldest);
    }

    /// Returns the names of guests, each with the cookie that it proves.
    pub(crate) fn guests(&self, issuer: &NodeName) -> Vec<(NodeName, Cookie)> {
        self.0.iter().map(|token| (guest(&token.id, issuer), cookie(&token.secret))).collect()
    }

    /// Takes the token of a guest for a node of this name; it is used then.
    ///
    /// # Errors
    /// [`JoinRefusal`]; nothing changed.
    pub(crate) fn redeem(
        &mut self,
        by: &NodeName,
        issuer: &NodeName,
        name: &NodeName,
        today: SystemTime,
    ) -> Result<(), JoinRefusal> {
        let token = self.0.iter_mut().find(|token| guest(&token.id, issuer) == *by).ok_or(JoinRefusal::Unknown)?;
        match token.refusal(today) {
            Some(refusal) => Err(refusal),
            None => {
                token.used_by = Some(name.to_string());
                Ok(())
            }
        }
    }

    /// Revokes a token. Returns `None` if there is none of that id, and the name of the node that used it, if one did.
    pub(crate) fn revoke(&mut self, id: &str) -> Option<Option<String>> {
        let token = self.0.iter_mut().find(|token| hex(&token.id) == id)?;
        token.is_revoked = true;
        Some(token.used_by.clone())
    }

    pub(crate) fn status(&self, today: SystemTime) -> Vec<TokenStatus> {
        let status = |token: &Issued| TokenStatus {
            id: hex(&token.id),
            expires: UNIX_EPOCH + Duration::from_secs(token.expires),
            refusal: token.refusal(today),
        };
        self.0.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn today() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn issuer() -> NodeName {
        "n1@10.0.0.1".parse().unwrap()
    }

    fn issue(tokens: &mut Tokens, seed: u8, today: SystemTime) -> Option<JoinToken> {
        let addresses = ["10.0.0.1:9932".parse().unwrap(), "[::1]:9932".parse().unwrap()];
        tokens.issue(("lab", &issuer(), &addresses), Duration::from_secs(3600), [seed; RANDOM], today)
    }

    #[test]
    fn a_token_is_read_as_it_was_written_and_shows_no_secret_to_a_debugger() {
        let token = issue(&mut Tokens::default(), 7, today()).unwrap();
        let text = token.expose();
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert_eq!(format!(" {text}\n").parse::<JoinToken>(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains("secret") && format!("{token:?}").contains("0707070707070707"));
        assert_eq!(token.guest().as_str(), "join-0707070707070707@10.0.0.1");
        assert!(!token.cookie().is_weak());
        for wrong in ["", "x", PREFIX, &text[..text.len() - 1], &text[1..], &text.replace("-1-", "-2-")] {
            assert_eq!(wrong.parse::<JoinToken>(), Err(JoinTokenError), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_taken_once_while_it_is_valid() {
        let mut tokens = Tokens::default();
        let [one, two, three] = [1, 2, 3].map(|seed| issue(&mut tokens, seed, today()).unwrap());
        let name: NodeName = "n2@10.0.0.2".parse().unwrap();
        let redeem = |tokens: &mut Tokens, token: &JoinToken, at: u64| {
            tokens.redeem(&token.guest(), &issuer(), &name, today() + Duration::from_secs(at))
        };
        assert_eq!(redeem(&mut tokens, &one, 3_599), Ok(()));
        assert_eq!(redeem(&mut tokens, &one, 3_599), Err(JoinRefusal::Used("n2@10.0.0.2".into())));
        assert_eq!(redeem(&mut tokens, &two, 3_600), Err(JoinRefusal::Expired));
        assert_eq!((tokens.revoke(&three.id()), tokens.revoke("0000000000000000")), (Some(None), None));
        assert_eq!(tokens.revoke(&one.id()), Some(Some("n2@10.0.0.2".into())));
        assert_eq!(redeem(&mut tokens, &three, 0), Err(JoinRefusal::Revoked));
        let stranger = issue(&mut Tokens::default(), 9, today()).unwrap();
        assert_eq!(redeem(&mut tokens, &stranger, 0), Err(JoinRefusal::Unknown));
        // Each refusal is told for a week, and then the token is forgotten.
        assert_eq!(tokens.guests(&issuer()).len(), 3);
        tokens.drop_old(today() + Duration::from_secs(3_600) + REMEMBERED);
        assert_eq!(tokens.guests(&issuer()).len(), 3);
        tokens.drop_old(today() + Duration::from_secs(3_601) + REMEMBERED);
        assert_eq!(tokens.guests(&issuer()).len(), 0);
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let mut tokens = Tokens::default();
        for _ in 0..MAX_TOKENS {
            assert!(issue(&mut tokens, 1, today()).is_some());
        }
        assert!(issue(&mut tokens, 1, today()).is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(trunkline-join-1-)?[A-Za-z0-9_-]{0,80}") {
            prop_assert!(text.parse::<JoinToken>().is_err());
        }
    }
}
