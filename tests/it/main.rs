//! The whole, as its users meet it: real processes on loopback, real load,
//! every failure counted. One binary, so that it links once.

mod support;

mod balancing;
mod command_line;
mod http;
mod membership;
