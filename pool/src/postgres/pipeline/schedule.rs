//! Who rides on which pipeline, and who must get off: no clock and no I/O, time comes in as the
//! step since the last look.
//!
//! A pipeline is one connection with many statements under way; the server works on them in their
//! order. So one that is slow, or waits for a lock, holds up those behind it. When a pipeline has
//! answered nothing for a while, those get off and run elsewhere, and so does the one in front if it
//! goes on: nobody's answer depends on who else is on board for longer than that.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use super::text::TextId;

/// The pace is measured over this time.
const PACE: Duration = Duration::from_millis(20);

/// What does not change while a pool lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Pipelines at a time.
    pub(super) pipelines: usize,
    /// Statements under way on one, the abandoned included.
    pub(super) depth: usize,
    /// One pipeline more is due when each has so many under way.
    pub(super) grow_at: usize,
    /// Silence after which those behind the first get off, if it is not proven to be fast.
    pub(super) stall: Duration,
    /// The same if it is.
    pub(super) proven_stall: Duration,
    /// Silence after which the first gets off too.
    pub(super) patience: Duration,
    /// Where an answer takes longer, a connection of one's own is better if there is one.
    pub(super) heavy: Duration,
    /// A pipeline without work ends after this time.
    pub(super) idle: Duration,
}

/// The pipelines of a pool, each over a connection `C`.
#[derive(Debug)]
pub(super) struct Schedule<C> {
    limits: Limits,
    lanes: Vec<Lane<C>>,
    next_id: u64,
    /// The same numbers in every run: all they are for is to break a rhythm.
    dice: fastrand::Rng,
    /// Reads that run elsewhere at present.
    outside: usize,
    opening: bool,
    paused: bool,
    /// For good.
    closed: bool,
}

/// A statement's place on a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    lane: u64,
    number: u64,
}

/// What a look at the connection of a pipeline finds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// Answers so far.
    pub(super) answered: u64,
    /// The server owes an answer.
    pub(super) busy: bool,
    /// The connection is gone, or too old, or no longer protects from writes.
    pub(super) unfit: bool,
    /// Somebody waits for a connection of their own.
    pub(super) wanted: bool,
}

/// What follows from a look.
#[derive(Debug)]
pub(super) struct Verdict<C> {
    /// Those who must get off, to be woken outside the lock.
    pub(super) woken: Vec<Waker>,
    /// The text in front held the others up; true if it did for long.
    pub(super) slow: Option<(TextId, bool)>,
    /// The pipeline is over: to be dropped outside the lock.
    pub(super) ended: Option<C>,
}

#[derive(Debug)]
struct Lane<C> {
    id: u64,
    conn: C,
    riders: VecDeque<Rider>,
    /// The number of the first of the riders.
    first: u64,
    /// All before this number are answered, since a later one was.
    passed: u64,
    /// Riders who did not get off yet.
    aboard: usize,
    answered: u64,
    silent: Duration,
    idle: Duration,
    stalled: bool,
    /// Since the pace was last measured: how long, and how many answers.
    measured: (Duration, u64),
    /// An answer takes long.
    heavy: bool,
    /// Takes nobody any more.
    closing: bool,
}

#[derive(Debug)]
struct Rider {
    text: TextId,
    proven: bool,
    /// False while it waits for a neighbour who prepares the same statement, or another: then the
    /// server has nothing of it.
    sent: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Aboard(Option<Waker>),
    /// Was told to get off.
    Moved,
    /// Got off; an answer that nobody waits for may come.
    Gone,
}

impl<C: Clone> Schedule<C> {
    pub(super) fn new(limits: Limits) -> Self {
        let (lanes, next_id) = (Vec::with_capacity(limits.pipelines), 0);
        Self {
            limits,
            lanes,
            next_id,
            dice: fastrand::Rng::with_seed(0),
            outside: 0,
            opening: false,
            paused: false,
            closed: false,
        }
    }

