//! What a proxy does to a message's head (RFC 9110 §7.6, RFC 9112 §3): the
//! head that was read is written anew for the other side. Pure.

mod clients;
mod servers;

pub(super) use self::{
    clients::{ForClient, Said, push_connection, push_hsts, write_interim},
    servers::{ForServer, for_server},
};
use super::ascii::push;
use crate::http1::{Fields, Known};

/// Appends the fields of a trailer section that may go on (RFC 9110 §6.5.1):
/// none that frames, routes or identifies, since the head has said it.
pub(super) fn write_trailers(trailers: &[u8], to: &mut Vec<u8>) {
    for line in trailers.split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let name = std::str::from_utf8(name).unwrap_or_default();
        let may_follow = Known::of(name) == Known::Other
            && !["authorization", "trailer"]
                .iter()
                .any(|refused| name.eq_ignore_ascii_case(refused));
        if may_follow {
            to.extend_from_slice(line);
        }
    }
}

/// Whether a `Connection` field names it.
fn is_nominated(name: &str, fields: Fields<'_, '_>) -> bool {
    let mut named = fields
        .values(Known::Connection)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    named.any(|named| named.eq_ignore_ascii_case(name.as_bytes()))
}

pub(super) fn push_field(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.reserve(name.len() + value.len() + ": \r\n".len());
    push(head, name);
    push(head, ": ");
    head.extend_from_slice(value);
    push(head, "\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of that field of a head.
    pub(super) fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
        let fields = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        let of_name = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        of_name.map(|(_, value)| value).collect()
    }

    #[test]
    fn trailers_that_frame_route_or_identify_are_dropped() {
        let mut kept = Vec::new();
        write_trailers(
            b"X-Sum: 1\r\nContent-Length: 5\r\nHost: a\r\nAuthorization: x\r\nForwarded: x\r\n\
              X-Forwarded-For: x\r\ny: 2\r\n",
            &mut kept,
        );
        assert_eq!(kept, b"X-Sum: 1\r\ny: 2\r\n");
    }
}
