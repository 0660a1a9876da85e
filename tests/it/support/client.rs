//! A plain HTTP/1.1 client that shows exactly what came over the wire.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// A kept connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What was answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let of_name = |(header, _): &&(String, String)| header.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(of_name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    /// The toy server that answered.
    #[track_caller]
    pub(crate) fn server(&self) -> String {
        self.json()["tag"].as_str().expect("a tag").to_owned()
    }

    /// `SERVERID=s1` if the answer sets it.
    pub(crate) fn sticky_cookie(&self) -> Option<&str> {
        let cookies = self.headers.iter().filter(|(name, _)| name == "set-cookie");
        let mut pairs = cookies.filter_map(|(_, value)| value.split(';').next());
        pairs.find(|pair| pair.starts_with("SERVERID="))
    }
}

impl Client {
    /// Connects.
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        // Longer than a server may take by default would only hide a hang.
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        let buffer = Vec::new();
        Ok(Self { stream, buffer })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request without a body and waits for the answer. `headers` are
    /// whole lines without their ends.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
    ) -> io::Result<Answer> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for header in headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        self.send(head)?;
        self.answer(method == "HEAD")
    }

    /// GETs `/`.
    pub(crate) fn get(&mut self, headers: &[&str]) -> io::Result<Answer> {
        self.request("GET", "/", headers)
    }

    /// POSTs a body to `/`.
    pub(crate) fn post(&mut self, body: &str) -> io::Result<Answer> {
        self.post_to("/", body)
    }

    /// POSTs a body to a path.
    pub(crate) fn post_to(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        self.send(head + body)?;
        self.answer(false)
    }

    /// Reads one answer.
    pub(crate) fn answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let end = self.fill_until(|buffer| find(buffer, b"\r\n\r\n"))?;
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| invalid("no status line"))?;
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let headers = pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if !to_head && status >= 200 && status != 204 && status != 304 {
            answer.body = self.body(&answer)?;
        }
        Ok(answer)
    }

    /// Reads until the connection is closed.
    pub(crate) fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Whether nothing has come that was not read yet.
    pub(crate) fn is_silent(&self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        peeked.is_err_and(|err| err.kind() == io::ErrorKind::WouldBlock)
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn body(&mut self, answer: &Answer) -> io::Result<Vec<u8>> {
        if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(|_| invalid("a bad length"))?;
            return self.take(length);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            return self.chunks();
        }
        self.rest()
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.fill_until(|buffer| find(buffer, b"\r\n"))?;
            let line = String::from_utf8_lossy(&self.take(end + 2)?).into_owned();
            let size =
                usize::from_str_radix(line.trim(), 16).map_err(|_| invalid("a bad chunk"))?;
            let chunk = self.take(size + 2)?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.fill_until(|buffer| (buffer.len() >= length).then_some(length))?;
        Ok(self.buffer.drain(..length).collect())
    }

    fn fill_until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> io::Result<usize> {
        loop {
            if let Some(at) = found(&self.buffer) {
                return Ok(at);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => self.buffer.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

fn find(buffer: &[u8], what: &[u8]) -> Option<usize> {
    buffer.windows(what.len()).position(|window| window == what)
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
