//! DNS server for tests, over UDP and TCP. Written out byte by byte, so that it is no copy of the library under test
//! (RFC 1035, RFC 2782).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Record of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rr {
    /// Address, in an A or AAAA record.
    Ip(IpAddr),
    /// SRV: priority, weight, port, target.
    Srv(u16, u16, u16, String),
    /// TXT, with its strings.
    Txt(Vec<String>),
}

impl Rr {
    fn kind(&self) -> u16 {
        match self {
            Self::Ip(IpAddr::V4(_)) => 1,
            Self::Txt(_) => 16,
            Self::Ip(IpAddr::V6(_)) => 28,
            Self::Srv(..) => 33,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Self::Ip(IpAddr::V6(ip)) => ip.octets().to_vec(),
            Self::Txt(texts) => texts.iter().flat_map(|text| [&[text.len() as u8], text.as_bytes()].concat()).collect(),
            Self::Srv(priority, weight, port, target) => {
                let numbers = [priority, weight, port].into_iter().flat_map(|number| number.to_be_bytes());
                numbers.chain(labels(target)).collect()
            }
        }
    }
}

/// Behaviour of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Queries are answered.
    Honest,
    /// Queries are not answered.
    Silent,
    /// Answers over UDP have no records and the flag that says so.
    Truncated,
    /// The code of each answer is 2, SERVFAIL.
    Failing,
    /// Answers are bytes without a meaning behind a correct id.
    Garbage,
}

struct Zone {
    records: BTreeMap<String, Vec<Rr>>,
    ttl: u32,
    manner: Manner,
    /// Names and types that were asked for, in order.
    asked: Vec<(String, u16)>,
    /// Names and types whose answers have the code SERVFAIL.
    failing: Vec<(String, u16)>,
}

/// DNS server at a port of 127.0.0.1, until it is dropped.
pub struct NameServer {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _tasks: JoinSet<()>,
}

impl NameServer {
    /// Starts a server without records, whose answers live for this many seconds.
    pub async fn start(ttl: u32) -> Self {
        let udp = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let (udp, tcp) = udp;
        let address = udp.local_addr().unwrap();
        let zone =
            Zone { records: BTreeMap::new(), ttl, manner: Manner::Honest, asked: Vec::new(), failing: Vec::new() };
        let zone = Arc::new(Mutex::new(zone));
        let mut tasks = JoinSet::new();
        let of_udp = zone.clone();
        tasks.spawn(async move {
            let mut query = [0; 1500];
            while let Ok((len, from)) = udp.recv_from(&mut query).await {
                if let Some(answer) = answer(&of_udp, &query[..len], true) {
                    let _ = udp.send_to(&answer, from).await;
                }
            }
        });
        let of_tcp = zone.clone();
        tasks.spawn(async move {
            let mut callers = JoinSet::new();
            while let Ok((mut stream, _)) = tcp.accept().await {
                let zone = of_tcp.clone();
                callers.spawn(async move {
                    while let Ok(len) = stream.read_u16().await {
                        let mut query = vec![0; len.into()];
                        if stream.read_exact(&mut query).await.is_err() {
                            return;
                        }
                        if let Some(answer) = answer(&zone, &query, false) {
                            let sent = [&(answer.len() as u16).to_be_bytes(), &answer[..]].concat();
                            let _ = stream.write_all(&sent).await;
                        }
                    }
                });
            }
        });
        Self { address, zone, _tasks: tasks }
    }

    fn zone(&self) -> std::sync::MutexGuard<'_, Zone> {
        self.zone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the address of the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the records of a name; none removes it.
    pub fn set(&self, name: &str, records: Vec<Rr>) {
        self.zone().records.insert(name.into(), records);
    }

    /// Sets the behaviour.
    pub fn behave(&self, manner: Manner) {
        self.zone().manner = manner;
    }

    /// Answers that it failed to look up the addresses of a name of this family: 4 or 6.
    pub fn fail(&self, name: &str, family: u8) {
        self.zone().failing.push((name.into(), if family == 6 { 28 } else { 1 }));
    }

    /// Returns how often a record was asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.zone().asked.iter().filter(|(asked, _)| asked == name).count()
    }
}

fn labels(name: &str) -> Vec<u8> {
    let labels = name.trim_end_matches('.').split('.').filter(|label| !label.is_empty());
    labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

fn answer(zone: &Mutex<Zone>, query: &[u8], is_udp: bool) -> Option<Vec<u8>> {
    let mut zone = zone.lock().unwrap_or_else(PoisonError::into_inner);
    // The header has 12 bytes; then comes the name that is asked for, its type and its class.
    let (mut at, mut name) = (12, Vec::new());
    while *query.get(at)? > 0 {
        let len = usize::from(query[at]);
        name.push(String::from_utf8_lossy(query.get(at + 1..at + 1 + len)?).to_lowercase());
        at += 1 + len;
    }
    let name = name.join(".");
    let kind = u16::from_be_bytes([*query.get(at + 1)?, *query.get(at + 2)?]);
    let question = query.get(12..at + 5)?;
    zone.asked.push((name.clone(), kind));
    match zone.manner {
        Manner::Silent => return None,
        Manner::Garbage => return Some([&query[..2], &[0xff; 40]].concat()),
        _ => {}
    }
    let known = zone.records.get(&name).filter(|records| !records.is_empty());
    let is_cut = is_udp && zone.manner == Manner::Truncated;
    let fails = zone.manner == Manner::Failing || zone.failing.contains(&(name.clone(), kind));
    let found = known.into_iter().flatten().filter(|rr| rr.kind() == kind && !is_cut && !fails);
    let found: Vec<&Rr> = found.collect();
    let code = match (fails, known) {
        (true, _) => 2,
        (_, None) => 3,
        _ => 0,
    };
    // Response, authoritative, truncated, recursion desired and available.
    let flags = [0x85 | if is_cut { 2 } else { 0 }, 0x80 | code];
    let has_soa = found.is_empty() && !is_cut && code != 2;
    let counts = [0, 1, 0, found.len() as u8, 0, has_soa.into(), 0, 0];
    let mut answer = [&query[..2], &flags, &counts, question].concat();
    let mut add = |kind: u16, data: &[u8]| {
        // The name is the one of the question, at byte 12.
        answer.extend([0xc0, 12]);
        answer.extend(kind.to_be_bytes());
        answer.extend([0, 1]);
        answer.extend(zone.ttl.to_be_bytes());
        answer.extend((data.len() as u16).to_be_bytes());
        answer.extend(data);
    };
    for rr in found {
        add(rr.kind(), &rr.data());
    }
    if has_soa {
        // Serial, refresh, retry, expire, and the time for which the absence may be kept.
        let numbers = [1, 60, 60, 60, zone.ttl].into_iter().flat_map(u32::to_be_bytes);
        add(6, &labels("ns.lab").into_iter().chain(labels("admin.lab")).chain(numbers).collect::<Vec<u8>>());
    }
    Some(answer)
}
