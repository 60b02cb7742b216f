//! What picket says of itself and of its probes: the instruments.
