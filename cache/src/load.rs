//! The task of a load: ask the shared layer, then the source, then fill the layers.

mod many;
mod source;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cache::Core;
use crate::clock::{self, Tick};
use crate::config::WhileDeaf;
use crate::entry::Entry;
use crate::error::{Failure, StoreError};
use crate::fetch::Seen;
use crate::flight::{Lead, Ticket};
use crate::key::CacheKey;
use crate::memory::{Extra, Slot};
use crate::prepare::Origin;
use crate::shared::{Filled, Looked, View, wall_ms};
pub(crate) use many::{Leading, distinct, fly_many};
pub use source::Previous;

/// What a flight brings to its callers.
#[derive(Clone)]
pub(crate) struct Landed<V> {
    /// `None`: the source says that there is nothing.
    pub(crate) content: Option<V>,
    /// To be judged by callers who joined later than the load began.
    pub(crate) extra: Option<Arc<Extra>>,
}

impl<V: Clone> Landed<V> {
    fn of(slot: &Slot<V>) -> Self {
        Self { content: slot.content.clone(), extra: slot.extra.clone() }
    }
}

/// Flies one flight. Owned by no caller: it ends when it is done.
pub(crate) async fn fly<K, V, E, F, Fut>(
    core: Arc<Core<K, V>>,
    lead: Lead<K, Landed<V>>,
    wants_value: bool,
    seen: Seen,
    load: F,
) where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    E: Send + Sync + 'static,
    F: FnOnce(Previous<V>) -> Fut,
    Fut: Future<Output = Result<Entry<V>, E>>,
{
    let mut duty = Duty::new(&core, lead, wants_value).having_seen(seen);
    if !duty.consulted {
        let Digested::Load(consulted) = duty.consult().await else { return };
        duty = consulted;
    }
    let (Digested::Load(mut duty), lock) = duty.queue().await else { return };
    duty.begin();
    let outcome = source::load(&core, duty.previous(), load).await;
    duty.end(outcome).await;
    if let Some(lock) = lock {
        lock.release(&core).await;
    }
}

/// The duty to land one flight, with what was learned on the way.
struct Duty<'a, K, V>
where
    K: std::hash::Hash + Eq,
{
    core: &'a Arc<Core<K, V>>,
    lead: Lead<K, Landed<V>>,
    trusts_shared: bool,
    wants_value: bool,
    /// The key's text, if there is a shared layer.
    text: String,
    origin: Origin,
    begun: Tick,
    /// Its caller has asked the shared layer.
    consulted: bool,
    /// What stood in the shared layer; without it nothing is written there.
    view: Option<View>,
    /// What the layers still have, fresh or not.
    previous: Option<Slot<V>>,
    /// It must be confirmed before it may be used.
    suspect: bool,
    /// Whether memory takes in what the shared layer has: always, but for a full one and a key of
    /// several.
    admitted: bool,
}

