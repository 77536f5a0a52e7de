//! Who has subscribed to what, and what each has been told: no connection of its own.
//!
//! Two connections feed it, that of the messages and the one that writes (which alone can tell
//! own changes from others'). Each names its session by a number, so that the last words of an
//! old one cannot be taken for those of the next.

use std::collections::HashSet;
use std::sync::Arc;

use ::redis::{PushInfo, PushKind, Value};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::shared::Signal;

/// Signals that a receiver may leave unread: a second's worth of a busy cache.
const CAPACITY: usize = 1_024;

pub(super) struct Hub {
    state: Mutex<State>,
    /// Wakes the task that subscribes.
    pub(super) changed: Notify,
    /// Wakes the task that tracks.
    pub(super) tracking_changed: Arc<Notify>,
    runtime: Handle,
    /// What all keys and channels of the store begin with.
    prefix: String,
}

#[derive(Default)]
struct State {
    last_id: u64,
    subscribers: Vec<Subscriber>,
    /// Whether the task that subscribes runs.
    fed: bool,
    /// The session of the messages, and the channels it has confirmed.
    feed: u64,
    channels: HashSet<String>,
    /// The session of the writing connection, and the prefixes it tracks.
    link: u64,
    prefixes: Vec<String>,
}

struct Subscriber {
    id: u64,
    channel: String,
    tracked: Option<String>,
    sender: mpsc::Sender<Signal>,
    /// Whether the last thing it was told is that the subscription stands.
    told_up: bool,
    /// Whether it has missed something for want of room, and waits to be told so.
    mending: bool,
}

impl Hub {
    pub(super) fn new(prefix: String) -> Self {
        Self {
            state: Mutex::default(),
            changed: Notify::new(),
            tracking_changed: Arc::default(),
            runtime: Handle::current(),
            prefix,
        }
    }