    /// Takes a seat where the fewest are under way; `None` if every pipeline stands still, is full
    /// or is not there.
    ///
    /// Where many are, chance decides between those with about as few. Whoever comes back at once
    /// after an answer would else always find the fewest where it got off, and stay on the slower.
    pub(super) fn board(&mut self, text: TextId, proven: bool) -> Option<(Seat, C)> {
        let depth = self.limits.depth;
        let is_open = |lane: &Lane<C>| lane.is_open() && lane.owed() < depth;
        let least = self.lanes.iter().filter(|lane| is_open(lane)).map(Lane::owed).min()?;
        let most = least + least / 8;
        let is_due = |lane: &Lane<C>| is_open(lane) && lane.owed() <= most;
        let count = self.lanes.iter().filter(|lane| is_due(lane)).count();
        // With few on board the first is as good, and the others may end.
        let nth = if most > least { self.dice.usize(..count) } else { 0 };
        let lane = self.lanes.iter_mut().filter(|lane| is_due(lane)).nth(nth)?;
        let number = lane.first + lane.riders.len() as u64;
        lane.riders.push_back(Rider { text, proven, sent: true, state: State::Aboard(None) });
        lane.aboard += 1;
        Some((Seat { lane: lane.id, number }, lane.conn.clone()))
    }

    /// Whether every pipeline has work, and a lot with each piece of it.
    pub(super) fn is_heavy(&self) -> bool {
        let mut open = self.lanes.iter().filter(|lane| lane.is_open()).peekable();
        open.peek().is_some() && open.all(|lane| lane.heavy && lane.owed() > 0)
    }

    /// True once the rider must get off; else its waker is kept until then. It tells whether it has
    /// `sent` something.
    pub(super) fn must_leave(&mut self, seat: Seat, sent: bool, waker: &Waker) -> bool {
        let Some(rider) = self.lane(seat.lane).and_then(|lane| lane.rider(seat.number)) else {
            return true;
        };
        rider.sent = sent;
        match &mut rider.state {
            State::Aboard(Some(known)) if known.will_wake(waker) => false,
            State::Aboard(known) => {
                *known = Some(waker.clone());
                false
            }
            State::Moved | State::Gone => true,
        }
    }

    /// Goes to the end of the line, since what the rider waited for has come and more is to be sent.
    pub(super) fn renew(&mut self, seat: Seat) -> Seat {
        let Some(lane) = self.lane(seat.lane) else { return seat };
        let number = lane.first + lane.riders.len() as u64;
        let Some(rider) = lane.rider(seat.number) else { return seat };
        let (state, sent) = (std::mem::replace(&mut rider.state, State::Gone), rider.sent);
        let renewed = Rider { text: rider.text, proven: rider.proven, sent: true, state };
        lane.riders.push_back(renewed);
        // What it waited for may have been another's request: that says nothing of those in front.
        if sent {
            lane.passed = lane.passed.max(seat.number + 1);
        }
        lane.forget_passed();
        Seat { lane: seat.lane, number }
    }

    /// Gives up a seat. Returns the connection of a pipeline that waited for this to end.
    pub(super) fn leave(&mut self, seat: Seat, answered: bool) -> Option<C> {
        let lane = self.lane(seat.lane)?;
        lane.rider(seat.number)?.state = State::Gone;
        lane.aboard -= 1;
        if answered {
            lane.passed = lane.passed.max(seat.number + 1);
        }
        lane.forget_passed();
        (lane.closing && lane.aboard == 0).then(|| self.remove(seat.lane)).flatten()
    }

    /// Whether this rider is the first that has no answer yet.
    pub(super) fn is_first(&mut self, seat: Seat) -> bool {
        let Some(lane) = self.lane(seat.lane) else { return false };
        lane.front().is_some_and(|front| lane.first + front as u64 == seat.number)
    }

    /// Counts a read that runs elsewhere.
    pub(super) fn step_outside(&mut self) {
        self.outside += 1;
    }

    pub(super) fn step_inside(&mut self) {
        self.outside -= 1;
    }

