//! Ties the words together: starts, reloads and stops them in the order of the flow.