#[expect(
    clippy::large_enum_variant,
    reason = "made and taken apart in one step; a box would cost more"
)]
enum Digested<'a, K, V>
where
    K: std::hash::Hash + Eq,
{
    Landed,
    Load(Duty<'a, K, V>),
}

impl<'a, K, V> Duty<'a, K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn new(core: &'a Arc<Core<K, V>>, lead: Lead<K, Landed<V>>, wants_value: bool) -> Self {
        let key = lead.ticket.key();
        let previous = core.memory.previous(key, &core.removals);
        let suspect = previous.as_ref().is_some_and(|(_, verdict)| verdict.is_suspect());
        Self {
            core,
            trusts_shared: lead.trusts_shared,
            wants_value,
            text: core.text_of(key),
            origin: Origin { loaded: lead.began, created_ms: wall_ms() },
            begun: clock::now(),
            consulted: false,
            view: None,
            previous: previous.map(|(slot, _)| slot),
            suspect,
            admitted: true,
            lead,
        }
    }

    /// What the caller has just seen in the shared layer need not be looked for again.
    fn having_seen(mut self, seen: Seen) -> Self {
        if self.trusts_shared && !self.suspect {
            self.consulted = !matches!(seen, Seen::NotAsked);
            if let Seen::Nothing(view) = seen {
                self.view = Some(view);
            }
        }
        self
    }

    /// The load begins now, not when the shared layer was asked.
    fn begin(&mut self) {
        self.begun = clock::now();
        self.origin.created_ms = wall_ms();
    }

    /// Asks the shared layer, if it is to be believed.
    async fn consult(self) -> Digested<'a, K, V> {
        match &self.core.shared {
            Some(shared) if self.trusts_shared => {
                let looked = shared.look(&self.text).await;
                self.digest(looked)
            }
            _ => Digested::Load(self),
        }
    }

    /// Takes the shared layer's answer: lands with its value, or learns what it has.
    fn digest(mut self, looked: Result<Looked<V>, StoreError>) -> Digested<'a, K, V> {
        let found = match looked {
            Ok(looked) => {
                self.view = Some(looked.view());
                looked.found
            }
            Err(_) => return self.unconfirmed(),
        };
        let Some(found) = found else {
            // It was removed elsewhere, or its time there is over: nobody can tell, and nobody
            // must take it for merely unconfirmed when the store is away later.
            if self.suspect {
                self.previous = None;
                let ticket = &self.lead.ticket;
                ticket.unless_void(|| self.core.memory.remove(ticket.key()));
            }
            return Digested::Load(self);
        };
        let is_newer = self.previous.as_ref().is_none_or(|previous| {
            previous.extra.as_ref().is_none_or(|extra| found.meta.created_ms > extra.created_ms)
        });
        let usable = (found.content.is_some() || !self.wants_value) && !found.fresh_left.is_zero();
        let slot = self.core.slot_of(found, self.origin.loaded, &self.text);
        // Who refreshes what is fresh asks for something newer.
        let serves =
            is_newer || self.suspect || !self.previous.as_ref().is_some_and(Slot::is_fresh);
        if usable && serves && self.admitted {
            self.land(slot);
            return Digested::Landed;
        }
        if usable && serves {
            self.core.memory.decline();
            let Lead { ticket, runway, .. } = self.lead;
            drop(ticket);
            runway.send_replace(Some(Ok(Landed::of(&slot))));
            return Digested::Landed;
        }
        if serves {
            self.previous = Some(slot);
        }
        Digested::Load(self)
    }

    /// The shared layer could not be asked.
    fn unconfirmed(mut self) -> Digested<'a, K, V> {
        if !self.suspect {
            return Digested::Load(self);
        }
        let previous = self.previous.take();
        match previous {
            Some(slot) if self.core.while_deaf == WhileDeaf::Keep && slot.is_fresh() => {
                let landed = Landed::of(&slot);
                drop(self.lead.ticket);
                self.lead.runway.send_replace(Some(Ok(landed)));
                Digested::Landed
            }
            _ => Digested::Load(self),
        }
    }

    fn previous(&self) -> Previous<V> {
        self.previous.as_ref().filter(|_| !self.suspect).map_or_else(Previous::none, |slot| {
            let validator = slot.extra.as_ref().and_then(|extra| extra.validator.clone());
            Previous::new(slot.content.clone(), validator)
        })
    }

    /// Ends the flight with what the source said.
    async fn end(self, outcome: Result<Entry<V>, Failure>) {
        match outcome {
            Ok(entry) => self.accept(entry).await,
            Err(failure) => self.fail(failure),
        }
    }

    /// Publishes what was loaded, lets the callers go, and fills the shared layer.
    async fn accept(self, entry: Entry<V>) {
        let previous = self.previous.as_ref().filter(|_| !self.suspect);
        let load = clock::now().since(self.begun);
        let prepared = self.core.prepare(&self.text, entry, self.origin, load, previous);
        let Self { core, lead, text, view, .. } = self;
        let Lead { ticket, runway, .. } = lead;
        let Some(prepared) = prepared else {
            drop(ticket);
            runway.send_replace(Some(Ok(Landed { content: None, extra: None })));
            return;
        };
        let landed = Landed::of(&prepared.slot);
        let view = view.filter(|_| !prepared.shared_fresh.is_zero());
        let stored =
            prepared.store && publish(core, &ticket, view.is_some(), prepared.slot.clone());
        if !stored {
            drop(ticket);
            runway.send_replace(Some(Ok(landed)));
            return;
        }
        // The callers need not wait for the shared layer; a removal does, through the ticket.
        runway.send_replace(Some(Ok(landed)));
        if let (Some(shared), Some(view)) = (&core.shared, view)
            && shared.fill(&text, &view, &prepared.outgoing()).await == Filled::Refused
        {
            // What refused it may have been a removal that this process has yet to hear of.
            core.forget(&ticket);
        }
        drop(ticket);
    }

    /// Something old stands in, if there is something; else the callers get the failure.
    fn fail(self, failure: Failure) {
        let now = clock::now();
        let stand_in = self.previous.as_ref().filter(|slot| {
            !self.suspect && slot.may_stand_in(now) && (slot.content.is_some() || !self.wants_value)
        });
        let Some(slot) = stand_in else {
            // Off the map first: who calls after the callers heard of it starts anew.
            drop(self.lead.ticket);
            self.lead.runway.send_replace(Some(Err(failure)));
            return;
        };
        if !slot.is_fresh() {
            self.core.loads.stood_in.fetch_add(1, Ordering::Relaxed);
        }
        // It was judged after the flight began. Judged by the same expiry again, it would not be
        // spared for a while, and its stale time would shrink.
        let moments = slot.moments().throttled(now, self.core.stale_throttle);
        let slot = slot.settled(moments, self.origin.loaded);
        self.land(slot);
    }

    fn land(self, slot: Slot<V>) {
        let Self { core, lead: Lead { ticket, runway, .. }, .. } = self;
        let landed = Landed::of(&slot);
        publish(core, &ticket, false, slot);
        drop(ticket);
        runway.send_replace(Some(Ok(landed)));
    }

    /// Takes the right to load among processes, or waits for what another loads.
    async fn queue(mut self) -> (Digested<'a, K, V>, Option<Lock>) {
        // Without knowing what stands there, there is nothing to wait for.
        let (Some(shared), Some(time), true) =
            (self.core.shared.clone(), self.core.load_lock, self.view.is_some())
        else {
            return (Digested::Load(self), None);
        };
        let lock = Lock { text: self.text.clone(), token: fastrand::u64(..) };
        let deadline = self.begun.after(time);
        let mut pause = LOCK_PAUSE;
        // The lock is about efficiency: who has waited long enough loads for itself.
        while !shared.lock(&lock.text, lock.token, time).await && clock::now() < deadline {
            tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LOCK_PAUSE * 8);
            self = match self.consult().await {
                Digested::Load(duty) => duty,
                Digested::Landed => return (Digested::Landed, None),
            };
        }
        // Another may have loaded and let go between the last look and this lock.
        match self.consult().await {
            Digested::Load(duty) => (Digested::Load(duty), Some(lock)),
            Digested::Landed => {
                shared.unlock(&lock.text, lock.token).await;
                (Digested::Landed, None)
            }
        }
    }
}

