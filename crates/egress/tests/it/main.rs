//! The door, against real sockets, names and certificates.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod dns;
#[cfg(test)]
mod door;
#[cfg(test)]
mod peer;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod rebinding;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod urls;
