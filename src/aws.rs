//! What picket asks of AWS: instance metadata.