/// The right to load a key among processes.
struct Lock {
    text: String,
    token: u64,
}

impl Lock {
    async fn release<K, V>(self, core: &Core<K, V>) {
        if let Some(shared) = &core.shared {
            shared.unlock(&self.text, self.token).await;
        }
    }
}

/// First pause of a process that waits for another's load; it doubles up to eight times this.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Stores in memory unless the flight is void; counts what it could not store.
pub(crate) fn publish<K, V>(
    core: &Core<K, V>,
    ticket: &Ticket<K, Landed<V>>,
    writing: bool,
    slot: Slot<V>,
) -> bool
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    let stored = ticket.publish(writing, || core.memory.insert(ticket.key().clone(), slot));
    if !stored {
        core.loads.discarded.fetch_add(1, Ordering::Relaxed);
    }
    stored
}

impl<K, V> Core<K, V>
where
    K: CacheKey + Clone + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Takes the value of a refused write out of memory.
    pub(crate) fn forget(&self, ticket: &Ticket<K, Landed<V>>) {
        self.loads.discarded.fetch_add(1, Ordering::Relaxed);
        ticket.unless_void(|| self.memory.remove(ticket.key()));
    }
}

/// Spawns work that must end even if its caller goes away, within the caller's span.
pub(crate) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    #[cfg(feature = "tracing")]
    let work = tracing::Instrument::in_current_span(work);
    tokio::spawn(work)
}
