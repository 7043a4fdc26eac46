//! Reports of hops about a way that is only looked at.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use trunkline_route::NodeName;
use trunkline_stack::StreamCode;

use crate::names::{put, take};
use crate::{MAX_PATH, Refusal};

/// The longest report: two names of 255 bytes, what stands beside them, and room to grow.
const MAX_REPORT: usize = 1024;
/// Reports of one way at most: two of each gateway, and the last.
pub const MAX_REPORTS: usize = 2 * MAX_PATH + 1;

/// A statement of a hop about a way: names, a time and a code, as true as the hop.
///
/// As bytes: length u16, then kind u8 and: 1 the hop, the next one, the round trip between the two as u32 µs; 2 the hop; 3 the
/// hop, code u8, and to the end the name of the next node if the hop could not reach it. The other names are each a length u8
/// and the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The hop leads on.
    Onwards {
        /// Hop that reports.
        hop: NodeName,
        /// To whom.
        next: NodeName,
        /// Time from one to the other and back.
        round_trip: Duration,
    },
    /// The node that was looked for is reached.
    Reached(NodeName),
    /// The way ends before that. The cause is not sent.
    Stopped(Refusal),
}

impl Report {
    /// Returns the bytes of the report.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0, 0];
        match self {
            Self::Onwards { hop, next, round_trip } => {
                out.push(1);
                put(&mut out, hop.as_str());
                put(&mut out, next.as_str());
                let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
                out.extend_from_slice(&micros.to_be_bytes());
            }
            Self::Reached(hop) => {
                out.push(2);
                put(&mut out, hop.as_str());
            }
            Self::Stopped(refusal) => {
                out.push(3);
                put(&mut out, refusal.hop.as_str());
                out.push(refusal.code.to_byte());
                out.extend_from_slice(refusal.told().as_bytes());
            }
        }
        let len = (out.len() - 2) as u16;
        out[..2].copy_from_slice(&len.to_be_bytes());
        out
    }

    fn decode(mut bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        bytes = rest;
        let hop = take(&mut bytes)?;
        match kind {
            1 => {
                let (hop, next) = (hop.parse().ok()?, take(&mut bytes)?.parse().ok()?);
                let micros = u32::from_be_bytes(bytes.try_into().ok()?);
                Some(Self::Onwards { hop, next, round_trip: Duration::from_micros(micros.into()) })
            }
            2 if bytes.is_empty() => Some(Self::Reached(hop.parse().ok()?)),
            3 => {
                let (&code, text) = bytes.split_first()?;
                let (hop, code) = (hop.parse().ok()?, StreamCode::from_byte(code));
                Some(Self::Stopped(Refusal::heard(&hop, hop.as_str(), code, &String::from_utf8_lossy(text))))
            }
            _ => None,
        }
    }

    /// The next report that comes; `None` when nothing comes any more.
    ///
    /// # Errors
    /// The source's; [`io::ErrorKind::InvalidData`] for bytes that are no report.
    pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut len = [0; 2];
        match from.read_exact(&mut len).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a hop said something that is no report");
        let len = usize::from(u16::from_be_bytes(len));
        if len > MAX_REPORT {
            return Err(malformed());
        }
        let mut bytes = vec![0; len];
        from.read_exact(&mut bytes).await?;
        Self::decode(&bytes).ok_or_else(malformed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reports() -> impl Strategy<Value = Report> {
        let names = prop::sample::select(vec!["a@x", "gate@dmz", "backend-db@internal.local"]);
        let code = any::<u8>().prop_map(StreamCode::from_byte);
        let name = names.prop_map(|text: &str| text.parse::<NodeName>().unwrap());
        prop_oneof![
            (name.clone(), name.clone(), any::<u32>()).prop_map(|(hop, next, micros)| Report::Onwards {
                hop,
                next,
                round_trip: Duration::from_micros(micros.into())
            }),
            name.clone().prop_map(Report::Reached),
            (name.clone(), code, prop::option::of(name))
                .prop_map(|(hop, code, next)| { Report::Stopped(Refusal { hop, code, next, cause: String::new() }) }),
        ]
    }

    async fn all(mut bytes: &[u8]) -> io::Result<Vec<Report>> {
        let mut reports = Vec::new();
        while let Some(report) = Report::read(&mut bytes).await? {
            reports.push(report);
        }
        Ok(reports)
    }

    proptest! {
        #[test]
        fn what_hops_say_reads_as_it_was_written(reports in prop::collection::vec(reports(), 0..5)) {
            let bytes: Vec<u8> = reports.iter().flat_map(Report::encode).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(all(&bytes)).unwrap(), reports);
        }

        #[test]
        fn reading_is_total(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(all(&bytes));
        }
    }

    #[tokio::test]
    async fn a_report_carries_no_cause_and_one_that_is_too_long_is_refused() {
        let hop: NodeName = "a@x".parse().unwrap();
        let refusal =
            Refusal::new(&hop, StreamCode::Unreachable, "10.0.0.7:4370: refused").next(&"b@x".parse().unwrap());
        let bytes = Report::Stopped(refusal.clone()).encode();
        assert_eq!(bytes[2..], *b"\x03\x03a@x\x04b@x");
        let heard = Report::Stopped(Refusal { cause: String::new(), ..refusal });
        assert_eq!(all(&bytes).await.unwrap(), [heard]);
        // The words of a node that says more than it should are not kept.
        let words = all(b"\x00\x0c\x03\x03a@x\x0410.0.0").await.unwrap();
        assert_eq!(words, [Report::Stopped(Refusal::new(&hop, StreamCode::Unreachable, ""))]);
        let mut long = vec![0xff, 0xff];
        long.extend([0; 70_000]);
        assert_eq!(all(&long).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
