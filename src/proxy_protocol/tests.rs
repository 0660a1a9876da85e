use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

/// Version 2 with that command and family, and this behind its length.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((block.len() as u16).to_be_bytes());
    bytes.extend(block);
    bytes
}

/// 192.0.2.7:50000 to 10.0.0.1:80, and TLVs.
fn block(tlvs: &[u8]) -> Vec<u8> {
    let mut block = vec![192, 0, 2, 7, 10, 0, 0, 1, 0xc3, 0x50, 0, 80];
    block.extend(tlvs);
    block
}

#[test]
fn a_line_says_who_connects_and_where_to() {
    for (line, header) in [
        (
            "PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\n",
            proxied("192.0.2.7:50000", "10.0.0.1:80"),
        ),
        (
            "PROXY TCP4 255.255.255.255 0.0.0.0 65535 0\r\n",
            proxied("255.255.255.255:65535", "0.0.0.0:0"),
        ),
        (
            "PROXY TCP6 2001:DB8::7 ::1 50000 80\r\n",
            proxied("[2001:db8::7]:50000", "[::1]:80"),
        ),
        ("PROXY UNKNOWN\r\n", Header::Local),
        ("PROXY UNKNOWN ffff:: whatever 1 x\r\n", Header::Local),
    ] {
        let read_all = Ok(Some((header, line.len())));
        assert_eq!(read(line.as_bytes()), read_all, "{line}");
        let with_more = format!("{line}GET / HTTP/1.1\r\n");
        assert_eq!(read(with_more.as_bytes()), read_all, "{line}");
    }
}

#[test]
fn the_longest_line_fits() {
    let ip = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY UNKNOWN {ip} {ip} 65535 65535\r\n");
    assert_eq!(longest.len(), MAX_V1);
    assert_eq!(read(longest.as_bytes()), Ok(Some((Header::Local, MAX_V1))));
    let longer = longest.replace("65535\r\n", "65535 \r\n");
    assert!(read(longer.as_bytes()).is_err());
    assert!(read(&longer.as_bytes()[..MAX_V1]).is_err(), "and soon");
}

#[test]
fn a_line_that_is_not_exactly_so_is_none() {
    for line in [
        "proxy TCP4 192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY  TCP4 192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY TCP4  192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000 80 \r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000 80 9\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 +50000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 050000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000 00\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 65536 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 -1 80\r\n",
        "PROXY TCP4 192.0.2.07 10.0.0.1 50000 80\r\n",
        "PROXY TCP4 192.0.2 10.0.0.1 50000 80\r\n",
        "PROXY TCP4 2001:db8::7 ::1 50000 80\r\n",
        "PROXY TCP6 192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 50000 80\r\n",
        "PROXY TCP6 [::1] ::1 50000 80\r\n",
        "PROXY UDP4 192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY TCP4\t192.0.2.7 10.0.0.1 50000 80\r\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\n",
        "PROXY TCP4 192.0.2.7 10.0.0.1 50000 80\r\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN \u{e4}\r\n",
        "PROXY \r\n",
        "PROXYTCP4",
        "GET / HTTP/1.1\r\n",
        "\r\nPROXY UNKNOWN\r\n",
    ] {
        assert!(read(line.as_bytes()).is_err(), "{line:?}");
    }
}

#[test]
fn bytes_say_who_connects_and_where_to() {
    let header = proxied("192.0.2.7:50000", "10.0.0.1:80");
    let no_op = [4, 0, 3, 0, 0, 0];
    for bytes in [
        v2(0x21, 0x11, &block(&[])),
        v2(0x21, 0x11, &block(&no_op)),
        v2(0x21, 0x11, &block(&[0xe0, 0, 0])),
    ] {
        assert_eq!(read(&bytes), Ok(Some((header, bytes.len()))));
    }
}

#[test]
fn what_is_for_nobody_of_ours_keeps_the_sockets_addresses() {
    for bytes in [
        v2(0x20, 0, &[]),
        v2(0x20, 0x11, &block(&[])),
        v2(0x20, 0xff, b"whatever"),
        v2(0x21, 0, b"whatever"),
        v2(0x21, 0x12, &[0; 12]),
        v2(0x21, 0x22, &[0; 36]),
        v2(0x21, 0x31, &[b'/'; 216]),
        v2(0x21, 0x32, &[0; 216]),
    ] {
        assert_eq!(read(&bytes), Ok(Some((Header::Local, bytes.len()))));
    }
}

