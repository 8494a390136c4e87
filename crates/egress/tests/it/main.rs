//! The door, against real sockets.

#[cfg(test)]
mod door;