    /// True if one pipeline more shall be opened, said once until [`opening_ended`](Self::opening_ended). A lone
    /// caller needs none.
    pub(super) fn wants_one(&mut self) -> bool {
        let open = || self.lanes.iter().filter(|lane| lane.is_open());
        let crowded = open()
            .map(Lane::owed)
            .min()
            .map_or(self.outside > 1, |owed| owed >= self.limits.grow_at);
        let wants =
            crowded && !self.opening && !self.is_shut() && self.lanes.len() < self.limits.pipelines;
        self.opening |= wants;
        wants
    }

    /// What [`wants_one`](Self::wants_one) asked for has come, or could not be had.
    pub(super) fn opening_ended(&mut self) {
        self.opening = false;
    }

    /// One pipeline more, whose connection has `answered` so much. It comes back if it is not
    /// needed any more.
    pub(super) fn opened(&mut self, conn: C, answered: u64) -> Option<C> {
        if self.is_shut() || self.lanes.len() >= self.limits.pipelines {
            return Some(conn);
        }
        self.lanes.push(Lane::new(self.next_id, conn, answered));
        self.next_id += 1;
        None
    }

    /// While `paused`, no pipeline is opened. Those there are end, each with its last rider; returned
    /// are the connections of those that have none.
    pub(super) fn pause(&mut self, paused: bool) -> Vec<C> {
        self.paused = paused;
        self.keep(if paused { 0 } else { usize::MAX })
    }

    /// As [`pause`](Self::pause), for good. Who is held up gets off, to be turned away.
    pub(super) fn close(&mut self) -> Vec<C> {
        self.closed = true;
        self.keep(0)
    }

    fn is_shut(&self) -> bool {
        self.paused || self.closed
    }

    /// Allows so many pipelines; what is too many ends as in [`pause`](Self::pause).
    pub(super) fn resize(&mut self, pipelines: usize) -> Vec<C> {
        self.limits.pipelines = pipelines;
        self.keep(pipelines)
    }

    fn keep(&mut self, pipelines: usize) -> Vec<C> {
        for lane in self.lanes.iter_mut().skip(pipelines) {
            lane.closing = true;
        }
        let ended = self.lanes.extract_if(.., |lane| lane.closing && lane.aboard == 0);
        ended.map(|lane| lane.conn).collect()
    }

    /// The pipelines there are.
    pub(super) fn lanes(&self) -> impl Iterator<Item = (u64, &C)> {
        self.lanes.iter().map(|lane| (lane.id, &lane.conn))
    }

    pub(super) fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Judges a pipeline by a look at it, `step` after the one before.
    pub(super) fn judge(&mut self, id: u64, look: Look, step: Duration) -> Verdict<C> {
        let (limits, paused, closed) = (self.limits, self.paused, self.closed);
        let mut verdict = Verdict { woken: Vec::new(), slow: None, ended: None };
        let Some(lane) = self.lane(id) else { return verdict };
        lane.closing |= look.unfit;
        lane.measure(&limits, look, step);
        lane.progress(look, step);
        if !lane.waits(look) {
            // The first look at a quiet one may come just after its last answer.
            let quiet = lane.idle > Duration::ZERO;
            lane.closing |= quiet && look.wanted || lane.idle >= limits.idle;
        } else if lane.silent >= lane.stall_limit(&limits) {
            let long = lane.silent >= limits.patience;
            let newly = !lane.stalled || long;
            lane.stalled = true;
            // Who is told to get off has nowhere to go while the pool is paused. When it is closed
            // they are turned away, so they are given time; the one in front is let end, as one on
            // a connection of its own is.
            let unloads = if closed { long } else { !paused };
            if unloads {
                let sure = lane.knows_front();
                verdict.woken = lane.unload(long && !closed || !sure);
                let front = lane.in_front().filter(|_| sure && newly);
                verdict.slow = front.map(|rider| (rider.text, long));
            }
            // Nobody waits for what it does.
            lane.closing |= lane.aboard == 0;
        }
        if lane.closing && lane.aboard == 0 {
            verdict.ended = self.remove(id);
        }
        verdict
    }

    fn lane(&mut self, id: u64) -> Option<&mut Lane<C>> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    fn remove(&mut self, id: u64) -> Option<C> {
        let index = self.lanes.iter().position(|lane| lane.id == id)?;
        Some(self.lanes.swap_remove(index).conn)
    }
}

