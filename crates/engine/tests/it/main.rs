//! The engine over a real log in a temporary folder and real sockets.

#[cfg(test)]
mod dispatcher;
#[cfg(test)]
mod flaky;
#[cfg(test)]
mod many;
#[cfg(test)]
mod orders;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod receiver;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod sweeps;
