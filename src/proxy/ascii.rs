//! Text, numbers and addresses, pushed piece by piece: through `write!` a line
//! of the log costs seven times as much, more than all else that is done to a
//! request.

use std::net::IpAddr;

pub(super) fn push(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(text.as_bytes());
}

pub(super) fn push_number(to: &mut Vec<u8>, number: impl itoa::Integer) {
    push(to, itoa::Buffer::new().format(number));
}

pub(super) fn push_address(to: &mut Vec<u8>, ip: IpAddr) {
    let IpAddr::V4(ip) = ip else {
        // Rare enough.
        return push(to, &ip.to_string());
    };
    let [a, b, c, d] = ip.octets();
    push_number(to, a);
    for octet in [b, c, d] {
        push(to, ".");
        push_number(to, octet);
    }
}
