//! What AWS tells a picket of itself; later its credentials, signing and protocols.

pub mod instance;
