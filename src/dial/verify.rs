//! Whether a certificate is to be trusted.
