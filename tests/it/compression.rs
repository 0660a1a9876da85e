//! `--compression`: what a client gets, decoded by the libraries that browsers'
//! makers wrote.

use std::{io::Read, thread, time::Duration};

use super::support::{
    client::{Answer, Client},
    origin::{Origin, balancer_over},
};

const FLAGS: &[&str] = &["--compression", "zstd,br,gzip"];

fn page(fields: &str) -> (String, Vec<u8>) {
    let text = "<p>the same paragraph again and again</p>\n".repeat(3000);
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{fields}\r\n",
        text.len()
    );
    (
        text.clone(),
        [head.into_bytes(), text.into_bytes()].concat(),
    )
}

fn ask(client: &mut Client, accept: &str) -> Answer {
    let request = format!("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: {accept}\r\n\r\n");
    client.send(request).unwrap();
    client.answer(false).unwrap()
}

fn decode(coding: Option<&str>, body: &[u8]) -> String {
    let mut text = String::new();
    let mut from: Box<dyn Read + '_> = match coding {
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(body)),
        Some("br") => Box::new(brotli::Decompressor::new(body, 4096)),
        Some("zstd") => Box::new(zstd::stream::read::Decoder::new(body).unwrap()),
        other => {
            assert_eq!(other, None);
            Box::new(body)
        }
    };
    from.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn each_client_gets_text_as_it_takes_it_on_one_connection() {
    let (text, answer) = page("content-type: text/html\r\netag: \"1\"\r\naccept-ranges: bytes\r\n");
    let origin = Origin::answering(answer);
    let balancer = balancer_over(&[&origin], FLAGS);
    let mut client = balancer.connect();
    for (accept, coding) in [
        ("gzip, br, zstd", Some("zstd")),
        ("gzip, br", Some("br")),
        ("gzip", Some("gzip")),
        ("identity", None),
        ("gzip;q=0", None),
    ] {
        let answer = ask(&mut client, accept);
        assert_eq!(answer.header("content-encoding"), coding, "{accept}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accept}");
        assert_eq!(decode(coding, &answer.body), text, "{accept}");
        if coding.is_some() {
            assert!(answer.body.len() < text.len() / 10, "{}", answer.body.len());
            assert_eq!(answer.header("etag"), Some("W/\"1\""));
            assert_eq!(answer.header("content-length"), None);
            assert_eq!(answer.header("accept-ranges"), None);
        } else {
            assert_eq!(answer.header("etag"), Some("\"1\""));
        }
    }
}

#[test]
fn what_is_encoded_or_no_text_goes_on_to_the_byte_and_nothing_does_without_the_flag() {
    for (fields, flags) in [
        (
            "content-type: text/html\r\ncontent-encoding: gzip\r\n",
            FLAGS,
        ),
        ("content-type: image/png\r\n", FLAGS),
        (
            "content-type: text/html\r\ncache-control: no-transform\r\n",
            FLAGS,
        ),
        ("content-type: text/html\r\n", &[]),
    ] {
        let (text, answer) = page(fields);
        let origin = Origin::answering(answer);
        let answer = ask(&mut balancer_over(&[&origin], flags).connect(), "gzip, br");
        let length = text.len().to_string();
        assert_eq!(
            answer.header("content-length"),
            Some(length.as_str()),
            "{fields}"
        );
        assert_eq!(answer.header("vary"), None, "{fields}");
        assert!(answer.body == text.as_bytes(), "{fields}");
    }
}

#[test]
fn a_server_that_says_a_little_now_and_then_is_heard_at_once() {
    // The second line only comes when the client has read the first.
    let (heard, hears) = std::sync::mpsc::channel::<()>();
    let hears = std::sync::Mutex::new(hears);
    let origin = Origin::start(move |visit| {
        visit.body()?;
        visit.send(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
        )?;
        visit.send("6\r\nfirst\n\r\n")?;
        let hears = hears.lock().unwrap();
        hears.recv_timeout(Duration::from_secs(10)).ok();
        visit.send("7\r\nsecond\n\r\n0\r\n\r\n")
    });
    let balancer = balancer_over(&[&origin], FLAGS);
    let mut client = balancer.connect();
    client
        .send("GET / HTTP/1.1\r\nhost: test\r\naccept-encoding: gzip\r\n\r\n")
        .unwrap();
    let mut stream = client.stream().try_clone().unwrap();
    let reader = thread::spawn(move || {
        let (mut read, mut piece) = (Vec::new(), [0; 4096]);
        // The first line, flushed, is more than the head and gzip's ten bytes.
        loop {
            let n = stream.read(&mut piece).unwrap();
            assert!(n > 0, "it ended after {} bytes", read.len());
            read.extend_from_slice(&piece[..n]);
            let body = read.windows(4).position(|end| end == b"\r\n\r\n");
            if body.is_some_and(|at| read.len() > at + 4 + 20) {
                break;
            }
        }
        heard.send(()).unwrap();
        while !read.ends_with(b"\r\n0\r\n\r\n") {
            let n = stream.read(&mut piece).unwrap();
            assert!(n > 0, "it ended after {} bytes", read.len());
            read.extend_from_slice(&piece[..n]);
        }
    });
    reader.join().unwrap();
}
