//! Who may have a connection, and whether there is one: every count of a pool behind one lock.
//!
//! A caller needs two things. A *permit* is the right to hold one connection; there are `max_size`
//! of them and `reserved` more, given out in the order of the callers. A *claim* is the right to
//! take one connection out of the store. Whoever has a permit and finds no idle connection wants a
//! claim, and as long as more callers want one than connects are under way, a connect is due.
//!
//! Both are handed from the one who returns them to the one who waits longest, so nobody can slip
//! in between. Both are RAII: dropped anywhere, they go on to the next.

mod lock;
mod primitives;
mod queue;
mod state;
mod tokens;

pub(crate) use self::lock::{Gate, Want};
pub(crate) use self::state::{Failure, Limits, Plan};
pub(crate) use self::tokens::{Connecting, Entry, Lane, Permit, Place, Ticket};