impl<C> Lane<C> {
    fn new(id: u64, conn: C, answered: u64) -> Self {
        Self {
            id,
            conn,
            riders: VecDeque::new(),
            first: 0,
            passed: 0,
            aboard: 0,
            answered,
            silent: Duration::ZERO,
            idle: Duration::ZERO,
            stalled: false,
            measured: (Duration::ZERO, 0),
            heavy: false,
            closing: false,
        }
    }

    fn is_open(&self) -> bool {
        !self.stalled && !self.closing
    }

    /// Statements that the server has not answered, as far as is known.
    fn owed(&self) -> usize {
        (self.first + self.riders.len() as u64).saturating_sub(self.passed.max(self.first)) as usize
    }

    fn rider(&mut self, number: u64) -> Option<&mut Rider> {
        let index = number.checked_sub(self.first)?;
        self.riders.get_mut(index as usize)
    }

    /// The one that the server works on.
    fn in_front(&self) -> Option<&Rider> {
        self.riders.get(self.front()?)
    }

    /// The first that has sent something and was not passed.
    fn front(&self) -> Option<usize> {
        let passed = self.passed.saturating_sub(self.first) as usize;
        let index = self.riders.iter().skip(passed).position(|rider| rider.sent)?;
        Some(passed + index)
    }

    fn forget_passed(&mut self) {
        // Of one that has sent nothing no answer is to come.
        while self.riders.front().is_some_and(|rider| {
            matches!(rider.state, State::Gone) && (self.first < self.passed || !rider.sent)
        }) {
            self.riders.pop_front();
            self.first += 1;
        }
    }

    /// Whether something is to come. A rider may wait although a later one was answered: for a
    /// request that the driver sent after theirs.
    fn waits(&self, look: Look) -> bool {
        self.owed() > 0 || look.busy && self.aboard > 0
    }

    /// Whether the one in front is the one that the server works on: all before are done.
    fn knows_front(&self) -> bool {
        let front = self.front().unwrap_or(self.riders.len());
        let before = self.riders.iter().take(front);
        before.into_iter().all(|rider| !rider.sent || matches!(rider.state, State::Gone))
    }

    /// How long it may be silent: less if what is in front is not known to be fast.
    fn stall_limit(&self, limits: &Limits) -> Duration {
        match self.in_front() {
            Some(rider) if rider.proven => limits.proven_stall,
            _ => limits.stall,
        }
    }

    /// Measures the pace over some looks at which there was work.
    fn measure(&mut self, limits: &Limits, look: Look, step: Duration) {
        if self.owed() == 0 {
            (self.heavy, self.measured) = (false, (Duration::ZERO, 0));
            return;
        }
        self.measured.0 += step;
        self.measured.1 += look.answered.saturating_sub(self.answered);
        if self.measured.0 >= PACE {
            self.heavy = limits.heavy * (self.measured.1 as u32) < self.measured.0;
            self.measured = (Duration::ZERO, 0);
        }
    }

    /// Measures the silence, or how long there was nothing to say.
    fn progress(&mut self, look: Look, step: Duration) {
        let moved = look.answered != self.answered;
        self.answered = look.answered;
        if moved || !self.waits(look) {
            self.silent = Duration::ZERO;
            self.stalled = false;
        } else {
            self.silent += step;
        }
        if !look.busy && self.silent > Duration::ZERO && self.aboard == 0 {
            // What the abandoned asked for is answered, and no later rider could tell.
            self.passed = self.first + self.riders.len() as u64;
            self.forget_passed();
        }
        let nothing = self.owed() == 0 && self.aboard == 0;
        self.idle = if nothing && !moved { self.idle + step } else { Duration::ZERO };
    }

    /// Tells those behind the first, or all, to get off.
    fn unload(&mut self, all: bool) -> Vec<Waker> {
        let front = self.front();
        let mut woken = Vec::new();
        for (index, rider) in self.riders.iter_mut().enumerate() {
            if (all || Some(index) != front)
                && let State::Aboard(waker) = &mut rider.state
            {
                woken.extend(waker.take());
                rider.state = State::Moved;
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests;
