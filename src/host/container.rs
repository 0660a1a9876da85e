//! The name that a container has on its network.
//!
//! A container sees itself by its id only; the name it was started with
//! (`docker run --name s1`) is known to the engine, whose DNS server tells it
//! to whoever asks for the name of the container's address.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, TYPE, rdata::RData};
use tokio::{
    net::{UdpSocket, lookup_host},
    time::timeout,
};

/// Docker's DNS server, in every container on a network of the user's own.
const ENGINE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// How often it is asked, and how long it may take each time: it runs on the
/// same machine, and the start waits for it.
const ATTEMPTS: usize = 3;
const PATIENCE: Duration = Duration::from_millis(300);

/// Largest answer over UDP without extensions (RFC 1035 §4.2.1).
const LARGEST_ANSWER: usize = 512;

/// Whether a host's name is the short id that the engine makes up where
/// `--hostname` says nothing.
pub(super) fn is_id(host: &str) -> bool {
    let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    host.len() == 12 && host.bytes().all(hex)
}

/// The container's name, where the engine has one.
pub(super) async fn name(host: &str) -> Option<String> {
    // The engine writes the container's addresses into /etc/hosts. On the
    // default network a container has none by which others find it.
    let addresses = lookup_host((host, 0)).await.ok()?;
    for address in addresses.map(|addr| addr.ip()) {
        if !address.is_loopback()
            && let Some(name) = ask(ENGINE, address).await
        {
            return Some(name);
        }
    }
    None
}

async fn ask(server: SocketAddr, address: IpAddr) -> Option<String> {
    for id in 0..ATTEMPTS {
        let answer = timeout(PATIENCE, exchange(server, id as u16, address)).await;
        if let Ok(Ok(answer)) = answer {
            return answer;
        }
    }
    None
}

async fn exchange(server: SocketAddr, id: u16, address: IpAddr) -> io::Result<Option<String>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    let query = query(id, address).map_err(io::Error::other)?;
    socket.send(&query).await?;
    let mut answer = [0; LARGEST_ANSWER];
    let length = socket.recv(&mut answer).await?;
    Ok(answer.get(..length).and_then(|answer| read(answer, id)))
}

/// The question whose address this is (RFC 1035 §3.5).
fn query(id: u16, address: IpAddr) -> Result<Vec<u8>, simple_dns::SimpleDnsError> {
    let reverse = match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let mut name = String::new();
            for byte in ip.octets().into_iter().rev() {
                for digit in [byte & 15, byte >> 4] {
                    name.extend(char::from_digit(digit.into(), 16));
                    name.push('.');
                }
            }
            name + "ip6.arpa"
        }
    };
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    packet.questions.push(Question::new(
        Name::new(&reverse)?,
        QTYPE::TYPE(TYPE::PTR),
        QCLASS::CLASS(CLASS::IN),
        false,
    ));
    packet.build_bytes_vec()
}

/// The name in an answer, without the network's, which stands behind it.
fn read(answer: &[u8], id: u16) -> Option<String> {
    let packet = Packet::parse(answer).ok()?;
    if packet.id() != id {
        return None;
    }
    packet
        .answers
        .iter()
        .find_map(|record| match &record.rdata {
            RData::PTR(name) => {
                let name = name.to_string();
                let (container, _network) = name.rsplit_once('.')?;
                Some(container.to_owned())
            }
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use simple_dns::{ResourceRecord, rdata::PTR};

    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 18, 0, 2));

    /// An engine that knows one container by this name.
    async fn engine(name: &'static str) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; LARGEST_ANSWER];
            let (length, from) = socket.recv_from(&mut query).await.unwrap();
            let query = Packet::parse(&query[..length]).unwrap();
            let asked = query.questions[0].qname.clone();
            assert_eq!(asked.to_string(), "2.0.18.172.in-addr.arpa");
            let mut answer = query.into_reply();
            let known = RData::PTR(PTR(Name::new_unchecked(name)));
            let record = ResourceRecord::new(asked, CLASS::IN, 600, known);
            answer.answers.push(record);
            let answer = answer.build_bytes_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
        });
        addr
    }

    #[test]
    fn an_id_is_twelve_digits_and_no_word() {
        assert!(is_id("71c631f2632b"));
        for host in ["s1", "71c631f2632", "71c631f2632B", "web-01234567", ""] {
            assert!(!is_id(host), "{host}");
        }
    }

    #[tokio::test]
    async fn the_engine_knows_the_containers_name() {
        let name = ask(engine("s1.heig").await, ADDRESS).await;
        assert_eq!(name.as_deref(), Some("s1"));
        let name = ask(engine("shop.web-1.shop_default").await, ADDRESS).await;
        assert_eq!(name.as_deref(), Some("shop.web-1"));
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_engine_there_is_no_name() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        assert_eq!(ask(silent.local_addr().unwrap(), ADDRESS).await, None);
    }

    #[test]
    fn an_ipv6_address_is_asked_for_digit_by_digit() {
        let query = query(7, "fd00::12".parse().unwrap()).unwrap();
        let name = Packet::parse(&query).unwrap().questions[0]
            .qname
            .to_string();
        assert!(name.starts_with("2.1.0.0.0.0."), "{name}");
        assert!(name.ends_with(".0.0.d.f.ip6.arpa"), "{name}");
    }

    #[test]
    fn what_is_no_answer_names_nobody() {
        assert_eq!(read(b"", 0), None);
        assert_eq!(read(&[0xff; 64], 0xffff), None);
        let answer = query(1, ADDRESS).unwrap();
        assert_eq!(read(&answer, 1), None);
    }
}
