//! Where a message ends: the head at its blank line, the body by its
//! `Content-Length`. Nobody here sends chunks or pipelines.

use std::io;

/// No head here is longer; more means that something went wrong.
const MOST_HEAD: usize = 16 * 1024;

/// A message that comes in.
#[derive(Debug, Default)]
pub struct Message {
    head: Vec<u8>,
    /// Known once the head is whole.
    body_left: Option<usize>,
}

impl Message {
    /// Takes the next bytes in; true when the message has ended with them.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<bool> {
        let body = match self.body_left {
            Some(_) => bytes.len(),
            None => match self.take_head(bytes)? {
                Some(body) => body,
                None => return Ok(false),
            },
        };
        let left = self.body_left.unwrap_or_default();
        let left = left
            .checked_sub(body)
            .ok_or_else(|| bad("more than its length"))?;
        self.body_left = Some(left);
        Ok(left == 0)
    }

    /// How many of `bytes` are of the body, once the head is whole.
    fn take_head(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let before = self.head.len();
        self.head.extend_from_slice(bytes);
        // The blank line may have begun with what came before.
        let from = before.saturating_sub(3);
        let Some(blank) = self.head[from..].windows(4).position(|w| w == b"\r\n\r\n") else {
            let too_long = self.head.len() > MOST_HEAD;
            return if too_long {
                Err(bad("a head without an end"))
            } else {
                Ok(None)
            };
        };
        let end = from + blank + 4;
        let body = self.head.len() - end;
        self.head.truncate(end);
        self.body_left = Some(self.length()?);
        Ok(Some(body))
    }

    fn length(&self) -> io::Result<usize> {
        let Some(length) = self.field("content-length") else {
            return Ok(0);
        };
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|text| text.parse().ok());
        length.ok_or_else(|| bad("a length that is no number"))
    }

    /// The head, as far as it has come.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// The second word of the first line: a request's target, a response's
    /// status.
    pub fn second_word(&self) -> &[u8] {
        self.head
            .split(|byte| *byte == b' ')
            .nth(1)
            .unwrap_or_default()
    }

    /// A field's value. The name in lower case.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let lines = self.head.split(|byte| *byte == b'\n').skip(1);
        lines
            .filter_map(|line| line.split_at_checked(name.len()))
            .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .find_map(|(_, rest)| rest.strip_prefix(b":"))
            .map(<[u8]>::trim_ascii)
    }

    /// Makes room for the next one.
    pub fn clear(&mut self) {
        self.head.clear();
        self.body_left = None;
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a message with {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello";

    #[test]
    fn a_message_ends_where_it_ends_however_it_is_cut() {
        for cut in 1..WHOLE.len() {
            let mut message = Message::default();
            let (first, second) = WHOLE.split_at(cut);
            assert!(!message.take(first).unwrap(), "cut at {cut}");
            assert!(message.take(second).unwrap(), "cut at {cut}");
            assert_eq!(message.second_word(), b"200");
            assert_eq!(message.field("x"), Some(&b"y"[..]));
        }
    }

    #[test]
    fn a_message_that_goes_on_after_its_end_is_refused() {
        let mut message = Message::default();
        assert!(message.take(&[WHOLE, b"!"].concat()).is_err());
    }

    #[test]
    fn without_a_length_there_is_no_body() {
        let mut message = Message::default();
        assert!(message.take(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap());
        assert_eq!(message.second_word(), b"/");
    }
}