#[test]
fn bytes_that_are_not_exactly_so_are_none() {
    for bytes in [
        v2(0x11, 0x11, &block(&[])),
        v2(0x31, 0x11, &block(&[])),
        v2(0x22, 0x11, &block(&[])),
        v2(0x21, 0x10, &block(&[])),
        v2(0x21, 0x13, &block(&[])),
        v2(0x21, 0x41, &block(&[])),
        v2(0x21, 0x11, &[0; 11]),
        v2(0x21, 0x21, &[0; 35]),
        v2(0x21, 0x31, &[0; 215]),
        v2(0x21, 0x11, &block(&[4])),
        v2(0x21, 0x11, &block(&[4, 0])),
        v2(0x21, 0x11, &block(&[4, 0, 2, 0])),
    ] {
        assert!(read(&bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn a_header_is_bounded_and_its_length_is_all_it_takes_to_see_it() {
    let largest = v2(0x21, 0, &[0; 4096]);
    assert_eq!(largest.len(), MAX);
    assert_eq!(read(&largest), Ok(Some((Header::Local, MAX))));
    let larger = v2(0x21, 0, &[0; 4097]);
    assert!(read(&larger[..V2_FIXED]).is_err());
}

#[test]
fn a_checksum_is_checked_where_there_is_one() {
    // RFC 3720 §B.4: 32 bytes of zeros.
    assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
    let blank = v2(0x21, 0x11, &block(&[CRC32C, 0, 4, 0, 0, 0, 0, 4, 0, 0]));
    let mut right = blank.clone();
    let at = V2_FIXED + 12 + 3;
    right[at..at + 4].copy_from_slice(&crc32c(blank.iter().copied()).to_be_bytes());
    assert!(matches!(
        read(&right),
        Ok(Some((Header::Proxied { .. }, _)))
    ));
    assert!(read(&blank).is_err(), "a wrong sum");
    let mut other = right.clone();
    other[V2_FIXED] ^= 1;
    assert!(read(&other).is_err(), "another address");
    let short = v2(0x21, 0x11, &block(&[CRC32C, 0, 2, 0, 0]));
    assert!(read(&short).is_err(), "half a sum");
}

#[test]
fn one_family_is_written_whatever_the_addresses_are() {
    let [v4, mapped, v6] = ["1.2.3.4:5", "[::ffff:1.2.3.4]:5", "[2001:db8::1]:6"]
        .map(|addr| addr.parse::<SocketAddr>().unwrap());
    assert_eq!(
        Header::proxied(mapped, v4),
        proxied("1.2.3.4:5", "1.2.3.4:5")
    );
    let mixed = Header::proxied(v4, v6);
    assert_eq!(mixed, proxied("[::ffff:1.2.3.4]:5", "[2001:db8::1]:6"));
    assert_eq!(
        mixed.write(Version::V1),
        b"PROXY TCP6 ::ffff:1.2.3.4 2001:db8::1 5 6\r\n"
    );
}

fn headers() -> impl Strategy<Value = Header> {
    let ports = any::<(u16, u16)>();
    prop_oneof![
        Just(Header::Local),
        (any::<[Ipv4Addr; 2]>(), ports).prop_map(|([from, to], ports)| Header::Proxied {
            source: (from, ports.0).into(),
            destination: (to, ports.1).into(),
        }),
        (any::<[Ipv6Addr; 2]>(), ports).prop_map(|([from, to], ports)| Header::Proxied {
            source: (from, ports.0).into(),
            destination: (to, ports.1).into(),
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_and_no_less(header in headers(), behind in any::<Vec<u8>>()) {
        for version in [Version::V1, Version::V2] {
            let mut bytes = header.write(version);
            let length = bytes.len();
            for end in 0..length {
                prop_assert_eq!(read(&bytes[..end]), Ok(None), "{} bytes", end);
            }
            bytes.extend(&behind);
            prop_assert_eq!(read(&bytes), Ok(Some((header, length))));
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        v1 in any::<bool>(),
        begun in 0..=V2_FIXED,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let whole = if v1 { b"PROXY TCP4 192.0".to_vec() } else { v2(0x21, 0x21, &[]) };
        let mut input = whole[..begun].to_vec();
        input.extend(&bytes);
        if let Ok(Some((_, length))) = read(&input) {
            prop_assert!(length <= input.len() && length <= MAX);
        }
    }

    #[test]
    fn what_is_incomplete_is_bounded(bytes in proptest::collection::vec(b' '..=b'~', MAX_V1)) {
        let mut line = V1_BEGINNING.to_vec();
        line.extend(bytes);
        prop_assert!(read(&line).is_err());
    }
}
