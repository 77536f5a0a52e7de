//! Who loads which key, and what a removal makes void: the race rules of the cache.
//!
//! A *flight* is a load under way that later callers join. A *fill* is anything that will write
//! a value it did not just compute: a flight, a read of the shared layer about to promote its
//! find, an insertion about to write the shared layer. The rules, all under one shard lock:
//!
//! 1. A fill stores in memory only through [`Ticket::publish`], which does nothing once a later
//!    removal or insertion made the fill void. Check and store are one step, so a reader that
//!    begins after a removal never sees what was read before it.
//! 2. A removal or insertion also detaches the flight: its callers get their value, later
//!    callers start a new load.
//! 3. A published fill may still be writing the shared layer. Who makes it void waits for that
//!    write before its own, so that the older write cannot land last.
//! 4. While the shared part of a removal or insertion is under way ([`Hold`]), new flights do not
//!    read the shared layer: what stands there may be what is being removed or replaced.
//! 5. A read of the shared layer that fills nothing can leave nothing behind, so it needs no ticket:
//!    it only asks whether its key is held.
//!
//! Slots exist only while something is under way, so memory is bounded by the callers.

mod map;
mod primitives;
#[cfg(test)]
mod tests;

pub(crate) use map::{Flights, Hold, Join, Landing, Lead, Predecessors, Ticket};
