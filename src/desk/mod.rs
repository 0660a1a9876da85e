//! Ports that are not for traffic: the statistics, the agent's, the runtime
//! API. They are asked in the worst hour, so a newcomer always gets in, however
//! many connections are held open by whom: who has been silent longest makes
//! room ([`places`]). What does not take its answer is cut off ([`taken`]).

pub(crate) mod http;
pub(crate) mod lease;
pub(crate) mod places;
pub(crate) mod seats;
pub(crate) mod taken;