    /// Adds a subscriber. The second value says whether the task that subscribes must be started.
    pub(super) fn add(
        self: &Arc<Self>,
        channel: String,
        tracked: Option<String>,
    ) -> (mpsc::Receiver<Signal>, bool) {
        let (sender, receiver) = mpsc::channel(CAPACITY);
        let tracks = tracked.is_some();
        let mut state = self.state.lock();
        state.last_id += 1;
        let id = state.last_id;
        let watched = sender.clone();
        let told = Subscriber { id, channel, tracked, sender, told_up: false, mending: false };
        state.subscribers.push(told);
        self.settle(&mut state);
        let start = !std::mem::replace(&mut state.fed, true);
        drop(state);
        let hub = Arc::clone(self);
        self.runtime.spawn(async move {
            watched.closed().await;
            hub.state.lock().subscribers.retain(|subscriber| subscriber.id != id);
            hub.changed.notify_one();
        });
        self.changed.notify_one();
        if tracks {
            self.tracking_changed.notify_one();
        }
        (receiver, start)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// The channels that somebody wants.
    pub(super) fn wanted(&self) -> HashSet<String> {
        let state = self.state.lock();
        state.subscribers.iter().map(|subscriber| subscriber.channel.clone()).collect()
    }

    /// Whether the task that subscribes may end, since nobody wants anything; the next
    /// subscriber then starts it again.
    pub(super) fn retires(&self) -> bool {
        let mut state = self.state.lock();
        state.fed = !state.subscribers.is_empty();
        !state.fed
    }

    /// Whether this session of the messages still stands.
    pub(super) fn is_fed_by(&self, session: u64) -> bool {
        self.state.lock().feed == session
    }

    /// The prefixes to track: none of them begins with another, which Redis would refuse.
    pub(super) fn prefixes(&self) -> Vec<String> {
        let state = self.state.lock();
        let tracked = state.subscribers.iter().filter_map(|subscriber| subscriber.tracked.clone());
        shortest(tracked.collect())
    }

    /// A connection for messages is being opened.
    pub(super) fn begin_feed(self: &Arc<Self>) -> u64 {
        let mut state = self.state.lock();
        state.feed += 1;
        state.channels.clear();
        self.settle(&mut state);
        state.feed
    }

    /// A connection for writing is being opened, or has ended.
    pub(super) fn begin_link(self: &Arc<Self>, session: u64) {
        let mut state = self.state.lock();
        if state.link <= session {
            state.link = session;
            state.prefixes.clear();
            self.settle(&mut state);
        }
    }

    /// The writing connection tracks these prefixes from now on.
    pub(super) fn tracks(self: &Arc<Self>, session: u64, prefixes: Vec<String>) {
        let mut state = self.state.lock();
        if state.link == session {
            state.prefixes = prefixes;
            self.settle(&mut state);
        }
    }

    /// Something that the connection for messages brought.
    pub(super) fn fed(self: &Arc<Self>, session: u64, push: PushInfo) {
        let mut state = self.state.lock();
        if state.feed != session {
            return;
        }
        match push.kind {
            PushKind::Message => self.message(&mut state, push.data),
            PushKind::Subscribe => {
                state.channels.extend(channel(&push));
                self.settle(&mut state);
            }
            PushKind::Unsubscribe => {
                if let Some(channel) = channel(&push) {
                    state.channels.remove(&channel);
                }
                self.settle(&mut state);
            }
            PushKind::Disconnection => {
                // No session has the next number yet.
                state.feed += 1;
                state.channels.clear();
                self.settle(&mut state);
                self.changed.notify_one();
            }
            _ => {}
        }
    }

    /// Something that the writing connection brought unasked.
    pub(super) fn invalidated(self: &Arc<Self>, session: u64, push: &PushInfo) {
        let mut state = self.state.lock();
        if state.link != session {
            return;
        }
        match push.data.first() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::BulkString(key) = key else { continue };
                    let Ok(key) = std::str::from_utf8(key) else { continue };
                    self.changed(&mut state, key);
                }
            }
            Some(Value::Nil) => {
                let tracking = |subscriber: &Subscriber| subscriber.tracked.is_some();
                self.deliver(&mut state, tracking, &Signal::Flushed);
            }
            _ => {}
        }
    }

    fn message(self: &Arc<Self>, state: &mut State, mut data: Vec<Value>) {
        let (Some(Value::BulkString(mut payload)), Some(Value::BulkString(channel))) =
            (data.pop(), data.pop())
        else {
            return;
        };
        // Anybody may publish there; what bears no number is not ours.
        let Some(number) = payload.first_chunk::<8>() else { return };
        let sequence = u64::from_be_bytes(*number);
        payload.drain(..8);
        let signal = Signal::Message { sequence, body: payload };
        let subscribed = |subscriber: &Subscriber| subscriber.channel.as_bytes() == channel;
        self.deliver(state, subscribed, &signal);
    }

    fn changed(self: &Arc<Self>, state: &mut State, key: &str) {
        let Some(name) = key.strip_prefix(self.prefix.as_str()) else { return };
        let signal = Signal::Changed { key: name.to_owned() };
        let tracking = |subscriber: &Subscriber| {
            subscriber.tracked.as_ref().is_some_and(|prefix| key.starts_with(prefix.as_str()))
        };
        self.deliver(state, tracking, &signal);
    }

    /// Hands a signal to those whose subscription stands. One without room misses it, and will
    /// be told that it has missed something.
    fn deliver(
        self: &Arc<Self>,
        state: &mut State,
        to: impl Fn(&Subscriber) -> bool,
        signal: &Signal,
    ) {
        for subscriber in &mut state.subscribers {
            if subscriber.told_up && !subscriber.mending && to(subscriber) {
                self.tell(subscriber, signal.clone());
            }
        }
    }

    /// Tells each subscriber whether its subscription stands, if it believes otherwise.
    fn settle(self: &Arc<Self>, state: &mut State) {
        let State { subscribers, channels, prefixes, .. } = state;
        for subscriber in subscribers.iter_mut().filter(|subscriber| !subscriber.mending) {
            let up = stands(subscriber, channels, prefixes);
            if up != subscriber.told_up
                && self.tell(subscriber, if up { Signal::Up } else { Signal::Down })
            {
                subscriber.told_up = up;
            }
        }
    }

    fn tell(self: &Arc<Self>, subscriber: &mut Subscriber, signal: Signal) -> bool {
        match subscriber.sender.try_send(signal) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                subscriber.mending = true;
                let (hub, id) = (Arc::clone(self), subscriber.id);
                let sender = subscriber.sender.clone();
                self.runtime.spawn(async move {
                    // Room for both: a Down without its Up would leave the receiver waiting.
                    if let Ok(mut room) = sender.reserve_many(2).await {
                        hub.mend(id, &mut room);
                    }
                });
                false
            }
            // Its watcher is about to remove it.
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Tells a subscriber that has room again what it has missed.
    fn mend(&self, id: u64, room: &mut mpsc::PermitIterator<'_, Signal>) {
        let mut state = self.state.lock();
        let State { subscribers, channels, prefixes, .. } = &mut *state;
        let found = subscribers.iter_mut().find(|subscriber| subscriber.id == id);
        let Some(subscriber) = found else { return };
        subscriber.mending = false;
        if subscriber.told_up
            && let Some(place) = room.next()
        {
            place.send(Signal::Down);
            subscriber.told_up = false;
        }
        if stands(subscriber, channels, prefixes)
            && let Some(place) = room.next()
        {
            place.send(Signal::Up);
            subscriber.told_up = true;
        }
    }
}

fn stands(subscriber: &Subscriber, channels: &HashSet<String>, prefixes: &[String]) -> bool {
    let tracked = |key: &String| prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()));
    channels.contains(&subscriber.channel) && subscriber.tracked.as_ref().is_none_or(tracked)
}

/// Those prefixes that begin with no other, in order.
fn shortest(mut prefixes: Vec<String>) -> Vec<String> {
    // Whatever begins with a text follows it directly.
    prefixes.sort_unstable();
    prefixes.dedup_by(|next, kept| next.starts_with(kept.as_str()));
    prefixes
}

fn channel(push: &PushInfo) -> Option<String> {
    match push.data.first() {
        Some(Value::BulkString(name)) => String::from_utf8(name.clone()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
