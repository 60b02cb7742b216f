//! What the system says of names: /etc/hosts and /etc/resolv.conf.
