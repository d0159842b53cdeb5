//! A server on a free port, and a faulty peer.
